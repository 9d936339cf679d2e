//! The lock of a state directory: one program at a time runs workspaces in it.
//!
//! Readers and the operations of other verbs need no lock; the store has its own.

use std::path::Path;

use super::{Exit, Failure};

/// The state directory belongs to one program while this lives.
pub struct StateLock {
    _file: std::fs::File,
}

impl StateLock {
    /// Takes the lock, or says who has it.
    pub fn take(state: &Path) -> Result<Self, Failure> {
        Self::try_take(state)?.ok_or_else(|| {
            Failure::new(Exit::Outside, format!("another `workshop up` uses \"{}\"", state.display()))
                .help("end it, or give this one its own --state DIR")
        })
    }

    /// Takes the lock; nothing where another program has it.
    pub fn try_take(state: &Path) -> Result<Option<Self>, Failure> {
        let path = state.join("lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| Failure::outside(format!("failed to open \"{}\"", path.display()), error))?;
        match file.try_lock() {
            // Whoever had it may have removed the directory with its end: then this is the lock of nothing.
            Ok(()) => Ok(is_at(&file, &path).then_some(Self { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(Failure::outside(format!("failed to lock \"{}\"", path.display()), error))
            }
        }
    }
}

/// True when this very file is at `path`.
fn is_at(file: &std::fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().and_then(|own| Ok(same(own, std::fs::metadata(path)?))).unwrap_or(false)
}
