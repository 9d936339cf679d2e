//! `workshop artifact push|pull`: artifacts in registries.
//!
//! Parses and prints; what travels is the pipeline's matter.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Context, Exit, Failure, diagnostics, import};
use crate::adapters::artifact::Artifact;
use crate::adapters::registry::{Credentials, Registries, RegistryOptions};
use crate::domain::digest::Digest;
use crate::domain::workspace::{self, Workspace, parse_workspace};
use crate::pipeline::distribute::{DistributeError, Push, pull_artifact, push_artifact, resolve_images};
use crate::pipeline::import::{read_workshop_directory, write_artifact};

/// Flags of `workshop artifact`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Push an artifact, so that `workshop run oci://REF` runs it anywhere
    Push(PushArgs),
    /// Pull an artifact into a file
    Pull(PullArgs),
}

#[derive(Debug, clap::Args)]
struct PushArgs {
    /// Artifact file, or a workshop's directory, whose images have been pushed
    source: PathBuf,
    /// Where to: REGISTRY/REPOSITORY[:TAG], with or without oci:// before it [default tag: latest]
    #[arg(value_name = "REF")]
    reference: String,
    /// How its workspaces run [default for a directory: its own workspace.yaml]
    #[arg(long, value_name = "FILE")]
    workspace: Option<PathBuf>,
    /// Registry, with or without a prefix, of images that name none
    #[arg(long, value_name = "HOST[/PREFIX]")]
    registry: Option<String>,
    /// Push it although images of its steps are not in their registry
    #[arg(long)]
    without_images: bool,
    /// Speak plain HTTP or accept any certificate at the registries
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, clap::Args)]
struct PullArgs {
    /// Where from: REGISTRY/REPOSITORY[:TAG|@DIGEST], with or without oci:// before it
    #[arg(value_name = "REF")]
    reference: String,
    /// The artifact file to write
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: PathBuf,
    /// Write its workspace.yaml there
    #[arg(long, value_name = "FILE")]
    workspace: Option<PathBuf>,
    /// Speak plain HTTP or accept any certificate at the registry
    #[arg(long)]
    insecure: bool,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Push(args) => push(args, context).await,
        Verb::Pull(args) => pull(args, context).await,
    }
}

async fn push(args: PushArgs, context: &Context) -> Result<Exit, Failure> {
    let reference = plain(&args.reference);
    let registry = args.registry.as_deref();
    let hosts = registry.into_iter().chain([reference]);
    let registries = Registries::new(RegistryOptions::of(Credentials::docker(), hosts, args.insecure));
    let scratch =
        tempfile::tempdir().map_err(|error| Failure::outside("failed to make a temporary directory", error))?;
    let (file, own) = if args.source.is_dir() {
        let made = scratch.path().join("workshop.db");
        let own = import_directory(&args, &registries, &made, context).await?;
        (made, own)
    } else {
        (args.source.clone(), None)
    };
    let workspace = match &args.workspace {
        Some(path) => {
            let bytes = read_file(path)?;
            check_workspace(&path.display().to_string(), &bytes, context)?;
            Some(bytes)
        }
        None => own,
    };
    let with_workspace = workspace.is_some();
    let push = Push { file: &file, workspace, reference, registry, without_images: args.without_images };
    let (artifact, digest) = push_artifact(&registries, push).await.map_err(failure)?;
    report(context, "pushed", reference, None, &artifact, digest, with_workspace);
    Ok(Exit::Done)
}

/// Writes the artifact of a directory with the digests that its images have in the registry; its workspace.yaml.
async fn import_directory(
    args: &PushArgs,
    registries: &Registries,
    file: &Path,
    context: &Context,
) -> Result<Option<Vec<u8>>, Failure> {
    let imported = read_workshop_directory(&args.source, args.registry.as_deref()).map_err(import::failure)?;
    let (mut workshop, problems) = match imported.workshop.into_result() {
        Ok(read) => read,
        Err(problems) => {
            diagnostics::show(&context.printer, &problems);
            return Err(Failure::new(Exit::No, format!("\"{}\" is invalid", args.source.display())));
        }
    };
    diagnostics::show(&context.printer, &problems);
    // Progress that an export carries is for backup, not for others.
    workshop.state = Default::default();
    let steps = &workshop.definition.steps;
    let resolved = resolve_images(registries, steps, &Default::default(), args.registry.as_deref()).await;
    let images = match resolved {
        Ok((images, _)) => images,
        Err(_) if args.without_images => Default::default(),
        Err(error) => return Err(failure(error.into())),
    };
    write_artifact(&workshop, &images, file).map_err(import::failure)?;
    Ok(imported.tree.file(workspace::FILE_NAME).map(<[u8]>::to_vec))
}

async fn pull(args: PullArgs, context: &Context) -> Result<Exit, Failure> {
    let reference = plain(&args.reference);
    let registries = Registries::new(RegistryOptions::of(Credentials::docker(), [reference], args.insecure));
    let pulled = pull_artifact(&registries, reference, &args.out).await.map_err(failure)?;
    match (&args.workspace, &pulled.workspace) {
        (Some(path), Some(bytes)) => std::fs::write(path, bytes)
            .map_err(|error| Failure::outside(format!("failed to write \"{}\"", path.display()), error))?,
        (Some(_), None) => context.printer.talk("it has no workspace.yaml: all fields have their defaults"),
        (None, Some(_)) => context.printer.talk("it has a workspace.yaml too, which `--workspace FILE` writes"),
        (None, None) => {}
    }
    let file = Some((args.out.as_path(), pulled.file));
    report(context, "pulled", reference, file, &pulled.artifact, pulled.digest, pulled.workspace.is_some());
    Ok(Exit::Done)
}

/// Says what was pushed or pulled; a file with the sha256 of its bytes.
fn report(
    context: &Context,
    done: &str,
    reference: &str,
    file: Option<(&Path, Digest)>,
    artifact: &Artifact,
    digest: Digest,
    with_workspace: bool,
) {
    let definition = &artifact.definition;
    if context.printer.is_json() {
        let file =
            file.map_or(Value::Null, |(path, digest)| json!({ "path": path.display().to_string(), "digest": digest }));
        context.printer.json(&json!({
            "reference": reference,
            "digest": digest,
            "id": definition.id,
            "version": definition.version,
            "contentDigest": artifact.content_digest,
            "workspace": with_workspace,
            "file": file,
        }));
        return;
    }
    let place = file.map(|(path, _)| format!(" to {}", path.display())).unwrap_or_default();
    context.printer.data(&format!(
        "{} {} {} with {} steps{place}\n  {reference}@{digest}\n",
        context.printer.green(done),
        definition.id,
        definition.version,
        definition.steps.len(),
    ));
}

/// The reference without the scheme that SOURCE has.
fn plain(reference: &str) -> &str {
    reference.strip_prefix("oci://").unwrap_or(reference)
}

/// Reads a file that a flag named.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::outside(format!("failed to read \"{}\"", path.display()), error))
}

/// Reads a `workspace.yaml`, shows its problems, and refuses an invalid one.
pub fn check_workspace(shown: &str, bytes: &[u8], context: &Context) -> Result<Workspace, Failure> {
    match parse_workspace(shown, bytes).into_result() {
        Ok((workspace, warnings)) => {
            diagnostics::show(&context.printer, &warnings);
            Ok(workspace)
        }
        Err(problems) => {
            diagnostics::show(&context.printer, &problems);
            Err(Failure::new(Exit::No, format!("\"{shown}\" is invalid")))
        }
    }
}

/// The failure that pushing or pulling ends with, its class by what is at fault.
pub fn failure(error: DistributeError) -> Failure {
    use crate::adapters::registry::RegistryError;
    let (exit, help) = match &error {
        DistributeError::Registry(RegistryError::Reference { .. }) | DistributeError::Digest(_) => (Exit::Usage, None),
        DistributeError::Taken { .. } => (Exit::Refused, Some("choose another tag or another repository")),
        DistributeError::NoImages(_) => {
            (Exit::No, Some("push them with `workshop build compile --registry …`, or give --without-images"))
        }
        DistributeError::State(_) => (Exit::No, Some("`workshop export` and `workshop import` make one without them")),
        error if error.is_content() => (Exit::No, None),
        _ => (Exit::Outside, None),
    };
    let failure = Failure::from_error(exit, error);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
