//! `step-spec.yaml` as values: what the images of a workshop contain, never how its workspaces run.
//!
//! Reading the YAML is in `parse`, the rules of `files` in `paths`, the contents of sources in `files`.

mod files;
mod parse;
mod paths;

pub use files::{ImageFile, ImageFileKind, ResolveError, resolve_files};
pub use parse::parse_recipe;

use super::diagnostic::Place;
use super::names::{StepId, WorkshopId};
use super::reference::{BaseImage, ImageName};

/// The recipe's file name in a workshop's directory.
pub const FILE_NAME: &str = "step-spec.yaml";

/// A whole valid recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// `workshop.name`.
    pub id: WorkshopId,
    /// `workshop.image`.
    pub image: ImageName,
    /// `base.image`.
    pub base: BaseImage,
    /// The steps in order; at least one, ids unique.
    pub steps: Vec<RecipeStep>,
    /// The state after the last step.
    pub finish: Option<Content>,
}

/// One step: the state in which the learner enters it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeStep {
    /// The step's id, which is also its image tag.
    pub id: StepId,
    /// The title.
    pub title: String,
    /// What its image has beyond the step before.
    pub content: Content,
    /// Where the step begins in the recipe.
    pub place: Place,
}

/// What is put on top of the state before: files first, then environment, then commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The files in the order of the recipe.
    pub files: Vec<RecipeFile>,
    /// Environment variables of the image config, sorted by name.
    pub env: Vec<(String, String)>,
    /// Shell commands, run in order at build time.
    pub commands: Vec<String>,
}

/// One entry of `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeFile {
    /// The absolute target path.
    pub path: String,
    /// Where the bytes come from.
    pub source: FileSource,
    /// The mode of the file, or of all files of a directory source; at most 0o7777.
    pub mode: Option<u32>,
    /// The owner, of directories too.
    pub owner: Owner,
    /// Where the entry begins in the recipe.
    pub place: Place,
}

/// Where a file's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// The text in the recipe.
    Inline(String),
    /// A file or directory of the workshop's tree, as written in the recipe.
    Tree(String),
}

/// Numeric owner of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

#[cfg(test)]
mod tests;
