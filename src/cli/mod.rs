//! Layer 4: the command line, one file per verb.
//!
//! A verb parses its flags, calls the pipeline and prints; decisions live below.

pub mod artifact;
pub mod build;
pub mod context;
pub mod controller;
pub mod crds;
pub mod diagnostics;
pub mod diff;
pub mod export;
pub mod failure;
pub mod fmt;
pub mod fronts;
pub mod get;
pub mod image;
pub mod import;
pub mod printer;
pub mod progress;
pub mod run;
pub mod serving;
pub mod show;
pub mod state_lock;
pub mod sync;
pub mod sync_flags;
pub mod up;
pub mod validate;
pub mod workspace;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use context::Context;
pub use failure::{Exit, Failure};
pub use printer::{Color, Output, Printer};

/// Hands-on Linux workshops from Git: YAML to SQLite, OCI images and custom resources
#[derive(Debug, Parser)]
#[command(name = "workshop", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory for mirrors, images and the embedded store [default: the user's data directory]
    #[arg(long, global = true, value_name = "DIR", env = "WORKSHOP_STATE")]
    pub state: Option<PathBuf>,
    /// Form of the result on standard output
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// When to colour text
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Print only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more (-v info, -vv debug, -vvv trace)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Kubeconfig file, for verbs that talk to a cluster [default: $KUBECONFIG, ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show all problems of all workshops below directories
    Validate(validate::Args),
    /// Show what is different between two sides, and why images would be built again
    Diff(diff::Args),
    /// Write a workshop's directory as one artifact file
    Import(import::Args),
    /// Write an artifact file as the YAML and text files of an export
    Export(export::Args),
    /// Rewrite exports in their canonical form
    Fmt(fmt::Args),
    /// Build the images of a workshop's steps
    Build(build::Args),
    /// Keep a cluster in step with its WorkshopRepository objects
    Controller(controller::Args),
    /// Print the definitions of the custom resources, for kubectl apply -f -
    Crds(crds::Args),
    /// Push artifacts to registries and pull them
    Artifact(artifact::Args),
    /// Look after the local store of base images
    Image(image::Args),
    /// Bring one source in: import, compile, and write its objects
    Sync(sync::Args),
    /// Keep sources in step on this machine, run their workspaces and serve them, in the foreground
    Up(up::Args),
    /// Run one workspace of one workshop, in the foreground
    Run(run::Args),
    /// Make, change and open workspaces of this machine
    #[command(visible_alias = "ws")]
    Workspace(workspace::Args),
    /// Show the objects of the embedded store or of a cluster
    Get(get::Args),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// Parses the program's arguments, runs the verb and gives the exit code.
pub async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let context = match Context::new(&arguments.global) {
        Ok(context) => context,
        Err(failure) => return failure.print(&Printer::new(&arguments.global)),
    };
    match run(arguments.verb, &context).await {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print(&context.printer),
    }
}

async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Validate(args) => validate::run(args, context).await,
        Verb::Diff(args) => diff::run(args, context).await,
        Verb::Import(args) => import::run(args, context).await,
        Verb::Export(args) => export::run(args, context).await,
        Verb::Fmt(args) => fmt::run(args, context).await,
        Verb::Build(args) => build::run(args, context).await,
        Verb::Controller(args) => controller::run(args, context).await,
        Verb::Crds(args) => crds::run(args, context).await,
        Verb::Artifact(args) => artifact::run(args, context).await,
        Verb::Image(args) => image::run(args, context).await,
        Verb::Sync(args) => sync::run(args, context).await,
        Verb::Up(args) => up::run(args, context).await,
        Verb::Run(args) => run::run(args, context).await,
        Verb::Workspace(args) => workspace::run(args, context).await,
        Verb::Get(args) => get::run(args, context).await,
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "workshop", &mut text);
            context.printer.data(&String::from_utf8_lossy(&text));
            Ok(Exit::Done)
        }
        Verb::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Arguments::command())
                .render(&mut text)
                .map_err(|error| Failure::outside("failed to render the manual page", error))?;
            context.printer.data(&String::from_utf8_lossy(&text));
            Ok(Exit::Done)
        }
    }
}

/// Says that the threads of the program cannot be started.
#[must_use]
pub fn no_runtime(error: &std::io::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: failed to start the program's threads\n  because {error}");
    Exit::Outside.into()
}

/// A token that is cancelled when somebody ends the program, whatever it is doing then.
fn stopping() -> tokio_util::sync::CancellationToken {
    let stop = tokio_util::sync::CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        ending().await;
        stopping.cancel();
    });
    stop
}

/// Waits until somebody ends the program.
async fn ending() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
