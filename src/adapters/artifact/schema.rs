//! How a database gets the artifact's tables, and how an older file comes to them.
//!
//! What the tables are is `domain::artifact_schema`.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::ArtifactError;
pub use crate::domain::artifact_schema::{APPLICATION_ID, COLUMNS, CONTENT_DIGEST, VERSION};
use crate::domain::artifact_schema::{MIGRATIONS, TABLES};
use crate::domain::digest::Digest;

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
