//! The layout `tables`: one YAML file for each table, its rows with the columns' own names; an absent column is NULL.
//!
//! The table `workshop` has one row and is `workshop.yaml`, as in the layout `tree`.

use serde::Serialize;

use crate::domain::definition::Definition;
use crate::domain::names::StepId;
use crate::domain::tree::FileTree;
use crate::domain::yaml::{Kind, Mapping, Problems};

use super::emit::{EmitError, emit};
use super::fields::{Placed, StepFields};
use super::reader::{Reader, name, string};
use super::{SCHEMA, WORKSHOP_FILE};

/// The table of steps.
pub const STEPS: &str = "steps.yaml";
const METADATA: &str = "step_metadata.yaml";
pub const NAVIGATION: &str = "navigation.yaml";
/// The files of this layout besides `workshop.yaml`.
pub const FILES: [&str; 3] = [STEPS, METADATA, NAVIGATION];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkshopText<'a> {
    schema: u32,
    layout: &'static str,
    id: &'a str,
    name: &'a str,
    version: &'a str,
    created_at: &'a str,
}

#[derive(Serialize)]
struct StepText<'a> {
    id: &'a str,
    position: usize,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    markdown: Option<&'a str>,
    image_tag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    goss_spec: Option<&'a str>,
}

#[derive(Serialize)]
struct MetadataText<'a> {
    step_id: &'a str,
    key: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct NavigationText<'a> {
    step_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_step_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_step_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlock_condition: Option<&'a str>,
}

/// The canonical files of `definition`.
pub fn render(definition: &Definition) -> Result<FileTree, EmitError> {
    let workshop = WorkshopText {
        schema: SCHEMA,
        layout: "tables",
        id: definition.id.as_str(),
        name: &definition.name,
        version: &definition.version,
        created_at: &definition.created_at,
    };
    let steps = definition.steps.iter().enumerate().map(|(index, step)| StepText {
        id: step.id.as_str(),
        position: index + 1,
        title: &step.title,
        markdown: step.markdown.as_deref(),
        image_tag: &step.image_tag,
        goss_spec: step.goss_spec.as_deref(),
    });
    let metadata = definition.steps.iter().flat_map(|step| {
        step.metadata.iter().map(|(key, value)| MetadataText { step_id: step.id.as_str(), key, value })
    });
    let navigation = definition.steps.iter().map(|step| NavigationText {
        step_id: step.id.as_str(),
        next_step_id: step.navigation.next.as_ref().map(StepId::as_str),
        prev_step_id: step.navigation.prev.as_ref().map(StepId::as_str),
        unlock_condition: step.navigation.unlock_condition.as_deref(),
    });
    let mut files = FileTree::default();
    files.insert_file(WORKSHOP_FILE, emit(&workshop)?.into_bytes(), false);
    files.insert_file(STEPS, emit(&steps.collect::<Vec<_>>())?.into_bytes(), false);
    files.insert_file(METADATA, emit(&metadata.collect::<Vec<_>>())?.into_bytes(), false);
    files.insert_file(NAVIGATION, emit(&navigation.collect::<Vec<_>>())?.into_bytes(), false);
    Ok(files)
}

/// Reads the rows of the file at `path`, each as a mapping with the columns `known`.
pub fn read_rows(
    reader: &mut Reader<'_>,
    path: &str,
    known: &[&str],
    mut row: impl FnMut(&Mapping<'_>, &mut Problems<'_>),
) {
    reader.document(path, |document, problems| {
        for (index, node) in problems.list(&document.root, "").unwrap_or_default().iter().enumerate() {
            if let Some(mapping) = problems.mapping(node, &format!("[{index}]"), known) {
                row(&mapping, problems);
            }
        }
    });
}

/// The text of a column that may be NULL.
pub fn optional(row: &Mapping<'_>, column: &str, problems: &mut Problems<'_>) -> Option<Placed<String>> {
    string(problems, row.get(column)?, &row.path(column))
}

/// The text of a column that may not be NULL.
pub fn required(row: &Mapping<'_>, column: &str, problems: &mut Problems<'_>) -> Option<Placed<String>> {
    let node = row.require(column, problems)?;
    string(problems, node, &row.path(column))
}

fn step_id(row: &Mapping<'_>, column: &str, problems: &mut Problems<'_>) -> Option<Placed<StepId>> {
    let node = row.get(column)?;
    name(problems, node, &row.path(column), StepId::parse)
}

/// The index of the step that a row of another table belongs to; a missing one is an error.
pub fn owner(row: &Mapping<'_>, steps: &[StepFields], problems: &mut Problems<'_>) -> Option<usize> {
    row.require("step_id", problems)?;
    let id = step_id(row, "step_id", problems)?;
    let found = steps.iter().position(|step| step.id == id.value);
    if found.is_none() {
        let message = format!("there is no step \"{}\" in {STEPS}", id.value);
        problems.error("unknown-step", id.place, &row.path("step_id"), message, "name a step of this workshop");
    }
    found
}

/// Reads the rows of all tables as steps in the order of their positions.
pub fn read(reader: &mut Reader<'_>) -> Vec<StepFields> {
    let mut steps: Vec<(u64, StepFields)> = Vec::new();
    let columns = ["id", "position", "title", "markdown", "image_tag", "goss_spec"];
    read_rows(reader, STEPS, &columns, |row, problems| {
        let (Some(_), Some(position)) = (row.require("id", problems), row.require("position", problems)) else {
            return;
        };
        let Some(id) = step_id(row, "id", problems) else { return };
        if steps.iter().any(|(_, step)| step.id == id.value) {
            let message = format!("step \"{}\" is there twice", id.value);
            problems.error("duplicate-step", id.place, &row.path("id"), message, "keep one of the two");
            return;
        }
        let number = position.scalar().filter(|_| position.kind() == Kind::Integer).and_then(|text| text.parse().ok());
        let Some(number) = number else {
            problems.wrong_type(position, &row.path("position"), "an integer");
            return;
        };
        let mut step = StepFields::new(id.value, STEPS.to_owned());
        step.place = Some(id.place);
        step.title = optional(row, "title", problems);
        step.image_tag = optional(row, "image_tag", problems);
        step.broken.extend(row.get("title").filter(|_| step.title.is_none()).map(|_| "title"));
        step.broken.extend(row.get("image_tag").filter(|_| step.image_tag.is_none()).map(|_| "image_tag"));
        step.markdown = optional(row, "markdown", problems).map(|text| text.value);
        step.goss_spec = optional(row, "goss_spec", problems).map(|text| text.value);
        steps.push((number, step));
    });
    steps.sort_by_key(|(position, _)| *position);
    for (index, (position, step)) in steps.iter().enumerate() {
        let expected = index as u64 + 1;
        if *position != expected {
            let message = format!("the position of step \"{}\" is {position} where {expected} is due", step.id);
            let problem = reader.files.error("position-gap", STEPS, step.place, message);
            reader.diagnostics.push(problem.help("number the steps 1, 2, 3 … without gaps"));
            break;
        }
    }
    let mut steps: Vec<StepFields> = steps.into_iter().map(|(_, step)| step).collect();
    read_metadata(reader, &mut steps);
    read_navigation(reader, &mut steps);
    steps
}

fn read_metadata(reader: &mut Reader<'_>, steps: &mut [StepFields]) {
    read_rows(reader, METADATA, &["step_id", "key", "value"], |row, problems| {
        let owner = owner(row, steps, problems);
        let (key, value) = (required(row, "key", problems), required(row, "value", problems));
        let (Some(owner), Some(key), Some(value)) = (owner, key, value) else { return };
        if steps[owner].metadata.insert(key.value.clone(), value.value).is_some() {
            let message = format!("the key \"{}\" of step \"{}\" is there twice", key.value, steps[owner].id);
            problems.error("duplicate-key", key.place, &row.path("key"), message, "keep one of the two");
        }
    });
}

fn read_navigation(reader: &mut Reader<'_>, steps: &mut [StepFields]) {
    let mut seen = vec![false; steps.len()];
    let columns = ["step_id", "next_step_id", "prev_step_id", "unlock_condition"];
    read_rows(reader, NAVIGATION, &columns, |row, problems| {
        let Some(owner) = owner(row, steps, problems) else { return };
        if std::mem::replace(&mut seen[owner], true) {
            let message = format!("step \"{}\" has two rows", steps[owner].id);
            problems.error("duplicate-step", row.place, &row.path("step_id"), message, "keep one of the two");
            return;
        }
        let navigation = &mut steps[owner].navigation;
        navigation.next = Some(step_id(row, "next_step_id", problems));
        navigation.prev = Some(step_id(row, "prev_step_id", problems));
        navigation.unlock_condition = optional(row, "unlock_condition", problems);
    });
}
