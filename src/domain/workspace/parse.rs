//! `workspace.yaml` from its text, all problems at once; `overrides` of a roster follow the same rules.

use std::net::IpAddr;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::{EgressRule, Switch, Workspace};
use crate::domain::diagnostic::Checked;
use crate::domain::duration::Duration;
use crate::domain::quantity::Quantity;
use crate::domain::yaml::{self, Kind, Mapping, Node, Problems};

const SECTIONS: [&str; 8] = ["lifecycle", "isolation", "network", "cluster", "resources", "access", "checks", "record"];

/// Reads the file; what is absent has its default.
#[must_use]
pub fn parse_workspace(file: &str, bytes: &[u8]) -> Checked<Workspace> {
    let Checked { value: document, mut diagnostics } = yaml::parse(file, bytes);
    let Some(document) = document else { return Checked { value: None, diagnostics } };
    let mut problems = Problems::of(&document);
    let known: Vec<&str> = ["version"].into_iter().chain(SECTIONS).collect();
    // A file of comments only says nothing, which is no mistake: every field has a default.
    let value = if document.root.kind() == Kind::Null {
        Some(Workspace::default())
    } else {
        problems.mapping(&document.root, "", &known).map(|mapping| {
            problems.version(&mapping);
            read_sections(&mapping, &mut problems)
        })
    };
    diagnostics.append(&mut problems.diagnostics);
    Checked { value, diagnostics }
}

/// Checks the `overrides` of an instance, which are fields of `workspace.yaml`, and gives them as JSON.
pub fn read_overrides(node: &Node, field: &str, problems: &mut Problems<'_>) -> Option<serde_json::Value> {
    let mapping = problems.mapping(node, field, &SECTIONS)?;
    read_sections(&mapping, problems);
    Some(node.to_json())
}

fn read_sections(root: &Mapping<'_>, problems: &mut Problems<'_>) -> Workspace {
    let mut workspace = Workspace::default();
    let section = |name: &str, known: &[&str], problems: &mut Problems<'_>| {
        root.get(name).and_then(|node| problems.mapping(node, &root.path(name), known))
    };
    let known = ["mode", "ttl", "idleSuspend", "idleTimeout", "persist"];
    if let Some(lifecycle) = section("lifecycle", &known, problems) {
        let to = &mut workspace.lifecycle;
        choice(&lifecycle, "mode", &["persistent", "ephemeral"], &mut to.mode, problems);
        duration(&lifecycle, "ttl", &mut to.ttl, problems);
        boolean(&lifecycle, "idleSuspend", &mut to.idle_suspend, problems);
        duration(&lifecycle, "idleTimeout", &mut to.idle_timeout, problems);
        optional(quantity(&lifecycle, "persist", problems), &mut to.persist);
    }
    if let Some(isolation) = section("isolation", &["mode", "runtimeClass", "user"], problems) {
        let to = &mut workspace.isolation;
        choice(&isolation, "mode", &["individual", "team"], &mut to.mode, problems);
        choice(&isolation, "user", &["learner", "root"], &mut to.user, problems);
        to.runtime_class = runtime_class(&isolation, problems);
    }
    if let Some(network) = section("network", &["egress"], problems) {
        workspace.network.egress = egress(&network, problems);
    }
    if let Some(cluster) = section("cluster", &["mode", "version"], problems) {
        choice(&cluster, "mode", &["none", "per-workspace", "shared"], &mut workspace.cluster.mode, problems);
        workspace.cluster.version = version(&cluster, problems);
    }
    if let Some(resources) = section("resources", &["cpu", "memory"], problems) {
        let to = &mut workspace.resources;
        to.cpu = quantity(&resources, "cpu", problems).unwrap_or(to.cpu.clone());
        to.memory = quantity(&resources, "memory", problems).unwrap_or(to.memory.clone());
    }
    if let Some(access) = section("access", &["webTerminal", "editor", "files", "browser"], problems) {
        let to = &mut workspace.access;
        if let Some(node) = access.get("webTerminal")
            && let Some(terminal) = problems.mapping(node, &access.path("webTerminal"), &["enabled", "shell", "server"])
        {
            boolean(&terminal, "enabled", &mut to.web_terminal.enabled, problems);
            choice(&terminal, "server", &["builtin", "ttyd"], &mut to.web_terminal.server, problems);
            to.web_terminal.shell = shell(&terminal, problems);
        }
        switch(&access, "editor", &mut to.editor, problems);
        switch(&access, "files", &mut to.files, problems);
        switch(&access, "browser", &mut to.browser, problems);
    }
    if let Some(checks) = section("checks", &["engine"], problems) {
        choice(&checks, "engine", &["builtin", "goss"], &mut workspace.checks.engine, problems);
    }
    if let Some(record) = section("record", &["session", "commands"], problems) {
        boolean(&record, "session", &mut workspace.record.session, problems);
        boolean(&record, "commands", &mut workspace.record.commands, problems);
    }
    workspace
}

fn optional<T>(value: Option<T>, to: &mut Option<T>) {
    if value.is_some() {
        *to = value;
    }
}

/// Reads a word of a closed list; the words are those of the type's serde form, which a test shows.
fn choice<T: DeserializeOwned>(from: &Mapping<'_>, key: &str, words: &[&str], to: &mut T, problems: &mut Problems<'_>) {
    let Some(node) = from.get(key) else { return };
    let field = from.path(key);
    let Some(text) = problems.string(node, &field) else { return };
    if words.contains(&text)
        && let Ok(value) = serde_json::from_value(text.into())
    {
        *to = value;
        return;
    }
    let help = match yaml::nearest(text, words) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("write one of: {}", words.join(", ")),
    };
    problems.error("unknown-value", node.place, &field, format!("unknown value \"{}\"", yaml::shorten(text)), help);
}

fn boolean(from: &Mapping<'_>, key: &str, to: &mut bool, problems: &mut Problems<'_>) {
    if let Some(value) = from.get(key).and_then(|node| problems.boolean(node, &from.path(key))) {
        *to = value;
    }
}

fn switch(from: &Mapping<'_>, key: &str, to: &mut Switch, problems: &mut Problems<'_>) {
    if let Some(node) = from.get(key)
        && let Some(mapping) = problems.mapping(node, &from.path(key), &["enabled"])
    {
        boolean(&mapping, "enabled", &mut to.enabled, problems);
    }
}

fn duration(from: &Mapping<'_>, key: &str, to: &mut Duration, problems: &mut Problems<'_>) {
    let Some(node) = from.get(key) else { return };
    let help = "write a duration longer than nothing, such as 30m, 2h or 1h30m";
    let Some(value) = parsed(node, &from.path(key), "duration", help, problems) else { return };
    if Duration::is_zero(value) {
        problems.error("duration", node.place, &from.path(key), "the duration is zero", help);
    } else {
        *to = value;
    }
}

fn quantity(from: &Mapping<'_>, key: &str, problems: &mut Problems<'_>) -> Option<Quantity> {
    let help = "write a Kubernetes quantity above zero, such as 500m, 2 or 512Mi";
    parsed(from.get(key)?, &from.path(key), "quantity", help, problems)
}

/// Reads a scalar by its text, so that `cpu: 2` needs no quotes.
fn parsed<T: FromStr<Err: ToString>>(
    node: &Node,
    field: &str,
    rule: &'static str,
    help: &str,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let Some(text) = node.scalar().filter(|_| node.kind() != Kind::Boolean) else {
        problems.wrong_type(node, field, &format!("a {rule}"));
        return None;
    };
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            problems.error(rule, node.place, field, error.to_string(), help);
            None
        }
    }
}

fn runtime_class(from: &Mapping<'_>, problems: &mut Problems<'_>) -> Option<String> {
    let node = from.get("runtimeClass")?;
    let field = from.path("runtimeClass");
    let text = problems.string(node, &field)?;
    let valid = !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        });
    if !valid {
        problems.error(
            "name",
            node.place,
            &field,
            format!("\"{}\" is no name of a runtime class", yaml::shorten(text)),
            "write the name of a RuntimeClass of the cluster: lowercase letters, digits, `-` and `.`",
        );
    }
    Some(text.to_owned())
}

fn version(from: &Mapping<'_>, problems: &mut Problems<'_>) -> Option<String> {
    let node = from.get("version")?;
    let field = from.path("version");
    let text = problems.string(node, &field)?;
    let digits = text.strip_prefix('v').unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit())
        || digits.len() > 40
        || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'))
    {
        problems.error(
            "version",
            node.place,
            &field,
            format!("\"{}\" is no version", yaml::shorten(text)),
            "write a version of Kubernetes, such as \"1.34\"",
        );
    }
    Some(text.to_owned())
}

fn shell(from: &Mapping<'_>, problems: &mut Problems<'_>) -> Option<String> {
    let node = from.get("shell")?;
    let field = from.path("shell");
    let text = problems.string(node, &field)?;
    if !text.starts_with('/') || text.contains('\0') || text.ends_with('/') {
        problems.error(
            "path",
            node.place,
            &field,
            format!("\"{}\" is no absolute path of a program", yaml::shorten(text)),
            "write the shell's path in the image, such as /bin/bash",
        );
    }
    Some(text.to_owned())
}

fn egress(network: &Mapping<'_>, problems: &mut Problems<'_>) -> Option<Vec<EgressRule>> {
    let field = network.path("egress");
    let nodes = problems.list(network.get("egress")?, &field)?;
    let mut rules = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(mapping) = problems.mapping(node, &field, &["cidr", "ports"]) else { continue };
        let cidr = mapping.require("cidr", problems).and_then(|node| cidr(node, &mapping.path("cidr"), problems));
        let mut ports = Vec::new();
        if let Some(nodes) = mapping.get("ports").and_then(|node| problems.list(node, &mapping.path("ports"))) {
            for (index, node) in nodes.iter().enumerate() {
                ports.extend(port(node, &format!("{}[{index}]", mapping.path("ports")), problems));
            }
        }
        rules.extend(cidr.map(|cidr| EgressRule { cidr, ports }));
    }
    Some(rules)
}

fn cidr(node: &Node, field: &str, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.string(node, field)?;
    let mut error = |message: String, help: String| problems.error("cidr", node.place, field, message, help);
    let parsed = text
        .split_once('/')
        .filter(|(_, prefix)| prefix.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|(address, prefix)| Some((address.parse::<IpAddr>().ok()?, prefix.parse::<u32>().ok()?)));
    let Some((address, prefix)) = parsed else {
        let message = format!("\"{}\" is no network", yaml::shorten(text));
        error(message, "write ADDRESS/PREFIX, such as 10.0.0.0/8 or 192.0.2.7/32".to_owned());
        return None;
    };
    let (bits, value) = match address {
        IpAddr::V4(address) => (32, u128::from(address.to_bits())),
        IpAddr::V6(address) => (128, address.to_bits()),
    };
    if prefix > bits {
        error(format!("the prefix of \"{text}\" is longer than {bits}"), format!("write a prefix of 0 to {bits}"));
        return None;
    }
    let shift = bits - prefix;
    let network = value.checked_shr(shift).and_then(|value| value.checked_shl(shift)).unwrap_or(0);
    if network != value {
        let network = match address {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from_bits(network as u32)),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from_bits(network)),
        };
        error(
            format!("\"{text}\" has address bits behind its prefix"),
            format!("write the network, {network}/{prefix}, or a single address with /{bits}"),
        );
        return None;
    }
    Some(text.to_owned())
}

fn port(node: &Node, field: &str, problems: &mut Problems<'_>) -> Option<u16> {
    let port = node.scalar().filter(|_| node.kind() == Kind::Integer).and_then(|text| text.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) {
        match node.kind() {
            Kind::Integer => {
                let text = yaml::shorten(node.scalar().unwrap_or_default());
                problems.error("port", node.place, field, format!("\"{text}\" is no port"), "write 1 to 65535");
            }
            _ => problems.wrong_type(node, field, "a port number"),
        }
        return None;
    }
    port
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse_workspace("workspace.yaml", text.as_bytes())
            .diagnostics
            .iter()
            .map(|problem| {
                let (line, column) = (problem.line.unwrap_or(0), problem.column.unwrap_or(0));
                format!("{} {line}:{column} {}: {}", problem.rule, problem.field, problem.help)
            })
            .collect()
    }

    fn check(text: &str, rule: &str, field: &str, help: &str) {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].starts_with(&format!("{rule} ")), "{problems:?}");
        assert!(problems[0].contains(&format!(" {field}: ")), "{problems:?}");
        assert!(problems[0].contains(help), "{problems:?}");
    }

    #[test]
    fn a_file_of_every_field_reads_back_from_the_form_it_is_written_in() {
        let text = "version: v1
lifecycle: {mode: persistent, ttl: 90m, idleSuspend: false, idleTimeout: 10m, persist: 1Gi}
isolation: {mode: team, runtimeClass: kata-fc, user: root}
network: {egress: [{cidr: 192.0.2.0/24, ports: [80, 443]}, {cidr: '::/0'}]}
cluster: {mode: per-workspace, version: '1.34'}
resources: {cpu: 2, memory: 1Gi}
access:
  webTerminal: {enabled: false, shell: /bin/zsh, server: ttyd}
  editor: {enabled: false}
  files: {enabled: false}
  browser: {enabled: true}
checks: {engine: goss}
record: {session: true, commands: true}
";
        let (workspace, _) = parse_workspace("workspace.yaml", text.as_bytes()).into_result().unwrap();
        let json = serde_json::to_value(&workspace).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "lifecycle": {
                    "mode": "persistent", "ttl": "1h30m", "idleSuspend": false, "idleTimeout": "10m", "persist": "1Gi",
                },
                "isolation": {"mode": "team", "runtimeClass": "kata-fc", "user": "root"},
                "network": {"egress": [{"cidr": "192.0.2.0/24", "ports": [80, 443]}, {"cidr": "::/0"}]},
                "cluster": {"mode": "per-workspace", "version": "1.34"},
                "resources": {"cpu": "2", "memory": "1Gi"},
                "access": {
                    "webTerminal": {"enabled": false, "shell": "/bin/zsh", "server": "ttyd"},
                    "editor": {"enabled": false},
                    "files": {"enabled": false},
                    "browser": {"enabled": true},
                },
                "checks": {"engine": "goss"},
                "record": {"session": true, "commands": true},
            })
        );
        assert_eq!(serde_json::from_value::<Workspace>(json).unwrap(), workspace);
    }

    #[test]
    fn what_is_absent_has_its_default() {
        for text in ["version: v1\n", "lifecycle:\n", "# nothing\n---\n", "access: {webTerminal: {enabled: true}}\n"] {
            let (workspace, _) = parse_workspace("workspace.yaml", text.as_bytes()).into_result().unwrap();
            assert_eq!(workspace, Workspace::default(), "{text}");
        }
    }

    #[test]
    fn every_word_of_a_closed_list_is_read() {
        for (field, words) in [
            ("lifecycle.mode", vec!["persistent", "ephemeral"]),
            ("isolation.mode", vec!["individual", "team"]),
            ("isolation.user", vec!["learner", "root"]),
            ("cluster.mode", vec!["none", "per-workspace", "shared"]),
            ("access.webTerminal.server", vec!["builtin", "ttyd"]),
            ("checks.engine", vec!["builtin", "goss"]),
        ] {
            for word in words {
                let keys: Vec<&str> = field.split('.').collect();
                let text = keys.iter().rev().fold(word.to_owned(), |value, key| format!("{{{key}: {value}}}"));
                let (workspace, _) = parse_workspace("workspace.yaml", text.as_bytes()).into_result().unwrap();
                let json = serde_json::to_value(&workspace).unwrap();
                assert_eq!(json.pointer(&format!("/{}", keys.join("/"))), Some(&word.into()), "{field}");
            }
        }
    }

    #[test]
    fn wrong_values_are_refused_with_what_to_write() {
        check("version: v2", "unknown-version", "version", "write `v1`");
        check("lifecylce: {}", "unknown-field", "lifecylce", "did you mean `lifecycle`?");
        check("lifecycle: {idleTimout: 5m}", "unknown-field", "lifecycle.idleTimout", "did you mean `idleTimeout`?");
        check("lifecycle: {mode: ephemral}", "unknown-value", "lifecycle.mode", "did you mean `ephemeral`?");
        check("lifecycle: {ttl: 30}", "duration", "lifecycle.ttl", "such as 30m");
        check("lifecycle: {ttl: 0s}", "duration", "lifecycle.ttl", "such as 30m");
        check("lifecycle: {ttl: 2 days}", "duration", "lifecycle.ttl", "such as 30m");
        check("lifecycle: {ttl: [4h]}", "wrong-type", "lifecycle.ttl", "write a duration");
        check("lifecycle: {idleSuspend: yes}", "wrong-type", "lifecycle.idleSuspend", "true or false");
        check("lifecycle: {persist: 1GB}", "quantity", "lifecycle.persist", "such as 500m");
        check("resources: {cpu: 0}", "quantity", "resources.cpu", "above zero");
        check("resources: {cpu: -1}", "quantity", "resources.cpu", "above zero");
        check("resources: {memory: true}", "wrong-type", "resources.memory", "write a quantity");
        check("isolation: {runtimeClass: Kata}", "name", "isolation.runtimeClass", "RuntimeClass");
        check("cluster: {version: 1.30}", "wrong-type", "cluster.version", "put it in quotes: \"1.30\"");
        check("cluster: {version: latest}", "version", "cluster.version", "\"1.34\"");
        check("access: {webTerminal: {shell: bash}}", "path", "access.webTerminal.shell", "/bin/bash");
        check("access: {editor: true}", "wrong-type", "access.editor", "write a mapping");
        check("network: {egress: {cidr: x}}", "wrong-type", "network.egress", "write a list");
        check("network: {egress: [{ports: [80]}]}", "missing-field", "network.egress[0].cidr", "add `cidr:`");
    }

    #[test]
    fn networks_and_ports_are_checked() {
        let egress = |rule: &str| format!("network: {{egress: [{rule}]}}");
        for cidr in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "'2001:db8::/32'", "'::/0'", "'::1/128'"] {
            assert_eq!(problems(&egress(&format!("{{cidr: {cidr}, ports: [1, 65535]}}"))), [""; 0], "{cidr}");
        }
        for (cidr, help) in [
            ("10.0.0.1/8", "the network, 10.0.0.0/8"),
            ("'2001:db8::1/32'", "the network, 2001:db8::/32"),
            ("'1::/0'", "the network, ::/0"),
            ("10.0.0.0", "ADDRESS/PREFIX"),
            ("10.0.0.0/", "ADDRESS/PREFIX"),
            ("10.0.0.0/+8", "ADDRESS/PREFIX"),
            ("10.0.0/8", "ADDRESS/PREFIX"),
            ("10.0.0.0/33", "0 to 32"),
            ("'::/129'", "0 to 128"),
            ("example.org/32", "ADDRESS/PREFIX"),
        ] {
            check(&egress(&format!("{{cidr: {cidr}}}")), "cidr", "network.egress[0].cidr", help);
        }
        let port = |port: &str| egress(&format!("{{cidr: 10.0.0.0/8, ports: [{port}]}}"));
        check(&port("0"), "port", "network.egress[0].ports[0]", "1 to 65535");
        check(&port("65536"), "port", "network.egress[0].ports[0]", "1 to 65535");
        check(&port("http"), "wrong-type", "network.egress[0].ports[0]", "a port number");
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "(?s)((network: \\{egress: \\[\\{cidr: '[0-9a-f.:]{0,20}/[0-9]{1,4}'\\}\\]\\})|.{0,100})") {
            let checked = parse_workspace("workspace.yaml", text.as_bytes());
            prop_assert!(checked.is_valid() || !checked.diagnostics.is_empty());
        }
    }
}
