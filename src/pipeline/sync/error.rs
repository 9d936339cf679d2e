//! Why a whole sync ended, and what kind of failure that is: the class decides retry, condition and exit code.

use std::path::PathBuf;

use crate::adapters::{artifact, store};
use crate::pipeline::{object_end, source};

/// Why a whole sync ended; what is wrong with a single workshop is in its report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source could not be resolved, fetched or read.
    #[error(transparent)]
    Source(#[from] source::SourceError),
    /// A workshop's files could not be read.
    #[error(transparent)]
    Read(source::ReadError),
    /// The embedded store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Objects could not be listed.
    #[error(transparent)]
    Objects(#[from] object_end::Error),
    /// The artifact could not be made.
    #[error(transparent)]
    Artifact(#[from] artifact::ArtifactError),
    /// Somebody ended it before its plan was carried out; nothing is half written.
    #[error("the sync was ended before it was done")]
    Cancelled,
    /// Work on another thread ended without a result.
    #[error("the work on a workshop was cut off")]
    CutOff,
    /// The artifact could not be put in its place.
    #[error("failed to write an artifact below \"{path}\"")]
    WriteArtifact {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It may pass by itself.
    Transient,
    /// Somebody must act: the reference, the credentials or the content are wrong.
    Final,
}

impl Error {
    /// The failure's class.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Source(error) if !error.is_retryable() => Class::Final,
            _ => Class::Transient,
        }
    }
}
