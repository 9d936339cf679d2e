//! Layers of an image as lists of entries: what a layer can hold, and the one order in which it is written.
//!
//! Writing and reading the tar form are the two submodules; where a file belongs in an image is
//! [`super::path_index`]'s matter, unpacking onto a disk is an adapter's.

use std::cmp::Ordering;
use std::collections::BTreeMap;

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{LayerReadError, Limits, decompress, read_entries};
pub use write::{Compressor, LayerBlob, LayerError, LayerWriter, Workers};

/// Media type of the layers that are written here.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the root, without a leading slash; raw bytes, for a file name may be any. For a whiteout the path
    /// that it removes, for an opaque mark the directory whose older content it hides.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky; no file type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time, in seconds since 1970.
    pub mtime: u64,
    /// Extended attributes by their full name (`security.capability`, `user.…`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory; one that exists gets this one's attributes.
    Directory,
    /// A regular file, whose content follows.
    File {
        /// Length of the content, in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// The target as written.
        target: Vec<u8>,
    },
    /// Another name of a file that the same layer holds before it.
    HardLink {
        /// Path of the first name, from the root.
        target: Vec<u8>,
    },
    /// A character device.
    Character {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// The removal of what the layers below have at this path.
    Whiteout,
    /// The removal of everything that the layers below have in this directory.
    Opaque,
}

impl Entry {
    fn new(path: &str, kind: Kind, mode: u32) -> Self {
        let path = path.trim_matches('/').as_bytes().to_vec();
        Self { path, kind, mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }

    /// A directory of root's.
    #[must_use]
    pub fn directory(path: &str, mode: u32) -> Self {
        Self::new(path, Kind::Directory, mode)
    }

    /// A file of root's with `size` bytes.
    #[must_use]
    pub fn file(path: &str, mode: u32, size: u64) -> Self {
        Self::new(path, Kind::File { size }, mode)
    }

    /// A symbolic link of root's.
    #[must_use]
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Symlink { target: target.as_bytes().to_vec() }, 0o777)
    }

    /// The removal of `path`.
    #[must_use]
    pub fn whiteout(path: &str) -> Self {
        Self::new(path, Kind::Whiteout, 0)
    }

    /// The same entry with these owners.
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (u64::from(uid), u64::from(gid));
        self
    }

    /// The path for messages.
    #[must_use]
    pub fn display_path(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.path))
    }
}

/// The order of entries in a layer: directories before what they hold, removals before their siblings.
#[must_use]
pub fn order(left: &Entry, right: &Entry) -> Ordering {
    // An opaque mark lies inside of the directory that it names, a whiteout beside what it removes.
    fn key(entry: &Entry) -> impl Iterator<Item = (u8, &[u8])> {
        let removal = matches!(entry.kind, Kind::Whiteout);
        let last = if entry.path.is_empty() { 0 } else { entry.path.split(|byte| *byte == b'/').count() };
        let inner = matches!(entry.kind, Kind::Opaque).then_some((0, &b""[..]));
        entry
            .path
            .split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty())
            .enumerate()
            .map(move |(index, component)| (u8::from(!(removal && index + 1 == last)), component))
            .chain(inner)
    }
    key(left).cmp(key(right))
}
