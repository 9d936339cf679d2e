//! A goss spec as values: its resources, what they are and what is expected of them.
//!
//! Read from YAML with every problem at its place; nothing is looked at or run here.

use std::time::Duration;

use serde_json::Value as Json;

use super::kinds::{Attribute, KINDS, Kind, KindFacts, Shape};
use super::matcher::{Expectation, Reading};
use super::pattern::Expressions;
use super::subject::Subject;
use crate::domain::yaml::{self, Entry, Node, Problems, Value, join, nearest, shorten};

/// The most assertions of one spec.
pub const MAX_ASSERTIONS: usize = 10_000;

/// A spec.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// In the order of the file.
    pub items: Vec<Item>,
}

/// One entry of a spec.
#[derive(Debug, Clone)]
pub enum Item {
    /// Something to look at.
    Resource(Box<Resource>),
    /// Another spec, or several.
    Include(Include),
}

/// Specs that belong here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    /// A path or a glob, relative to the including spec.
    pub pattern: String,
    /// True when the files that it names are left out, wherever else they are named.
    pub skip: bool,
}

/// Something to look at, and what is expected of it.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// Its key in the spec.
    pub id: String,
    /// The author's title.
    pub title: Option<String>,
    /// What the author says about it.
    pub meta: Meta,
    /// True when it is not looked at.
    pub skip: bool,
    /// What is looked at, and how.
    pub subject: Subject,
    /// What is expected; the gate first, then in the order of the file.
    pub assertions: Vec<Assertion>,
}

/// One expectation.
#[derive(Debug, Clone)]
pub struct Assertion {
    /// The attribute.
    pub attribute: &'static Attribute,
    /// What is expected of it.
    pub expectation: Expectation,
}

/// What the author says about a resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meta {
    /// All of it.
    pub raw: Option<Json>,
}

impl Meta {
    /// The text `key` for `property`: one for all properties, or a mapping with one for each.
    #[must_use]
    pub fn text(&self, key: &str, property: &str) -> Option<&str> {
        match self.raw.as_ref()?.get(key)? {
            Json::String(text) => Some(text),
            Json::Object(texts) => texts.get(property)?.as_str(),
            _ => None,
        }
    }

    /// True when a command is to run as root, whoever the learner is.
    #[must_use]
    pub fn wants_root(&self) -> bool {
        self.raw.as_ref().and_then(|meta| meta.get("user")?.as_str()) == Some("root")
    }
}

impl Resource {
    /// The attribute without which the others are not looked at.
    #[must_use]
    pub fn gate(&self) -> Option<&'static str> {
        let facts = self.kind.facts();
        facts.required.filter(|_| facts.gated)
    }
}

impl Spec {
    /// The number of its assertions, without those of other specs.
    #[must_use]
    pub fn assertion_count(&self) -> usize {
        let counts = self.items.iter().map(|item| match item {
            Item::Resource(resource) => resource.assertions.len(),
            Item::Include(_) => 0,
        });
        counts.sum()
    }
}

/// Reads the root of a spec; what is wrong is left out and reported.
pub(super) fn read(root: &Node, problems: &mut Problems<'_>) -> Spec {
    let mut spec = Spec::default();
    let mut expressions = Expressions::default();
    let names: Vec<&str> = KINDS.iter().map(|facts| facts.name).collect();
    let Some(entries) = problems.entries(root, "") else { return spec };
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
        let Some(facts) = KINDS.iter().find(|facts| facts.name == entry.key) else {
            let help = match nearest(&entry.key, &names) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("the resources are: {}", names.join(", ")),
            };
            let message = format!("unknown resource \"{}\"", shorten(&entry.key));
            problems.error("unknown-field", entry.key_place, &entry.key, message, help);
            continue;
        };
        if entry.value.kind() == yaml::Kind::Null {
            continue;
        }
        for resource in problems.entries(&entry.value, facts.name).unwrap_or_default() {
            spec.items.extend(Reader { facts, problems, expressions: &mut expressions }.item(resource));
        }
    }
    if spec.assertion_count() > MAX_ASSERTIONS {
        let message = format!("the spec has {} assertions, more than {MAX_ASSERTIONS}", spec.assertion_count());
        problems.error("too-many", root.place, "", message, "check with a command instead");
    }
    spec
}

/// Reads one resource.
pub(super) struct Reader<'r, 'p> {
    pub(super) facts: &'static KindFacts,
    pub(super) problems: &'r mut Problems<'p>,
    expressions: &'r mut Expressions,
}

impl Reader<'_, '_> {
    fn item(&mut self, entry: &Entry) -> Option<Item> {
        let field = join(self.facts.name, &entry.key);
        let attributes = self.facts.attributes();
        if self.facts.kind == Kind::Gossfile && entry.value.kind() == yaml::Kind::Null {
            return Some(Item::Include(Include { pattern: entry.key.clone(), skip: false }));
        }
        let known = self.problems.diagnostics.len();
        let mapping = self.problems.mapping(&entry.value, &field, &attributes)?;
        let has_unknown = self.problems.diagnostics.len() > known;
        let Value::Mapping(entries) = &entry.value.value else { return None };
        let fields = Fields { field: &field, entries };

        let skip = self.boolean(&fields, "skip");
        if self.facts.kind == Kind::Gossfile {
            let pattern = self.text(&fields, "file").unwrap_or_else(|| entry.key.clone());
            return Some(Item::Include(Include { pattern, skip }));
        }
        let title = self.text(&fields, "title").filter(|title| !title.is_empty());
        let meta = self.meta(&fields);
        let subject = Subject::read(self, &fields, &entry.key);
        let assertions = self.assertions(&fields, subject.as_ref());
        // Beside a misspelt attribute a missing one is no news.
        if let Some(required) = self.facts.required
            && !has_unknown
            && !skip
            && !fields.has(required)
            && !(required == "resolvable" && fields.has("resolveable"))
        {
            mapping.require(required, self.problems);
        }
        let id = entry.key.clone();
        Some(Item::Resource(Box::new(Resource {
            kind: self.facts.kind,
            id,
            title,
            meta,
            skip,
            subject: subject?,
            assertions,
        })))
    }

    fn assertions(&mut self, fields: &Fields<'_>, subject: Option<&Subject>) -> Vec<Assertion> {
        let mut assertions = Vec::new();
        for entry in fields.entries {
            let Some(attribute) = self.facts.assertions.iter().find(|attribute| attribute.name == entry.key) else {
                continue;
            };
            let required = self.facts.required == Some(attribute.name);
            let is_empty_list = matches!(&entry.value.value, Value::Sequence(nodes) if nodes.is_empty());
            if entry.value.kind() == yaml::Kind::Null || (is_empty_list && !required) {
                continue;
            }
            let as_reader = matches!(subject, Some(Subject::Matching { as_reader: true, .. }));
            let lines = attribute.shape == Shape::Text || as_reader;
            let field = join(fields.field, attribute.name);
            let mut reading = Reading { problems: &mut *self.problems, expressions: &mut *self.expressions };
            if let Some(expectation) = Expectation::parse(&entry.value, lines, &field, &mut reading) {
                assertions.push(Assertion { attribute, expectation });
            }
        }
        // Stable: the others keep the order of the file.
        assertions.sort_by_key(|assertion| self.facts.required != Some(assertion.attribute.property));
        assertions
    }

    fn meta(&mut self, fields: &Fields<'_>) -> Meta {
        let Some(node) = fields.get("meta") else { return Meta::default() };
        let field = join(fields.field, "meta");
        let Some(entries) = self.problems.entries(node, &field) else { return Meta::default() };
        // Of a file or a process it is no more than the author's remark.
        let user = entries.iter().find(|entry| entry.key == "user").filter(|_| self.facts.kind == Kind::Command);
        if let Some(user) = user
            && !matches!(user.value.scalar(), Some("root" | "learner"))
        {
            self.problems.wrong_type(&user.value, &join(&field, "user"), "`root` or `learner`");
        }
        for entry in entries.iter().filter(|entry| matches!(entry.key.as_str(), "message" | "hint" | "reveal")) {
            let field = join(&field, &entry.key);
            if entry.key == "reveal" {
                self.problems.boolean(&entry.value, &field);
                continue;
            }
            let Value::Mapping(texts) = &entry.value.value else {
                self.problems.string(&entry.value, &field);
                continue;
            };
            let properties: Vec<&str> = self.facts.assertions.iter().map(|attribute| attribute.name).collect();
            self.problems.mapping(&entry.value, &field, &properties);
            for text in texts {
                self.problems.string(&text.value, &join(&field, &text.key));
            }
        }
        Meta { raw: Some(node.to_json()) }
    }

    /// The text of a scalar, whatever its kind.
    pub(super) fn text(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        let node = fields.get(key)?;
        let text = node.scalar();
        if text.is_none() {
            self.problems.wrong_type(node, &join(fields.field, key), "a string");
        }
        text.map(str::to_owned)
    }

    pub(super) fn boolean(&mut self, fields: &Fields<'_>, key: &str) -> bool {
        let Some(node) = fields.get(key) else { return false };
        self.problems.boolean(node, &join(fields.field, key)).unwrap_or_default()
    }

    pub(super) fn texts(&mut self, fields: &Fields<'_>, key: &str) -> Vec<String> {
        let Some(node) = fields.get(key) else { return Vec::new() };
        let field = join(fields.field, key);
        let nodes = self.problems.list(node, &field).unwrap_or_default();
        let mut texts = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            match node.scalar() {
                Some(text) => texts.push(text.to_owned()),
                None => self.problems.wrong_type(node, &format!("{field}[{index}]"), "a string"),
            }
        }
        texts
    }

    /// A whole number from zero to `most`.
    pub(super) fn count(&mut self, fields: &Fields<'_>, key: &str, most: u64) -> Option<u64> {
        let node = fields.get(key)?;
        let number = node.to_json().as_u64().filter(|number| *number <= most);
        if number.is_none() {
            let expected = format!("a whole number from 0 to {most}");
            self.problems.wrong_type(node, &join(fields.field, key), &expected);
        }
        number
    }

    /// Milliseconds, or a duration like `2s`; zero stands for `usual`.
    pub(super) fn time(&mut self, fields: &Fields<'_>, key: &str, usual: Duration) -> Duration {
        /// No check waits longer.
        const MOST: u64 = 600_000;
        let Some(node) = fields.get(key) else { return usual };
        let text = node.scalar().unwrap_or_default();
        let written = match node.to_json() {
            Json::Number(number) => number.as_u64().map(Duration::from_millis),
            _ => text.parse::<crate::domain::duration::Duration>().ok().map(Into::into),
        };
        let Some(written) = written.filter(|time| *time <= Duration::from_millis(MOST)) else {
            let expected = "milliseconds from 0 to 600000, or a duration like `2s`";
            self.problems.wrong_type(node, &join(fields.field, key), expected);
            return usual;
        };
        if written.is_zero() { usual } else { written }
    }
}

/// The attributes of one resource, as nodes.
pub(super) struct Fields<'n> {
    pub(super) field: &'n str,
    pub(super) entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The value of `key`; null is as good as absence.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(&entry.value).filter(|node| node.kind() != yaml::Kind::Null)
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}
