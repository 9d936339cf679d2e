//! YAML text as a tree of nodes that know their place, and the reading of such nodes field by field.
//!
//! Reads with granit-parser's events instead of serde, because serde stops at the first problem and a workshop's
//! author gets all of them at once. Writing YAML is not here: see `serde_yaml`.

use std::borrow::Cow;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use super::diagnostic::{Checked, Diagnostic, Place};

/// The largest YAML file, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// The longest line, in bytes.
pub const MAX_LINE: usize = 256 << 10;
/// The deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// The most nodes, aliases expanded.
pub const MAX_NODES: usize = 200_000;

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

/// Parses one YAML document; duplicate keys are reported at their second occurrence and reading goes on.
#[must_use]
pub fn parse<'a>(file: &'a str, bytes: &'a [u8]) -> Checked<Document<'a>> {
    let mut diagnostics = Vec::new();
    let value = parse_text(file, bytes, &mut diagnostics);
    let value = value.and_then(|text| match build(file, text, &mut diagnostics) {
        Ok(root) => Some(Document { file, text, root }),
        Err(diagnostic) => {
            diagnostics.push(*diagnostic);
            None
        }
    });
    Checked { value, diagnostics }
}

fn parse_text<'a>(file: &str, bytes: &'a [u8], diagnostics: &mut Vec<Diagnostic>) -> Option<&'a str> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than the {MAX_BYTES} that are read", bytes.len());
        diagnostics.push(
            Diagnostic::error("too-large", file, message).help("move large contents into files named by `source`"),
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let place = place_of_offset(bytes, error.valid_up_to());
            let message = format!("byte {} is not valid UTF-8", error.valid_up_to());
            diagnostics.push(
                Diagnostic {
                    line: Some(place.line),
                    column: Some(place.column),
                    ..Diagnostic::error("not-utf8", file, message)
                }
                .help("save the file as UTF-8"),
            );
            return None;
        }
    };
    if let Some((index, line)) = text.split('\n').enumerate().find(|(_, line)| line.len() > MAX_LINE) {
        let message = format!("the line has {} bytes, more than the {MAX_LINE} that are read", line.len());
        let place = Place { line: index as u32 + 1, column: 1 };
        diagnostics.push(
            Diagnostic::error("line-too-long", file, message)
                .at(place, text)
                .help("break the line, or move it into a file named by `source`"),
        );
        return None;
    }
    Some(text)
}

fn place_of_offset(bytes: &[u8], offset: usize) -> Place {
    let before = &bytes[..offset];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |index| index + 1);
    Place {
        line: before.iter().filter(|&&byte| byte == b'\n').count() as u32 + 1,
        column: String::from_utf8_lossy(&before[line_start..]).chars().count() as u32 + 1,
    }
}

const fn place_of(line: usize, col: usize) -> Place {
    Place { line: line as u32, column: col as u32 + 1 }
}

/// A collection that is being read.
enum Open {
    Sequence { place: Place, anchor: usize, nodes: Vec<Node> },
    Mapping { place: Place, anchor: usize, entries: Vec<Entry>, key: Option<(String, Place)> },
}

struct Builder<'a, 'd> {
    file: &'a str,
    text: &'a str,
    diagnostics: &'d mut Vec<Diagnostic>,
    stack: Vec<Open>,
    anchors: std::collections::HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

type Fatal = Box<Diagnostic>;

fn build(file: &str, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Result<Node, Fatal> {
    let mut options = Options::default();
    options.emit_comments = false;
    let mut builder = Builder {
        file,
        text,
        diagnostics,
        stack: Vec::new(),
        anchors: std::collections::HashMap::new(),
        nodes: 0,
        root: None,
    };
    let mut documents = 0;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            let place = place_of(error.marker().line(), error.marker().col());
            builder.fatal(
                "syntax",
                place,
                format!("this is not YAML: {}", error.kind()),
                "correct the syntax at this place",
            )
        })?;
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
            if documents > 1 {
                let place = place_of(span.start.line(), span.start.col());
                return Err(builder.fatal(
                    "many-documents",
                    place,
                    "a second YAML document begins here",
                    "keep one document in the file",
                ));
            }
        }
        builder.event(event, &span)?;
    }
    builder.root.ok_or_else(|| {
        Box::new(
            Diagnostic::error("empty", file, "the file is empty")
                .at(place_of(1, 0), text)
                .help("write the fields that the format requires"),
        )
    })
}

impl Builder<'_, '_> {
    fn fatal(&self, rule: &'static str, place: Place, message: impl Into<String>, help: &str) -> Fatal {
        Box::new(Diagnostic::error(rule, self.file, message).at(place, self.text).help(help))
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Fatal> {
        let place = place_of(span.start.line(), span.start.col());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = self.core_tag(tag.as_deref(), place)?;
                let plain = style == ScalarStyle::Plain && tag.as_deref() != Some("str");
                self.complete(Node { place, value: Value::Scalar { text: text.into_owned(), plain } }, anchor, 1)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.core_tag(tag.as_deref(), place)?;
                self.open(Open::Sequence { place, anchor, nodes: Vec::new() }, place)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.core_tag(tag.as_deref(), place)?;
                self.open(Open::Mapping { place, anchor, entries: Vec::new(), key: None }, place)?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::Sequence { place, anchor, nodes }) => {
                    self.complete(Node { place, value: Value::Sequence(nodes) }, anchor, 1)?;
                }
                Some(Open::Mapping { place, anchor, entries, .. }) => {
                    self.complete(Node { place, value: Value::Mapping(entries) }, anchor, 1)?;
                }
                None => {}
            },
            Event::Alias(id) => {
                let (node, weight) = self.anchors.get(&id).cloned().ok_or_else(|| {
                    self.fatal("alias", place, "this alias stands inside of what it names", "write the value out")
                })?;
                // The weight is charged before the copy is kept, so that a bomb of aliases ends at the budget.
                self.complete(Node { place, ..node }, 0, weight)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn core_tag(&self, tag: Option<&granit_parser::Tag>, place: Place) -> Result<Option<String>, Fatal> {
        match tag {
            None => Ok(None),
            Some(tag) if tag.is_yaml_core_schema() => Ok(tag.core_suffix().map(str::to_owned)),
            Some(tag) => Err(self.fatal(
                "tag",
                place,
                format!("the tag \"{}\" has no meaning here", tag.original()),
                "remove the tag",
            )),
        }
    }

    fn open(&mut self, open: Open, place: Place) -> Result<(), Fatal> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.fatal(
                "too-deep",
                place,
                format!("the nesting is deeper than {MAX_DEPTH}"),
                "flatten the structure",
            ));
        }
        if let Some(Open::Mapping { key: None, .. }) = self.stack.last() {
            return Err(self.fatal("key", place, "a key is a list or a mapping", "use plain text as the key"));
        }
        self.stack.push(open);
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), Fatal> {
        self.nodes += weight;
        if self.nodes > MAX_NODES {
            return Err(self.fatal(
                "too-many-nodes",
                node.place,
                format!("the document has more than {MAX_NODES} values, aliases counted as often as they are used"),
                "use fewer aliases",
            ));
        }
        if anchor != 0 {
            let weight = weigh(&node);
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { nodes, .. }) => nodes.push(node),
            Some(Open::Mapping { entries, key, .. }) => match key.take() {
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, node.place)),
                    _ => {
                        return Err(self.fatal(
                            "key",
                            node.place,
                            "a key is a list or a mapping",
                            "use plain text as the key",
                        ));
                    }
                },
                Some((key, key_place)) => {
                    if entries.iter().any(|entry| entry.key == key) {
                        let diagnostic =
                            Diagnostic::error("duplicate-key", self.file, format!("the key \"{key}\" is given twice"))
                                .at(key_place, self.text)
                                .field(key)
                                .help("keep one of the two");
                        self.diagnostics.push(diagnostic);
                    } else {
                        entries.push(Entry { key, key_place, value: node });
                    }
                }
            },
        }
        Ok(())
    }
}

fn weigh(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::Sequence(nodes) => nodes.iter().map(weigh).sum(),
        Value::Mapping(entries) => entries.iter().map(|entry| 1 + weigh(&entry.value)).sum(),
    }
}

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

fn shorten(text: &str) -> String {
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

    fn rules(text: &str) -> Vec<(&'static str, u32, u32)> {
        parse("f.yaml", text.as_bytes())
            .diagnostics
            .iter()
            .map(|problem| (problem.rule, problem.line.unwrap_or(0), problem.column.unwrap_or(0)))
            .collect()
    }

    #[test]
    fn broken_documents_are_reported_at_their_place() {
        for (text, expected) in [
            ("a: 1\na: 2\nb: 3\nb: 4\n", vec![("duplicate-key", 2, 1), ("duplicate-key", 4, 1)]),
            ("", vec![("empty", 1, 1)]),
            ("a: 1\n---\nb: 2\n", vec![("many-documents", 2, 1)]),
            ("a: !secret x\n", vec![("tag", 1, 12)]),
            ("? [a]\n: b\n", vec![("key", 1, 3)]),
        ] {
            assert_eq!(rules(text), expected, "{text}");
        }
        assert_eq!(rules("a: [1\n")[0].0, "syntax");
        assert_eq!(rules(&format!("{}{}", "[".repeat(100), "]".repeat(100)))[0].0, "too-deep");
        assert_eq!(rules(&format!("a: {}", "x".repeat(MAX_LINE + 1)))[0].0, "line-too-long");
    }

    #[test]
    fn an_alias_bomb_ends_at_the_budget() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let item = format!("*a{},", level - 1).repeat(10);
            text += &format!("a{level}: &a{level} [{item}]\n");
        }
        assert_eq!(rules(&text)[0].0, "too-many-nodes");
    }

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

    #[test]
    fn unknown_fields_suggest_the_nearest() {
        assert_eq!(nearest("comands", &["commands", "files"]), Some("commands"));
        assert_eq!(nearest("zzz", &["commands", "files"]), None);
    }
}
