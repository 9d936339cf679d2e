//! Bad workshops given to the real `workshop validate`: each is refused by name and place, and none is ever a panic.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const GOOD: &str = "version: v1
workshop: {name: demo, image: team/demo}
base: {image: debian}
steps:
- id: one
  title: One
";

fn validate(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_workshop"))
        .current_dir(directory)
        .env("WORKSHOP_STATE", directory.join("state"))
        .arg("validate")
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// `RULE FILE:LINE:COLUMN FIELD` of every problem.
fn problems(report: &Value) -> Vec<String> {
    let show = |problem: &Value| {
        let text = |key: &str| problem[key].as_str().unwrap().to_owned();
        let place = match (problem["line"].as_u64(), problem["column"].as_u64()) {
            (Some(line), Some(column)) => format!(":{line}:{column}"),
            _ => String::new(),
        };
        assert!(!text("message").is_empty() && !text("help").is_empty(), "{problem}");
        format!("{} {}{place} {}", text("rule"), text("file"), text("field")).trim_end().to_owned()
    };
    report["diagnostics"].as_array().unwrap().iter().map(show).collect()
}

struct Case<'a> {
    name: &'a str,
    /// File names with their bytes.
    files: Vec<(&'a str, Vec<u8>)>,
    /// Links with their targets.
    links: Vec<(&'a str, &'a str)>,
    expected: Vec<&'a str>,
}

fn case<'a>(name: &'a str, recipe: impl Into<Vec<u8>>, expected: &[&'a str]) -> Case<'a> {
    Case { name, files: vec![("w/step-spec.yaml", recipe.into())], links: vec![], expected: expected.to_vec() }
}

impl<'a> Case<'a> {
    fn file(mut self, name: &'a str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name, bytes.into()));
        self
    }

    fn link(mut self, name: &'a str, target: &'a str) -> Self {
        self.links.push((name, target));
        self
    }
}

fn with_source(source: &str) -> String {
    format!("{GOOD}  files: [{{path: /etc/x, source: {source}}}]\n")
}

fn alias_bomb() -> String {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..20 {
        text += &format!("a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(10));
    }
    text
}

fn cases() -> Vec<Case<'static>> {
    vec![
        case("an empty file", "", &["empty w/step-spec.yaml:1:1"]),
        case("no mapping", "hello\n", &["wrong-type w/step-spec.yaml:1:1"]),
        case("an open bracket", "version: v1\nsteps: [\n", &["syntax w/step-spec.yaml:2:8"]),
        case("a tab as indentation", "workshop:\n\tname: x\n", &["syntax w/step-spec.yaml:2:1"]),
        case("bytes that are no UTF-8", *b"version: v1\nx: \xff\n", &["not-utf8 w/step-spec.yaml:2:4"]),
        case("two documents", format!("{GOOD}---\n{GOOD}"), &["many-documents w/step-spec.yaml:7:1"]),
        case("an alias bomb", alias_bomb(), &["too-many-nodes w/step-spec.yaml:6:10"]),
        case("nesting without end", format!("x: {}", "[".repeat(100_000)), &["syntax w/step-spec.yaml:1:259"]),
        case(
            "a line of a megabyte",
            format!("{GOOD}# {}\n", "x".repeat(1 << 20)),
            &["line-too-long w/step-spec.yaml:7:1"],
        ),
        case("a tag that makes objects", "version: !!python/object x\n", &["tag w/step-spec.yaml:1:26"]),
        case("duplicate keys", format!("{GOOD}  title: Two\n"), &["duplicate-key w/step-spec.yaml:7:3 steps[0].title"]),
        case("an unknown version", GOOD.replace("v1", "v9"), &["unknown-version w/step-spec.yaml:1:10 version"]),
        case(
            "an unknown field",
            format!("{GOOD}  comands: []\n"),
            &["unknown-field w/step-spec.yaml:7:3 steps[0].comands"],
        ),
        case(
            "wrong types",
            format!("{GOOD}  env: [PATH]\n  commands: echo\n  files: {{}}\n"),
            &[
                "wrong-type w/step-spec.yaml:7:8 steps[0].env",
                "wrong-type w/step-spec.yaml:8:13 steps[0].commands",
                "wrong-type w/step-spec.yaml:9:10 steps[0].files",
            ],
        ),
        case("no steps", GOOD.split("- id").next().unwrap(), &["missing-field w/step-spec.yaml:1:1 steps"]),
        case(
            "an empty list of steps",
            "version: v1\nworkshop: {name: a, image: b}\nbase: {image: c}\nsteps: []\n",
            &["no-steps w/step-spec.yaml:4:8 steps"],
        ),
        case(
            "a source above",
            with_source("../secret"),
            &["source-outside w/step-spec.yaml:7:34 steps[0].files[0].source"],
        )
        .file("secret", "x"),
        case(
            "an absolute source",
            with_source("/etc/passwd"),
            &["source w/step-spec.yaml:7:34 steps[0].files[0].source"],
        ),
        case(
            "a source that is not there",
            with_source("none"),
            &["missing-source w/step-spec.yaml:7:34 steps[0].files[0].source"],
        ),
        case(
            "a link that leads out",
            with_source("out"),
            &["source-outside w/step-spec.yaml:7:34 steps[0].files[0].source"],
        )
        .file("secret", "x")
        .link("w/out", "../secret"),
        case(
            "an absolute link",
            with_source("out"),
            &["source-outside w/step-spec.yaml:7:34 steps[0].files[0].source"],
        )
        .link("w/out", "/etc/passwd"),
        case("a link to itself", with_source("loop"), &["source-loop w/step-spec.yaml:7:34 steps[0].files[0].source"])
            .link("w/loop", "loop"),
        case(
            "a directory with a link that leads out",
            with_source("dir"),
            &["source-outside w/step-spec.yaml:7:34 steps[0].files[0].source"],
        )
        .file("w/dir/a", "x")
        .link("w/dir/out", "../../secret"),
        case("a link that leads out and that nothing names", GOOD, &[]).link("w/out", "/etc/passwd"),
        case(
            "two workshops with one id",
            GOOD,
            &["duplicate-id v/step-spec.yaml:2:18 workshop.name", "duplicate-id w/step-spec.yaml:2:18 workshop.name"],
        )
        .file("v/step-spec.yaml", GOOD.replace("team/demo", "team/other")),
        case(
            "two workshops with one image",
            GOOD,
            &[
                "duplicate-image v/step-spec.yaml:2:31 workshop.image",
                "duplicate-image w/step-spec.yaml:2:31 workshop.image",
            ],
        )
        .file("v/step-spec.yaml", GOOD.replace("name: demo", "name: last")),
        case(
            "a bad workspace file",
            GOOD,
            &["unknown-value w/workspace.yaml:1:19 lifecycle.mode", "duration w/workspace.yaml:1:36 lifecycle.ttl"],
        )
        .file("w/workspace.yaml", "lifecycle: {mode: ephemerall, ttl: soon}\n"),
        case("a roster with a clash", GOOD, &["duplicate-owner w/roster.yaml:3:10 instances[1].owner"])
            .file("w/roster.yaml", "instances:\n- owner: ada\n- owner: ADA\n"),
        case("a check that is none", GOOD, &["unknown-field w/export/steps/one/goss.yaml:2:8 file./a.exsts"])
            .file("w/export/steps/one/goss.yaml", "file:\n  /a: {exsts: true}\n"),
        case("a template for the engine that runs none", GOOD, &["goss-template w/export/steps/one/goss.yaml:1:7"])
            .file("w/export/steps/one/goss.yaml", "file: {{ .Env.X }}\n"),
    ]
}

#[test]
fn every_bad_workshop_is_refused_with_its_place() {
    let mut failures = Vec::new();
    for Case { name, files, links, expected } in cases() {
        let directory = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        for (path, target) in links {
            symlink(target, directory.path().join(path)).unwrap();
        }
        let output = validate(directory.path(), &["--output", "json"]);
        let report = json(&output);
        let found = problems(&report);
        if found != expected {
            failures.push(format!("{name}: {found:?} instead of {expected:?}"));
            continue;
        }
        assert_eq!(output.status.code(), Some(i32::from(!expected.is_empty())), "{name}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_text_shows_the_place_the_line_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("step-spec.yaml"), GOOD.replace("title", "titel")).unwrap();
    let output = validate(directory.path(), &["--color", "never"]);
    let text = String::from_utf8(output.stderr).unwrap();
    let expected = "error[unknown-field]: unknown field \"titel\"
 --> step-spec.yaml:6:3
  |
6 |   titel: One
  |   ^
  = field: steps[0].titel
  = help: did you mean `title`?
";
    assert!(text.contains(expected), "{text}");
    assert!(text.ends_with("0 of 1 workshops valid; 2 errors\n"), "{text}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "invalid\t.\tdemo\n");
}

#[test]
fn one_broken_workshop_does_not_make_the_others_invalid() {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in [("a", GOOD.replace("title", "titel")), ("b", GOOD.replace("demo", "other"))] {
        fs::create_dir(directory.path().join(path)).unwrap();
        fs::write(directory.path().join(path).join("step-spec.yaml"), text).unwrap();
    }
    let output = validate(directory.path(), &["--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        json(&output)["workshops"],
        serde_json::json!([
            {"path": "a", "id": "demo", "valid": false},
            {"path": "b", "id": "other", "valid": true},
        ])
    );
}

#[test]
fn exit_codes_tell_wrong_usage_from_invalid_workshops() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, exit, rule) in
        [(vec!["--output", "json", "none"], 2, "unreadable-source"), (vec!["--output", "json", "."], 1, "no-workshop")]
    {
        let output = validate(directory.path(), &arguments);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}");
        assert_eq!(json(&output)["diagnostics"][0]["rule"], rule);
    }
    assert_eq!(validate(directory.path(), &["--nonsense"]).status.code(), Some(2));
}

#[test]
fn warnings_alone_are_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let twice = "  files: [{path: /a, content: x}, {path: /a, content: y}]\n";
    fs::write(directory.path().join("step-spec.yaml"), format!("{GOOD}{twice}")).unwrap();
    let output = validate(directory.path(), &["--output", "json"]);
    let report = json(&output);
    assert_eq!(problems(&report), ["duplicate-path step-spec.yaml:7:42 steps[0].files[1].path"]);
    assert_eq!((report["diagnostics"][0]["severity"].as_str(), output.status.code()), (Some("warning"), Some(0)));
    assert_eq!(report["workshops"], serde_json::json!([{"path": ".", "id": "demo", "valid": true}]));
}
