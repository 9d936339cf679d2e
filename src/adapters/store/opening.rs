//! The lock beside the store that lets one program at a time open it, held only meanwhile.
//!
//! SQLite itself does not wait while two connections switch a new file to a write-ahead log: one of them fails at
//! once. What is done with the open store needs no lock of ours.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;

/// How long others may take to open the store.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// The lock; given back when dropped, and by the system when the program dies.
#[derive(Debug)]
pub(super) struct Opening {
    _file: File,
}

impl Opening {
    /// Waits at most `patience` for `store.lock` in the state directory; the file stays, so that all lock the same.
    pub(super) fn acquire(state: &Path, patience: Duration) -> Result<Self, Error> {
        let path = state.join("store.lock");
        let failed = |source| Error::Lock { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if start.elapsed() >= patience => {
                    return Err(Error::Locked { path, patience });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_another_program_ends_and_its_lock_is_free_again_afterwards() {
        let state = tempfile::tempdir().unwrap();
        let first = Opening::acquire(state.path(), Duration::ZERO).unwrap();
        let error = Opening::acquire(state.path(), Duration::from_millis(10)).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        assert!(error.to_string().contains("store.lock"), "{error}");
        drop(first);
        Opening::acquire(state.path(), Duration::ZERO).unwrap();
    }
}
