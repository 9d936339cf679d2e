//! `workshop build compile|status`: the images of one workshop, published from a directory.
//!
//! Parses, shows progress and prints; what is built and why is the pipeline's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::progress::BuildProgress;
use super::{Context, Exit, Failure, diagnostics, import};
use crate::adapters::layout::Layout;
use crate::adapters::registry::{Credentials, Registries, RegistryOptions};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::digest::Digest;
use crate::domain::duration::Duration;
use crate::domain::names::StepId;
use crate::domain::recipe::{self, Recipe};
use crate::domain::tree::FileTree;
use crate::domain::workshop::Workshop;
use crate::pipeline::base::Bases;
use crate::pipeline::compile::{
    BaseRecord, CommandFailure, CommandPolicy, CompileError, CompileInput, Compiled, Compiler, FINISH, FailureClass,
    assets_of,
};
use crate::pipeline::image_end::ImageEnd;
use crate::pipeline::import::{read_workshop_directory, write_artifact};
use crate::pipeline::platform::Platform;

/// Flags of `workshop build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build and publish one image per step; what is published already is not built again
    Compile(CompileArgs),
    /// Show which steps are built and published
    Status(TargetArgs),
}

/// Which workshop, and where its images are.
#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// The workshop's directory: the one that holds step-spec.yaml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Registry, with or without a prefix, of an image that names none
    #[arg(long, value_name = "HOST[/PREFIX]")]
    registry: Option<String>,
    /// Speak plain HTTP to that registry, or accept a certificate that nobody vouches for
    #[arg(long, requires = "registry")]
    insecure: bool,
    /// OCI layout directory to put the images into, instead of a registry [default, where neither the recipe nor
    /// --registry names a registry: `layout` of the state directory]
    #[arg(long, value_name = "DIR")]
    layout: Option<PathBuf>,
    /// Directory of the programs that are put on top of every image
    #[arg(long, value_name = "DIR", env = "WORKSHOP_PLATFORM")]
    platform: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CompileArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Keep all steps before this one as published
    #[arg(long, value_name = "ID")]
    from_step: Option<String>,
    /// Write the artifact, with the digests of the images, to this file
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Look the base image up again, instead of keeping what the last compile found
    #[arg(long)]
    refresh_base: bool,
    /// Run commands without a network
    #[arg(long)]
    no_network: bool,
    /// End a command that runs longer
    #[arg(long, value_name = "DURATION", default_value = "30m")]
    timeout: Duration,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Compile(args) => compile(args, context).await,
        Verb::Status(args) => status(args, context).await,
    }
}

/// A workshop that can be compiled, and where to.
struct Target {
    workshop: Workshop,
    tree: FileTree,
    problems: Vec<Diagnostic>,
    compiler: Compiler,
    platform: Platform,
}

/// Reads the workshop; none (and everything told) where it is not valid.
fn read_target(args: &TargetArgs, context: &Context) -> Result<Result<Target, Vec<Diagnostic>>, Failure> {
    let imported = read_workshop_directory(&args.dir, args.registry.as_deref()).map_err(import::failure)?;
    let (workshop, problems) = match imported.workshop.into_result() {
        Ok(read) => read,
        Err(problems) => return Ok(Err(problems)),
    };
    let Some(recipe) = &workshop.recipe else {
        return Err(Failure::new(Exit::No, format!("\"{}\" has no {}", args.dir.display(), recipe::FILE_NAME))
            .help("a workshop without a recipe brings its images along; there is nothing to compile"));
    };
    let platform =
        Platform::find(args.platform.as_deref()).map_err(|error| Failure::from_error(Exit::Outside, error))?;
    let registries =
        Registries::new(RegistryOptions::of(Credentials::docker(), args.registry.as_deref(), args.insecure));
    let bases = Bases::new(&context.state, registries.clone(), platform.architecture())
        .with_local_store()
        .with_directory(&args.dir);
    let has_registry = args.registry.is_some() || recipe.image.registry().is_some();
    let images = match &args.layout {
        Some(layout) => ImageEnd::Layout(Layout::new(layout)),
        None if has_registry => ImageEnd::Registry(registries),
        None => ImageEnd::Layout(Layout::new(context.state.join("layout"))),
    };
    let compiler = Compiler::new(images, bases, &context.state);
    Ok(Ok(Target { workshop, tree: imported.tree, problems, compiler, platform }))
}

impl Target {
    fn recipe(&self) -> Result<&Recipe, Failure> {
        self.workshop.recipe.as_ref().ok_or_else(|| Failure::new(Exit::No, "the workshop has no recipe"))
    }

    fn input<'a>(
        &'a self,
        args: &'a TargetArgs,
        recorded_base: Option<Digest>,
        cancel: &'a CancellationToken,
    ) -> Result<CompileInput<'a>, Failure> {
        let recipe = self.recipe()?;
        Ok(CompileInput {
            recipe,
            tree: &self.tree,
            registry: args.registry.as_deref(),
            recorded_base,
            from_step: None,
            platform: &self.platform,
            assets: assets_of(recipe, &self.tree).map_err(failure)?,
            commands: CommandPolicy::default(),
            cancel,
        })
    }

    fn base_record(&self, args: &TargetArgs, state: &Path) -> Result<BaseRecord, Failure> {
        let recipe = self.recipe()?;
        let text = self.tree.file(recipe::FILE_NAME).unwrap_or_default();
        Ok(BaseRecord::new(state, &recipe.image.full(args.registry.as_deref()), text))
    }
}

async fn compile(args: CompileArgs, context: &Context) -> Result<Exit, Failure> {
    let from_step = args
        .from_step
        .as_deref()
        .map(StepId::parse)
        .transpose()
        .map_err(|error| Failure::from_error(Exit::Usage, error).help("name a step's id with --from-step"))?;
    let target = match read_target(&args.target, context)? {
        Ok(target) => target,
        Err(problems) => return Ok(invalid(context, &problems)),
    };
    if !context.printer.is_json() {
        diagnostics::show(&context.printer, &target.problems);
    }
    let record = target.base_record(&args.target, &context.state)?;
    let recorded = if args.refresh_base { None } else { record.read() };
    let cancel = CancellationToken::new();
    let mut input = target.input(&args.target, recorded, &cancel)?;
    input.from_step = from_step.as_ref();
    input.commands.network = !args.no_network;
    input.commands.timeout = args.timeout.into();

    let on_interrupt = tokio::spawn({
        let cancel = cancel.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                cancel.cancel();
            }
        }
    });
    let progress = BuildProgress::new(&context.printer);
    let compiled = target.compiler.compile(&input, &|event| progress.show(event)).await;
    on_interrupt.abort();
    progress.finish();
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(error) => return failed(context, &target, error),
    };
    if let Err(error) = record.write(compiled.base) {
        tracing::warn!(%error, "cannot record the base's digest");
    }
    let artifact = match &args.out {
        Some(file) => {
            let digests: BTreeMap<String, Digest> = compiled
                .steps
                .iter()
                .filter(|step| step.id != FINISH)
                .map(|step| (step.id.clone(), step.digest))
                .collect();
            Some((file, write_artifact(&target.workshop, &digests, file).map_err(import::failure)?))
        }
        None => None,
    };
    let artifact =
        artifact.as_ref().map(|(file, digest)| Written { file: file.display().to_string(), digest: *digest });
    if context.printer.is_json() {
        context.printer.json(&report(&target, Some(&compiled), artifact, None));
    } else {
        for step in &compiled.steps {
            let result = match step.result {
                crate::pipeline::compile::StepResult::Built => context.printer.green("built "),
                crate::pipeline::compile::StepResult::Reused => context.printer.dim("reused"),
            };
            context.printer.data(&format!("{result} {}@{}", step.image_tag, step.digest));
        }
        if let Some(written) = artifact {
            context.printer.data(&format!("{} {}", written.file, written.digest));
        }
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Written {
    file: String,
    digest: Digest,
}

/// The document of `build compile`; its fields are always there.
fn report(
    target: &Target,
    compiled: Option<&Compiled>,
    artifact: Option<Written>,
    failure: Option<serde_json::Value>,
) -> serde_json::Value {
    let steps: Vec<_> = compiled
        .map(|compiled| compiled.steps.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|step| {
            json!({
                "id": step.id, "key": step.key, "digest": step.digest, "imageTag": step.image_tag,
                "result": step.result,
            })
        })
        .collect();
    json!({
        "id": target.workshop.id, "base": compiled.map(|compiled| compiled.base), "steps": steps,
        "artifact": artifact, "failure": failure, "diagnostics": target.problems,
    })
}

fn invalid(context: &Context, problems: &[Diagnostic]) -> Exit {
    if context.printer.is_json() {
        context.printer.json(&json!({
            "id": null, "base": null, "steps": [], "artifact": null, "failure": null, "diagnostics": problems,
        }));
    } else {
        diagnostics::show(&context.printer, problems);
        context.printer.talk_always(&format!("{}: nothing compiled", diagnostics::count(problems)));
    }
    Exit::No
}

/// Tells why the compile ended early; with JSON on standard output, for scripts.
fn failed(context: &Context, target: &Target, error: CompileError) -> Result<Exit, Failure> {
    let failure_exit = exit(error.class());
    if context.printer.is_json() {
        let command = match &error {
            CompileError::Command(failure) => Some(json!({
                "step": failure.place.step, "number": failure.number, "text": failure.text,
                "exit": failure.exit.to_string(), "file": recipe::FILE_NAME, "line": failure.place.line,
                "log": failure.log, "lastLines": failure.last_lines,
            })),
            _ => None,
        };
        let messages = crate::domain::chain::messages(&error);
        let value = json!({ "message": messages[0], "causes": messages[1..], "command": command });
        context.printer.json(&report(target, None, None, Some(value)));
    } else if let CompileError::Command(failure) = &error {
        show_command(context, failure);
    }
    Err(failure(error))
        .or_else(|failure: Failure| if context.printer.is_json() { Ok(failure_exit) } else { Err(failure) })
}

/// The end of a failed command's output, above the error itself.
fn show_command(context: &Context, failure: &CommandFailure) {
    for line in &failure.last_lines {
        context.printer.talk_always(&format!("{} {line}", context.printer.dim("|")));
    }
}

fn exit(class: FailureClass) -> Exit {
    match class {
        FailureClass::Content | FailureClass::Command => Exit::No,
        FailureClass::Outside | FailureClass::Cancelled => Exit::Outside,
        FailureClass::Refused => Exit::Refused,
    }
}

fn failure(error: CompileError) -> Failure {
    let help = match &error {
        CompileError::Command(failure) => Some(format!(
            "the whole output is in \"{}\"; when it is mended, the steps before \"{}\" are not built again",
            failure.log.display(),
            failure.place.step
        )),
        CompileError::FromStep { .. } => Some("compile without --from-step".to_owned()),
        _ => None,
    };
    let failure = Failure::from_error(exit(error.class()), error);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

async fn status(args: TargetArgs, context: &Context) -> Result<Exit, Failure> {
    let target = match read_target(&args, context)? {
        Ok(target) => target,
        Err(problems) => return Ok(invalid(context, &problems)),
    };
    let cancel = CancellationToken::new();
    let recorded = target.base_record(&args, &context.state)?.read();
    let input = target.input(&args, recorded, &cancel)?;
    let steps = target.compiler.status(&input).await.map_err(failure)?;
    let is_current = steps.iter().all(|step| step.is_current);
    if context.printer.is_json() {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "id": step.id, "key": step.key, "imageTag": step.image_tag, "built": step.is_built,
                    "digest": step.digest, "current": step.is_current,
                })
            })
            .collect();
        context.printer.json(&json!({ "id": target.workshop.id, "steps": steps }));
    } else {
        let width = steps.iter().map(|step| step.id.len()).max().unwrap_or(0);
        for step in &steps {
            let state = match (step.is_built, step.is_current) {
                (_, true) => context.printer.green("published"),
                (true, false) => context.printer.yellow("built    "),
                (false, false) => context.printer.yellow("to build "),
            };
            let digest = step.digest.map_or_else(|| "-".to_owned(), |digest| digest.to_string());
            context.printer.data(&format!("{:width$}  {state}  key-{}  {digest}", step.id, &step.key.hex()[..12]));
        }
    }
    Ok(if is_current { Exit::Done } else { Exit::No })
}
