//! The layout `tree`: `workshop.yaml`, and for each step a folder with its row, its text and its goss spec.
//!
//! Fields that repeat a default (linear navigation, no metadata) are not written, so that a canonical export says
//! each thing once.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::domain::definition::{Definition, Navigation, StepRow};
use crate::domain::names::StepId;
use crate::domain::tree::FileTree;
use crate::domain::yaml::{Document, Kind, Node, Problems, join};

use super::emit::{EmitError, emit};
use super::fields::{NavigationFields, Placed, StepFields, WorkshopFields};
use super::reader::{Reader, name, string};
use super::{SCHEMA, WORKSHOP_FILE};

/// The folder that holds one folder for each step.
pub const FOLDER: &str = "steps";
const STEP: &str = "step.yaml";
const CONTENT: &str = "content.md";
const GOSS: &str = "goss.yaml";
/// The files of a step's folder.
pub const FILES: [&str; 3] = [STEP, CONTENT, GOSS];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkshopText<'a> {
    schema: u32,
    id: &'a str,
    name: &'a str,
    version: &'a str,
    created_at: &'a str,
    steps: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepText<'a> {
    title: &'a str,
    image_tag: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    navigation: Option<NavigationText<'a>>,
}

fn is_empty(metadata: &&BTreeMap<String, String>) -> bool {
    metadata.is_empty()
}

/// What differs from linear; an inner none is written as null.
#[derive(Serialize, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
struct NavigationText<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlock_condition: Option<&'a str>,
}

impl<'a> NavigationText<'a> {
    fn difference(navigation: &'a Navigation, linear: &Navigation) -> Option<Self> {
        let said = |target: &'a Option<StepId>, usual: &Option<StepId>| {
            (target != usual).then(|| target.as_ref().map(StepId::as_str))
        };
        let text = Self {
            next: said(&navigation.next, &linear.next),
            prev: said(&navigation.prev, &linear.prev),
            unlock_condition: navigation.unlock_condition.as_deref(),
        };
        (text != Self::default()).then_some(text)
    }
}

/// The canonical files of `definition`.
pub fn render(definition: &Definition) -> Result<FileTree, EmitError> {
    let mut files = FileTree::default();
    let ids = definition.step_ids();
    let workshop = WorkshopText {
        schema: SCHEMA,
        id: definition.id.as_str(),
        name: &definition.name,
        version: &definition.version,
        created_at: &definition.created_at,
        steps: ids.iter().map(StepId::as_str).collect(),
    };
    files.insert_file(WORKSHOP_FILE, emit(&workshop)?.into_bytes(), false);
    for (index, step) in definition.steps.iter().enumerate() {
        render_step(step, &Navigation::linear(&ids, index), &mut files)?;
    }
    Ok(files)
}

fn render_step(step: &StepRow, linear: &Navigation, files: &mut FileTree) -> Result<(), EmitError> {
    let text = StepText {
        title: &step.title,
        image_tag: &step.image_tag,
        metadata: &step.metadata,
        navigation: NavigationText::difference(&step.navigation, linear),
    };
    let path = |file: &str| format!("{FOLDER}/{}/{file}", step.id);
    files.insert_file(path(STEP), emit(&text)?.into_bytes(), false);
    for (file, text) in [(CONTENT, &step.markdown), (GOSS, &step.goss_spec)] {
        if let Some(text) = text {
            files.insert_file(path(file), text.as_bytes(), false);
        }
    }
    Ok(())
}

/// Reads the folders of all steps that `workshop` lists, then of those that are only there.
pub fn read(reader: &mut Reader<'_>, workshop: &WorkshopFields) -> Vec<StepFields> {
    let mut ids: Vec<StepId> = Vec::new();
    let mut seen = BTreeSet::new();
    for id in workshop.steps.iter().flatten() {
        if seen.insert(id.value.to_string()) {
            ids.push(id.value.clone());
        }
    }
    let mut refused = Vec::new();
    for path in reader.below(FOLDER) {
        let Some((folder, _)) = path[FOLDER.len() + 1..].split_once('/') else { continue };
        if !seen.insert(folder.to_owned()) {
            continue;
        }
        match StepId::parse(folder) {
            Ok(id) => ids.push(id),
            Err(error) => {
                let problem = reader.files.error("invalid-name", path, None, format!("the folder {error}"));
                refused.push(problem.help("a step's folder has the step's id as its name"));
            }
        }
    }
    reader.diagnostics.append(&mut refused);
    ids.into_iter().map(|id| read_step(reader, id)).collect()
}

fn read_step(reader: &mut Reader<'_>, id: StepId) -> StepFields {
    let path = |file: &str| format!("{FOLDER}/{id}/{file}");
    let (row, content, goss) = (path(STEP), path(CONTENT), path(GOSS));
    let mut step = StepFields::new(id, row.clone());
    reader.document(&row, |document, problems| read_row(document, problems, &mut step));
    step.markdown = reader.text(&content);
    step.goss_spec = reader.text(&goss);
    step
}

fn read_row(document: &Document<'_>, problems: &mut Problems<'_>, step: &mut StepFields) {
    step.place = Some(document.root.place);
    let known = ["title", "imageTag", "metadata", "navigation"];
    let Some(mapping) = problems.mapping(&document.root, "", &known) else { return };
    step.title = mapping.get("title").and_then(|node| string(problems, node, "title"));
    step.image_tag = mapping.get("imageTag").and_then(|node| string(problems, node, "imageTag"));
    step.broken.extend(mapping.get("title").filter(|_| step.title.is_none()).map(|_| "title"));
    step.broken.extend(mapping.get("imageTag").filter(|_| step.image_tag.is_none()).map(|_| "imageTag"));
    if let Some(node) = mapping.get("metadata") {
        for entry in problems.entries(node, "metadata").unwrap_or_default() {
            let field = join("metadata", &entry.key);
            if entry.key.contains('\0') {
                problems.error("nul", entry.key_place, "metadata", "the key has a NUL character", "remove it");
            } else if let Some(value) = string(problems, &entry.value, &field) {
                step.metadata.insert(entry.key.clone(), value.value);
            }
        }
    }
    if let Some(node) = mapping.get("navigation") {
        step.navigation = read_navigation(node, problems);
    }
}

fn read_navigation(node: &Node, problems: &mut Problems<'_>) -> NavigationFields {
    let mut navigation = NavigationFields::default();
    if problems.mapping(node, "navigation", &["next", "prev", "unlockCondition"]).is_none() {
        return navigation;
    }
    let target = |node: &Node, field: &str, problems: &mut Problems<'_>| -> Option<Option<Placed<StepId>>> {
        if node.kind() == Kind::Null { Some(None) } else { name(problems, node, field, StepId::parse).map(Some) }
    };
    for entry in problems.entries(node, "navigation").unwrap_or_default() {
        match entry.key.as_str() {
            "next" => navigation.next = target(&entry.value, "navigation.next", problems),
            "prev" => navigation.prev = target(&entry.value, "navigation.prev", problems),
            "unlockCondition" if entry.value.kind() != Kind::Null => {
                let text = string(problems, &entry.value, "navigation.unlockCondition");
                navigation.unlock_condition = text;
            }
            _ => {}
        }
    }
    navigation
}
