//! `workshop export`: an artifact file to the export's directory.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::{Context, Exit, Failure};
use crate::domain::export::Layout;
use crate::pipeline::export::{Changes, ExportError, export_artifact};

/// Flags of `workshop export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact
    file: PathBuf,
    /// The export's directory, as `export/` of a workshop; made with its parents
    #[arg(short = 'o', long = "out", value_name = "DIR")]
    out: PathBuf,
    /// How rows become files
    #[arg(long, value_enum, default_value_t = LayoutName::Tree)]
    layout: LayoutName,
    /// Export the runtime tables of a working database too
    #[arg(long)]
    with_state: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LayoutName {
    /// A folder for each step, texts as files of their own
    Tree,
    /// One YAML file for each table
    Tables,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let layout = match args.layout {
        LayoutName::Tree => Layout::Tree,
        LayoutName::Tables => Layout::Tables,
    };
    let (artifact, changes) = export_artifact(&args.file, &args.out, layout, args.with_state).map_err(failure)?;
    let definition = &artifact.definition;
    if context.printer.is_json() {
        context.printer.json(&json!({
            "id": definition.id,
            "version": definition.version,
            "directory": args.out.display().to_string(),
            "contentDigest": artifact.content_digest,
            "written": changes.written,
            "removed": changes.removed,
        }));
    } else {
        let text = format!(
            "{}: {} {} with {} steps, {}",
            args.out.display(),
            definition.id,
            definition.version,
            definition.steps.len(),
            describe(&changes)
        );
        context.printer.data(&text);
    }
    Ok(Exit::Done)
}

/// `3 files written, 1 removed`.
fn describe(changes: &Changes) -> String {
    let files = |number: usize| if number == 1 { "1 file".to_owned() } else { format!("{number} files") };
    match (changes.written.len(), changes.removed.len()) {
        (0, 0) => "nothing to change".to_owned(),
        (written, 0) => format!("{} written", files(written)),
        (written, removed) => format!("{} written, {removed} removed", files(written)),
    }
}

/// The failure that an export ends with, its class by what is at fault.
pub fn failure(error: ExportError) -> Failure {
    match &error {
        ExportError::Artifact { source, .. } if source.is_content() => Failure::from_error(Exit::No, error),
        _ => Failure::from_error(Exit::Outside, error),
    }
}
