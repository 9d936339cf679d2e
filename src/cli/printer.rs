//! The one place that writes to the terminal: results to standard output, talk to standard error.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::Global;

/// Form of a verb's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// When text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal without NO_COLOR
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Writes results and talk.
#[derive(Debug, Clone)]
pub struct Printer {
    /// The form of results.
    pub output: Output,
    quiet: bool,
    color: bool,
}

impl Printer {
    /// A printer as the flags say.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { output: global.output, quiet: global.quiet, color }
    }

    /// True when progress bars make sense.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// True when results are JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Prints a result as it is; a reader that went away is no failure.
    pub fn data(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes());
        if !text.ends_with('\n') && !text.is_empty() {
            let _ = stdout.write_all(b"\n");
        }
        let _ = stdout.flush();
    }

    /// Prints bytes as they are.
    pub fn raw(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(bytes);
        let _ = stdout.flush();
    }

    /// Prints a result as one JSON document.
    pub fn json(&self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.data(&text),
            Err(error) => self.talk_always(&format!("error: failed to write JSON: {error}")),
        }
    }

    /// Says something to the person, unless quiet.
    pub fn talk(&self, text: &str) {
        if !self.quiet {
            self.talk_always(text);
        }
    }

    /// Says something to the person, quiet or not.
    pub fn talk_always(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `text` in red where colours are on.
    #[must_use]
    pub fn red(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// `text` in green where colours are on.
    #[must_use]
    pub fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// `text` in yellow where colours are on.
    #[must_use]
    pub fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }

    /// `text` in blue where colours are on.
    #[must_use]
    pub fn blue(&self, text: &str) -> String {
        self.paint("1;34", text)
    }

    /// `text` dimmed where colours are on.
    #[must_use]
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// `text` in bold where colours are on.
    #[must_use]
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
}
