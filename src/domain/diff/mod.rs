//! What is different between two sets of workshops: which came, went, moved or changed, why images would be built
//! again, and the text of it all.
//!
//! Pure: where the two sides come from (directories, artifacts, commits, a cluster) is the caller's matter. Two sides are
//! compared by what both of them know.

mod rebuild;
mod steps;
mod text;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use text::FileChange;
pub use view::{Content, StepLine, View};

use super::diagnostic::Diagnostic;

/// What became of a workshop or step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// It is at another place; it may have changed as well.
    Moved,
    /// It is different.
    Changed,
    /// It is as it was; a step's image may be built again all the same.
    Unchanged,
    /// One side cannot be read, so that only files were compared.
    Invalid,
}

impl State {
    /// The state's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Moved => "moved",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Invalid => "invalid",
        }
    }
}

/// One workshop that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkshopChange {
    /// Its id; none where neither side can be read.
    pub id: Option<String>,
    /// Its directory, on the second side where that has it; none for artifacts and clusters.
    pub path: Option<String>,
    /// What became of it.
    pub state: State,
    /// The directory it was in, for a moved one.
    pub from: Option<String>,
    /// What changed beside steps, e.g. `workspace.lifecycle.ttl: 4h -> 2h`.
    pub changes: Vec<String>,
    /// The steps that changed or whose images would be built again.
    pub steps: Vec<StepChange>,
    /// The files that changed.
    pub files: Vec<FileChange>,
}

/// One step that changed or whose image would be built again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepChange {
    /// Its id; `finish` for the state after the last step.
    pub id: String,
    /// What became of it.
    pub state: State,
    /// What is different, e.g. `title`, `files: /etc/motd`, `env: PATH`, `commands[2]`.
    pub changes: Vec<String>,
    /// Why its image would be built again; none: it would not, or one side has no recipe.
    pub rebuild: Option<String>,
}

/// Every workshop that differs, sorted by path and id.
#[must_use]
pub fn compare(before: &[View], after: &[View]) -> Vec<WorkshopChange> {
    let pairs = pair(before, after);
    let mut changes: Vec<WorkshopChange> =
        pairs.into_iter().filter_map(|(before, after)| compare_workshop(before, after)).collect();
    changes.sort_by(|left, right| (&left.path, &left.id).cmp(&(&right.path, &right.id)));
    changes
}

/// The problems of all workshops of a side.
#[must_use]
pub fn problems(side: &[View]) -> Vec<Diagnostic> {
    let of = |view: &View| match &view.content {
        Content::Broken { diagnostics, .. } => diagnostics.clone(),
        _ => Vec::new(),
    };
    side.iter().flat_map(of).collect()
}

/// Puts together what is one workshop: by id, then, what is left, by directory.
fn pair<'v>(before: &'v [View], after: &'v [View]) -> Vec<(Option<&'v View>, Option<&'v View>)> {
    let mut left: Vec<Option<&View>> = before.iter().map(Some).collect();
    let mut right: Vec<Option<&View>> = after.iter().map(Some).collect();
    let mut pairs = Vec::new();
    let keys: [fn(&View) -> Option<String>; 2] = [
        |view| view.id.clone(),
        |view| {
            // A renamed workshop is another one; a broken one may only have lost its id.
            view.path.clone().filter(|_| matches!(view.content, Content::Broken { .. }))
        },
    ];
    for (round, key) in keys.into_iter().enumerate() {
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (index, view) in right.iter().enumerate().rev() {
            let Some(view) = view else { continue };
            if let Some(key) = if round == 0 { key(view) } else { view.path.clone() } {
                places.insert(key, index);
            }
        }
        for slot in &mut left {
            let Some(view) = *slot else { continue };
            let index = if round == 0 {
                key(view).and_then(|key| places.get(&key))
            } else {
                let index = view.path.as_ref().and_then(|path| places.get(path));
                // One of the two must be broken, else they are two workshops in one directory after each other.
                index.filter(|index| key(view).is_some() || right[**index].is_some_and(|other| key(other).is_some()))
            };
            if let Some(other) = index.and_then(|index| right[*index].take()) {
                pairs.push((Some(view), Some(other)));
                *slot = None;
            }
        }
    }
    pairs.extend(left.into_iter().flatten().map(|view| (Some(view), None)));
    pairs.extend(right.into_iter().flatten().map(|view| (None, Some(view))));
    pairs
}

fn compare_workshop(before: Option<&View>, after: Option<&View>) -> Option<WorkshopChange> {
    let id = after.or(before).and_then(|view| view.id.clone()).or_else(|| before.and_then(|view| view.id.clone()));
    let path = after.or(before).and_then(|view| view.path.clone());
    let from = before
        .and_then(|view| view.path.clone())
        .filter(|from| after.is_some() && path.as_ref().is_some_and(|path| path != from));
    let files = text::compare_files(before, after);
    let broken = |view: Option<&View>| view.is_some_and(|view| matches!(view.content, Content::Broken { .. }));
    if broken(before) || broken(after) {
        // What is broken in the same way on both sides is no difference.
        if files.is_empty() && from.is_none() && before.is_some() && after.is_some() {
            return None;
        }
        return Some(WorkshopChange {
            id,
            path,
            state: State::Invalid,
            from,
            changes: Vec::new(),
            steps: Vec::new(),
            files,
        });
    }
    let (changes, steps) = match (before, after) {
        (Some(before), Some(after)) => (facts(before, after), steps::compare_steps(before, after)),
        (None, Some(after)) => (Vec::new(), steps::all_steps(after, State::Added)),
        (Some(before), None) => (Vec::new(), steps::all_steps(before, State::Removed)),
        (None, None) => return None,
    };
    let state = match (before, after) {
        (None, _) => State::Added,
        (_, None) => State::Removed,
        _ if from.is_some() => State::Moved,
        _ if changes.is_empty() && steps.is_empty() && files.is_empty() => return None,
        _ => State::Changed,
    };
    Some(WorkshopChange { id, path, state, from, changes, steps, files })
}

/// What differs beside steps, in what both sides know.
fn facts(before: &View, after: &View) -> Vec<String> {
    let mut changes = Vec::new();
    let mut fact = |name: &str, old: &str, new: &str| {
        if old != new {
            changes.push(format!("{name}: {old} -> {new}"));
        }
    };
    if let (Some(old), Some(new)) = (before.definition(), after.definition()) {
        fact("name", &old.name, &new.name);
        fact("version", &old.version, &new.version);
        fact("createdAt", &old.created_at, &new.created_at);
    }
    if let (Some((old, _)), Some((new, _))) = (before.recipe(), after.recipe()) {
        fact("workshop.image", &old.image.to_string(), &new.image.to_string());
        fact("base.image", &old.base.to_string(), &new.base.to_string());
    }
    if let (Some(old), Some(new)) = (before.workspace(), after.workspace()) {
        differences("workspace", &old, &new, &mut changes);
    }
    if let (Some(old), Some(new)) = (before.roster(), after.roster()) {
        differences("roster", &old, &new, &mut changes);
    }
    changes
}

/// Adds `PATH: OLD -> NEW` for every leaf of two JSON values that differs.
fn differences(path: &str, before: &serde_json::Value, after: &serde_json::Value, changes: &mut Vec<String>) {
    use serde_json::Value;
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let child = |from: &serde_json::Map<String, Value>| from.get(key).cloned().unwrap_or(Value::Null);
                differences(&format!("{path}.{key}"), &child(old), &child(new), changes);
            }
        }
        _ => {
            let show = |value: &Value| match value {
                Value::Null => "unset".to_owned(),
                Value::String(text) => text.clone(),
                _ => value.to_string(),
            };
            changes.push(format!("{path}: {} -> {}", show(before), show(after)));
        }
    }
}

#[cfg(test)]
mod tests;
