//! What a sync did, in a few readable lines; and what it is doing, on a terminal.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Printer;
use crate::pipeline::compile::{Phase, Progress};
use crate::pipeline::sync::{Event, ObjectOutcome, StepOutcome, StepReport, SyncReport, WorkshopReport, WorkshopState};

/// The lines of one sync.
#[must_use]
pub fn lines(report: &SyncReport, took: Duration, printer: &Printer) -> String {
    let mut text = String::new();
    let revision = report.revision.as_deref().unwrap_or("working files");
    let _ = writeln!(text, "{} {}", printer.bold(&report.source), printer.dim(revision));
    if report.unchanged {
        let _ = writeln!(text, "  nothing changed");
        return text;
    }
    let width = report.workshops.iter().map(|workshop| title(workshop).chars().count()).max().unwrap_or(0);
    for workshop in &report.workshops {
        let mark = match workshop.state {
            WorkshopState::Ready => printer.green("✓"),
            WorkshopState::Unchanged => printer.dim("·"),
            WorkshopState::Removed => printer.yellow("-"),
            WorkshopState::Refused => printer.yellow("!"),
            WorkshopState::Invalid | WorkshopState::Failed => printer.red("✗"),
        };
        let _ = writeln!(text, "  {mark} {:<width$}  {}", title(workshop), summary(workshop));
        for line in workshop.message.split("; ").flat_map(str::lines).filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "      {line}");
        }
    }
    for problem in &report.problems {
        let _ = writeln!(text, "  {} {problem}", printer.yellow("!"));
    }
    if let Some(tag) = &report.moved_tag {
        let _ = writeln!(text, "  {} the tag \"{tag}\" names another commit than before", printer.yellow("!"));
    }
    if let Some(plan) = report.plan.as_ref().filter(|plan| !plan.approved) {
        let _ = writeln!(text, "  {} the plan waits for approval: --approve {}", printer.yellow("!"), plan.hash);
        for withheld in &plan.withheld {
            let _ = writeln!(text, "      {withheld}");
        }
    }
    let good =
        report.workshops.iter().filter(|workshop| workshop.state.is_good() && workshop.state != WorkshopState::Removed);
    let all = report.workshops.iter().filter(|workshop| workshop.state != WorkshopState::Removed).count();
    let _ = writeln!(text, "  {} of {} ready in {}", good.count(), count(all, "workshop"), seconds(took));
    text
}

fn title(workshop: &WorkshopReport) -> String {
    match &workshop.id {
        Some(id) => id.clone(),
        None => workshop.path.clone(),
    }
}

/// `3 steps built, 2 reused; WorkspaceTemplate created`
fn summary(workshop: &WorkshopReport) -> String {
    let built = |outcome| workshop.steps.iter().filter(|step: &&StepReport| step.result == outcome).count();
    let mut parts = Vec::new();
    match (built(StepOutcome::Built), built(StepOutcome::Reused)) {
        (0, 0) => {}
        (0, reused) => parts.push(format!("{} reused", count(reused, "image"))),
        (made, 0) => parts.push(format!("{} built", count(made, "image"))),
        (made, reused) => parts.push(format!("{} built, {reused} reused", count(made, "image"))),
    }
    for (outcome, word) in [
        (ObjectOutcome::Created, "created"),
        (ObjectOutcome::Updated, "updated"),
        (ObjectOutcome::Deleted, "deleted"),
        (ObjectOutcome::Failed, "not written"),
    ] {
        let n = workshop.objects.iter().filter(|object| object.result == outcome).count();
        if n > 0 {
            parts.push(format!("{} {word}", count(n, "object")));
        }
    }
    match (workshop.state, parts.is_empty()) {
        (WorkshopState::Invalid, _) => "invalid, the last good state is kept".into(),
        (WorkshopState::Failed, _) => "failed, the last good state is kept".into(),
        (WorkshopState::Refused, true) => "refused".into(),
        (_, true) => "unchanged".into(),
        (_, false) if workshop.state == WorkshopState::Unchanged && parts.len() == 1 => "unchanged".into(),
        (_, false) => parts.join("; "),
    }
}

/// Columns as wide as their widest cell, under a header.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    for line in std::iter::once(&header).chain(rows) {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(padded, "{cell:<width$}  ");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

/// `1 workshop`, `2 workshops`
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `0.42 s`
#[must_use]
pub fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

/// `first-steps 2/7 tidy-up: command 1 of 3`
fn compiling(progress: &Progress<'_>) -> String {
    let phase = match progress.phase {
        Phase::Reused => "there already".to_owned(),
        Phase::Files { count: n } => count(n, "file"),
        Phase::Unpack => "unpacking".to_owned(),
        Phase::Command { number, count, text } => {
            format!("command {number} of {count}: {}", text.lines().next().unwrap_or_default())
        }
        Phase::Layer => "reading what the commands changed".to_owned(),
        Phase::Push => "pushing".to_owned(),
        Phase::Built => "built".to_owned(),
        Phase::Published => "published".to_owned(),
    };
    format!("{} {}/{} {}: {phase}", progress.workshop, progress.position + 1, progress.count, progress.step)
}

/// Shows what is going on: one moving line on a terminal, nothing elsewhere (the report follows).
pub struct Activity {
    bar: Option<ProgressBar>,
    last: Mutex<String>,
}

impl Activity {
    /// Starts showing.
    #[must_use]
    pub fn start(printer: &Printer) -> Self {
        let bar = printer.is_interactive().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, last: Mutex::new(String::new()) }
    }

    /// Takes one event of a sync.
    pub fn event(&self, event: &Event<'_>) {
        let Some(bar) = &self.bar else { return };
        let message = match event {
            Event::Resolved { revision } => format!("reading {revision}"),
            Event::Workshop { path } => format!("reading {path}"),
            Event::Compile { progress, .. } => compiling(progress),
        };
        if let Ok(mut last) = self.last.lock()
            && *last != message
        {
            bar.set_message(message.clone());
            *last = message;
        }
    }

    /// Clears the line.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
