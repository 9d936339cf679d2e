//! What a goss spec may say: its resource kinds and their attributes, checked before anything is run.
//!
//! Running the checks is not here.

use super::diagnostic::{Diagnostic, Place};
use super::workspace::CheckEngine;
use super::yaml::{self, Kind, Node, Problems};

/// All problems of the spec `bytes` of `file`, for the engine that will run it.
#[must_use]
pub fn check_goss(file: &str, bytes: &[u8], engine: CheckEngine) -> Vec<Diagnostic> {
    let text = String::from_utf8_lossy(bytes);
    if let Some(template) = text.find("{{") {
        // A template is text for goss alone: before it has run there is no YAML to check.
        return match engine {
            CheckEngine::Goss => Vec::new(),
            CheckEngine::Builtin => vec![template_error(file, &text, template)],
        };
    }
    let parsed = yaml::parse(file, bytes);
    let mut diagnostics = parsed.diagnostics;
    if let Some(document) = &parsed.value {
        let mut problems = Problems::of(document);
        check_root(&document.root, &mut problems);
        diagnostics.append(&mut problems.diagnostics);
    }
    diagnostics
}

/// Attributes that every resource has.
const COMMON: [&str; 3] = ["title", "meta", "skip"];

/// The resource kinds with their own attributes.
const KINDS: [(&str, &[&str]); 17] = [
    ("addr", &["address", "reachable", "local-address", "timeout"]),
    ("command", &["exec", "exit-status", "stdout", "stderr", "timeout", "retry_count", "retry_delay"]),
    ("dns", &["resolve", "resolvable", "resolveable", "addrs", "server", "timeout", "retry_count", "retry_delay"]),
    (
        "file",
        &[
            "path",
            "exists",
            "mode",
            "size",
            "owner",
            "uid",
            "group",
            "gid",
            "filetype",
            "linked-to",
            "contents",
            "contains",
            "md5",
            "sha256",
            "sha512",
        ],
    ),
    ("gossfile", &["file"]),
    ("group", &["groupname", "exists", "gid"]),
    (
        "http",
        &[
            "url",
            "status",
            "method",
            "headers",
            "body",
            "request-headers",
            "request-body",
            "username",
            "password",
            "allow-insecure",
            "no-follow-redirects",
            "ca-file",
            "cert-file",
            "key-file",
            "proxy",
            "timeout",
        ],
    ),
    ("interface", &["name", "exists", "addrs", "mtu"]),
    ("kernel-param", &["key", "name", "value"]),
    ("matching", &["content", "as-reader", "matches"]),
    ("mount", &["mountpoint", "exists", "opts", "vfs-opts", "source", "filesystem", "usage", "timeout"]),
    ("package", &["name", "installed", "versions", "retry_count", "retry_delay"]),
    ("port", &["port", "listening", "ip"]),
    ("process", &["comm", "running"]),
    ("registry", &["path", "exists", "value"]),
    ("service", &["name", "enabled", "running", "runlevels"]),
    ("user", &["username", "exists", "uid", "gid", "groups", "home", "shell"]),
];

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

fn check_root(root: &Node, problems: &mut Problems<'_>) {
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let Some(entries) = problems.entries(root, "") else { return };
    if entries.is_empty() {
        problems.error(
            "empty",
            root.place,
            "",
            "the spec has no checks",
            "remove the file where a step has nothing to check",
        );
    }
    for entry in entries {
        let Some((kind, attributes)) = KINDS.iter().find(|(name, _)| *name == entry.key) else {
            let help = match yaml::nearest(&entry.key, &names) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("the resources are: {}", names.join(", ")),
            };
            let message = format!("unknown resource \"{}\"", yaml::shorten(&entry.key));
            problems.error("unknown-field", entry.key_place, &entry.key, message, help);
            continue;
        };
        if entry.value.kind() == Kind::Null {
            continue;
        }
        let Some(resources) = problems.entries(&entry.value, kind) else { continue };
        let known: Vec<&str> = attributes.iter().copied().chain(COMMON).collect();
        for resource in resources {
            let field = yaml::join(kind, &resource.key);
            problems.mapping(&resource.value, &field, &known);
        }
    }
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
