//! What an export says, field by field with places, before a recipe is laid over it.
//!
//! A field that is not there is none here; what it then is, is decided by `compose`.

use std::collections::BTreeMap;

use crate::domain::definition::is_datetime;
use crate::domain::diagnostic::Place;
use crate::domain::names::{StepId, WorkshopId};
use crate::domain::yaml::{Kind, Problems};

use super::reader::{Files, Reader, name, string};
use super::state::State;
use super::tables::NAVIGATION;
use super::{Layout, SCHEMA, WORKSHOP_FILE};

/// A value with its place in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// An export as its files say it.
#[derive(Debug)]
pub struct Export<'a> {
    /// The files it was read from.
    pub files: Files<'a>,
    /// Their layout.
    pub layout: Layout,
    /// The workshop's row.
    pub workshop: WorkshopFields,
    /// The steps: in their order as far as the export gives one, then those that are only found.
    pub steps: Vec<StepFields>,
    /// The runtime tables, where the export carries them.
    pub state: State,
}

/// What `workshop.yaml` says.
#[derive(Debug, Default)]
pub struct WorkshopFields {
    /// Where the mapping begins; none without the file.
    pub place: Option<Place>,
    /// `id`.
    pub id: Option<Placed<WorkshopId>>,
    /// `name`.
    pub name: Option<Placed<String>>,
    /// `version`.
    pub version: Option<Placed<String>>,
    /// `createdAt`.
    pub created_at: Option<Placed<String>>,
    /// `steps`: the ids in order.
    pub steps: Option<Vec<Placed<StepId>>>,
    /// Fields that are there but wrong, and reported.
    pub broken: Vec<&'static str>,
}

/// What an export says of one step.
#[derive(Debug)]
pub struct StepFields {
    /// The step's id.
    pub id: StepId,
    /// The file that holds the step's row, relative to the export.
    pub file: String,
    /// Where the row begins; none where the file is not there.
    pub place: Option<Place>,
    /// `title`.
    pub title: Option<Placed<String>>,
    /// `imageTag`.
    pub image_tag: Option<Placed<String>>,
    /// `metadata`.
    pub metadata: BTreeMap<String, String>,
    /// `navigation`, as far as it is said.
    pub navigation: NavigationFields,
    /// The tutorial text.
    pub markdown: Option<String>,
    /// The goss spec.
    pub goss_spec: Option<String>,
    /// Fields that are there but wrong, and reported.
    pub broken: Vec<&'static str>,
}

impl StepFields {
    /// The file that holds the goss spec, relative to the export.
    #[must_use]
    pub fn goss_file(&self) -> String {
        self.file.strip_suffix("step.yaml").map_or_else(|| self.file.clone(), |folder| format!("{folder}goss.yaml"))
    }

    /// The file that says where the step leads, relative to the export.
    #[must_use]
    pub fn navigation_file(&self) -> &str {
        if self.file.ends_with("step.yaml") { &self.file } else { NAVIGATION }
    }

    /// A step of which nothing but the id is known yet.
    #[must_use]
    pub fn new(id: StepId, file: String) -> Self {
        Self {
            id,
            file,
            place: None,
            title: None,
            image_tag: None,
            metadata: BTreeMap::new(),
            navigation: NavigationFields::default(),
            markdown: None,
            goss_spec: None,
            broken: Vec::new(),
        }
    }
}

/// What differs from linear navigation: the outer option is whether it is said, the inner whether it leads anywhere.
#[derive(Debug, Default)]
pub struct NavigationFields {
    /// `next`.
    pub next: Option<Option<Placed<StepId>>>,
    /// `prev`.
    pub prev: Option<Option<Placed<StepId>>>,
    /// `unlockCondition`.
    pub unlock_condition: Option<Placed<String>>,
}

/// Reads `workshop.yaml`, and from it which layout the rest has.
pub fn read_workshop_file(reader: &mut Reader<'_>) -> (WorkshopFields, Layout) {
    let known = ["schema", "layout", "id", "name", "version", "createdAt", "steps"];
    let read = reader.document(WORKSHOP_FILE, |document, problems| {
        let mut fields = WorkshopFields { place: Some(document.root.place), ..WorkshopFields::default() };
        let mut layout = Layout::Tree;
        let Some(mapping) = problems.mapping(&document.root, "", &known) else { return (fields, layout) };
        if let Some(node) = mapping.require("schema", problems) {
            check_schema(node, problems);
        }
        match mapping.get("layout").map(|node| (node, node.scalar())) {
            None | Some((_, Some("tree"))) => {}
            Some((_, Some("tables"))) => layout = Layout::Tables,
            Some((node, _)) => problems.error(
                "unknown-layout",
                node.place,
                "layout",
                "there is no such layout of an export",
                "write `tables`, or leave the field out for the usual layout",
            ),
        }
        fields.id = mapping.get("id").and_then(|node| name(problems, node, "id", WorkshopId::parse));
        fields.name = mapping.get("name").and_then(|node| string(problems, node, "name"));
        fields.version = mapping.get("version").and_then(|node| string(problems, node, "version"));
        fields.created_at = mapping.get("createdAt").and_then(|node| {
            let created_at = string(problems, node, "createdAt")?;
            if is_datetime(&created_at.value) {
                return Some(created_at);
            }
            let message = format!("\"{}\" is no date with a time", created_at.value);
            problems.error("invalid-datetime", node.place, "createdAt", message, "write it as 2026-01-31T12:00:00Z");
            None
        });
        if let Some(node) = mapping.get("steps") {
            if layout == Layout::Tables {
                let message = "the layout `tables` has the order of steps in steps.yaml";
                problems.error("unknown-field", node.place, "steps", message, "remove the field");
            } else {
                fields.steps = problems.list(node, "steps").map(|nodes| {
                    let ids = nodes.iter().enumerate();
                    ids.filter_map(|(index, node)| name(problems, node, &format!("steps[{index}]"), StepId::parse))
                        .collect()
                });
            }
        }
        fields.broken.extend(mapping.get("id").filter(|_| fields.id.is_none()).map(|_| "id"));
        fields.broken.extend(mapping.get("steps").filter(|_| fields.steps.is_none()).map(|_| "steps"));
        check_unique(fields.steps.as_deref().unwrap_or_default(), problems);
        (fields, layout)
    });
    read.unwrap_or_default()
}

fn check_schema(node: &crate::domain::yaml::Node, problems: &mut Problems<'_>) {
    let number = node.scalar().filter(|_| node.kind() == Kind::Integer).and_then(|text| text.parse::<u64>().ok());
    match number {
        Some(number) if number == u64::from(SCHEMA) => {}
        Some(number) => problems.error(
            "unknown-version",
            node.place,
            "schema",
            format!("the export has schema {number}, this program reads schema {SCHEMA}"),
            "use a program of the version that wrote it",
        ),
        None => problems.wrong_type(node, "schema", "an integer"),
    }
}

fn check_unique(ids: &[Placed<StepId>], problems: &mut Problems<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, id) in ids.iter().enumerate() {
        if !seen.insert(&id.value) {
            let message = format!("step \"{}\" is listed twice", id.value);
            problems.error("duplicate-step", id.place, &format!("steps[{index}]"), message, "keep one of the two");
        }
    }
}
