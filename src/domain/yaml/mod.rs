//! YAML text as a tree of nodes that know their place.
//!
//! Read with granit-parser's events instead of serde, because serde stops at the first problem and a workshop's
//! author gets all of them at once. Parsing is in `parse`, reading field by field in `read`; writing YAML is not
//! here: see `serde_yaml`.

mod parse;
mod read;

pub use parse::{parse, parse_within};
pub use read::{Mapping, Problems, join, nearest, shorten};

use super::diagnostic::Place;

/// The bounds of one document.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest file, and the most text that aliases may copy, in bytes.
    pub bytes: usize,
    /// The longest line, in bytes.
    pub line: usize,
    /// The most nodes, aliases expanded.
    pub nodes: usize,
}

impl Limits {
    /// For files that people write.
    pub const AUTHORED: Self = Self { bytes: 4 << 20, line: 256 << 10, nodes: 200_000 };
}

/// The deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// A node of a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A scalar's text; `plain` when it is not quoted and no block, so that its type is read from its text.
    Scalar {
        /// The text after escapes.
        text: String,
        /// Neither quoted nor a block scalar nor tagged as a string.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with their values in the order of the file; keys are unique (a duplicate was reported and left out).
    Mapping(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key begins.
    pub key_place: Place,
    /// Its value.
    pub value: Node,
}

/// What YAML 1.2's core schema makes of a plain scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    String,
    /// An integer.
    Integer,
    /// A number with a fraction or exponent.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Nothing, `~` or `null`.
    Null,
    /// A list.
    Sequence,
    /// A mapping.
    Mapping,
}

impl Kind {
    /// The kind with its article, for messages.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "nothing (null)",
            Self::Sequence => "a list",
            Self::Mapping => "a mapping",
        }
    }
}

impl Node {
    /// The node's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.value {
            Value::Sequence(_) => Kind::Sequence,
            Value::Mapping(_) => Kind::Mapping,
            Value::Scalar { plain: false, .. } => Kind::String,
            Value::Scalar { text, plain: true } => plain_kind(text),
        }
    }

    /// The scalar's text, whatever its kind; none for lists and mappings.
    #[must_use]
    pub fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The node that a path of keys leads to, through mappings only.
    #[must_use]
    pub fn find(&self, path: &[&str]) -> Option<&Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == *first)?.value.find(rest),
            _ => None,
        }
    }

    /// The value as JSON, by YAML 1.2's core schema.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match (&self.value, self.kind()) {
            (Value::Sequence(nodes), _) => Json::Array(nodes.iter().map(Self::to_json).collect()),
            (Value::Mapping(entries), _) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
            (Value::Scalar { .. }, Kind::Null) => Json::Null,
            (Value::Scalar { text, .. }, Kind::Boolean) => Json::Bool(text.eq_ignore_ascii_case("true")),
            (Value::Scalar { text, .. }, Kind::Integer | Kind::Number) => {
                let plain = text.strip_prefix('+').unwrap_or(text);
                plain
                    .parse::<i64>()
                    .map(Json::from)
                    .or_else(|_| plain.parse::<f64>().map(Json::from))
                    .unwrap_or_else(|_| Json::String(text.clone()))
            }
            (Value::Scalar { text, .. }, _) => Json::String(text.clone()),
        }
    }
}

fn plain_kind(text: &str) -> Kind {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Boolean,
        _ if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => Kind::Integer,
        _ if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
            && digits.contains(|any: char| any.is_ascii_digit())
            && text.parse::<f64>().is_ok() =>
        {
            Kind::Number
        }
        _ => Kind::String,
    }
}

/// A parsed file: its name and text for diagnostics, and the tree.
#[derive(Debug)]
pub struct Document<'a> {
    /// The file's name, for diagnostics.
    pub file: &'a str,
    /// The file's text.
    pub text: &'a str,
    /// The root node.
    pub root: Node,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_core_schemas_kinds() {
        for (text, kind) in [
            ("0644", Kind::Integer),
            ("'0644'", Kind::String),
            ("yes", Kind::String),
            ("true", Kind::Boolean),
            ("1.5", Kind::Number),
            ("1e3", Kind::Number),
            ("~", Kind::Null),
            ("v1", Kind::String),
            ("10m", Kind::String),
            ("inf", Kind::String),
            ("-", Kind::Sequence),
        ] {
            let parsed = parse("f", text.as_bytes());
            assert_eq!(parsed.value.map(|document| document.root.kind()), Some(kind), "{text}");
        }
    }
}
