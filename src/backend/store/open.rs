//! How the working copy comes to be: copied from the distribution artifact, checked, migrated, and put in place only
//! when all of that went well.
//!
//! A file that is refused leaves the one that was there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{FILE, Store, StoreError, Workshop, rows};
use crate::domain::artifact_schema::{APPLICATION_ID, COLUMNS, CONTENT_DIGEST, MIGRATIONS, VERSION};

/// The largest artifact, in bytes.
pub const MAX_BYTES: u64 = 32 << 20;
const INCOMING: &str = "workshop.db.incoming";

/// Where the bytes of an artifact come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// A file, compressed with zstd if it is called `.zst`.
    File(&'a Path),
    /// The bytes themselves.
    Bytes(&'a [u8]),
}

/// Opens the working copy in the directory `state` for `workspace`.
///
/// It is made anew from the artifact in the directory `artifact`, if there is one, with the progress that an earlier
/// copy of the same workshop has. Without one, what was there is opened.
pub fn open(state: &Path, artifact: &Path, workspace: &str) -> Result<(Store, Workshop), StoreError> {
    let found = [artifact.join("workshop.db"), artifact.join("workshop.db.zst")].into_iter().find(|path| path.exists());
    match found {
        Some(path) => install(state, &Source::File(&path), workspace, None),
        None if state.join(FILE).exists() => {
            let mut connection = connect(&state.join(FILE))?;
            let workshop = check(&mut connection)?;
            Ok((Store { connection, workspace: workspace.to_owned() }, workshop))
        }
        None => Err(StoreError::Absent(artifact.join("workshop.db"))),
    }
}

/// Puts a new working copy in place of the one in `state`, whose progress it takes over where it is of the same
/// workshop. Where `keeps` names a workshop and a step, both have to be in it.
pub fn install(
    state: &Path,
    source: &Source<'_>,
    workspace: &str,
    keeps: Option<(&str, &str)>,
) -> Result<(Store, Workshop), StoreError> {
    let io = |attempt, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { attempt, path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(io("create", state))?;
    // An image may bring the directory with other rights.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(state, private).map_err(io("protect", state))?;
    let incoming = state.join(INCOMING);
    remove(&incoming)?;
    let result = write(source, &incoming).and_then(|()| {
        let mut connection = connect(&incoming)?;
        let workshop = check(&mut connection)?;
        if let Some((id, step)) = keeps {
            if workshop.id != id {
                return Err(StoreError::OtherWorkshop { found: workshop.id, expected: id.to_owned() });
            }
            if !workshop.steps.iter().any(|rules| rules.id == step) {
                return Err(StoreError::NoSuchStep(step.to_owned()));
            }
        }
        let file = state.join(FILE);
        if file.exists() {
            carry_over(&file, &mut connection, &workshop.id)?;
        }
        // Closed, so that the file is whole and has its only name when it is opened for good.
        drop(connection);
        std::fs::rename(&incoming, &file).map_err(io("put in place", &file))?;
        let connection = connect(&file)?;
        Ok((Store { connection, workspace: workspace.to_owned() }, workshop))
    });
    if result.is_err() {
        let _ = remove(&incoming);
    }
    result
}

fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let path = PathBuf::from(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Io { attempt: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn write(source: &Source<'_>, path: &Path) -> Result<(), StoreError> {
    let io = |attempt, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { attempt, path, source }
    };
    let mut target = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(io("create", path))?;
    let mut copy = |reader: &mut dyn Read, from: &Path| -> Result<(), StoreError> {
        let size = std::io::copy(&mut reader.take(MAX_BYTES + 1), &mut target).map_err(io("copy", from))?;
        if size > MAX_BYTES { Err(StoreError::TooLarge) } else { Ok(()) }
    };
    match source {
        Source::Bytes(bytes) => copy(&mut &**bytes, path)?,
        Source::File(from) => {
            let mut file = File::open(from).map_err(io("open", from))?;
            if from.extension().is_some_and(|extension| extension == "zst") {
                let mut decoder = zstd::Decoder::new(file).map_err(io("unpack", from))?;
                decoder.window_log_max(27).map_err(io("unpack", from))?;
                copy(&mut decoder, from)?;
            } else {
                copy(&mut file, from)?;
            }
        }
    }
    target.flush().map_err(io("write", path))
}

/// Opens a database whose content nobody vouches for: nothing in it may run code.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(StoreError::sqlite("open"))?;
    let confine = || -> rusqlite::Result<()> {
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_LENGTH, MAX_BYTES as i32),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, 100_000),
            (Limit::SQLITE_LIMIT_COLUMN, 100),
            (Limit::SQLITE_LIMIT_EXPR_DEPTH, 20),
            (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        ] {
            connection.set_limit(limit, value)?;
        }
        for (setting, value) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        ] {
            connection.set_db_config(setting, value)?;
        }
        // A small cache: the file is small and the system has it in memory anyway.
        connection.execute_batch(
            "PRAGMA cache_size = -256; PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON;
             PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;",
        )
    };
    confine().map_err(StoreError::sqlite("open"))?;
    connection.set_prepared_statement_cache_capacity(8);
    Ok(connection)
}

/// Holds a database against what an artifact has to be, and brings an older one to the newest schema.
fn check(connection: &mut Connection) -> Result<Workshop, StoreError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application = number("application_id").map_err(StoreError::sqlite("read"))?;
    let version = number("user_version").map_err(StoreError::sqlite("read"))?;
    if application != APPLICATION_ID && application != 0 {
        return Err(StoreError::NotAnArtifact(format!("its application id {application:#x} is another program's")));
    }
    if version > VERSION {
        return Err(StoreError::Newer(version));
    }
    for (table, columns) in COLUMNS {
        let mut statement = connection
            .prepare(
                "SELECT t.name FROM pragma_table_info(?1) t JOIN sqlite_schema s ON s.name = ?1 WHERE s.type = 'table'",
            )
            .map_err(StoreError::sqlite("read"))?;
        let found: Vec<String> = statement
            .query_map([table], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(StoreError::sqlite("read"))?;
        if let Some(missing) = columns.iter().find(|column| !found.iter().any(|name| name == *column)) {
            return Err(StoreError::NotAnArtifact(format!("its table \"{table}\" has no column \"{missing}\"")));
        }
    }
    let pages: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(StoreError::sqlite("check"))?;
    if pages != "ok" {
        return Err(StoreError::Damaged(pages));
    }
    migrate(connection, version).map_err(StoreError::sqlite("migrate"))?;
    let definition = rows::read_definition(connection)?;
    if application == APPLICATION_ID && version > 0 {
        let recorded: Option<String> = rows::artifact_value(connection, CONTENT_DIGEST)?;
        let found = definition.content_digest().to_string();
        if recorded.as_deref() != Some(found.as_str()) {
            let reason = format!("its rows have the digest {found}, it says {}", recorded.unwrap_or_default());
            return Err(StoreError::Damaged(reason));
        }
    }
    Ok(rows::workshop(&definition))
}

/// All due migrations in one transaction.
fn migrate(connection: &mut Connection, version: i32) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pending = MIGRATIONS.get(usize::try_from(version).unwrap_or(0)..).unwrap_or_default();
    // Nothing is done to a newest one; a foreign one may have the table already.
    for migration in pending {
        if !transaction.table_exists(None, "artifact")? {
            transaction.execute_batch(migration)?;
        }
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Copies the runtime tables of the old working copy, where both are of one workshop.
fn carry_over(old: &Path, connection: &mut Connection, workshop: &str) -> Result<(), StoreError> {
    // An old copy that cannot be read has nothing to hand over; the management API has the canonical progress.
    let Ok(old) = connect(old) else { return Ok(()) };
    let id: Result<String, _> = old.query_row("SELECT id FROM workshop", [], |row| row.get(0));
    if id.ok().as_deref() != Some(workshop) {
        return Ok(());
    }
    let Ok((runtime, custom)) = rows::read_state(&old) else { return Ok(()) };
    let failed = || StoreError::sqlite("carry the progress over to");
    let transaction = connection.transaction().map_err(failed())?;
    {
        let mut insert = transaction
            .prepare(
                "INSERT OR REPLACE INTO runtime_state (workspace_id, step_id, status, started_at, completed_at)
                 SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM steps WHERE id = ?2)",
            )
            .map_err(failed())?;
        for row in runtime {
            insert.execute(rusqlite::params_from_iter(row)).map_err(failed())?;
        }
        let mut insert =
            transaction.prepare("INSERT OR REPLACE INTO custom_state VALUES (?1, ?2, ?3)").map_err(failed())?;
        for row in custom {
            insert.execute(rusqlite::params_from_iter(row)).map_err(failed())?;
        }
    }
    transaction.commit().map_err(failed())
}
