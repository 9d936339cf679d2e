//! Reads an export's files as texts and YAML documents, and words the problems that any of them can have.
//!
//! What the fields mean is decided by the layouts.

use std::collections::BTreeSet;

use crate::domain::definition::nul_offset;
use crate::domain::diagnostic::{Diagnostic, Place};
use crate::domain::tree::{FileTree, TreeEntry};
use crate::domain::yaml::{self, Document, Limits, Node, Problems};

use super::compose::MAX_SIZE;
use super::fields::Placed;
use super::{ASSETS, Layout, WORKSHOP_FILE, state, tables, tree};

/// A table holds whole texts, and one with carriage returns is a single quoted line.
const LIMITS: Limits = Limits { bytes: 2 * MAX_SIZE, line: 2 * MAX_SIZE, nodes: 1_000_000 };
/// The first bytes of what Git LFS leaves in place of a file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// An export's files, and where they are in the source.
#[derive(Debug, Clone)]
pub struct Files<'a> {
    prefix: String,
    tree: &'a FileTree,
}

impl<'a> Files<'a> {
    /// The path from the source's root.
    #[must_use]
    pub fn name(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) }
    }

    /// The text of the file at `path`, empty where there is none.
    #[must_use]
    pub fn text(&self, path: &str) -> &'a str {
        self.tree.file(path).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// True when there is something at `path`.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.tree.get(path).is_some()
    }

    /// An error in the file at `path`, with its place when it is known.
    #[must_use]
    pub fn error(&self, rule: &'static str, path: &str, place: Option<Place>, message: String) -> Diagnostic {
        let diagnostic = Diagnostic::error(rule, self.name(path), message);
        match place {
            Some(place) => diagnostic.at(place, self.text(path)),
            None => diagnostic,
        }
    }
}

/// Reads files and collects their problems.
pub struct Reader<'a> {
    pub files: Files<'a>,
    pub diagnostics: Vec<Diagnostic>,
    known: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub fn new(prefix: &str, tree: &'a FileTree) -> Self {
        let files = Files { prefix: prefix.to_owned(), tree };
        Self { files, diagnostics: Vec::new(), known: BTreeSet::new() }
    }

    /// The paths below the folder `path`, with that whole path still in front.
    pub fn below(&self, path: &str) -> impl Iterator<Item = &'a str> {
        self.files.tree.below(path).map(|(path, _)| path)
    }

    /// The bytes of the file at `path`; absent gives none, a link or an LFS pointer is an error.
    fn bytes(&mut self, path: &str) -> Option<&'a [u8]> {
        self.known.insert(path.to_owned());
        let problem = match self.files.tree.get(path)? {
            TreeEntry::File { bytes, .. } if bytes.starts_with(LFS_POINTER) => self
                .files
                .error("lfs-pointer", path, None, "the file is a Git LFS pointer, not the content".into())
                .help("commit the content itself: texts are small"),
            TreeEntry::File { bytes, .. } => return Some(bytes),
            TreeEntry::Link { target } => self
                .files
                .error("link", path, None, format!("the file is a symbolic link to \"{target}\""))
                .help("commit the content itself in its place"),
        };
        self.diagnostics.push(problem);
        None
    }

    /// The text of the file at `path`, byte for byte.
    pub fn text(&mut self, path: &str) -> Option<String> {
        let bytes = self.bytes(path)?;
        let broken = match std::str::from_utf8(bytes) {
            Ok(text) => match nul_offset(text) {
                None => return Some(text.to_owned()),
                Some(offset) => ("nul", offset, format!("there is a NUL character at byte {offset}"), "remove it"),
            },
            Err(error) => {
                let offset = error.valid_up_to();
                ("not-utf8", offset, format!("byte {offset} is not valid UTF-8"), "save the file as UTF-8")
            }
        };
        let (rule, offset, message, help) = broken;
        let place = place_of_offset(bytes, offset);
        let text = String::from_utf8_lossy(bytes);
        let diagnostic = Diagnostic::error(rule, self.files.name(path), message).at(place, &text).help(help);
        self.diagnostics.push(diagnostic);
        None
    }

    /// Parses the YAML file at `path` and reads it with `read`; absent or unreadable gives none.
    pub fn document<T>(&mut self, path: &str, read: impl FnOnce(&Document<'_>, &mut Problems<'_>) -> T) -> Option<T> {
        let bytes = self.bytes(path)?;
        let name = self.files.name(path);
        let parsed = yaml::parse_within(&name, bytes, LIMITS);
        self.diagnostics.extend(parsed.diagnostics);
        let document = parsed.value?;
        let mut problems = Problems::of(&document);
        let value = read(&document, &mut problems);
        self.diagnostics.append(&mut problems.diagnostics);
        Some(value)
    }

    /// Reports every file that the layout has no place for: a misspelled name must not lose a text silently.
    pub fn report_unknown(&mut self, layout: Layout) {
        let expected: &[&str] = match layout {
            Layout::Tree => &tree::FILES,
            Layout::Tables => &tables::FILES,
        };
        let assets = format!("{ASSETS}/");
        let tree = self.files.tree;
        for (path, _) in tree.iter() {
            if self.known.contains(path) || path.starts_with(&assets) || path.starts_with('.') {
                continue;
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            let nearest =
                [expected, &[WORKSHOP_FILE], &state::FILES].into_iter().find_map(|it| yaml::nearest(name, it));
            let help = match nearest {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("remove it, or move files that learners should see to `{ASSETS}/`"),
            };
            // A README beside the layout's files harms nobody; inside of a step everything has a meaning.
            let harmless = nearest.is_none() && !path.contains('/');
            let diagnostic = self.files.error("unknown-file", path, None, "the export has no such file".into());
            let severity = if harmless { crate::domain::diagnostic::Severity::Warning } else { diagnostic.severity };
            self.diagnostics.push(Diagnostic { severity, ..diagnostic }.help(help));
        }
    }
}

/// A string field's text with its place; a NUL in it is an error.
pub fn string(problems: &mut Problems<'_>, node: &Node, field: &str) -> Option<Placed<String>> {
    let text = problems.string(node, field)?;
    if let Some(offset) = nul_offset(text) {
        let message = format!("the text has a NUL character at byte {offset}");
        problems.error("nul", node.place, field, message, "remove it");
        return None;
    }
    Some(Placed { value: text.to_owned(), place: node.place })
}

/// A string field's text as a name of its kind.
pub fn name<T>(
    problems: &mut Problems<'_>,
    node: &Node,
    field: &str,
    parse: impl FnOnce(&str) -> Result<T, crate::domain::names::InvalidName>,
) -> Option<Placed<T>> {
    match parse(problems.string(node, field)?) {
        Ok(value) => Some(Placed { value, place: node.place }),
        Err(error) => {
            let help = "use at most 40 lowercase letters, digits and hyphens";
            problems.error("invalid-name", node.place, field, error.to_string(), help);
            None
        }
    }
}

fn place_of_offset(bytes: &[u8], offset: usize) -> Place {
    let before = &bytes[..offset];
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |index| index + 1);
    Place {
        line: before.iter().filter(|&&byte| byte == b'\n').count() as u32 + 1,
        column: String::from_utf8_lossy(&before[start..]).chars().count() as u32 + 1,
    }
}
