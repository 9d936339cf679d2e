//! The state directory as one replica's own: its lock, and the name under which the replica takes the lease.

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::Path;

/// A locked state directory; the lock ends with the value or the process.
#[derive(Debug)]
pub(super) struct State {
    _lock: File,
    identity: String,
}

impl State {
    /// Makes and locks the directory.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self { identity: read_identity(directory)?, _lock: lock })
    }

    /// A name that no other replica has. It is kept with the directory: whoever holds the directory's lock may take
    /// the lease of a process that was killed, without waiting for the lease to run out.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }
}

fn read_identity(directory: &Path) -> io::Result<String> {
    let path = directory.join("identity");
    match std::fs::read_to_string(&path) {
        Ok(text) if is_identity(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Hash tables are seeded from the system's random numbers.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let host: String =
        host.chars().filter(|character| character.is_ascii_alphanumeric() || *character == '-').collect();
    let identity = format!("{host}_{random:016x}");
    // Renamed into place: a half-written name would be another one after a crash.
    let part = directory.join("identity.part");
    std::fs::write(&part, &identity)?;
    std::fs::rename(&part, &path)?;
    Ok(identity)
}

fn is_identity(text: &str) -> bool {
    (17..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time_and_keeps_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).expect("the first");
        let refused = State::open(directory.path()).expect_err("the second");
        assert_eq!(refused.to_string(), "another process uses it");
        let identity = state.identity().to_owned();
        drop(state);
        assert_eq!(State::open(directory.path()).expect("again").identity(), identity);
    }
}
