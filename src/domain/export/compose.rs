//! Each fact once: lays a recipe over an export, so that what both say must agree, and fills in the defaults.
//!
//! Knows of a recipe only the facts that an export may repeat.

use std::collections::BTreeSet;

use crate::domain::definition::{DEFAULT_CREATED_AT, DEFAULT_VERSION, Definition, Navigation, StepRow};
use crate::domain::diagnostic::{Checked, Diagnostic, Place};
use crate::domain::names::{StepId, WorkshopId};
use crate::domain::yaml;

use super::fields::{Export, Placed, StepFields};
use super::tables::STEPS;
use super::{Layout, WORKSHOP_FILE};

/// The rule that a difference between recipe and export breaks: the one that `workshop fmt` puts right.
pub const DISAGREEMENT: &str = "disagreement";
/// From this size of all texts on an artifact is called large, in bytes.
const LARGE: usize = 5 << 20;
/// Beyond this size of all texts an artifact is refused, in bytes.
pub const MAX_SIZE: usize = 32 << 20;

/// What a recipe says that an export may repeat.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The recipe's path from the source's root.
    pub file: &'a str,
    /// The recipe's text, to show places in.
    pub text: &'a [u8],
    /// `workshop.name`.
    pub id: &'a WorkshopId,
    /// `workshop.image` as written.
    pub image: &'a str,
    /// `steps`.
    pub steps: Vec<StepFacts<'a>>,
}

/// What a recipe says of one step.
#[derive(Debug)]
pub struct StepFacts<'a> {
    /// `steps[].id`.
    pub id: &'a StepId,
    /// `steps[].title`.
    pub title: &'a str,
    /// `<workshop.image>:<step id>` with its registry.
    pub image_tag: String,
}

impl Facts<'_> {
    /// `FILE:LINE:COLUMN` of a field such as `workshop.name` or `steps[2].title`.
    fn location(&self, field: &str) -> String {
        let parsed = yaml::parse(self.file, self.text);
        let place = parsed.value.and_then(|document| place_of(&document.root, field));
        place.map_or_else(|| self.file.to_owned(), |place| format!("{}:{}:{}", self.file, place.line, place.column))
    }
}

fn place_of(root: &yaml::Node, field: &str) -> Option<Place> {
    let mut node = root;
    for part in field.split(['.', '[']) {
        node = match (&node.value, part.strip_suffix(']')) {
            (yaml::Value::Sequence(nodes), Some(index)) => nodes.get(index.parse::<usize>().ok()?)?,
            (yaml::Value::Mapping(entries), None) => &entries.iter().find(|entry| entry.key == part)?.value,
            _ => return None,
        };
    }
    Some(node.place)
}

/// The rows of a workshop: from the export, the recipe, or both. `tag` is the followed tag, `registry` what is put
/// before an image that names no registry.
#[must_use]
pub fn compose(
    export: &Export<'_>,
    facts: Option<&Facts<'_>>,
    tag: Option<&str>,
    registry: Option<&str>,
) -> Checked<Definition> {
    let mut composer = Composer { export, facts, diagnostics: Vec::new() };
    let ids = composer.step_ids();
    let id = composer.id();
    let steps: Vec<StepRow> = (0..ids.len()).filter_map(|index| composer.step(&ids, index, registry)).collect();
    composer.check_steps(&ids);
    let workshop = &export.workshop;
    let text = |field: &Option<Placed<String>>| field.as_ref().map(|field| field.value.clone());
    let value = id.filter(|_| steps.len() == ids.len() && !ids.is_empty()).map(|id| Definition {
        name: text(&workshop.name).unwrap_or_else(|| id.to_string()),
        version: text(&workshop.version).or_else(|| tag.map(str::to_owned)).unwrap_or_else(|| DEFAULT_VERSION.into()),
        created_at: text(&workshop.created_at).unwrap_or_else(|| DEFAULT_CREATED_AT.into()),
        id,
        steps,
    });
    if let Some(definition) = &value {
        composer.check_size(definition);
    }
    Checked { value, diagnostics: composer.diagnostics }
}

struct Composer<'c, 'a> {
    export: &'c Export<'a>,
    facts: Option<&'c Facts<'c>>,
    diagnostics: Vec<Diagnostic>,
}

impl Composer<'_, '_> {
    fn error(
        &mut self,
        rule: &'static str,
        file: &str,
        place: Option<Place>,
        field: &str,
        message: String,
        help: &str,
    ) {
        let diagnostic = self.export.files.error(rule, file, place, message);
        self.diagnostics.push(diagnostic.field(field).help(help));
    }

    fn disagree(&mut self, file: &str, place: Place, field: &str, message: String) {
        let help = "correct one of the two, or let `workshop fmt` rewrite the export from the recipe";
        self.error(DISAGREEMENT, file, Some(place), field, message, help);
    }

    fn missing(&mut self, file: &str, place: Option<Place>, field: &str) {
        let message = match place {
            Some(_) => format!("the field \"{field}\" is missing"),
            None => format!("the file is missing, and with it the field \"{field}\""),
        };
        let help = format!("add `{field}:`, or a step-spec.yaml beside the export that says it");
        self.error("missing-field", file, place, field, message, &help);
    }

    fn missing_in_workshop(&mut self, field: &str) {
        let workshop = &self.export.workshop;
        // What was there but unreadable has been reported where it was read.
        let unread = workshop.place.is_none() && self.export.files.contains(WORKSHOP_FILE);
        if !unread && !workshop.broken.contains(&field) {
            self.missing(WORKSHOP_FILE, workshop.place, field);
        }
    }

    fn id(&mut self) -> Option<WorkshopId> {
        let said = self.export.workshop.id.as_ref();
        let Some(facts) = self.facts else {
            if said.is_none() {
                self.missing_in_workshop("id");
            }
            return said.map(|id| id.value.clone());
        };
        if let Some(said) = said.filter(|said| said.value != *facts.id) {
            let other = facts.location("workshop.name");
            let message = format!("the id is \"{}\" here and \"{}\" at {other}", said.value, facts.id);
            self.disagree(WORKSHOP_FILE, said.place, "id", message);
        }
        Some(facts.id.clone())
    }

    /// The order that the export gives, with the file that gives it.
    fn listed(&self) -> Option<(&'static str, Vec<Placed<StepId>>)> {
        match self.export.layout {
            Layout::Tree => Some((WORKSHOP_FILE, self.export.workshop.steps.clone()?)),
            Layout::Tables => {
                let placed = |step: &StepFields| Some(Placed { value: step.id.clone(), place: step.place? });
                let steps: Vec<_> = self.export.steps.iter().filter_map(placed).collect();
                self.export.files.contains(STEPS).then_some((STEPS, steps))
            }
        }
    }

    fn step_ids(&mut self) -> Vec<StepId> {
        let listed = self.listed();
        let Some(facts) = self.facts else {
            let Some((file, listed)) = listed else {
                match self.export.layout {
                    Layout::Tree => self.missing_in_workshop("steps"),
                    Layout::Tables => self.missing(STEPS, None, "id"),
                }
                return Vec::new();
            };
            if listed.is_empty() {
                let message = "the workshop has no steps".to_owned();
                self.error("no-steps", file, self.export.workshop.place, "steps", message, "list at least one step");
            }
            let mut seen = BTreeSet::new();
            return listed.into_iter().map(|id| id.value).filter(|id| seen.insert(id.clone())).collect();
        };
        if let Some((file, listed)) = listed {
            let differs = |(index, id): &(usize, &Placed<StepId>)| {
                facts.steps.get(*index).is_none_or(|step| *step.id != id.value)
            };
            let first = listed.iter().enumerate().find(differs);
            if first.is_some() || listed.len() != facts.steps.len() {
                let index = first.map_or(listed.len(), |(index, _)| index);
                let place = first.map(|(_, id)| id.place).or(self.export.workshop.place);
                let here: Vec<&str> = listed.iter().map(|id| id.value.as_str()).collect();
                let there: Vec<&str> = facts.steps.iter().map(|step| step.id.as_str()).collect();
                let other = facts.location("steps");
                let message =
                    format!("the steps are \"{}\" here and \"{}\" at {other}", here.join(", "), there.join(", "));
                let place = place.unwrap_or(Place { line: 1, column: 1 });
                self.disagree(file, place, &format!("steps[{index}]"), message);
            }
        }
        facts.steps.iter().map(|step| step.id.clone()).collect()
    }

    /// Reports what the export says of steps that are none.
    fn check_steps(&mut self, ids: &[StepId]) {
        let strangers: Vec<&StepFields> = self.export.steps.iter().filter(|step| !ids.contains(&step.id)).collect();
        for step in strangers {
            let (message, help) = match self.facts {
                Some(facts) => (
                    format!("there is no step \"{}\" at {}", step.id, facts.location("steps")),
                    "rename the step to one of the recipe's, or remove it from the export",
                ),
                None => (
                    format!("step \"{}\" is not in the list of steps of {WORKSHOP_FILE}", step.id),
                    "add it to the list, or remove its folder",
                ),
            };
            self.error("unknown-step", &step.file, step.place, "", message, help);
        }
        let steps = &self.export.steps;
        for step in steps.iter().filter(|step| ids.contains(&step.id)) {
            for (field, target) in
                [("navigation.next", &step.navigation.next), ("navigation.prev", &step.navigation.prev)]
            {
                if let Some(Some(target)) =
                    target.as_ref().filter(|it| it.as_ref().is_some_and(|id| !ids.contains(&id.value)))
                {
                    let message = format!("step \"{}\" leads to \"{}\", which is no step", step.id, target.value);
                    let help = format!(
                        "name one of the steps: {}",
                        ids.iter().map(StepId::as_str).collect::<Vec<_>>().join(", ")
                    );
                    self.error("unknown-step", step.navigation_file(), Some(target.place), field, message, &help);
                }
            }
        }
    }

    fn step(&mut self, ids: &[StepId], index: usize, registry: Option<&str>) -> Option<StepRow> {
        let id = &ids[index];
        let said = self.export.steps.iter().find(|step| step.id == *id);
        let (title, image_tag) = match self.facts {
            Some(facts) => self.agreed(facts, index, said),
            None => self.said(id, said, registry),
        }?;
        let linear = Navigation::linear(ids, index);
        let Some(said) = said else {
            return Some(StepRow {
                id: id.clone(),
                title,
                markdown: None,
                image_tag,
                goss_spec: None,
                metadata: std::collections::BTreeMap::new(),
                navigation: linear,
            });
        };
        let target = |said: &Option<Option<Placed<StepId>>>, usual: Option<StepId>| match said {
            Some(said) => said.as_ref().map(|id| id.value.clone()),
            None => usual,
        };
        Some(StepRow {
            id: id.clone(),
            title,
            markdown: said.markdown.clone(),
            image_tag,
            goss_spec: said.goss_spec.clone(),
            metadata: said.metadata.clone(),
            navigation: Navigation {
                next: target(&said.navigation.next, linear.next),
                prev: target(&said.navigation.prev, linear.prev),
                unlock_condition: said.navigation.unlock_condition.as_ref().map(|text| text.value.clone()),
            },
        })
    }

    /// Title and image tag of the recipe; what the export repeats is held against them.
    fn agreed(&mut self, facts: &Facts<'_>, index: usize, said: Option<&StepFields>) -> Option<(String, String)> {
        let fact = facts.steps.get(index)?;
        if let Some(said) = said {
            if let Some(title) = said.title.as_ref().filter(|title| title.value != fact.title) {
                let other = facts.location(&format!("steps[{index}].title"));
                let message = format!("the title is \"{}\" here and \"{}\" at {other}", title.value, fact.title);
                self.disagree(&said.file, title.place, "title", message);
            }
            let differs = |tag: &&Placed<String>| !same_image(facts.image, fact.id, &tag.value);
            if let Some(tag) = said.image_tag.as_ref().filter(differs) {
                let other = facts.location("workshop.image");
                let message = format!(
                    "the image tag is \"{}\" here and \"{}\" by the image at {other}",
                    tag.value, fact.image_tag
                );
                self.disagree(&said.file, tag.place, "imageTag", message);
            }
        }
        Some((fact.title.to_owned(), fact.image_tag.clone()))
    }

    /// Title and image tag of an export that stands alone.
    fn said(&mut self, id: &StepId, said: Option<&StepFields>, registry: Option<&str>) -> Option<(String, String)> {
        let said = said?;
        let (title, image_tag) = match self.export.layout {
            Layout::Tree => ("title", "imageTag"),
            Layout::Tables => ("title", "image_tag"),
        };
        // A field that is there but wrong was reported where it was read; so is a file that could not be read.
        let unread = said.place.is_none() && self.export.files.contains(&said.file);
        if said.place.is_none() && !unread {
            let message = format!("the file is missing, and with it title and image tag of step \"{id}\"");
            let help = "write the file, or a step-spec.yaml beside the export that says it";
            self.error("missing-field", &said.file, None, "", message, help);
        } else if !unread {
            for (field, value) in [(title, &said.title), (image_tag, &said.image_tag)] {
                if value.is_none() && !said.broken.contains(&field) {
                    self.missing(&said.file, said.place, field);
                }
            }
        }
        let (title, tag) = (said.title.as_ref()?, said.image_tag.as_ref()?);
        if tag.value.is_empty() || tag.value.chars().any(|any| any.is_whitespace() || any.is_control()) {
            let message = format!("\"{}\" is no image reference", tag.value);
            self.error("invalid-image", &said.file, Some(tag.place), image_tag, message, "write it as HOST/NAME:TAG");
            return None;
        }
        let full = match registry {
            Some(registry) if registry_of(&tag.value).is_none() => {
                format!("{}/{}", registry.trim_end_matches('/'), tag.value)
            }
            _ => tag.value.clone(),
        };
        Some((title.value.clone(), full))
    }

    fn check_size(&mut self, definition: &Definition) {
        let size: usize = definition
            .steps
            .iter()
            .map(|step| step.markdown.as_ref().map_or(0, String::len) + step.goss_spec.as_ref().map_or(0, String::len))
            .sum();
        let message = format!("the texts of the workshop have {size} bytes");
        let help = "move pictures and other files to `assets/`, from where they go into the images";
        if size > MAX_SIZE {
            let message = format!("{message}, more than the {MAX_SIZE} that an artifact may have");
            self.error("too-large", WORKSHOP_FILE, None, "", message, help);
        } else if size > LARGE {
            let file = self.export.files.name(WORKSHOP_FILE);
            self.diagnostics.push(Diagnostic::warning("large", file, message).help(help));
        }
    }
}

/// The first component of an image reference when it is a registry.
fn registry_of(reference: &str) -> Option<&str> {
    let (first, _) = reference.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// True when `tag` is `image` with the step's id, a registry before the image name and an image digest aside.
fn same_image(image: &str, step: &StepId, tag: &str) -> bool {
    let bare = |reference: &str| reference[registry_of(reference).map_or(0, |it| it.len() + 1)..].to_owned();
    let expected = format!("{}:{step}", bare(image));
    let tag = tag.split_once('@').map_or(tag, |(tag, _)| tag);
    let found = bare(tag);
    // A registry may be a host with a prefix, put before an image that names none itself.
    let is_prefixed = || found.strip_suffix(&expected).is_some_and(|prefix| prefix.ends_with('/'));
    found == expected || registry_of(image).is_none() && registry_of(tag).is_some() && is_prefixed()
}
