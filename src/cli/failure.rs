//! Exit codes, and how a failed verb tells what was attempted and what to do next.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use super::printer::Printer;
use crate::domain::chain;

/// What an exit code says; scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or yes.
    Done = 0,
    /// The answer is no: invalid, different, a check failed.
    No = 1,
    /// Wrong usage.
    Usage = 2,
    /// Something outside failed: network, registry, API server, runtime, disk.
    Outside = 3,
    /// Refused for safety: budget, approval, another owner.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb ended without its result.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    help: Option<String>,
}

impl Failure {
    /// A failure that has no further cause.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), help: None }
    }

    /// Something outside failed while `attempt`, because of `error` and what caused that.
    #[must_use]
    pub fn outside(attempt: impl Into<String>, error: impl Error) -> Self {
        Self { causes: chain::messages(&error), ..Self::new(Exit::Outside, attempt) }
    }

    /// A failure of the class `exit` told by `error` itself and its causes.
    #[must_use]
    pub fn from_error(exit: Exit, error: impl Error) -> Self {
        let mut causes = chain::messages(&error);
        let message = causes.remove(0);
        Self { causes, ..Self::new(exit, message) }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The class of the failure.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints to standard error and gives the exit code.
    pub fn print(&self, printer: &Printer) -> ExitCode {
        let mut text = format!("{} {}", printer.red("error:"), self.message);
        for cause in &self.causes {
            let _ = write!(text, "\n  because {cause}");
        }
        if let Some(help) = &self.help {
            let _ = write!(text, "\n{} {help}", printer.bold("help:"));
        }
        printer.talk_always(&text);
        self.exit.into()
    }
}
