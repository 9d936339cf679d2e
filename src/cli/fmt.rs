//! `workshop fmt`: exports rewritten in canonical form, from the recipe where both say a thing.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, Exit, Failure, diagnostics, export, import};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::workshop::EXPORT;
use crate::pipeline::export::{Formatted, format_workshop, write_export};
use crate::pipeline::import::read_workshops;

/// Flags of `workshop fmt`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories whose workshops are formatted [default: the current one]
    dirs: Vec<PathBuf>,
    /// Change nothing; exit with 1 when something would change
    #[arg(long)]
    check: bool,
}

#[derive(Default, Serialize)]
struct Report {
    workshops: Vec<WorkshopReport>,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Serialize)]
struct WorkshopReport {
    path: String,
    valid: bool,
    canonical: bool,
    written: Vec<String>,
    removed: Vec<String>,
}

/// Runs the verb.
pub async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let current = [PathBuf::from(".")];
    let dirs = if args.dirs.is_empty() { &current[..] } else { &args.dirs[..] };
    let mut report = Report::default();
    for dir in dirs {
        format_directory(dir, args.check, &mut report)?;
    }
    let printer = &context.printer;
    if printer.is_json() {
        printer.json(&report);
    } else {
        diagnostics::show(printer, &report.diagnostics);
        for workshop in report.workshops.iter().filter(|workshop| !workshop.canonical) {
            for path in &workshop.written {
                printer.data(&format!("{}{path}", if args.check { "would write " } else { "wrote " }));
            }
            for path in &workshop.removed {
                printer.data(&format!("{}{path}", if args.check { "would remove " } else { "removed " }));
            }
        }
        let invalid = report.workshops.iter().filter(|workshop| !workshop.valid).count();
        if invalid > 0 {
            printer.talk_always(&format!("{invalid} of {} workshops left as they are", report.workshops.len()));
        }
    }
    let is_done = report.workshops.iter().all(|workshop| workshop.valid && (workshop.canonical || !args.check));
    let is_broken = report.diagnostics.iter().any(Diagnostic::is_error);
    Ok(if is_done && !is_broken { Exit::Done } else { Exit::No })
}

fn format_directory(dir: &Path, check: bool, report: &mut Report) -> Result<(), Failure> {
    let (problems, workshops) = read_workshops(dir, None).map_err(import::failure)?;
    if workshops.is_empty() && problems.is_empty() {
        let message = format!("there is no workshop in \"{}\"", dir.display());
        return Err(Failure::new(Exit::No, message).help("name a directory that holds workshops"));
    }
    report.diagnostics.extend(problems);
    for (unit, imported) in workshops {
        let root = if unit.path.is_empty() { dir.to_owned() } else { dir.join(&unit.path) };
        let mut entry = WorkshopReport {
            path: root.display().to_string(),
            valid: true,
            canonical: true,
            written: Vec::new(),
            removed: Vec::new(),
        };
        match format_workshop(imported).map_err(export::failure)? {
            Formatted::NoExport => {}
            Formatted::Invalid(problems) => {
                (entry.valid, entry.canonical) = (false, false);
                report.diagnostics.extend(problems);
            }
            Formatted::Canonical { files, changes } => {
                let directory = root.join(EXPORT);
                entry.canonical = changes.is_empty();
                if !check && !changes.is_empty() {
                    write_export(&files, &directory, true).map_err(export::failure)?;
                }
                let shown = |path: &String| directory.join(path).display().to_string();
                entry.written = changes.written.iter().map(shown).collect();
                entry.removed = changes.removed.iter().map(shown).collect();
            }
        }
        report.workshops.push(entry);
    }
    Ok(())
}
