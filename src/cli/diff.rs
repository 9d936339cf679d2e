//! `workshop diff`: what is different between two sides, and what of it would build images again.
//!
//! Reads and prints; nothing is written.

use std::io::IsTerminal as _;

use serde::Serialize;

use super::{Context, Exit, Failure, diagnostics};
use crate::adapters::cluster::Cluster;
use crate::adapters::folder::FolderError;
use crate::domain::diagnostic::Diagnostic;
use crate::domain::diff::{State, StepChange, WorkshopChange, compare, problems};
use crate::pipeline::side::{Side, SideError, build_views, load};
use crate::pipeline::source::SourceError;

/// A and B are each a directory, an artifact file, SOURCE@REVISION (a Git URL or directory with a branch, tag or
/// commit; in a directory also HEAD~1 and the like) or `cluster`.
///
/// Without B, a directory is compared with its last commit, a revision of a directory with that directory, and anything
/// else with the current directory. Sides are compared by what both of them know: an artifact knows no recipe, a cluster
/// no text. Of a cluster only templates count that belong to the owner of a compared workshop. A registry in front of an
/// image is no difference.
///
/// Exits with 0 when there is no difference and with 1 when there is one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The side before
    #[arg(value_name = "A")]
    before: String,
    /// The side after
    #[arg(value_name = "B")]
    after: Option<String>,
    /// Leave out the text of the files
    #[arg(long)]
    summary: bool,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Report {
    same: bool,
    workshops: Vec<WorkshopChange>,
    diagnostics: Vec<Diagnostic>,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let (report, exit) = match build_report(&args, context).await {
        Ok(report) => {
            let exit = if report.same { Exit::Done } else { Exit::No };
            (report, exit)
        }
        Err(error) if context.printer.is_json() => {
            let (exit, help) = class(&error);
            let message = crate::domain::chain::line(&error);
            let diagnostic = Diagnostic::error("unreadable-source", "", message).help(help);
            (Report { same: false, workshops: Vec::new(), diagnostics: vec![diagnostic] }, exit)
        }
        Err(error) => {
            let (exit, help) = class(&error);
            return Err(Failure::from_error(exit, error).help(help));
        }
    };
    print(&report, context);
    Ok(exit)
}

async fn build_report(args: &Args, context: &Context) -> Result<Report, SideError> {
    let before = Side::parse(&args.before)?;
    let (before, after) = match &args.after {
        Some(after) => (before, Side::parse(after)?),
        None => Side::pair(before)?,
    };
    let cluster = if before == Side::Cluster || after == Side::Cluster {
        let connected = Cluster::connect(
            context.kubeconfig.as_deref(),
            context.kube_context.as_deref(),
            context.namespace.as_deref(),
        );
        Some(connected.await?)
    } else {
        None
    };
    let before = load(&before, &context.state, cluster.as_ref()).await?;
    let after = load(&after, &context.state, cluster.as_ref()).await?;
    let (before, after) = build_views(before, after);
    let mut workshops = compare(&before, &after);
    if args.summary {
        for file in workshops.iter_mut().flat_map(|change| &mut change.files) {
            file.diff = None;
        }
    }
    let mut diagnostics = problems(&before);
    for problem in problems(&after) {
        if !diagnostics.contains(&problem) {
            diagnostics.push(problem);
        }
    }
    Ok(Report { same: workshops.is_empty(), workshops, diagnostics })
}

/// Whose fault it is, and what to do.
fn class(error: &SideError) -> (Exit, &'static str) {
    match error {
        SideError::Invalid(_) | SideError::Unsupported(_) => {
            (Exit::Usage, "name a directory, an artifact file, SOURCE@REVISION or `cluster`")
        }
        SideError::NoRepository(_) => (Exit::Usage, "name a second side"),
        SideError::Source(SourceError::Folder(FolderError::Missing(_) | FolderError::NoDirectory(_))) => {
            (Exit::Usage, "name a directory, an artifact file, SOURCE@REVISION or `cluster`")
        }
        SideError::Source(error @ (SourceError::NoRepository { .. } | SourceError::Artifact(_))) => {
            (Exit::Usage, error.help())
        }
        SideError::Source(error) => (Exit::Outside, error.help()),
        SideError::Read(_) | SideError::Cluster(_) => (Exit::Outside, "see that it can be reached, then try again"),
        SideError::Artifact(error) if error.is_content() => (Exit::No, "see that the file is an artifact of workshop"),
        SideError::Artifact(_) => (Exit::Outside, "see that the file can be read, then try again"),
    }
}

fn print(report: &Report, context: &Context) {
    let printer = &context.printer;
    if printer.is_json() {
        printer.json(report);
        return;
    }
    diagnostics::show(printer, &report.diagnostics);
    let is_terminal = std::io::stdout().is_terminal();
    // A pipe gets the diff as it is, for `patch`; a terminal nothing that could steer it, and colours.
    let painted = |line: &str| {
        if !is_terminal {
            return line.to_owned();
        }
        let line = diagnostics::plain(line);
        match line.as_bytes().first() {
            _ if line.starts_with("+++") || line.starts_with("---") => printer.bold(&line),
            Some(b'+') => printer.green(&line),
            Some(b'-') => printer.red(&line),
            Some(b'@') => printer.blue(&line),
            _ => line,
        }
    };
    let mut text = String::new();
    for change in &report.workshops {
        for line in summary(change) {
            text += &diagnostics::plain(&line);
            text.push('\n');
        }
    }
    for file in report.workshops.iter().flat_map(|change| &change.files) {
        let Some(diff) = &file.diff else { continue };
        text.push('\n');
        for line in diff.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => text += &format!("{}\n", painted(line)),
                None => text += &painted(line),
            }
        }
    }
    printer.data(&text);
    printer.talk(&match report.workshops.len() {
        0 => "no difference".to_owned(),
        1 => "1 workshop differs".to_owned(),
        number => format!("{number} workshops differ"),
    });
}

/// The lines that say what became of a workshop.
fn summary(change: &WorkshopChange) -> Vec<String> {
    let id = change.id.as_deref().unwrap_or("?");
    let place = match (&change.from, &change.path) {
        (Some(from), Some(path)) => format!(" ({} -> {})", shown(from), shown(path)),
        (_, Some(path)) => format!(" ({})", shown(path)),
        _ => String::new(),
    };
    let mut lines = vec![format!("{} {id}{place}", change.state.as_str())];
    lines.extend(change.changes.iter().map(|fact| format!("  {fact}")));
    lines.extend(change.steps.iter().map(step_line));
    lines.extend(change.files.iter().map(|file| format!("  {} {}", file.state.as_str(), file.path)));
    lines
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

fn step_line(step: &StepChange) -> String {
    let mut line = format!("  step {}", step.id);
    if step.state != State::Unchanged {
        line += &format!(" {}", step.state.as_str());
    }
    if !step.changes.is_empty() {
        line += &format!(": {}", step.changes.join(", "));
    }
    if let Some(reason) = &step.rebuild {
        line += &format!("; its image is built again: {reason}");
    }
    line
}
