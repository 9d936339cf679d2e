//! Nodes to values, field by field: collects the problems of one document and words the common ones.

use std::borrow::Cow;

use super::{Document, Entry, Kind, Node, Value};
use crate::domain::diagnostic::{Diagnostic, Place};

/// Collects the problems of one document and words the common ones.
#[derive(Debug)]
pub struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    /// What was found so far.
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a> Problems<'a> {
    /// A collector for `document`.
    #[must_use]
    pub const fn of(document: &Document<'a>) -> Self {
        Self { file: document.file, text: document.text, diagnostics: Vec::new() }
    }

    /// Adds an error at `place` of the field `field`.
    pub fn error(
        &mut self,
        rule: &'static str,
        place: Place,
        field: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::error(rule, self.file, message).at(place, self.text).field(field).help(help));
    }

    /// Adds a warning at `place` of the field `field`.
    pub fn warning(
        &mut self,
        rule: &'static str,
        place: Place,
        field: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics
            .push(Diagnostic::warning(rule, self.file, message).at(place, self.text).field(field).help(help));
    }

    /// Adds a wrong-type error that names what was expected, e.g. `a list`.
    pub fn wrong_type(&mut self, node: &Node, field: &str, expected: &str) {
        let found: Cow<'_, str> = match node.scalar() {
            Some(text) if node.kind() != Kind::Null => format!("{} `{}`", node.kind().phrase(), shorten(text)).into(),
            _ => node.kind().phrase().into(),
        };
        let help = match (expected, node.scalar()) {
            ("a string", Some(text)) if node.kind() != Kind::Null => format!("put it in quotes: \"{}\"", shorten(text)),
            _ => format!("write {expected}"),
        };
        self.error("wrong-type", node.place, field, format!("expected {expected}, found {found}"), help);
    }

    /// The node's text when it is a string.
    pub fn string<'n>(&mut self, node: &'n Node, field: &str) -> Option<&'n str> {
        if node.kind() == Kind::String {
            node.scalar()
        } else {
            self.wrong_type(node, field, "a string");
            None
        }
    }

    /// The node's value when it is a boolean.
    pub fn boolean(&mut self, node: &Node, field: &str) -> Option<bool> {
        if node.kind() == Kind::Boolean {
            node.scalar().map(|text| text.eq_ignore_ascii_case("true"))
        } else {
            self.wrong_type(node, field, "true or false");
            None
        }
    }

    /// The node's items when it is a list.
    pub fn list<'n>(&mut self, node: &'n Node, field: &str) -> Option<&'n [Node]> {
        if let Value::Sequence(nodes) = &node.value {
            Some(nodes)
        } else {
            self.wrong_type(node, field, "a list");
            None
        }
    }

    /// The node's entries when it is a mapping, whatever its keys.
    pub fn entries<'n>(&mut self, node: &'n Node, field: &str) -> Option<&'n [Entry]> {
        if let Value::Mapping(entries) = &node.value {
            Some(entries)
        } else {
            self.wrong_type(node, field, "a mapping");
            None
        }
    }

    /// Checks that `version`, where it is given, is one that this program reads.
    pub fn version(&mut self, mapping: &Mapping<'_>) {
        let Some(node) = mapping.get("version") else { return };
        let field = mapping.path("version");
        if let Some(text) = self.string(node, &field)
            && text != "v1"
        {
            self.error(
                "unknown-version",
                node.place,
                &field,
                format!("unknown version \"{}\"", shorten(text)),
                "write `v1`, the one version that this program reads",
            );
        }
    }

    /// The node as a mapping with the given fields; any other field is an error that suggests the nearest one.
    pub fn mapping<'n>(&mut self, node: &'n Node, field: &str, known: &[&str]) -> Option<Mapping<'n>> {
        let entries = self.entries(node, field)?;
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let help = match nearest(&entry.key, known) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("the fields here are: {}", known.join(", ")),
                };
                let path = join(field, &entry.key);
                self.error(
                    "unknown-field",
                    entry.key_place,
                    &path,
                    format!("unknown field \"{}\"", shorten(&entry.key)),
                    help,
                );
            }
        }
        Some(Mapping { place: node.place, path: field.to_owned(), entries })
    }
}

/// A mapping whose fields are read by name.
#[derive(Debug)]
pub struct Mapping<'n> {
    /// Where the mapping begins.
    pub place: Place,
    path: String,
    entries: &'n [Entry],
}

impl<'n> Mapping<'n> {
    /// The value of `key`; an explicit null is as good as absence.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
            .filter(|node| node.kind() != Kind::Null)
    }

    /// The value of `key`, whose absence is an error at the mapping's first line.
    pub fn require(&self, key: &str, problems: &mut Problems<'_>) -> Option<&'n Node> {
        let node = self.get(key);
        if node.is_none() {
            problems.error(
                "missing-field",
                self.place,
                &self.path(key),
                format!("the field \"{key}\" is missing"),
                format!("add `{key}:`"),
            );
        }
        node
    }

    /// The field path of `key`.
    #[must_use]
    pub fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

/// The field path of `key` below `path`.
#[must_use]
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The text, cut for a message.
#[must_use]
pub fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(79).chain(['…']).collect() }
}

/// The known name within two edits of `text`, if any.
#[must_use]
pub fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    if text.len() > 60 {
        return None;
    }
    known
        .iter()
        .map(|name| (distance(&text.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's edit distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let cost = if a == *b { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_suggest_the_nearest() {
        assert_eq!(nearest("comands", &["commands", "files"]), Some("commands"));
        assert_eq!(nearest("zzz", &["commands", "files"]), None);
    }
}
