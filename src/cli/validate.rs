//! `workshop validate`: all problems of all workshops below some directories.
//!
//! Reads and judges; nothing is written, built or fetched.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, Exit, Failure, diagnostics};
use crate::adapters::folder::FolderError;
use crate::domain::clash::{Claim, find_clashes};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::recipe;
use crate::domain::tree::FileTree;
use crate::domain::workshop::{Workshop, peek_id, read_workshop};
use crate::pipeline::source::{ReadError, SourceError, read_directory};

/// Exits with 0 when every workshop is valid, warnings or not, and with 1 when one is not or when there is none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories that hold workshops, each read as one source
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Registry that is put before images that name none, HOST[/PREFIX]
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,
}

/// What `--output json` prints.
#[derive(Debug, Default, Serialize)]
struct Report {
    workshops: Vec<Row>,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Debug, Serialize)]
struct Row {
    path: String,
    id: Option<String>,
    valid: bool,
}

/// One workshop of a source.
struct Read {
    path: String,
    id: Option<String>,
    tree: FileTree,
    workshop: Option<Workshop>,
    diagnostics: Vec<Diagnostic>,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut report = Report::default();
    let mut exit = Exit::Done;
    for path in &args.paths {
        match validate(path, args.registry.as_deref(), &mut report) {
            Ok(()) => {}
            Err(error) => {
                let (found, help) = match &error {
                    SourceError::Folder(FolderError::Missing(_) | FolderError::NoDirectory(_)) => {
                        (Exit::Usage, "name a directory that holds workshops")
                    }
                    _ => (Exit::Outside, "see that the directory can be read, then try again"),
                };
                exit = if exit == Exit::Outside { exit } else { found };
                let message = crate::domain::chain::line(&error);
                report
                    .diagnostics
                    .push(Diagnostic::error("unreadable-source", path.display().to_string(), message).help(help));
            }
        }
    }
    if exit == Exit::Done && report.diagnostics.iter().any(Diagnostic::is_error) {
        exit = Exit::No;
    }
    print(&report, context);
    Ok(exit)
}

/// Adds everything that is to be said of the source at `directory`.
fn validate(directory: &Path, registry: Option<&str>, report: &mut Report) -> Result<(), SourceError> {
    let snapshot = read_directory(directory, None)?;
    let shown = Shown::new(directory);
    let mut workshops: Vec<Read> = Vec::new();
    for unit in &snapshot.units {
        let mut read = Read {
            path: unit.path.clone(),
            id: None,
            tree: FileTree::default(),
            workshop: None,
            diagnostics: Vec::new(),
        };
        match snapshot.read(unit) {
            Ok(tree) => {
                let checked = read_workshop(&unit.path, &tree, None, registry);
                read.id = peek_id(&tree).map(|id| id.to_string());
                (read.workshop, read.diagnostics) = (checked.value, checked.diagnostics);
                read.tree = tree;
            }
            Err(ReadError::Content { diagnostics, .. }) => read.diagnostics = diagnostics,
            Err(error) => {
                let message = crate::domain::chain::line(&error);
                read.diagnostics.push(Diagnostic::error("unreadable", unit.path.clone(), message));
            }
        }
        workshops.push(read);
    }
    for (index, clash) in clashes(&workshops, registry) {
        workshops[index].diagnostics.push(clash);
    }
    if workshops.is_empty() {
        let message = "there is no workshop here: no directory has step-spec.yaml or export/workshop.yaml";
        report.diagnostics.push(
            Diagnostic::error("no-workshop", directory.display().to_string(), message)
                .help("name the directory of a workshop, or one above; what .gitignore excludes is not read"),
        );
    }
    report.diagnostics.extend(snapshot.problems.into_iter().map(|problem| shown.diagnostic(problem)));
    for read in workshops {
        let valid = read.workshop.is_some() && !read.diagnostics.iter().any(Diagnostic::is_error);
        report.workshops.push(Row { path: shown.path(&read.path), id: read.id, valid });
        report.diagnostics.extend(read.diagnostics.into_iter().map(|problem| shown.diagnostic(problem)));
    }
    Ok(())
}

/// Two with one id or one image, each at its own place. A workshop that is broken otherwise still holds its id.
fn clashes(workshops: &[Read], registry: Option<&str>) -> Vec<(usize, Diagnostic)> {
    let holders: Vec<(usize, &Read, &str)> =
        workshops.iter().enumerate().filter_map(|(index, read)| Some((index, read, read.id.as_deref()?))).collect();
    let images: Vec<Option<String>> = holders
        .iter()
        .map(|(_, read, _)| Some(read.workshop.as_ref()?.recipe.as_ref()?.image.full(registry)))
        .collect();
    let claims: Vec<Claim<'_>> = holders
        .iter()
        .zip(&images)
        .map(|((_, read, id), image)| Claim {
            path: &read.path,
            id,
            image: image.as_deref(),
            recipe: read.tree.file(recipe::FILE_NAME),
        })
        .collect();
    find_clashes(&claims).into_iter().map(|(claim, problem)| (holders[claim].0, problem)).collect()
}

/// Turns paths from the source's root into paths from where the person stands.
struct Shown {
    prefix: String,
}

impl Shown {
    fn new(directory: &Path) -> Self {
        let text = directory.to_string_lossy();
        let text = text.strip_prefix("./").unwrap_or(&text).trim_end_matches('/');
        Self { prefix: if text == "." { String::new() } else { text.to_owned() } }
    }

    fn path(&self, path: &str) -> String {
        match (self.prefix.as_str(), path) {
            ("", "") => ".".to_owned(),
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        }
    }

    fn diagnostic(&self, diagnostic: Diagnostic) -> Diagnostic {
        Diagnostic { file: self.path(&diagnostic.file), ..diagnostic }
    }
}

fn print(report: &Report, context: &Context) {
    let printer = &context.printer;
    if printer.is_json() {
        printer.json(report);
        return;
    }
    diagnostics::show(printer, &report.diagnostics);
    let lines: Vec<String> = report
        .workshops
        .iter()
        .map(|row| {
            let state = if row.valid { printer.green("valid") } else { printer.red("invalid") };
            let id = row.id.as_deref().unwrap_or("-");
            format!("{state}\t{}\t{id}", diagnostics::plain(&row.path))
        })
        .collect();
    if !lines.is_empty() {
        printer.data(&lines.join("\n"));
    }
    let valid = report.workshops.iter().filter(|row| row.valid).count();
    let problems = diagnostics::count(&report.diagnostics);
    let problems = if problems.is_empty() { String::new() } else { format!("; {problems}") };
    printer.talk(&format!("{valid} of {} workshops valid{problems}", report.workshops.len()));
}
