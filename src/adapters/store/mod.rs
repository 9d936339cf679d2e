//! The embedded store: one SQLite file with what a sync knows of its units and, in local mode, the objects themselves.
//!
//! What it says of units is a cache that a sync rebuilds; the objects of local mode are precious. One writer at a time.

mod keys;
mod objects;
mod opening;
mod schema;
mod units;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use opening::Opening;

pub use keys::read_or_make_signing_key;
pub use objects::Scope;
pub use units::{SourceRecord, UnitRecord, UnitState};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory of the file cannot be made.
    #[error("failed to create the state directory \"{path}\"")]
    CreateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The lock that is held while the file is opened cannot be taken.
    #[error("failed to lock \"{path}\" to open the embedded store")]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another program holds that lock for too long.
    #[error(
        "waited {patience:?} for another program to open the embedded store: end the one that holds \"{path}\" \
         (`fuser` names it) and try again"
    )]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// How long this program waited.
        patience: Duration,
    },
    /// The file cannot be opened.
    #[error("failed to open the embedded store \"{path}\"")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is a database of something else.
    #[error("\"{path}\" is not an embedded store (application id {found:#010x})")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The id in the file.
        found: i64,
    },
    /// The file was written by a newer program.
    #[error("the embedded store \"{path}\" has schema version {found}, and this program knows versions up to {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// A statement failed.
    #[error("failed to {attempt} in the embedded store")]
    Statement {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file of the signing key cannot be read or made.
    #[error("failed to {attempt} the signing key \"{path}\"")]
    Key {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row holds text that is no JSON.
    #[error("failed to read {what} from the embedded store")]
    Row {
        /// What the row is.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// The embedded store.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
    changes: watch::Sender<u64>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<String>>>,
}

impl Store {
    /// Opens or makes `store.db` in the state directory and brings it to this program's schema.
    pub fn open(state: &Path) -> Result<Self, Error> {
        make_private(state).map_err(|source| Error::CreateDirectory { path: state.to_owned(), source })?;
        let path = state.join("store.db");
        let failed = |source| Error::Open { path: path.clone(), source };
        let _opening = Opening::acquire(state, opening::PATIENCE)?;
        let mut connection = Connection::open(&path).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        schema::migrate(&mut connection, &path)?;
        Ok(Self { connection: Mutex::new(connection), changes: watch::Sender::new(0), subscribers: Mutex::default() })
    }

    /// Counts the changes of objects by this program, and tells of each.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The uid of each object that this program changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    fn changed(&self, uid: &str) {
        self.changes.send_modify(|count| *count += 1);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(uid.to_owned()).is_ok());
    }

    /// The connection; a panic of another thread leaves no half transaction, because those roll back.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that no other user of the machine gets into, made where it is not there. One that everybody shares, such
/// as `/tmp`, and one of another user stay as they are.
pub fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let permissions = std::fs::metadata(directory)?.permissions();
    let is_shared = permissions.mode() & 0o1000 != 0;
    if permissions.mode() & 0o077 != 0
        && !is_shared
        && let Err(error) = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
    {
        tracing::warn!(path = %directory.display(), %error, "other users of this machine may read here");
    }
    Ok(())
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(Duration::from_secs(10))?;
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "wal")?;
    }
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn statement(attempt: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Statement { attempt, source }
}

fn json(what: &'static str) -> impl Fn(serde_json::Error) -> Error {
    move |source| Error::Row { what, source }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_state_directory_is_closed_to_other_users() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        for (name, before, expected) in
            [("new", None, 0o700), ("old", Some(0o755), 0o700), ("all", Some(0o1777), 0o1777)]
        {
            let state = parent.path().join(name);
            if let Some(mode) = before {
                std::fs::create_dir(&state).unwrap();
                std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            drop(Store::open(&state).unwrap());
            assert_eq!(state.metadata().unwrap().permissions().mode() & 0o7777, expected, "{name}");
        }
    }

    #[test]
    fn programs_that_open_a_new_store_at_one_moment_all_get_it() {
        for round in 0..100 {
            let state = tempfile::tempdir().unwrap();
            let start = Barrier::new(8);
            let open = || {
                start.wait();
                Store::open(state.path()).map(drop)
            };
            let opened: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(opened.iter().all(Result::is_ok), "round {round}: {opened:?}");
        }
    }
}
