//! The files of a workshop that differ, with unified diffs of their text.

use std::collections::BTreeSet;

use serde::Serialize;
use similar::TextDiff;

use super::{Content, State, View};
use crate::domain::export::{self, Layout, emit::emit};
use crate::domain::tree::{FileTree, TreeEntry};

/// Texts above this size are compared but not shown line by line, in bytes: the comparison is quadratic at worst.
const MAX_SHOWN: usize = 512 << 10;
/// The same limit in lines.
const MAX_LINES: usize = 10_000;
/// The unchanged lines around each change.
const CONTEXT: usize = 3;

/// One file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path from the root of the second side, of the first for a removed one.
    pub path: String,
    /// What became of it.
    pub state: State,
    /// The unified diff; none for a file that is no text or too large to show.
    pub diff: Option<String>,
}

/// The files of two workshops that differ, in the form that both sides have: their own files, else the rows as an
/// export, else the template.
pub(super) fn compare_files(before: Option<&View>, after: Option<&View>) -> Vec<FileChange> {
    let level = [before, after].into_iter().flatten().map(level).min().unwrap_or(Level::Template);
    // Rows say nothing of how workspaces run, so beside them a template's settings are no difference.
    let with_settings = [before, after].into_iter().flatten().all(|view| view.workspace().is_some());
    let files = |view: Option<&View>| view.map(|view| files_of(view, level, with_settings)).unwrap_or_default();
    let name = |view: Option<&View>, file: &str| match view.and_then(|view| view.path.as_deref()) {
        Some(path) if !path.is_empty() && level == Level::Files => format!("{path}/{file}"),
        _ => file.to_owned(),
    };
    let (old, new) = (files(before), files(after));
    let paths: BTreeSet<&str> = old.iter().chain(new.iter()).map(|(path, _)| path).collect();
    paths
        .into_iter()
        .filter(|path| old.get(path) != new.get(path))
        .map(|path| {
            let state = match (old.get(path), new.get(path)) {
                (None, _) => State::Added,
                (_, None) => State::Removed,
                _ => State::Changed,
            };
            let (old_name, new_name) = (name(before.or(after), path), name(after.or(before), path));
            let diff = unified(old.get(path), new.get(path), &old_name, &new_name);
            FileChange { path: if state == State::Removed { old_name } else { new_name }, state, diff }
        })
        .collect()
}

/// How much two sides have in common, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Template,
    Rows,
    Files,
}

fn level(view: &View) -> Level {
    match view.content {
        Content::Files { .. } | Content::Broken { .. } => Level::Files,
        Content::Rows(_) => Level::Rows,
        Content::Template { .. } => Level::Template,
    }
}

fn files_of(view: &View, level: Level, with_settings: bool) -> FileTree {
    let mut files = FileTree::default();
    match (level, &view.content) {
        (Level::Files, Content::Files { tree, .. } | Content::Broken { tree, .. }) => return tree.clone(),
        (Level::Files | Level::Rows, _) => {
            let rendered = view
                .definition()
                .and_then(|definition| export::render(&definition, Layout::Tree, &export::State::default()).ok());
            for (path, entry) in rendered.iter().flat_map(FileTree::iter) {
                files.insert(format!("export/{path}"), entry.clone());
            }
        }
        (Level::Template, _) => {
            let settings = view.workspace().filter(|_| with_settings);
            let template = serde_json::json!({ "defaults": settings, "steps": view.lines() });
            if let Ok(text) = emit(&template) {
                let id = view.id.as_deref().unwrap_or_default();
                files.insert_file(format!("WorkspaceTemplate/{id}.yaml"), text.into_bytes(), false);
            }
        }
    }
    files
}

/// The unified diff of two entries; none where one is no text or is too large.
fn unified(before: Option<&TreeEntry>, after: Option<&TreeEntry>, old: &str, new: &str) -> Option<String> {
    let (before_text, after_text) = (text_of(before)?, text_of(after)?);
    let name = |entry: Option<&TreeEntry>, side: &str, name: &str| match entry {
        None => "/dev/null".to_owned(),
        Some(_) => format!("{side}/{name}"),
    };
    let (old, new) = (name(before, "a", old), name(after, "b", new));
    let mut text = String::new();
    let (old_mode, new_mode) = (before.map(mode_of), after.map(mode_of));
    if let (Some(old_mode), Some(new_mode)) = (old_mode, new_mode)
        && old_mode != new_mode
    {
        text = format!("--- {old}\n+++ {new}\nold mode {old_mode}\nnew mode {new_mode}\n");
        if before_text == after_text {
            return Some(text);
        }
        text.clear();
        text += &format!("old mode {old_mode}\nnew mode {new_mode}\n");
    }
    let diff = TextDiff::from_lines(before_text, after_text);
    let shown = diff.unified_diff().context_radius(CONTEXT).header(&old, &new).to_string();
    if shown.is_empty() {
        // An empty file that came or went has no lines to show.
        return Some(format!("{text}--- {old}\n+++ {new}\n"));
    }
    Some(text + &shown)
}

fn mode_of(entry: &TreeEntry) -> &'static str {
    match entry {
        TreeEntry::File { executable: false, .. } => "100644",
        TreeEntry::File { executable: true, .. } => "100755",
        TreeEntry::Link { .. } => "120000",
    }
}

fn text_of(entry: Option<&TreeEntry>) -> Option<&str> {
    let text = match entry {
        None => "",
        Some(TreeEntry::Link { target }) => target,
        Some(TreeEntry::File { bytes, .. }) => std::str::from_utf8(bytes).ok()?,
    };
    let is_shown = text.len() <= MAX_SHOWN && !text.contains('\0') && text.lines().count() <= MAX_LINES;
    is_shown.then_some(text)
}
