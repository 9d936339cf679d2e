//! Goss specs: what they may say, what it means, and what a run of them came to.
//!
//! `kinds` is the table of resources, `spec` reads a file, `matcher` and `pattern` what is expected, `evaluate`
//! decides, `message` words it and `report` holds it. Pure: nothing here looks at a machine.

mod constraint;
pub mod evaluate;
#[cfg(test)]
mod hostile;
pub mod kinds;
pub mod matcher;
pub mod message;
mod pairing;
pub mod pattern;
#[cfg(test)]
mod published;
pub mod report;
pub mod spec;
pub mod subject;

pub use evaluate::{Found, Judgement, judge};
pub use kinds::Kind;
pub use report::{CheckResult, Counts, Detail, Outcome, Report};
pub use spec::{Assertion, Include, Item, Resource, Spec};
pub use subject::Subject;

use super::diagnostic::{Checked, Diagnostic, Place};
use super::workspace::CheckEngine;
use super::yaml::{self, Problems};

/// What goss itself may understand though the built-in engine does not.
const BUILTIN_RULES: [&str; 7] =
    ["missing-field", "matcher", "unknown-matcher", "regexp", "too-many", "port", "header"];

/// All problems of the spec `bytes` of `file`, for the engine that will run it.
#[must_use]
pub fn check_goss(file: &str, bytes: &[u8], engine: CheckEngine) -> Vec<Diagnostic> {
    match engine {
        CheckEngine::Builtin => parse_spec(file, bytes).diagnostics,
        // A template is text for goss alone: before it has run there is no YAML to check.
        CheckEngine::Goss if String::from_utf8_lossy(bytes).contains("{{") => Vec::new(),
        CheckEngine::Goss => {
            let problems = parse_spec(file, bytes).diagnostics.into_iter();
            problems.filter(|problem| !BUILTIN_RULES.contains(&problem.rule)).collect()
        }
    }
}

/// Reads the spec `bytes` of `file` for the built-in engine.
#[must_use]
pub fn parse_spec(file: &str, bytes: &[u8]) -> Checked<Spec> {
    let text = String::from_utf8_lossy(bytes);
    if let Some(template) = text.find("{{") {
        return Checked { value: None, diagnostics: vec![template_error(file, &text, template)] };
    }
    let mut parsed = yaml::parse(file, bytes);
    let value = parsed.value.as_ref().map(|document| {
        let mut problems = Problems::of(document);
        let spec = spec::read(&document.root, &mut problems);
        parsed.diagnostics.append(&mut problems.diagnostics);
        spec
    });
    Checked { value, diagnostics: parsed.diagnostics }
}

fn template_error(file: &str, text: &str, offset: usize) -> Diagnostic {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |index| index + 1);
    let place = Place {
        line: before.bytes().filter(|&byte| byte == b'\n').count() as u32 + 1,
        column: before[line_start..].chars().count() as u32 + 1,
    };
    Diagnostic::error("goss-template", file, "the spec has a template, which the built-in engine does not run")
        .at(place, text)
        .help("write the value out, or set `checks.engine: goss` in workspace.yaml and put `goss` into the images")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let problems: Vec<String> = check_goss("goss.yaml", text.as_bytes(), CheckEngine::Builtin)
            .iter()
            .map(|problem| {
                let (line, column) = (problem.line.unwrap_or(0), problem.column.unwrap_or(0));
                format!("{} {line}:{column} {}: {}", problem.rule, problem.field, problem.help)
            })
            .collect();
        assert_eq!(problems.len(), expected.len(), "{text}: {problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn known_resources_and_attributes_pass() {
        check(
            "file:
  /etc/motd:
    title: the message of the day
    exists: true
    mode: '0644'
    contents: [/hello/]
command:
  id -u learner:
    exit-status: 0
    stdout: {have-prefix: '1000'}
user:
  learner: {exists: true, groups: {contain-element: wheel}}
port:
  tcp:22: {listening: true, ip: [0.0.0.0]}
matching:
  numbers: {content: [1, 2], matches: {have-len: 2}, skip: true}
",
            &[],
        );
        check("service:\n", &[]);
        check("command: {a: {meta: {user: root}, exit-status: 0}, b: {meta: {user: learner}, exit-status: 0}}", &[]);
        check("command: {a: {meta: {user: 0}, exit-status: 0}}", &["wrong-type 1:28 command.a.meta.user"]);
        check("file: {/a: {meta: {user: zoe}, exists: true}}", &[]);
    }

    #[test]
    fn unknown_resources_and_attributes_are_refused_with_the_nearest_name() {
        check("fil:\n  /a: {}\n", &["unknown-field 1:1 fil: did you mean `file`?"]);
        check("file:\n  /a: {exist: true}\n", &["unknown-field 2:8 file./a.exist: did you mean `exists`?"]);
        check(
            "zzzzz: {}\nfile: {/a: {xxxxx: 1}}\n",
            &[
                "unknown-field 1:1 zzzzz: the resources are: addr,",
                "unknown-field 2:13 file./a.xxxxx: the fields here are: path, exists",
            ],
        );
        check("file: []\n", &["wrong-type 1:7 file"]);
        check("file: {/a: true}\n", &["wrong-type 1:12 file./a"]);
        check("- a\n", &["wrong-type 1:1 "]);
        check("{}\n", &["empty 1:1 "]);
        check("file: {/a: {exists: true, exists: false}}\n", &["duplicate-key 1:27 file./a.exists"]);
    }

    #[test]
    fn templates_are_for_goss_alone() {
        let text = "file:\n  {{.Env.HOME}}/x: {exists: true}\n";
        check(text, &["goss-template 2:3 : write the value out, or set `checks.engine: goss`"]);
        assert_eq!(check_goss("goss.yaml", text.as_bytes(), CheckEngine::Goss), []);
        // Without a template the other engine's specs are checked as well.
        assert_eq!(check_goss("goss.yaml", b"fil: {}", CheckEngine::Goss).len(), 1);
    }

    #[test]
    fn missing_gates_and_wrong_matchers_are_found_at_their_places() {
        check("file:\n  /a: {mode: '0644'}\n", &["missing-field 2:7 file./a.exists: add `exists:`"]);
        check("command: {id: {stdout: x}}\n", &["missing-field 1:15 command.id.exit-status"]);
        check("file: {/a: {exists: true, contents: ['/(/']}}\n", &["regexp 1:38 file./a.contents[0]"]);
        check(
            "file: {/a: {exists: true, size: {have-sufix: x}}}\n",
            &["unknown-matcher 1:34 file./a.size.have-sufix: did you mean `have-suffix`?"],
        );
        check("file: {/a: {exists: true, size: {gt: x}}}\n", &["wrong-type 1:38 file./a.size.gt"]);
        check(
            "file: {/a: {exists: true, size: {gt: 1, lt: 3}}}\n",
            &["matcher 1:33 file./a.size: put several under `and:`"],
        );
        check("port: {http: {listening: true}}\n", &["port 1:15 port.http: write `tcp:80`"]);
        check("command: {a: {exit-status: 0, timeout: soon}}\n", &["wrong-type 1:40 command.a.timeout"]);
        check(
            "file: {/a: {exists: true, meta: {hint: {mod: x}}}}\n",
            &["unknown-field 1:41 file./a.meta.hint.mod: did you mean `mode`?"],
        );
        check(
            "matching: {a: {content: '1.0', matches: {semver-constraint: 'new'}}}\n",
            &["matcher 1:61 matching.a.matches"],
        );
    }

    #[test]
    fn the_specs_that_the_documentation_shows_are_right_and_it_names_every_attribute() {
        let text = include_str!("../../../docs/checks.md");
        let blocks: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(blocks.len(), 2);
        for block in blocks {
            check(block, &[]);
        }
        for facts in &kinds::KINDS {
            let row = text.lines().find(|line| line.starts_with(&format!("| `{}` |", facts.name)));
            let Some(row) = row else {
                assert_eq!(facts.kind, Kind::Registry, "{} has no row", facts.name);
                continue;
            };
            let old_spellings = ["contains", "resolveable", "key"];
            for attribute in facts.attributes() {
                let known = kinds::COMMON.contains(&attribute) || old_spellings.contains(&attribute);
                assert!(known || row.contains(&format!("`{attribute}`")), "{}: {attribute}", facts.name);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = check_goss("goss.yaml", &bytes, CheckEngine::Builtin);
        }

        #[test]
        fn no_text_panics(text in "(?s)((file|command|user): \\{.{0,40}\\}|.{0,100})") {
            let _ = check_goss("goss.yaml", text.as_bytes(), CheckEngine::Builtin);
        }
    }
}
