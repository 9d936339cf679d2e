//! Bytes to nodes, within bounds of size, depth and number; what a field means is not decided here.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use super::read::{join, shorten};
use super::{Document, Entry, Limits, MAX_DEPTH, Node, Value};
use crate::domain::diagnostic::{Checked, Diagnostic, Place};

/// Parses one YAML document; duplicate keys are reported at their second occurrence and reading goes on.
#[must_use]
pub fn parse<'a>(file: &'a str, bytes: &'a [u8]) -> Checked<Document<'a>> {
    parse_within(file, bytes, Limits::AUTHORED)
}

/// As [`parse`], with bounds of its own.
#[must_use]
pub fn parse_within<'a>(file: &'a str, bytes: &'a [u8], limits: Limits) -> Checked<Document<'a>> {
    let mut diagnostics = Vec::new();
    let value = parse_text(file, bytes, limits, &mut diagnostics);
    let value = value.and_then(|text| match build(file, text, limits, &mut diagnostics) {
        Ok(root) => Some(Document { file, text, root }),
        Err(diagnostic) => {
            diagnostics.push(*diagnostic);
            None
        }
    });
    Checked { value, diagnostics }
}

fn parse_text<'a>(file: &str, bytes: &'a [u8], limits: Limits, diagnostics: &mut Vec<Diagnostic>) -> Option<&'a str> {
    if bytes.len() > limits.bytes {
        let message = format!("the file has {} bytes, more than the {} that are read", bytes.len(), limits.bytes);
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
    if let Some((index, line)) = text.split('\n').enumerate().find(|(_, line)| line.len() > limits.line) {
        let message = format!("the line has {} bytes, more than the {} that are read", line.len(), limits.line);
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

/// The place itself, or the end of the last line for one behind it, as at an unexpected end of the file.
fn clamp(place: Place, text: &str) -> Place {
    let last = text.lines().count().max(1);
    if (place.line as usize) <= last {
        return place;
    }
    place_of(last, text.lines().next_back().map_or(0, |line| line.chars().count()))
}

/// The first tab in an indentation from line `from` on.
fn tab_indentation(text: &str, from: u32) -> Option<Place> {
    (1..).zip(text.lines()).skip_while(|(number, _)| *number < from).find_map(|(number, line)| {
        let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
        let column = line[..indentation].find('\t')? as u32 + 1;
        Some(Place { line: number, column })
    })
}

/// A collection that is being read.
enum Open {
    Sequence { place: Place, anchor: usize, nodes: Vec<Node> },
    Mapping { place: Place, anchor: usize, entries: Vec<Entry>, seen: HashSet<String>, key: Option<(String, Place)> },
}

struct Builder<'a, 'd> {
    file: &'a str,
    text: &'a str,
    diagnostics: &'d mut Vec<Diagnostic>,
    stack: Vec<Open>,
    limits: Limits,
    anchors: HashMap<usize, (Node, Weight)>,
    nodes: usize,
    /// The bytes of text that anchors and aliases have copied.
    copied: usize,
    root: Option<Node>,
}

/// The most duplicate keys that are reported one by one.
const MAX_DUPLICATES: usize = 200;

type Fatal = Box<Diagnostic>;

fn build(file: &str, text: &str, limits: Limits, diagnostics: &mut Vec<Diagnostic>) -> Result<Node, Fatal> {
    let mut options = Options::default();
    options.emit_comments = false;
    let mut builder = Builder {
        file,
        text,
        diagnostics,
        stack: Vec::new(),
        limits,
        anchors: HashMap::new(),
        nodes: 0,
        copied: 0,
        root: None,
    };
    let mut documents = 0;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            let message = format!("this is not YAML: {}", error.kind());
            let place = place_of(error.marker().line(), error.marker().col());
            // The scanner names the scalar before; the tab to remove is further on.
            let tab = message.contains("tab").then(|| tab_indentation(text, place.line)).flatten();
            let help = match tab {
                Some(_) => "indent with spaces, YAML allows no tabs there",
                None => "correct the syntax at this place",
            };
            builder.fatal("syntax", tab.unwrap_or(place), message, help)
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
        let place = clamp(place, self.text);
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
                self.open(
                    Open::Mapping { place, anchor, entries: Vec::new(), seen: HashSet::new(), key: None },
                    place,
                )?;
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
                let unknown = "this alias stands inside of what it names";
                let Some(weight) = self.anchors.get(&id).map(|(_, weight)| *weight) else {
                    return Err(self.fatal("alias", place, unknown, "write the value out"));
                };
                // Charged before the copy is made, so that a bomb of aliases ends at the budget.
                self.charge_copy(weight.bytes, place)?;
                if let Some((node, _)) = self.anchors.get(&id).cloned() {
                    self.complete(Node { place, ..node }, 0, weight.nodes)?;
                }
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

    fn charge_copy(&mut self, bytes: usize, place: Place) -> Result<(), Fatal> {
        self.copied += bytes;
        if self.copied <= self.limits.bytes {
            return Ok(());
        }
        let message = format!("aliases copy more than the {} bytes that a file may have", self.limits.bytes);
        Err(self.fatal("too-large", place, message, "use fewer aliases"))
    }

    fn complete(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), Fatal> {
        self.nodes += weight;
        if self.nodes > self.limits.nodes {
            return Err(self.fatal(
                "too-many-nodes",
                node.place,
                format!(
                    "the document has more than {} values, aliases counted as often as they are used",
                    self.limits.nodes
                ),
                "use fewer aliases",
            ));
        }
        if anchor != 0 {
            let weight = weigh(&node);
            self.charge_copy(weight.bytes, node.place)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { nodes, .. }) => nodes.push(node),
            Some(Open::Mapping { entries, seen, key, .. }) => match key.take() {
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
                Some((key, key_place)) if seen.insert(key.clone()) => {
                    entries.push(Entry { key, key_place, value: node })
                }
                Some((key, key_place)) => self.duplicate(&key, key_place)?,
            },
        }
        Ok(())
    }

    fn duplicate(&mut self, key: &str, place: Place) -> Result<(), Fatal> {
        // Finding the source line costs a walk through the text, so a file of nothing but duplicates is cut short.
        if self.diagnostics.len() >= MAX_DUPLICATES {
            return Err(self.fatal(
                "too-many-problems",
                place,
                "this is one duplicate key too many",
                "keep each key once",
            ));
        }
        let path = join(&self.path(), key);
        let diagnostic =
            Diagnostic::error("duplicate-key", self.file, format!("the key \"{}\" is given twice", shorten(key)))
                .at(place, self.text)
                .field(path)
                .help("keep one of the two");
        self.diagnostics.push(diagnostic);
        Ok(())
    }

    /// The field path of the innermost open collection.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in self.stack.iter().take(self.stack.len().saturating_sub(1)) {
            match open {
                Open::Sequence { nodes, .. } => path += &format!("[{}]", nodes.len()),
                Open::Mapping { key: Some((key, _)), .. } => path = join(&path, key),
                Open::Mapping { key: None, .. } => {}
            }
        }
        path
    }
}

/// What a copy of a node costs.
#[derive(Debug, Clone, Copy)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

fn weigh(node: &Node) -> Weight {
    let sum = |left: Weight, right: Weight| Weight { nodes: left.nodes + right.nodes, bytes: left.bytes + right.bytes };
    let one = Weight { nodes: 1, bytes: 0 };
    match &node.value {
        Value::Scalar { text, .. } => Weight { nodes: 1, bytes: text.len() },
        Value::Sequence(nodes) => nodes.iter().map(weigh).fold(one, sum),
        Value::Mapping(entries) => entries
            .iter()
            .map(|entry| sum(Weight { nodes: 1, bytes: entry.key.len() }, weigh(&entry.value)))
            .fold(one, sum),
    }
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
            ("a:\n  b: x\n \tc: 1\n", vec![("syntax", 3, 2)]),
            ("a: 1\nb: [\n", vec![("syntax", 2, 4)]),
            ("a: 'x\n", vec![("syntax", 1, 6)]),
        ] {
            assert_eq!(rules(text), expected, "{text}");
        }
        assert_eq!(rules("a: [1\n")[0].0, "syntax");
        assert_eq!(rules(&format!("{}{}", "[".repeat(100), "]".repeat(100)))[0].0, "too-deep");
        assert_eq!(rules(&format!("a: {}", "x".repeat(Limits::AUTHORED.line + 1)))[0].0, "line-too-long");
    }

    #[test]
    fn copies_of_a_large_text_end_at_the_budget() {
        let text = format!("a: &a |\n{}b: [{}]\n", "  some text\n".repeat(50_000), "*a,\n  ".repeat(1000));
        assert_eq!(rules(&text)[0].0, "too-large");
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
}
