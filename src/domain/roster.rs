//! `roster.yaml`: the instances that a repository itself wants to exist.
//!
//! What becomes of them (creation, pruning) is the plan's matter.

use std::collections::HashMap;

use super::diagnostic::{Checked, Place};
use super::names::{StepId, WorkshopId};
use super::workspace;
use super::yaml::{self, Mapping, Node, Problems};

/// The file's name in a workshop's directory.
pub const FILE_NAME: &str = "roster.yaml";
/// The longest owner, in bytes.
const MAX_OWNER: usize = 120;
/// The longest prefix and class, in characters.
const MAX_LABEL: usize = 63;

/// A whole valid roster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// The instances in the order of the file; no two have one name.
    pub instances: Vec<RosterEntry>,
    /// What their names begin with; the workshop's id where it is absent.
    pub prefix: Option<String>,
    /// The WorkshopClass they belong to.
    pub class: Option<String>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterEntry {
    /// Whose it is.
    pub owner: String,
    /// Who shares it, in a team workspace.
    pub members: Vec<String>,
    /// The step it is created at.
    pub step: Option<StepId>,
    /// Fields of workspace.yaml that differ for this instance.
    pub overrides: Option<serde_json::Value>,
    /// Where the entry begins in the file.
    pub place: Place,
}

impl Roster {
    /// The name of the WorkspaceInstance of `entry` in the workshop `id`.
    #[must_use]
    pub fn instance_name(&self, id: &WorkshopId, entry: &RosterEntry) -> String {
        format!("{}-{}", self.prefix.as_deref().unwrap_or(id.as_str()), owner_part(&entry.owner))
    }
}

/// The owner as part of an object name: lowercased, everything but a–z and 0–9 as `-`.
#[must_use]
pub fn owner_part(owner: &str) -> String {
    owner
        .chars()
        .flat_map(char::to_lowercase)
        .map(|letter| if letter.is_ascii_lowercase() || letter.is_ascii_digit() { letter } else { '-' })
        .collect()
}

/// Reads the file.
#[must_use]
pub fn parse_roster(file: &str, bytes: &[u8]) -> Checked<Roster> {
    let Checked { value: document, mut diagnostics } = yaml::parse(file, bytes);
    let Some(document) = document else { return Checked { value: None, diagnostics } };
    let mut problems = Problems::of(&document);
    let known = ["version", "instances", "prefix", "class"];
    let value = problems.mapping(&document.root, "", &known).map(|root| {
        problems.version(&root);
        let prefix = label(&root, "prefix", &mut problems);
        let class = label(&root, "class", &mut problems);
        Roster { instances: read_instances(&root, &mut problems), prefix, class }
    });
    diagnostics.append(&mut problems.diagnostics);
    Checked { value, diagnostics }
}

fn read_instances(root: &Mapping<'_>, problems: &mut Problems<'_>) -> Vec<RosterEntry> {
    let field = root.path("instances");
    let Some(nodes) = root.require("instances", problems).and_then(|node| problems.list(node, &field)) else {
        return Vec::new();
    };
    let mut names: HashMap<String, String> = HashMap::new();
    let mut instances = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(mapping) = problems.mapping(node, &field, &["owner", "members", "step", "overrides"]) else {
            continue;
        };
        let owner = mapping.require("owner", problems).and_then(|node| {
            let owner = read_owner(node, &mapping.path("owner"), problems)?;
            if let Some(first) = names.insert(owner_part(&owner), owner.clone()) {
                let name = owner_part(&owner);
                let message = if first == owner {
                    format!("the owner \"{owner}\" has two instances")
                } else {
                    format!("the owners \"{first}\" and \"{owner}\" would both have the instance name …-{name}")
                };
                problems.error(
                    "duplicate-owner",
                    node.place,
                    &mapping.path("owner"),
                    message,
                    "rename or remove one of the two",
                );
            }
            Some(owner)
        });
        let members = read_members(&mapping, problems);
        let step = mapping.get("step").and_then(|node| {
            let field = mapping.path("step");
            let text = problems.string(node, &field)?;
            StepId::parse(text)
                .map_err(|error| {
                    problems.error("name", node.place, &field, error.to_string(), "write the id of one of the steps");
                })
                .ok()
        });
        let overrides = mapping
            .get("overrides")
            .and_then(|node| workspace::read_overrides(node, &mapping.path("overrides"), problems));
        instances.extend(owner.map(|owner| RosterEntry { owner, members, step, overrides, place: node.place }));
    }
    instances
}

fn read_owner(node: &Node, field: &str, problems: &mut Problems<'_>) -> Option<String> {
    let owner = problems.string(node, field)?;
    let mut error =
        |message: String| problems.error("owner", node.place, field, message, "write a user name or mail address");
    if owner.trim().is_empty() {
        error("the owner is empty".to_owned());
    } else if owner.len() > MAX_OWNER {
        error(format!("the owner \"{}\" is longer than {MAX_OWNER} bytes", yaml::shorten(owner)));
    } else if owner.chars().any(char::is_control) {
        error(format!("the owner {owner:?} has control characters"));
    } else if owner_part(owner).ends_with('-') {
        let name = owner_part(owner);
        error(format!("the owner \"{owner}\" gives an instance name that ends with `-` ({name}), which none may"));
    } else {
        return Some(owner.to_owned());
    }
    None
}

fn read_members(mapping: &Mapping<'_>, problems: &mut Problems<'_>) -> Vec<String> {
    let field = mapping.path("members");
    let Some(nodes) = mapping.get("members").and_then(|node| problems.list(node, &field)) else { return Vec::new() };
    let mut members: Vec<String> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(member) = problems.string(node, &field) else { continue };
        if member.trim().is_empty() || member.chars().any(char::is_control) {
            problems.error("owner", node.place, &field, format!("{member:?} is no member"), "write a user name");
        } else if members.iter().any(|other| other == member) {
            let message = format!("the member \"{}\" is named twice", yaml::shorten(member));
            problems.error("duplicate-member", node.place, &field, message, "keep one of the two");
        } else {
            members.push(member.to_owned());
        }
    }
    members
}

fn label(root: &Mapping<'_>, key: &'static str, problems: &mut Problems<'_>) -> Option<String> {
    let node = root.get(key)?;
    let field = root.path(key);
    let text = problems.string(node, &field)?;
    let valid = !text.is_empty()
        && text.len() <= MAX_LABEL
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !valid {
        let message = format!("\"{}\" cannot be part of an object name", yaml::shorten(text));
        let help = format!("use a-z, 0-9 and - inside, at most {MAX_LABEL} characters");
        problems.error("name", node.place, &field, message, help);
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let problems: Vec<String> = parse_roster("roster.yaml", text.as_bytes())
            .diagnostics
            .iter()
            .map(|problem| {
                let (line, column) = (problem.line.unwrap_or(0), problem.column.unwrap_or(0));
                format!("{} {line}:{column} {}", problem.rule, problem.field)
            })
            .collect();
        assert_eq!(problems, expected, "{text}");
    }

    #[test]
    fn a_valid_roster_reads_whole() {
        let text = "instances:
- owner: Anna.Berg@school.org
- {owner: team-1, members: [ben, Cem], step: second, overrides: {lifecycle: {ttl: 8h}}}
prefix: monday
class: autumn
";
        let (roster, _) = parse_roster("roster.yaml", text.as_bytes()).into_result().unwrap();
        let id = WorkshopId::parse("demo").unwrap();
        let names: Vec<String> = roster.instances.iter().map(|entry| roster.instance_name(&id, entry)).collect();
        assert_eq!(names, ["monday-anna-berg-school-org", "monday-team-1"]);
        assert_eq!(roster.class.as_deref(), Some("autumn"));
        let team = &roster.instances[1];
        assert_eq!((team.members.len(), team.place.line), (2, 3));
        assert_eq!(team.step.as_ref().map(StepId::as_str), Some("second"));
        assert_eq!(team.overrides, Some(serde_json::json!({"lifecycle": {"ttl": "8h"}})));
    }

    #[test]
    fn without_a_prefix_names_begin_with_the_workshops_id() {
        let (roster, _) = parse_roster("r", b"instances: [{owner: anna}]").into_result().unwrap();
        let id = WorkshopId::parse("demo").unwrap();
        assert_eq!(roster.instance_name(&id, &roster.instances[0]), "demo-anna");
    }

    #[test]
    fn owners_whose_instances_would_have_one_name_clash() {
        check("instances: [{owner: anna}, {owner: anna}]", &["duplicate-owner 1:36 instances[1].owner"]);
        check("instances: [{owner: a.b}, {owner: A-B}]", &["duplicate-owner 1:35 instances[1].owner"]);
        check("instances: [{owner: a.b}, {owner: ab}]", &[]);
    }

    #[test]
    fn wrong_fields_are_refused() {
        check("prefix: x", &["missing-field 1:1 instances"]);
        check("version: v3\ninstances: []", &["unknown-version 1:10 version"]);
        check(
            "instances: [{owners: a}]",
            &["unknown-field 1:14 instances[0].owners", "missing-field 1:13 instances[0].owner"],
        );
        for owner in ["''", "'  '", "'a!'", "'é'", "\"a\\nb\""] {
            check(&format!("instances: [{{owner: {owner}}}]"), &["owner 1:21 instances[0].owner"]);
        }
        check(&format!("instances: [{{owner: {}}}]", "a".repeat(121)), &["owner 1:21 instances[0].owner"]);
        check("instances: [{owner: 5}]", &["wrong-type 1:21 instances[0].owner"]);
        check("instances: [{owner: a, step: Key}]", &["name 1:30 instances[0].step"]);
        check(
            "instances: [{owner: a, members: [b, b, '']}]",
            &["duplicate-member 1:37 instances[0].members[1]", "owner 1:40 instances[0].members[2]"],
        );
        check("{instances: [], prefix: A, class: b-}", &["name 1:25 prefix", "name 1:35 class"]);
    }

    #[test]
    fn overrides_follow_the_rules_of_the_workspace_file() {
        check(
            "instances: [{owner: a, overrides: {lifecycle: {ttl: 5}}}]",
            &["duration 1:53 instances[0].overrides.lifecycle.ttl"],
        );
        check(
            "instances: [{owner: a, overrides: {version: v1}}]",
            &["unknown-field 1:36 instances[0].overrides.version"],
        );
    }

    proptest! {
        #[test]
        fn instance_names_are_lowercase_letters_digits_and_hyphens(owner in "(?s).{0,30}") {
            let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            prop_assert!(owner_part(&owner).bytes().all(allowed));
        }

        #[test]
        fn no_input_panics(text in "(?s)(instances: \\[\\{owner: .{0,20}\\}\\]|.{0,100})") {
            let _ = parse_roster("roster.yaml", text.as_bytes());
        }
    }
}
