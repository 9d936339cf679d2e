//! Artifacts for tests, written as the schema says.

use std::path::Path;

use rusqlite::Connection;

use super::rows;
use crate::domain::artifact_schema::{APPLICATION_ID, CONTENT_DIGEST, MIGRATIONS, TABLES, VERSION};

/// Three steps: `one` with checks, `two` that cannot be skipped, `three` without checks.
pub const STEPS: &str = "
INSERT INTO workshop VALUES ('first-steps', 'First steps', 'v1', '2026-01-01T00:00:00Z');
INSERT INTO steps VALUES ('one', 'first-steps', 1, 'Look around', '# One\n\n- [x] done\n', 'w:one', 'file: {/nowhere/at/all: {exists: true}}');
INSERT INTO steps VALUES ('two', 'first-steps', 2, 'Go on', 'Two', 'w:two', 'file: {/: {exists: true}}');
INSERT INTO steps VALUES ('three', 'first-steps', 3, 'The end', NULL, 'w:three', NULL);
INSERT INTO step_metadata VALUES ('two', 'skip', 'false');
INSERT INTO navigation VALUES ('one', 'two', NULL, NULL), ('two', 'three', 'one', NULL), ('three', NULL, 'two', NULL);
";

/// Writes an artifact of the newest version, after running `sql` on it.
pub fn write(path: &Path, sql: &str) {
    let connection = tables(path);
    for migration in MIGRATIONS {
        connection.execute_batch(migration).unwrap();
    }
    connection.execute_batch(&format!("{STEPS}{sql}")).unwrap();
    let digest = rows::read_definition(&connection).unwrap().content_digest().to_string();
    connection.execute("INSERT OR REPLACE INTO artifact VALUES (?1, ?2)", (CONTENT_DIGEST, digest)).unwrap();
    connection.pragma_update(None, "user_version", VERSION).unwrap();
}

/// Writes an artifact of version 0, as any program may write it.
pub fn write_old(path: &Path) {
    tables(path).execute_batch(STEPS).unwrap();
}

fn tables(path: &Path) -> Connection {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(&format!("PRAGMA foreign_keys = ON; {TABLES}")).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection
}
