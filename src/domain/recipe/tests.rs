//! What recipes are refused for, and what valid ones read as.

use proptest::prelude::*;

use super::*;
use crate::domain::diagnostic::{Checked, Diagnostic};
use crate::domain::tree::FileTree;

fn tree() -> FileTree {
    let mut tree = FileTree::default();
    tree.insert_file("motd", *b"hello\n", false);
    tree.insert_file("run.sh", *b"#!/bin/sh\n", true);
    tree.insert_file("site/index.html", *b"<h1>\n", false);
    tree.insert_file("site/css/a.css", *b"a{}\n", false);
    tree.insert_link("site/start.html", "index.html");
    tree.insert_link("link", "motd");
    tree.insert_link("out", "../secret");
    tree.insert_link("loop", "loop");
    tree.insert_link("leaky/passwd", "/etc/passwd");
    tree.insert_link("dangling/later", "made-by-a-command");
    tree.insert_file("white/.wh.x", *b"", false);
    tree.insert_file(
        "big.bin",
        *b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n",
        false,
    );
    tree
}

fn parse(text: &str) -> Checked<Recipe> {
    parse_recipe("step-spec.yaml", text.as_bytes(), &tree())
}

const HEAD: &str = "version: v1\nworkshop: {name: demo, image: team/demo}\nbase: {image: debian}\n";

/// `RULE LINE:COLUMN FIELD` of each problem, sorted by place.
fn problems(text: &str) -> Vec<String> {
    parse(text).diagnostics.iter().map(summary).collect()
}

fn summary(problem: &Diagnostic) -> String {
    assert!(!problem.help.is_empty(), "{problem:?} says what to do");
    let (line, column) = (problem.line.unwrap_or(0), problem.column.unwrap_or(0));
    format!("{} {line}:{column} {}", problem.rule, problem.field)
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(problems(text), expected, "{text}");
}

/// Checks one step's fields, which begin at line 5 and column 5.
#[track_caller]
fn check_step(fields: &str, expected: &[&str]) {
    check(&format!("{HEAD}steps:\n  - id: a\n    title: A\n    {fields}\n"), expected);
}

/// Checks the fields of one file, `path` given.
#[track_caller]
fn check_file(fields: &str, expected: &[&str]) {
    check_step(&format!("files:\n    - path: /etc/motd\n      {fields}"), expected);
}

/// Checks one target path.
#[track_caller]
fn check_path(path: &str, message: Option<&str>) {
    let text = format!("{HEAD}steps: [{{id: a, title: A, files: [{{path: {path}, content: x}}]}}]\n");
    let problems = parse(&text).diagnostics;
    assert_eq!(problems.len(), usize::from(message.is_some()), "{path}: {problems:?}");
    if let Some(message) = message {
        assert_eq!((problems[0].rule, problems[0].field.as_str()), ("path", "steps[0].files[0].path"));
        assert!(problems[0].message.contains(message), "{}", problems[0].message);
    }
}

#[test]
fn a_valid_recipe_reads_whole() {
    let text = "version: v1
workshop:
  name: demo
  image: team/demo
base:
  image: debian:bookworm
steps:
  - id: first
    title: First
    files:
      - {path: /etc/motd, source: motd}
      - path: /root/run
        content: |
          #!/bin/sh
        mode: 755
        owner: 1000:1000
    env: {Z: last, A: first}
    commands: [echo one, echo two]
  - {id: second, title: Second}
finish:
  commands: [echo done]
";
    let (recipe, warnings) = parse(text).into_result().unwrap();
    assert_eq!(warnings, []);
    assert_eq!(recipe.id.as_str(), "demo");
    assert_eq!(recipe.image.full(None), "docker.io/team/demo");
    assert_eq!(recipe.base.to_string(), "docker.io/library/debian:bookworm");
    assert_eq!(recipe.steps.iter().map(|step| step.id.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    let content = &recipe.steps[0].content;
    assert_eq!(content.env, [("A".into(), "first".into()), ("Z".into(), "last".into())]);
    assert_eq!(content.commands, ["echo one", "echo two"]);
    assert_eq!(content.files[0].source, FileSource::Tree("motd".into()));
    assert_eq!(content.files[1].source, FileSource::Inline("#!/bin/sh\n".into()));
    assert_eq!((content.files[1].mode, content.files[1].owner), (Some(0o755), Owner { uid: 1000, gid: 1000 }));
    assert_eq!((recipe.steps[0].place.line, recipe.steps[1].place.line), (8, 19));
    assert_eq!(recipe.finish.unwrap().commands, ["echo done"]);
}

#[test]
fn missing_parts_are_reported_where_they_belong() {
    check(
        "{}\n",
        &[
            "missing-field 1:1 version",
            "missing-field 1:1 workshop",
            "missing-field 1:1 base",
            "missing-field 1:1 steps",
        ],
    );
    check(
        "version: v1\nworkshop:\n  nam: x\nbase:\nsteps: []\n",
        &[
            "missing-field 1:1 base",
            "unknown-field 3:3 workshop.nam",
            "missing-field 3:3 workshop.name",
            "missing-field 3:3 workshop.image",
            "no-steps 5:8 steps",
        ],
    );
    check("", &["empty 1:1 "]);
    check("[]\n", &["wrong-type 1:1 "]);
    check(&format!("{HEAD}steps:\n- title: A\n"), &["missing-field 5:3 steps[0].id"]);
}

#[test]
fn what_no_template_could_hold_is_refused() {
    let step = |id: usize| format!("- {{id: s{id}, title: S}}\n");
    let steps = |number: usize| format!("{HEAD}steps:\n{}", (0..number).map(step).collect::<String>());
    check(&steps(200), &[]);
    check(&steps(201), &["too-many-steps 5:3 steps"]);
    let titled = |length: usize| format!("{HEAD}steps: [{{id: a, title: {}}}]\n", "é".repeat(length));
    check(&titled(1024), &[]);
    check(&titled(1025), &["too-long 4:24 steps[0].title"]);
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let text = "version: v2
workshop: {name: Demo, image: 'team/demo:v1'}
base: {image: 'docker-daemon:x'}
base: {image: y}
steps:
  - id: finish
    titel: A
    env: {1A: x, B: 2, C: }
    commands: [true, '']
  - id: a
    title: ''
    comands: []
  - id: a
    title: A
    files: [{path: etc, content: x, source: motd, mode: 0o644, owner: root}]
finish: {file: []}
extra: 1
";
    check(
        text,
        &[
            "unknown-version 1:10 version",
            "name 2:18 workshop.name",
            "image 2:31 workshop.image",
            "image 3:15 base.image",
            "duplicate-key 4:1 base",
            "missing-field 6:5 steps[0].title",
            "name 6:9 steps[0].id",
            "unknown-field 7:5 steps[0].titel",
            "env-name 8:11 steps[0].env.1A",
            "wrong-type 8:21 steps[0].env.B",
            "wrong-type 8:24 steps[0].env.C",
            "wrong-type 9:16 steps[0].commands[0]",
            "empty 9:22 steps[0].commands[1]",
            "empty 11:12 steps[1].title",
            "unknown-field 12:5 steps[1].comands",
            "duplicate-step 13:9 steps[2].id",
            "path 15:20 steps[2].files[0].path",
            "content-or-source 15:45 steps[2].files[0].source",
            "mode 15:57 steps[2].files[0].mode",
            "owner 15:71 steps[2].files[0].owner",
            "unknown-field 16:10 finish.file",
            "unknown-field 17:1 extra",
        ],
    );
}

#[test]
fn an_unknown_field_is_shown_with_its_line_and_the_nearest_name() {
    let text = format!("{HEAD}steps:\n  - id: a\n    title: A\n    comands: []\n");
    let problem = &parse(&text).diagnostics[0];
    assert_eq!(problem.to_string(), "step-spec.yaml:7:5: steps[0].comands: unknown field \"comands\"");
    assert_eq!(problem.source_line.as_deref(), Some("    comands: []"));
    assert_eq!(problem.help, "did you mean `commands`?");
}

#[test]
fn target_paths_are_absolute_plain_and_not_the_platforms() {
    for path in ["/etc/motd", "/workshops/a", "/developer", "/a b", "/.bashrc", "/...", "/usr/lib/x.wh.y"] {
        check_path(path, None);
    }
    for (path, message) in [
        ("etc/motd", "is not absolute"),
        ("''", "is not absolute"),
        ("/", "is the root itself"),
        ("//etc", "has an empty component"),
        ("/etc/", "has an empty component"),
        ("/etc/./motd", "has the component \".\""),
        ("/etc/../motd", "has the component \"..\""),
        ("/..", "has the component \"..\""),
        ("/etc/.wh.motd", "begins with \".wh.\""),
        ("/.wh..wh..opq", "begins with \".wh.\""),
        ("\"/etc/a\\0b\"", "has a NUL character"),
        ("/workshop", "is in /workshop, which is the platform's"),
        ("/workshop/x", "is in /workshop, which is the platform's"),
        ("/persist/x", "is in /persist, which is the platform's"),
        ("/proc/1", "is in /proc, which is the kernel's"),
        ("/sys/x", "is in /sys, which is the kernel's"),
        ("/dev/null", "is in /dev, which is the kernel's"),
    ] {
        check_path(path, Some(message));
    }
    check_path(&format!("/{}", "x".repeat(255)), None);
    check_path(&format!("/{}", "x".repeat(256)), Some("more than 255 bytes"));
    check_path(&"/x".repeat(2048), Some("longer than 4095 bytes"));
}

#[test]
fn a_file_has_exactly_one_of_content_and_source() {
    check_file("content: ''", &[]);
    check_file("source: motd", &[]);
    check_file("mode: 0644", &["content-or-source 8:7 steps[0].files[0].content"]);
    check_file("content: x\n      source: motd", &["content-or-source 10:15 steps[0].files[0].source"]);
    check_file("content: 5", &["wrong-type 9:16 steps[0].files[0].content"]);
    check_file("content: ~", &["content-or-source 8:7 steps[0].files[0].content"]);
}

#[test]
fn sources_stay_inside_of_the_workshops_directory() {
    for source in ["motd", "./motd", "link", "site", "site/", "site/../motd", "dangling"] {
        check_file(&format!("source: {source}"), &[]);
    }
    for (source, rule) in [
        ("none", "missing-source"),
        ("motd/x", "missing-source"),
        ("../secret", "source-outside"),
        ("site/../../secret", "source-outside"),
        ("out", "source-outside"),
        ("leaky", "source-outside"),
        ("leaky/passwd", "source-outside"),
        ("loop", "source-loop"),
        ("big.bin", "lfs-pointer"),
        ("white", "whiteout-name"),
        ("/etc/passwd", "source"),
        ("''", "source"),
        ("\"a\\0\"", "source"),
    ] {
        check_file(&format!("source: {source}"), &[&format!("{rule} 9:15 steps[0].files[0].source")]);
    }
}

#[test]
fn modes_are_octal_whatever_yaml_makes_of_them() {
    for (text, mode) in [("0644", 0o644), ("'0644'", 0o644), ("644", 0o644), ("\"4755\"", 0o4755), ("000", 0)] {
        let text = format!("{HEAD}steps: [{{id: a, title: A, files: [{{path: /a, content: x, mode: {text}}}]}}]\n");
        let (recipe, _) = parse(&text).into_result().unwrap();
        assert_eq!(recipe.steps[0].content.files[0].mode, Some(mode), "{text}");
    }
    for text in ["0o644", "0x1a4", "64", "06444", "0888", "-644", "u+x", "''", "6.4"] {
        check_file(&format!("content: x\n      mode: {text}"), &["mode 10:13 steps[0].files[0].mode"]);
    }
    check_file("content: x\n      mode: [6]", &["wrong-type 10:13 steps[0].files[0].mode"]);
}

#[test]
fn owners_are_two_numbers() {
    check_file("content: x\n      owner: '0:0'", &[]);
    check_file("content: x\n      owner: 1000:1000", &[]);
    for text in ["root:root", "'1000'", "'1:2:3'", "'-1:0'", "'+1:0'", "'4294967295:0'", "':'", "'1 :2'"] {
        check_file(&format!("content: x\n      owner: {text}"), &["owner 10:14 steps[0].files[0].owner"]);
    }
    check_file("content: x\n      owner: 1000", &["wrong-type 10:14 steps[0].files[0].owner"]);
}

#[test]
fn one_path_is_one_thing() {
    check_step(
        "files: [{path: /a, content: x}, {path: /a, content: y}]",
        &["duplicate-path 7:44 steps[0].files[1].path"],
    );
    check_step("files: [{path: /a, content: x}, {path: /a/b, content: y}]", &["path-conflict 5:5 steps[0].files"]);
    check_step("files: [{path: /a, source: site}, {path: /a/b, content: y}]", &[]);
}

fn resolved(text: &str) -> Vec<String> {
    let text = format!("{HEAD}steps: [{{id: a, title: A, files: {text}}}]\n");
    let (recipe, _) = parse(&text).into_result().unwrap();
    let files = resolve_files(&recipe.steps[0].content, &tree()).unwrap();
    let show = |file: ImageFile| {
        let kind = match file.kind {
            ImageFileKind::Directory => "directory".to_owned(),
            ImageFileKind::File(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes)),
            ImageFileKind::Link(target) => format!("-> {target}"),
        };
        format!("{} {:04o} {}:{} {kind}", file.path, file.mode, file.uid, file.gid)
    };
    files.into_iter().map(show).collect()
}

#[test]
fn sources_expand_to_files_with_modes_owners_and_links() {
    assert_eq!(
        resolved("[{path: /run, source: run.sh}, {path: /b, source: link}, {path: /b, content: x, mode: 0600}]"),
        ["/b 0600 0:0 \"x\"", "/run 0755 0:0 \"#!/bin/sh\\n\""]
    );
    assert_eq!(
        resolved("[{path: /srv/www, source: site, mode: 0640, owner: '33:34'}]"),
        [
            "/srv/www 0755 33:34 directory",
            "/srv/www/css 0755 33:34 directory",
            "/srv/www/css/a.css 0640 33:34 \"a{}\\n\"",
            "/srv/www/index.html 0640 33:34 \"<h1>\\n\"",
            "/srv/www/start.html 0777 33:34 -> index.html",
        ]
    );
    assert_eq!(
        resolved("[{path: /d, source: dangling}]"),
        ["/d 0755 0:0 directory", "/d/later 0777 0:0 -> made-by-a-command"]
    );
}

/// Text that is near enough to a recipe to get past the first checks.
fn recipe_text() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "version: v1",
        "workshop:",
        "  name: a",
        "  image: a/b",
        "base: {image: debian}",
        "steps:",
        "  - id: a",
        "    title: \"A\\0\"",
        "    files:",
        "      - path: /etc/x",
        "        source: ..",
        "        mode: 0644",
        "        owner: 0:0",
        "        content: |",
        "          é\t",
        "    env: {A: &x b, *x : c}",
        "    commands: [a, ~]",
        "finish: ",
        "? a",
        "- ",
        "...",
        "---",
        "%YAML 1.2",
        "\r",
        "# c",
        "a: 'b",
        "[",
        "{",
        "\u{85}",
        "\u{feff}",
    ]);
    prop_oneof![prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n")), "(?s).{0,200}",]
}

proptest! {
    #[test]
    fn no_input_panics_and_every_problem_lies_inside_of_the_file(text in recipe_text()) {
        let checked = parse(&text);
        prop_assert!(checked.is_valid() || !checked.diagnostics.is_empty());
        for problem in checked.diagnostics {
            let (line, column) = (problem.line.unwrap_or(0), problem.column.unwrap_or(0));
            // YAML knows more line breaks than Rust's `lines`: a carriage return alone is one.
            let lines: Vec<&str> = text.split(['\n', '\r']).collect();
            prop_assert!(line >= 1 && line as usize <= lines.len(), "{:?} in {:?}", problem, text);
            prop_assert!(column >= 1, "{:?} in {:?}", problem, text);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let checked = parse_recipe("step-spec.yaml", &bytes, &tree());
        prop_assert!(!checked.is_valid());
    }
}
