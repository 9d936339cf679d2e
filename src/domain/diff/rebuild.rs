//! Why the images of a workshop would be built again: the first part of each step's key that differs.
//!
//! Follows the rule of content keys (parent, files, environment, commands), with the base by its name: what a name stands
//! for today is not known here.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::domain::digest::{Digest, FramedHasher};
use crate::domain::recipe::{Content, ImageFile, ImageFileKind, Recipe, resolve_files};
use crate::domain::tree::FileTree;

/// The id under which the state after the last step is shown.
const FINISH: &str = "finish";

/// What differs in the images of two recipes.
pub(super) struct Rebuilds {
    /// The own parts of a step that differ, by id: `files: /etc/motd`, `env: PATH`, `commands[2]`.
    pub changes: BTreeMap<String, Vec<String>>,
    /// Why a step's image would be built again, by id.
    pub reasons: BTreeMap<String, String>,
}

struct Step<'r> {
    id: String,
    content: &'r Content,
    files: Vec<ImageFile>,
    key: Digest,
}

fn steps<'r>(recipe: &'r Recipe, tree: &FileTree) -> Vec<Step<'r>> {
    let mut key = Digest::of(recipe.base.to_string().as_bytes());
    let finish = recipe.finish.iter().map(|content| (FINISH.to_owned(), content));
    recipe
        .steps
        .iter()
        .map(|step| (step.id.to_string(), &step.content))
        .chain(finish)
        .map(|(id, content)| {
            // Recipes were parsed against their tree, so nothing is unresolved.
            let files = resolve_files(content, tree).unwrap_or_default();
            key = chain(key, &files, content);
            Step { id, content, files, key }
        })
        .collect()
}

fn chain(parent: Digest, files: &[ImageFile], content: &Content) -> Digest {
    let mut hasher = FramedHasher::new("workshop.diff");
    hasher.part(parent.hex()).number(files.len() as u64);
    for file in files {
        hasher.part(&file.path).number(u64::from(file.mode)).number(u64::from(file.uid)).number(u64::from(file.gid));
        match &file.kind {
            ImageFileKind::Directory => hasher.part("directory"),
            ImageFileKind::File(bytes) => hasher.part("file").part(bytes),
            ImageFileKind::Link(target) => hasher.part("link").part(target),
        };
    }
    hasher.number(content.env.len() as u64);
    for (name, value) in &content.env {
        hasher.part(name).part(value);
    }
    for command in &content.commands {
        hasher.part(command);
    }
    hasher.finish()
}

/// Compares the recipes with the trees that their sources are in.
pub(super) fn compare_recipes(before: (&Recipe, &FileTree), after: (&Recipe, &FileTree)) -> Rebuilds {
    let (old, new) = (steps(before.0, before.1), steps(after.0, after.1));
    let known: HashSet<Digest> = old.iter().map(|step| step.key).collect();
    let places: HashMap<&str, usize> = old.iter().enumerate().map(|(index, step)| (step.id.as_str(), index)).collect();
    let mut rebuilds = Rebuilds { changes: BTreeMap::new(), reasons: BTreeMap::new() };
    for (index, step) in new.iter().enumerate() {
        let counterpart = places.get(step.id.as_str()).copied();
        let own = counterpart.map(|place| differing_parts(&old[place], step)).unwrap_or_default();
        let reason = if before.0.image != after.0.image {
            Some("workshop.image".to_owned())
        } else if known.contains(&step.key) {
            None
        } else {
            Some(match (counterpart, own.first()) {
                (None, _) => "new step".to_owned(),
                (Some(_), Some(part)) => part.clone(),
                (Some(_), None) if index == 0 && before.0.base != after.0.base => "base.image".to_owned(),
                // Its parent changed, or is another step than before.
                (Some(_), None) => "earlier step".to_owned(),
            })
        };
        if let Some(reason) = reason {
            rebuilds.reasons.insert(step.id.clone(), reason);
        }
        if !own.is_empty() {
            rebuilds.changes.insert(step.id.clone(), own);
        }
    }
    rebuilds
}

/// The parts of a step's own content that differ, in the order of the key.
fn differing_parts(before: &Step<'_>, after: &Step<'_>) -> Vec<String> {
    let mut parts = Vec::new();
    let old: BTreeMap<&str, &ImageFile> = before.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let new: BTreeMap<&str, &ImageFile> = after.files.iter().map(|file| (file.path.as_str(), file)).collect();
    parts.extend(differing_keys(&old, &new).map(|path| format!("files: {path}")));
    let env = |content: &Content| content.env.iter().cloned().collect::<BTreeMap<String, String>>();
    let (old, new) = (env(before.content), env(after.content));
    parts.extend(differing_keys(&old, &new).map(|name| format!("env: {name}")));
    let (old, new) = (&before.content.commands, &after.content.commands);
    // From the first that differs on, commands run on another state than before.
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    if same < old.len().max(new.len()) {
        parts.push(format!("commands[{same}]"));
    }
    parts
}

fn differing_keys<'m, K: Ord, V: PartialEq>(
    old: &'m BTreeMap<K, V>,
    new: &'m BTreeMap<K, V>,
) -> impl Iterator<Item = &'m K> {
    let mut keys: Vec<&K> = old.keys().chain(new.keys()).filter(|key| old.get(key) != new.get(key)).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
}
