//! Single files and directories, opened without following a link and read only while they hold still.
//!
//! Which of them are read, and what they mean, is decided in the module above.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::domain::diagnostic::Diagnostic;
use crate::domain::discover::{self, MAX_FILE};
use crate::domain::tree::TreeEntry;

/// A file or link found by name, before it is read.
pub(super) struct Found {
    pub(super) size: u64,
    changed: (i64, i64),
    kind: FoundKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundKind {
    File { executable: bool },
    Link,
}

/// Why one file was not read.
pub(super) enum Unread {
    Changed,
    Refused(Box<Diagnostic>),
}

fn refused(problem: Diagnostic) -> Unread {
    Unread::Refused(Box::new(problem))
}

pub(super) fn read_entry(root: &OwnedFd, path: &str, expected: &Found) -> Result<TreeEntry, Unread> {
    let gone = |error: Errno| match error {
        Errno::ACCESS | Errno::PERM => refused(discover::unreadable(path, "permission denied")),
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => Unread::Changed,
        _ => refused(discover::unreadable(path, &error.to_string())),
    };
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut directory = rustix::io::dup(root).map_err(gone)?;
    for component in above.split('/').filter(|component| !component.is_empty()) {
        directory = open_directory(&directory, OsStr::new(component)).map_err(gone)?;
    }
    let FoundKind::File { executable } = expected.kind else {
        let target = rustix::fs::readlinkat(&directory, name, Vec::new()).map_err(gone)?;
        let target = target.into_string().map_err(|_| refused(discover::target_not_utf8(path)))?;
        return Ok(TreeEntry::Link { target });
    };
    if expected.size > MAX_FILE {
        return Err(refused(discover::file_too_large(path, expected.size)));
    }
    let open = open_file(&directory, OsStr::new(name)).map_err(gone)?;
    let before = found(&rustix::fs::fstat(&open).map_err(gone)?, expected.kind);
    let again = rustix::io::dup(&open).map_err(gone)?;
    let bytes =
        read_capped(open, MAX_FILE + 1).map_err(|error| refused(discover::unreadable(path, &error.to_string())))?;
    let after = found(&rustix::fs::fstat(&again).map_err(gone)?, expected.kind);
    // A file that is written to while it is read would be half old and half new.
    let stable = bytes.len() as u64 == after.size && before.changed == after.changed && before.size == after.size;
    if stable { Ok(TreeEntry::File { bytes: bytes.into(), executable }) } else { Err(Unread::Changed) }
}

pub(super) fn found(stat: &Stat, kind: FoundKind) -> Found {
    #[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between targets")]
    Found { size: stat.st_size as u64, changed: (stat.st_mtime as i64, stat.st_mtime_nsec as i64), kind }
}

pub(super) fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "special file",
    }
}

pub(super) fn open_directory(at: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

pub(super) fn open_file(at: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    // Without NONBLOCK a pipe put there in the meantime would hang the reader.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = rustix::fs::openat(at, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&open)?.st_mode) {
        FileType::RegularFile => Ok(open),
        _ => Err(Errno::NOTDIR),
    }
}

pub(super) fn exists(directory: &OwnedFd, name: &CStr) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

pub(super) fn read_capped(open: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(open).take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
