//! The artifact: a workshop's rows as one SQLite file that any SQLite opens.
//!
//! Writes deterministic bytes and never half a file; reads files of strangers. What the rows mean is the domain's,
//! where the files are kept the pipeline's matter.

mod read;
mod schema;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::domain::definition::{Definition, InvalidDefinition};
use crate::domain::digest::Digest;

pub use read::{read, read_with_state};
pub use schema::{APPLICATION_ID, VERSION, migrate};
pub use write::{write, write_with_state};

/// The largest artifact, in bytes; below 5 MB is expected.
pub const MAX_BYTES: u64 = 32 << 20;

/// What an artifact holds, besides the runtime tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The rows.
    pub definition: Definition,
    /// The manifest digest of each step's image, as far as compile recorded one.
    pub images: BTreeMap<String, Digest>,
    /// The identity of the rows without `image.*`.
    pub content_digest: Digest,
}

/// Why an artifact could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file system refused.
    #[error("failed to {attempt} \"{}\"", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("failed to {attempt} \"{}\"", path.display())]
    Sqlite {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// No SQLite file, or that of another application.
    #[error("\"{}\" is no artifact: {reason}", path.display())]
    NotAnArtifact {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// A schema of a later program.
    #[error("\"{}\" has schema version {found}, this program reads up to {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// More bytes than an artifact may have.
    #[error("\"{}\" has {size} bytes, more than the {MAX_BYTES} that an artifact may have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Broken pages, or rows that do not match their digest.
    #[error("\"{}\" is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Rows that the export, and so a round trip, has no place for.
    #[error("\"{}\" cannot be carried whole: {}", path.display(), what.join("; "))]
    CannotCarry {
        /// The file.
        path: PathBuf,
        /// Each thing that cannot be carried.
        what: Vec<String>,
    },
    /// Rows that no artifact may hold.
    #[error("failed to write the artifact \"{}\"", path.display())]
    Definition {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: InvalidDefinition,
    },
}

impl ArtifactError {
    /// True when the content is at fault, not the machine: trying again cannot help.
    #[must_use]
    pub fn is_content(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Sqlite { .. })
    }

    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
    }

    fn sqlite(attempt: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let path = path.to_owned();
        move |source| match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged { path, reason: source.to_string() },
            _ => Self::Sqlite { attempt, path, source },
        }
    }
}

#[cfg(test)]
mod tests;
