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
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(Failure::outside(format!("failed to lock \"{}\"", path.display()), error))
            }
        }
    }
}
