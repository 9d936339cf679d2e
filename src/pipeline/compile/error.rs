//! Why a workshop was not compiled, told so that its author can act on it.

use std::path::PathBuf;

use crate::adapters::runtime::{Exit, RuntimeError};
use crate::domain::digest::Digest;
use crate::domain::image::ImageError;
use crate::domain::layer::{LayerError, LayerReadError};
use crate::domain::path_index::PlaceError;
use crate::domain::recipe::{FILE_NAME, Recipe, ResolveError};
use crate::pipeline::base::BaseError;
use crate::pipeline::image_end::ImageEndError;

/// Which step of which workshop, and where in the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The workshop's id.
    pub workshop: String,
    /// The step's id, or `finish`.
    pub step: String,
    /// The line in the recipe, from 1.
    pub line: Option<u32>,
}

impl Place {
    pub(super) fn of(recipe: &Recipe, step: &str, line: Option<u32>) -> Self {
        let step_line = || recipe.steps.iter().find(|known| known.id.as_str() == step).map(|step| step.place.line);
        Self { workshop: recipe.id.to_string(), step: step.to_owned(), line: line.or_else(step_line) }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step \"{}\" of workshop \"{}\"", self.step, self.workshop)?;
        self.line.map_or(Ok(()), |line| write!(f, " ({FILE_NAME}:{line})"))
    }
}

/// A command that did not end well.
#[derive(Debug, Clone)]
pub struct CommandFailure {
    /// The step, at the command's line.
    pub place: Place,
    /// The command's number in its step, from 1.
    pub number: usize,
    /// Its text.
    pub text: String,
    /// How it ended.
    pub exit: Exit,
    /// The memory it was allowed, in bytes.
    pub memory: u64,
    /// The whole output of the step's commands.
    pub log: PathBuf,
    /// The end of it, at most 20 lines.
    pub last_lines: Vec<String>,
}

impl std::fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "command {} of {} {}", self.number, self.place, self.exit)?;
        if self.exit == Exit::Code(137) {
            write!(f, " (its memory limit is {} MiB)", self.memory >> 20)?;
        }
        let text = self.text.trim();
        let shown: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
        write!(f, ": {shown}{}", if shown.len() < text.len() { " …" } else { "" })
    }
}

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The same content fails again: only a change of the workshop helps.
    Content,
    /// A command failed; what it fetches may be there the next time.
    Command,
    /// Network, registry, disk or machine: try again later.
    Outside,
    /// Not done on purpose.
    Refused,
    /// Called off.
    Cancelled,
}

/// Why a workshop was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The files of a step cannot be put together.
    #[error("cannot put together the files of {place}")]
    Files {
        /// The step.
        place: Place,
        /// The reason.
        #[source]
        source: Box<ResolveError>,
    },
    /// A file cannot be where it should in the image.
    #[error("cannot place a file of {place}")]
    Position {
        /// The step.
        place: Place,
        /// The reason.
        #[source]
        source: PlaceError,
    },
    /// A command failed.
    #[error("{0}")]
    Command(Box<CommandFailure>),
    /// The step has commands, and they are not allowed here.
    #[error("{place} has commands, which are not run here")]
    CommandsNotAllowed {
        /// The step.
        place: Place,
    },
    /// `--from-step` names no step.
    #[error("workshop \"{workshop}\" has no step \"{step}\" to begin from")]
    NoSuchStep {
        /// The workshop's id.
        workshop: String,
        /// The step.
        step: String,
    },
    /// A step before `--from-step` cannot be kept.
    #[error("cannot begin from a later step: {place} {reason}")]
    FromStep {
        /// The step that was to be kept.
        place: Place,
        /// Why it cannot, as the rest of a sentence.
        reason: String,
    },
    /// The platform is for another architecture than the base.
    #[error("the base image is for {base}, the platform for {platform}")]
    Architecture {
        /// The base's.
        base: String,
        /// The platform's.
        platform: String,
    },
    /// The base image.
    #[error("cannot build on the base of workshop \"{workshop}\"")]
    Base {
        /// The workshop's id.
        workshop: String,
        /// The reason.
        #[source]
        source: Box<BaseError>,
    },
    /// The registry or layout.
    #[error("cannot {doing}")]
    Images {
        /// What was attempted.
        doing: String,
        /// The reason.
        #[source]
        source: Box<ImageEndError>,
    },
    /// The container runtime.
    #[error("cannot run the commands of {place}")]
    Runtime {
        /// The step.
        place: Place,
        /// The reason.
        #[source]
        source: RuntimeError,
    },
    /// An image that is there is none that can be built on, or the new one would be none.
    #[error("cannot build the image of {place}")]
    Image {
        /// The step.
        place: Place,
        /// The reason.
        #[source]
        source: ImageError,
    },
    /// A layer cannot be written.
    #[error("cannot write a layer of {place}")]
    Layer {
        /// The step.
        place: Place,
        /// The reason.
        #[source]
        source: LayerError,
    },
    /// A layer of the parent cannot be read.
    #[error("cannot read layer {layer} of \"{repository}\"")]
    ParentLayer {
        /// The layer's digest.
        layer: Digest,
        /// Where it came from.
        repository: String,
        /// The reason.
        #[source]
        source: LayerReadError,
    },
    /// The system refused something.
    #[error("cannot {doing}{}", if source.kind() == std::io::ErrorKind::StorageFull { ": the disk is full" } else { "" })]
    Io {
        /// What was attempted.
        doing: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Work on the disk did not end.
    #[error("the work on {0} was interrupted")]
    Interrupted(Place),
    /// Called off.
    #[error("cancelled")]
    Cancelled,
}

impl CompileError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Files { .. } | Self::Position { .. } | Self::Image { .. } | Self::NoSuchStep { .. } => {
                FailureClass::Content
            }
            // A file beside the workshop is never read for a workshop that comes from a repository.
            Self::Base { source, .. } if matches!(**source, BaseError::NoDirectory(_)) => FailureClass::Content,
            // What a command left behind cannot be in an image; another run of it may leave something else.
            Self::Layer { source: LayerError::WhiteoutName { .. }, .. } => FailureClass::Command,
            Self::Command(_) => FailureClass::Command,
            Self::CommandsNotAllowed { .. } | Self::FromStep { .. } => FailureClass::Refused,
            Self::Cancelled | Self::Runtime { source: RuntimeError::Cancelled, .. } => FailureClass::Cancelled,
            _ => FailureClass::Outside,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_no_waiting_mends_is_not_tried_again() {
        let place = || Place { workshop: "w".into(), step: "s".into(), line: None };
        let base = |source| CompileError::Base { workshop: "w".into(), source: Box::new(source) };
        let rows = [
            (base(BaseError::NoDirectory("oci:base".into())), FailureClass::Content),
            (base(BaseError::NotFound { base: "b".into(), local: "" }), FailureClass::Outside),
            (
                CompileError::Layer { place: place(), source: LayerError::WhiteoutName { path: "/.wh.a".into() } },
                FailureClass::Command,
            ),
            (CompileError::CommandsNotAllowed { place: place() }, FailureClass::Refused),
            (CompileError::Runtime { place: place(), source: RuntimeError::Cancelled }, FailureClass::Cancelled),
        ];
        for (error, class) in rows {
            assert_eq!(error.class(), class, "{error}");
        }
    }

    #[test]
    fn a_failed_command_is_told_in_one_line() {
        let place = Place { workshop: "w".into(), step: "s".into(), line: Some(31) };
        let start = "command 2 of step \"s\" of workshop \"w\" (step-spec.yaml:31)";
        let rows = [
            ("make all", Exit::Code(3), "ended with exit code 3: make all"),
            ("make\nall", Exit::TimedOut(Duration::from_secs(5)), "was killed after 5 s: make …"),
            ("x", Exit::Code(137), "was killed by signal 9 (its memory limit is 512 MiB): x"),
        ];
        for (text, exit, expected) in rows {
            let failure = CommandFailure {
                place: place.clone(),
                number: 2,
                text: text.into(),
                exit,
                memory: 512 << 20,
                log: PathBuf::new(),
                last_lines: Vec::new(),
            };
            assert_eq!(failure.to_string(), format!("{start} {expected}"));
        }
    }
}
