//! What a compile is doing, on standard error: one moving line on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Printer;
use crate::pipeline::compile::{Phase, Progress};

/// Shows the progress of one compile.
pub struct BuildProgress {
    printer: Printer,
    bar: Option<ProgressBar>,
}

impl BuildProgress {
    /// Progress for this printer; silent when it is.
    #[must_use]
    pub fn new(printer: &Printer) -> Self {
        let bar = printer.is_interactive().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{pos}/{len}] {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { printer: printer.clone(), bar }
    }

    /// Shows one event.
    pub fn show(&self, event: Progress<'_>) {
        let text = text(&event);
        match &self.bar {
            None => self.printer.talk(&format!("[{}/{}] {}", event.position + 1, event.count, text)),
            Some(bar) => {
                bar.set_length(event.count as u64);
                bar.set_position(event.position as u64 + 1);
                bar.set_message(text.clone());
                if matches!(event.phase, Phase::Reused | Phase::Built | Phase::Published) {
                    bar.println(text);
                }
            }
        }
    }

    /// Takes the moving line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn text(event: &Progress<'_>) -> String {
    let step = event.step;
    match event.phase {
        Phase::Reused => format!("{step}: there already"),
        Phase::Files { count } => format!("{step}: {count} files"),
        Phase::Unpack => format!("{step}: unpacking what its commands run on"),
        Phase::Command { number, count, text } => {
            let first = text.trim().lines().next().unwrap_or_default();
            let shown: String = first.chars().filter(|c| !c.is_control()).take(80).collect();
            format!("{step}: command {number}/{count}: {shown}")
        }
        Phase::Layer => format!("{step}: writing what the commands changed"),
        Phase::Push => format!("{step}: pushing"),
        Phase::Built => format!("{step}: built"),
        Phase::Published => format!("{step}: published"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_step_and_what_is_done() {
        let event = |phase| Progress { workshop: "w", step: "s", position: 0, count: 2, phase };
        let rows = [
            (Phase::Files { count: 3 }, "s: 3 files"),
            (Phase::Command { number: 1, count: 2, text: "a\x1b[0m b\nc" }, "s: command 1/2: a[0m b"),
            (Phase::Published, "s: published"),
        ];
        for (phase, expected) in rows {
            assert_eq!(text(&event(phase)), expected);
        }
    }
}
