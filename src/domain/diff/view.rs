//! One workshop as one side of a comparison knows it.

use crate::domain::definition::{Definition, IMAGE_METADATA};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::recipe::Recipe;
use crate::domain::tree::FileTree;
use crate::domain::workshop::Workshop;

/// One workshop as one side of a comparison knows it.
#[derive(Debug, Clone)]
pub struct View {
    /// Its id, where it could be read.
    pub id: Option<String>,
    /// Its directory; none for artifacts and clusters.
    pub path: Option<String>,
    /// The rest.
    pub content: Content,
}

/// How much a side knows of a workshop.
#[derive(Debug, Clone)]
pub enum Content {
    /// Everything, from a directory or a commit.
    Files {
        /// The workshop.
        workshop: Box<Workshop>,
        /// The files of its directory.
        tree: FileTree,
    },
    /// Files that are no valid workshop.
    Broken {
        /// The files of its directory, as far as they could be read.
        tree: FileTree,
        /// What is wrong with them.
        diagnostics: Vec<Diagnostic>,
    },
    /// Its rows, from an artifact.
    Rows(Box<Definition>),
    /// Its template, from a cluster or the embedded store.
    Template {
        /// The steps in order.
        steps: Vec<StepLine>,
        /// `spec.defaults`.
        workspace: serde_json::Value,
    },
}

/// A step as a template has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepLine {
    /// The id.
    pub id: String,
    /// The title.
    pub title: String,
    /// The image reference, without its registry: a side may not know where images are published.
    pub image_tag: String,
}

impl View {
    /// A readable workshop of a directory or commit.
    #[must_use]
    pub fn of_files(workshop: Workshop, tree: FileTree) -> Self {
        let (id, path) = (workshop.id.to_string(), workshop.path.clone());
        Self { id: Some(id), path: Some(path), content: Content::Files { workshop: Box::new(workshop), tree } }
    }

    /// The rows of an artifact.
    #[must_use]
    pub fn of_rows(definition: Definition) -> Self {
        Self { id: Some(definition.id.to_string()), path: None, content: Content::Rows(Box::new(definition)) }
    }

    /// The rows without what publishing adds: registry, digests.
    pub(super) fn definition(&self) -> Option<Definition> {
        let mut definition = match &self.content {
            Content::Files { workshop, .. } => workshop.definition.clone(),
            Content::Rows(definition) => (**definition).clone(),
            Content::Broken { .. } | Content::Template { .. } => return None,
        };
        for step in &mut definition.steps {
            step.image_tag = without_registry(&step.image_tag).to_owned();
            step.metadata.retain(|key, _| !key.starts_with(IMAGE_METADATA));
        }
        Some(definition)
    }

    pub(super) fn recipe(&self) -> Option<(&Recipe, &FileTree)> {
        match &self.content {
            Content::Files { workshop, tree } => workshop.recipe.as_ref().map(|recipe| (recipe, tree)),
            _ => None,
        }
    }

    pub(super) fn workspace(&self) -> Option<serde_json::Value> {
        match &self.content {
            Content::Files { workshop, .. } => serde_json::to_value(&workshop.workspace).ok(),
            Content::Template { workspace, .. } => Some(workspace.clone()),
            Content::Rows(_) | Content::Broken { .. } => None,
        }
    }

    /// The roster by owner, so that a moved line is no change.
    pub(super) fn roster(&self) -> Option<serde_json::Value> {
        let Content::Files { workshop, .. } = &self.content else { return None };
        let Some(roster) = &workshop.roster else { return Some(serde_json::json!({})) };
        let instances: serde_json::Map<String, serde_json::Value> = roster
            .instances
            .iter()
            .map(|entry| {
                let step = entry.step.as_ref().map(ToString::to_string);
                let value = serde_json::json!({
                    "members": entry.members, "step": step, "overrides": entry.overrides,
                });
                (entry.owner.clone(), value)
            })
            .collect();
        Some(serde_json::json!({ "prefix": roster.prefix, "class": roster.class, "instances": instances }))
    }

    /// The steps as a template has them.
    pub(super) fn lines(&self) -> Option<Vec<StepLine>> {
        if let Content::Template { steps, .. } = &self.content {
            let plain =
                |step: &StepLine| StepLine { image_tag: without_registry(&step.image_tag).to_owned(), ..step.clone() };
            return Some(steps.iter().map(plain).collect());
        }
        let definition = self.definition()?;
        let line = |step: crate::domain::definition::StepRow| StepLine {
            id: step.id.to_string(),
            title: step.title,
            image_tag: step.image_tag,
        };
        Some(definition.steps.into_iter().map(line).collect())
    }
}

/// The reference without registry and digest.
fn without_registry(reference: &str) -> &str {
    let reference = reference.split('@').next().unwrap_or(reference);
    match reference.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
        _ => reference,
    }
}
