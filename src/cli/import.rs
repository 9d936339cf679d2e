//! `workshop import`: a workshop's directory to its artifact file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Exit, Failure, diagnostics};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::digest::Digest;
use crate::domain::workshop::Workshop;
use crate::pipeline::import::{ImportError, read_workshop_directory, write_artifact};

/// Flags of `workshop import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The workshop's directory: the one that holds step-spec.yaml, or export/workshop.yaml
    dir: PathBuf,
    /// The artifact to write
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: PathBuf,
    /// Registry, with or without a prefix, of images that name none
    #[arg(long, value_name = "HOST[/PREFIX]")]
    registry: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    id: Option<&'a str>,
    version: Option<&'a str>,
    file: Option<String>,
    digest: Option<Digest>,
    content_digest: Option<Digest>,
    unit_key: Option<String>,
    steps: Vec<StepReport<'a>>,
    diagnostics: &'a [Diagnostic],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepReport<'a> {
    id: &'a str,
    image_tag: &'a str,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let imported = read_workshop_directory(&args.dir, args.registry.as_deref()).map_err(failure)?;
    let unit_key = imported.key.map(|key| key.to_string());
    let (workshop, problems) = match imported.workshop.into_result() {
        Ok((workshop, problems)) => (Some(workshop), problems),
        Err(problems) => (None, problems),
    };
    let written = workshop.as_ref().map(|workshop| write_artifact(workshop, &BTreeMap::new(), &args.out));
    let digest = written.transpose().map_err(failure)?;
    if context.printer.is_json() {
        context.printer.json(&report(workshop.as_ref(), digest, unit_key, &args, &problems));
    } else {
        diagnostics::show(&context.printer, &problems);
        match (&workshop, digest) {
            (Some(workshop), Some(digest)) => {
                let definition = &workshop.definition;
                let text = format!(
                    "{}: {} {} with {} steps, {digest}",
                    args.out.display(),
                    definition.id,
                    definition.version,
                    definition.steps.len()
                );
                context.printer.data(&text);
            }
            _ => context.printer.talk_always(&format!("{}: nothing written", diagnostics::count(&problems))),
        }
    }
    Ok(if digest.is_some() { Exit::Done } else { Exit::No })
}

fn report<'a>(
    workshop: Option<&'a Workshop>,
    digest: Option<Digest>,
    unit_key: Option<String>,
    args: &Args,
    diagnostics: &'a [Diagnostic],
) -> Report<'a> {
    let definition = workshop.map(|workshop| &workshop.definition);
    let steps = definition.map(|definition| definition.steps.as_slice()).unwrap_or_default();
    Report {
        id: definition.map(|definition| definition.id.as_str()),
        version: definition.map(|definition| definition.version.as_str()),
        file: digest.map(|_| args.out.display().to_string()),
        digest,
        content_digest: definition.map(crate::domain::definition::Definition::content_digest),
        unit_key,
        steps: steps.iter().map(|step| StepReport { id: step.id.as_str(), image_tag: &step.image_tag }).collect(),
        diagnostics,
    }
}

/// The failure that an import ends with, its class by what is at fault.
pub fn failure(error: ImportError) -> Failure {
    match &error {
        ImportError::NoWorkshop { below, .. } => {
            let help = match &below[..] {
                [] => "name the directory that holds step-spec.yaml".to_owned(),
                below => format!("name one of the workshops below it: {}", below.join(", ")),
            };
            Failure::from_error(Exit::No, error).help(help)
        }
        ImportError::Artifact { source, .. } if source.is_content() => Failure::from_error(Exit::No, error),
        _ => Failure::from_error(Exit::Outside, error),
    }
}
