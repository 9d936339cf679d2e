//! What backend and files child say to each other: a length, a JSON head, a length, a body.
//!
//! Lengths are u32, big endian, and capped on both sides; one answer for each request, in order.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest file that is read or written, in bytes.
pub const MAX_CONTENT: usize = 8 << 20;
/// The longest head, in bytes: a listing of [`MAX_ENTRIES`].
pub const MAX_HEAD: usize = 8 << 20;
/// The most entries of a listing.
pub const MAX_ENTRIES: usize = 10_000;

/// What is asked of the child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "operation")]
pub enum Request {
    /// The entries of a directory.
    List {
        /// The directory.
        path: String,
    },
    /// The bytes of a file.
    Read {
        /// The file.
        path: String,
    },
    /// Puts the body into a file.
    #[serde(rename_all = "camelCase")]
    Write {
        /// The file.
        path: String,
        /// The tag that it must have.
        if_match: Option<String>,
        /// It must not be there.
        is_new: bool,
    },
    /// Removes a file, or a directory with all that is in it.
    Remove {
        /// What to remove.
        path: String,
    },
    /// Makes a directory.
    Directory {
        /// The directory.
        path: String,
    },
    /// Gives something another name.
    Move {
        /// What there is.
        from: String,
        /// What it becomes.
        to: String,
    },
}

/// What the child says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum Answer {
    /// The entries of a directory, by name.
    Entries {
        /// The directory.
        path: String,
        /// What is in it.
        entries: Vec<Entry>,
    },
    /// The body is the file's bytes.
    Content {
        /// Its tag.
        tag: String,
    },
    /// Done.
    Done,
    /// Refused.
    Failed {
        /// Why.
        kind: FailureKind,
        /// In words.
        message: String,
    },
}

/// Why the child refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// No such file.
    NotFound,
    /// The learner may not.
    Forbidden,
    /// It is there already, or not what it would have to be.
    Conflict,
    /// It is not as the client last saw it.
    Changed,
    /// More bytes or entries than are handed out.
    TooLarge,
    /// A path that is none.
    Path,
    /// The file system refused.
    Io,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe.
    Other,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its name; what is not UTF-8 in it is replaced.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// The permission bits, in octal.
    pub mode: String,
    /// When it was last changed, RFC 3339.
    pub modified_at: Option<String>,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}
