//! The artifact's tables, and how an older file comes to them.
//!
//! A shipped migration is never changed; a new version appends one.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::ArtifactError;
use crate::domain::digest::Digest;

/// `PRAGMA application_id` of an artifact: the letters `WSHP`.
pub const APPLICATION_ID: i32 = 0x5753_4850;
/// `PRAGMA user_version`: the newest schema version.
pub const VERSION: i32 = MIGRATIONS.len() as i32;
/// The row of the table `artifact` that holds the content digest.
pub const CONTENT_DIGEST: &str = "content_digest";

/// Version 0: the tables as any program may write them; `datetime` keeps such text as it is.
const TABLES: &str = "\
CREATE TABLE workshop (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  version TEXT NOT NULL DEFAULT 'v1',
  created_at DATETIME NOT NULL
);
CREATE TABLE steps (
  id TEXT NOT NULL PRIMARY KEY,
  workshop_id TEXT NOT NULL REFERENCES workshop (id),
  position INTEGER NOT NULL,
  title TEXT NOT NULL,
  markdown TEXT,
  image_tag TEXT NOT NULL,
  goss_spec TEXT
);
CREATE TABLE step_metadata (
  step_id TEXT NOT NULL REFERENCES steps (id),
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (step_id, key)
);
CREATE TABLE navigation (
  step_id TEXT NOT NULL PRIMARY KEY REFERENCES steps (id),
  next_step_id TEXT REFERENCES steps (id),
  prev_step_id TEXT REFERENCES steps (id),
  unlock_condition TEXT
);
CREATE TABLE runtime_state (
  workspace_id TEXT NOT NULL,
  step_id TEXT NOT NULL REFERENCES steps (id),
  status TEXT NOT NULL CHECK (status IN ('pending', 'active', 'completed')),
  started_at DATETIME,
  completed_at DATETIME,
  PRIMARY KEY (workspace_id, step_id)
);
CREATE TABLE custom_state (
  workspace_id TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (workspace_id, key)
);
";

/// Each entry leads from the version of its index to the next.
const MIGRATIONS: [&str; 1] = ["\
CREATE TABLE artifact (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);
"];

/// The tables with their columns, as every version has had them.
pub const COLUMNS: [(&str, &[&str]); 6] = [
    ("workshop", &["id", "name", "version", "created_at"]),
    ("steps", &["id", "workshop_id", "position", "title", "markdown", "image_tag", "goss_spec"]),
    ("step_metadata", &["step_id", "key", "value"]),
    ("navigation", &["step_id", "next_step_id", "prev_step_id", "unlock_condition"]),
    ("runtime_state", &["workspace_id", "step_id", "status", "started_at", "completed_at"]),
    ("custom_state", &["workspace_id", "key", "value"]),
];

/// Makes all tables of the newest version in an empty database.
pub fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    for migration in MIGRATIONS {
        connection.execute_batch(migration)?;
    }
    mark(connection)
}

fn mark(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)
}

/// Records the content digest.
pub fn store_digest(connection: &Connection, digest: &Digest) -> rusqlite::Result<()> {
    let row = (CONTENT_DIGEST, digest.to_string());
    connection.execute("INSERT OR REPLACE INTO artifact (key, value) VALUES (?1, ?2)", row)?;
    Ok(())
}

/// `application_id` and `user_version`.
pub fn versions(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

/// Brings the open database to the newest version, and records `digest`, in one transaction.
pub fn migrate_connection(connection: &mut Connection, digest: Option<&Digest>) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (_, version) = versions(&transaction)?;
    let pending = MIGRATIONS.get(usize::try_from(version).unwrap_or(usize::MAX)..).unwrap_or_default();
    if pending.is_empty() {
        return Ok(());
    }
    for migration in pending {
        transaction.execute_batch(migration)?;
    }
    if let Some(digest) = digest {
        store_digest(&transaction, digest)?;
    }
    mark(&transaction)?;
    transaction.commit()
}

/// Brings the file at `path` to the newest version in one transaction and records its content digest; a file that
/// cannot be an artifact, or a failure on the way, leaves it as it was.
pub fn migrate(path: &Path) -> Result<(), ArtifactError> {
    // Reading migrates a copy: what cannot be read afterwards is not touched.
    let artifact = super::read(path)?;
    let failed = || ArtifactError::sqlite("migrate", path);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed())?;
    migrate_connection(&mut connection, Some(&artifact.content_digest)).map_err(failed())
}
