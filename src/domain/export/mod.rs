//! The export: an artifact's rows as YAML and text files, in two layouts, and back again.
//!
//! Rendering and parsing are inverse: rows come back as they were, and canonical files byte for byte. What a recipe
//! beside the export decides is laid over it in [`compose`]; reading and writing directories is not done here.

pub mod compose;
pub mod emit;
mod fields;
mod reader;
pub mod state;
mod tables;
mod tree;

pub use compose::{Facts, StepFacts};
pub use fields::{Export, NavigationFields, Placed, StepFields, WorkshopFields};
pub use state::{CustomRow, RuntimeRow, State};
pub use tree::FOLDER as STEPS_FOLDER;

use super::definition::Definition;
use super::diagnostic::Checked;
use super::tree::FileTree;
use emit::EmitError;

/// The version of the export's form, the field `schema` of `workshop.yaml`.
pub const SCHEMA: u32 = 1;
/// The file that makes a directory an export.
pub const WORKSHOP_FILE: &str = "workshop.yaml";
/// The folder of files that go into the images; no rows, so never touched here.
pub const ASSETS: &str = "assets";

/// How rows are laid out as files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// A folder for each step, texts as files of their own.
    #[default]
    Tree,
    /// One YAML file for each table.
    Tables,
}

/// The files of an export, canonical; paths are relative to the export's directory.
pub fn render(definition: &Definition, layout: Layout, state: &State) -> Result<FileTree, EmitError> {
    let mut files = match layout {
        Layout::Tree => tree::render(definition)?,
        Layout::Tables => tables::render(definition)?,
    };
    state::render(state, &mut files)?;
    Ok(files)
}

/// Reads the export whose directory is `tree`; `prefix` is that directory's path from the source's root, for
/// diagnostics.
#[must_use]
pub fn parse<'a>(prefix: &str, tree: &'a FileTree) -> Checked<Export<'a>> {
    let mut reader = reader::Reader::new(prefix, tree);
    let (workshop, layout) = fields::read_workshop_file(&mut reader);
    let steps = match layout {
        Layout::Tree => tree::read(&mut reader, &workshop),
        Layout::Tables => tables::read(&mut reader),
    };
    let state = state::read(&mut reader);
    reader.report_unknown(layout);
    let diagnostics = std::mem::take(&mut reader.diagnostics);
    Checked { value: Some(Export { files: reader.files, layout, workshop, steps, state }), diagnostics }
}

/// True when `path` is a file that a layout writes: what an export that no longer has it removes.
#[must_use]
pub fn is_layout_file(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        [file] => file == WORKSHOP_FILE || tables::FILES.contains(&file) || is_state_file(file),
        [STEPS_FOLDER, _, file] => tree::FILES.contains(&file),
        _ => false,
    }
}

/// True when `path` holds rows of the runtime tables.
#[must_use]
pub fn is_state_file(path: &str) -> bool {
    state::FILES.contains(&path)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::any_definition;
