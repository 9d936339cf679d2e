//! `step-spec.yaml` from its text, all problems at once, its sources looked up in the workshop's tree.

use std::collections::{BTreeMap, HashSet};

use super::files::{ResolveError, check_conflicts, resolve_file};
use super::paths::{check_target, read_mode, read_owner, read_source};
use super::{Content, FileSource, Recipe, RecipeFile, RecipeStep};
use crate::domain::diagnostic::Checked;
use crate::domain::names::{StepId, WorkshopId};
use crate::domain::reference::{BaseImage, ImageName};
use crate::domain::tree::{self, FileTree};
use crate::domain::yaml::{self, Kind, Mapping, Node, Problems, shorten};

/// The most files that the sources of one step may come to.
const MAX_FILES: usize = 100_000;

/// The most steps and the longest one-line text that a template in a cluster may have.
const MAX_STEPS: usize = 200;
const MAX_TEXT: usize = 1024;

const CONTENT_FIELDS: [&str; 3] = ["files", "env", "commands"];

/// Reads the recipe `bytes`; `tree` is the workshop's directory, in which the sources are looked up.
#[must_use]
pub fn parse_recipe(file: &str, bytes: &[u8], tree: &FileTree) -> Checked<Recipe> {
    let Checked { value: document, mut diagnostics } = yaml::parse(file, bytes);
    let Some(document) = document else { return Checked { value: None, diagnostics } };
    let mut reader = Reader { problems: Problems::of(&document), tree };
    let value = reader.recipe(&document.root);
    diagnostics.append(&mut reader.problems.diagnostics);
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    Checked { value, diagnostics }
}

struct Reader<'a> {
    problems: Problems<'a>,
    tree: &'a FileTree,
}

impl Reader<'_> {
    fn recipe(&mut self, root: &Node) -> Option<Recipe> {
        let root = self.problems.mapping(root, "", &["version", "workshop", "base", "steps", "finish"])?;
        if root.require("version", &mut self.problems).is_some() {
            self.problems.version(&root);
        }
        let (id, image) = match self.section(&root, "workshop", &["name", "image"]) {
            Some(workshop) => (self.id(&workshop), self.image(&workshop)),
            None => (None, None),
        };
        let base = self.section(&root, "base", &["image"]).and_then(|base| self.base(&base));
        let steps = self.steps(&root);
        let finish = root.get("finish").and_then(|node| {
            let mapping = self.problems.mapping(node, "finish", &CONTENT_FIELDS)?;
            Some(self.content(&mapping))
        });
        Some(Recipe { id: id?, image: image?, base: base?, steps, finish })
    }

    fn section<'n>(&mut self, root: &Mapping<'n>, key: &str, known: &[&str]) -> Option<Mapping<'n>> {
        let node = root.require(key, &mut self.problems)?;
        let section = self.problems.mapping(node, &root.path(key), known)?;
        Some(section)
    }

    /// The non-empty one-line text of a required field.
    fn text<'n>(&mut self, from: &Mapping<'n>, key: &str) -> Option<(&'n Node, &'n str)> {
        let node = from.require(key, &mut self.problems)?;
        let field = from.path(key);
        let text = self.problems.string(node, &field)?;
        if text.trim().is_empty() {
            self.problems.error("empty", node.place, &field, format!("`{key}` is empty"), "write a text");
            return None;
        }
        if text.chars().any(char::is_control) {
            let message = format!("`{key}` has a line break or another control character");
            self.problems.error("control-character", node.place, &field, message, "write it on one line");
            return None;
        }
        if text.chars().count() > MAX_TEXT {
            let message = format!("`{key}` is longer than {MAX_TEXT} characters");
            self.problems.error("too-long", node.place, &field, message, "shorten it");
            return None;
        }
        Some((node, text))
    }

    fn id(&mut self, workshop: &Mapping<'_>) -> Option<WorkshopId> {
        let (node, text) = self.text(workshop, "name")?;
        let help = "use a-z, 0-9 and - inside, at most 40 characters";
        WorkshopId::parse(text)
            .map_err(|error| {
                let message = format!("the name \"{}\" {}", shorten(text), error.reason);
                self.problems.error("name", node.place, &workshop.path("name"), message, help);
            })
            .ok()
    }

    fn image(&mut self, workshop: &Mapping<'_>) -> Option<ImageName> {
        let (node, text) = self.text(workshop, "image")?;
        let help = "write an image repository without a tag, such as team/first-steps";
        ImageName::parse(text)
            .map_err(|error| {
                let message = format!("the image \"{}\" {}", shorten(text), error.reason);
                self.problems.error("image", node.place, &workshop.path("image"), message, help);
            })
            .ok()
    }

    fn base(&mut self, base: &Mapping<'_>) -> Option<BaseImage> {
        let (node, text) = self.text(base, "image")?;
        let help = "write a reference such as debian:bookworm, or oci:DIR:TAG, oci-archive:FILE, \
                    docker-archive:FILE, scratch";
        BaseImage::parse(text)
            .map_err(|error| {
                let message = format!("the base \"{}\" {}", shorten(text), error.reason);
                self.problems.error("image", node.place, &base.path("image"), message, help);
            })
            .ok()
    }

    fn steps(&mut self, root: &Mapping<'_>) -> Vec<RecipeStep> {
        let Some(node) = root.require("steps", &mut self.problems) else { return Vec::new() };
        let Some(nodes) = self.problems.list(node, "steps") else { return Vec::new() };
        if nodes.is_empty() {
            let help = "add a step: `- id: …` with a `title: …`";
            self.problems.error("no-steps", node.place, "steps", "the recipe has no steps", help);
        }
        if nodes.len() > MAX_STEPS {
            let message = format!("the recipe has {} steps, more than {MAX_STEPS}", nodes.len());
            self.problems.error("too-many-steps", node.place, "steps", message, "divide it into several workshops");
        }
        let mut ids = HashSet::new();
        let known = ["id", "title", "files", "env", "commands"];
        let mut steps = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let Some(mapping) = self.problems.mapping(node, &format!("steps[{index}]"), &known) else { continue };
            let id = self.step_id(&mapping, &mut ids);
            let title = self.text(&mapping, "title").map(|(_, title)| title.to_owned());
            let content = self.content(&mapping);
            if let (Some(id), Some(title)) = (id, title) {
                steps.push(RecipeStep { id, title, content, place: node.place });
            }
        }
        steps
    }

    fn step_id(&mut self, step: &Mapping<'_>, seen: &mut HashSet<String>) -> Option<StepId> {
        let (node, text) = self.text(step, "id")?;
        let field = step.path("id");
        let id = StepId::parse(text).map_err(|error| {
            let message = format!("the step id \"{}\" {}", shorten(text), error.reason);
            let help = "use a-z, 0-9 and - inside, at most 40 characters, not a word of the platform";
            self.problems.error("name", node.place, &field, message, help);
        });
        if !seen.insert(text.to_owned()) {
            let message = format!("the step id \"{}\" is used twice", shorten(text));
            self.problems.error("duplicate-step", node.place, &field, message, "give each step an id of its own");
        }
        id.ok()
    }

    fn content(&mut self, from: &Mapping<'_>) -> Content {
        let files = self.files(from);
        let env = self.env(from);
        let commands = self.commands(from);
        Content { files, env, commands }
    }

    fn files(&mut self, from: &Mapping<'_>) -> Vec<RecipeFile> {
        let field = from.path("files");
        let Some(nodes) = from.get("files").and_then(|node| self.problems.list(node, &field)) else {
            return Vec::new();
        };
        let mut files: Vec<RecipeFile> = Vec::new();
        let mut paths = HashSet::new();
        let mut resolved = BTreeMap::new();
        let mut total = 0;
        for (index, node) in nodes.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let Some(mapping) = self.problems.mapping(node, &field, &["path", "content", "source", "mode", "owner"])
            else {
                continue;
            };
            let path = self.target(&mapping, &mut paths);
            let mode = mapping.get("mode").map(|node| read_mode(node, &mapping.path("mode"), &mut self.problems));
            let owner = mapping.get("owner").map(|node| read_owner(node, &mapping.path("owner"), &mut self.problems));
            let source = read_source(&mapping, &mut self.problems);
            let file = RecipeFile {
                path: path.clone().unwrap_or_else(|| "/".to_owned()),
                source: source.unwrap_or(FileSource::Inline(String::new())),
                mode: mode.flatten(),
                owner: owner.flatten().unwrap_or_default(),
                place: node.place,
            };
            match resolve_file(&file, self.tree) {
                Ok(entries) => {
                    total += entries.len();
                    // Without a target only the source was looked at.
                    if path.is_some() && total <= MAX_FILES {
                        resolved.extend(entries.into_iter().map(|entry| (entry.path.clone(), entry)));
                    }
                }
                Err(error) => self.source_problem(&error, &mapping),
            }
            if path.is_some() {
                files.push(file);
            }
        }
        if total > MAX_FILES {
            let message = format!("the sources come to {total} files, more than {MAX_FILES}");
            self.problems.error("too-many-files", from.place, &field, message, "put them into the base image");
        } else if let Err(error) = check_conflicts(&resolved) {
            let help = "make the upper one a directory, or move the lower one";
            self.problems.error("path-conflict", from.place, &field, error.to_string(), help);
        }
        files
    }

    fn target(&mut self, file: &Mapping<'_>, others: &mut HashSet<String>) -> Option<String> {
        let node = file.require("path", &mut self.problems)?;
        let field = file.path("path");
        let path = self.problems.string(node, &field)?;
        if let Err((message, help)) = check_target(path) {
            self.problems.error("path", node.place, &field, message, help);
            return None;
        }
        if !others.insert(path.to_owned()) {
            let message = format!("the path \"{}\" is given twice in this step; the last one wins", shorten(path));
            self.problems.warning("duplicate-path", node.place, &field, message, "remove one of the two");
        }
        Some(path.to_owned())
    }

    fn source_problem(&mut self, error: &ResolveError, file: &Mapping<'_>) {
        let Some(node) = file.get("source") else { return };
        let from = shorten(node.scalar().unwrap_or_default());
        let (rule, message, help) = match error {
            ResolveError::Source { reason, .. } => {
                let (rule, help) = match reason {
                    tree::ResolveError::Missing(_) => {
                        ("missing-source", "add the file to the workshop's directory, or correct the path")
                    }
                    tree::ResolveError::Outside(_) => {
                        ("source-outside", "copy the file into the workshop's directory; links must stay inside too")
                    }
                    tree::ResolveError::TooManyLinks(_) => ("source-loop", "remove the circle of links"),
                };
                (rule, format!("the source \"{from}\" cannot be used: {reason}"), help)
            }
            ResolveError::LfsPointer { file, .. } => (
                "lfs-pointer",
                format!("\"{file}\" is a Git LFS pointer, not the file itself"),
                "commit the file without LFS; what it points to is not in the repository",
            ),
            ResolveError::Whiteout { file, .. } => (
                "whiteout-name",
                format!("\"{file}\" begins with \".wh.\", which deletes files in image layers"),
                "rename the file",
            ),
            ResolveError::Conflict { .. } => ("path-conflict", error.to_string(), "move one of the two"),
        };
        self.problems.error(rule, node.place, &file.path("source"), message, help);
    }

    fn env(&mut self, from: &Mapping<'_>) -> Vec<(String, String)> {
        let field = from.path("env");
        let Some(entries) = from.get("env").and_then(|node| self.problems.entries(node, &field)) else {
            return Vec::new();
        };
        let mut env = Vec::new();
        for entry in entries {
            let field = yaml::join(&field, &entry.key);
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let valid = !entry.key.is_empty()
                && entry.key.bytes().all(letters)
                && !entry.key.starts_with(|first: char| first.is_ascii_digit());
            if !valid {
                let message = format!("\"{}\" is no name of an environment variable", shorten(&entry.key));
                let help = "use letters, digits and `_`, and no digit first";
                self.problems.error("env-name", entry.key_place, &field, message, help);
            }
            let value = if entry.value.kind() == Kind::Null {
                self.problems.error(
                    "wrong-type",
                    entry.key_place,
                    &field,
                    "expected a string, found nothing (null)",
                    "write \"\" for an empty value",
                );
                None
            } else {
                self.problems.string(&entry.value, &field)
            };
            if value.is_some_and(|value| value.contains('\0')) {
                let message = format!("the value of \"{}\" has a NUL character", shorten(&entry.key));
                self.problems.error("control-character", entry.value.place, &field, message, "remove it");
            }
            env.extend(value.filter(|_| valid).map(|value| (entry.key.clone(), value.to_owned())));
        }
        env.sort();
        env
    }

    fn commands(&mut self, from: &Mapping<'_>) -> Vec<String> {
        let field = from.path("commands");
        let Some(nodes) = from.get("commands").and_then(|node| self.problems.list(node, &field)) else {
            return Vec::new();
        };
        let mut commands = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let Some(command) = self.problems.string(node, &field) else { continue };
            if command.trim().is_empty() {
                self.problems.error("empty", node.place, &field, "the command is empty", "write a command");
            } else if command.contains('\0') {
                self.problems.error(
                    "control-character",
                    node.place,
                    &field,
                    "the command has a NUL character",
                    "remove it",
                );
            } else {
                commands.push(command.to_owned());
            }
        }
        commands
    }
}
