//! Runs the checks of a step: looks at the machine and holds what is found against the spec.
//!
//! Each kind of resource has its own file; what a spec means is `domain::goss`. Runs inside the workspace, as the
//! backend's own user. Everything it looks at may be the learner's doing, so sizes, times and numbers are bounded.

mod account;
mod addr;
mod command;
mod dns;
mod fact;
mod file;
mod goss_program;
mod http;
mod include;
mod interface;
mod kernel_param;
mod mount;
mod package;
mod port;
mod process;
mod run;
mod service;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::exec::Identity;
use crate::domain::diagnostic::Diagnostic;
use crate::domain::goss::Report;
use crate::domain::workspace::CheckEngine;

/// How checks are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What runs them.
    pub engine: CheckEngine,
    /// Where the spec lies; what it includes is looked for there and not outside.
    pub base_dir: PathBuf,
    /// For all of them together.
    pub timeout: Duration,
    /// Who the commands of checks run as, unless a check wants root; none for the backend's own user, root, as with
    /// goss. The image's own goss runs as them too, with all that it does.
    pub command_user: Option<CommandUser>,
    /// What the image sets for its programs; variables of the platform are left out.
    pub image_environment: Vec<(OsString, OsString)>,
}

/// Who the commands of checks run as.
#[derive(Debug, Clone)]
pub struct CommandUser {
    /// The numbers that the kernel goes by.
    pub identity: Identity,
    /// All of their environment; variables of the platform are left out.
    pub environment: Vec<(OsString, OsString)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: CheckEngine::Builtin,
            base_dir: PathBuf::from("/workshop/.goss"),
            timeout: Duration::from_secs(60),
            command_user: None,
            image_environment: Vec::new(),
        }
    }
}

/// Why no check could be run.
#[derive(Debug, thiserror::Error)]
pub enum ChecksError {
    /// The spec is wrong.
    #[error("the spec has {} problems, the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Spec(Vec<Diagnostic>),
    /// What the spec includes cannot be had.
    #[error("failed to include \"{pattern}\": {reason}")]
    Include {
        /// As the spec says it.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// The image has no goss.
    #[error(
        "the workshop checks with the image's goss, but there is no `goss` in the PATH of the image or in /usr/local/bin"
    )]
    NoGoss,
    /// The image's goss did not do its work.
    #[error("the image's goss failed: {0}")]
    Goss(String),
    /// The image's goss could not be run.
    #[error("failed to run the image's goss")]
    RunGoss(#[source] std::io::Error),
}

/// Runs the checks of `spec`, the text of a goss spec. A check that fails is no error.
pub async fn run(spec: &str, options: &Options) -> Result<Report, ChecksError> {
    match options.engine {
        CheckEngine::Builtin => run::run(spec, options).await,
        CheckEngine::Goss => goss_program::run(spec, options).await,
    }
}

#[cfg(test)]
mod tests;
