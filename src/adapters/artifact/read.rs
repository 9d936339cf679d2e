//! Reads an artifact, which may come from a stranger: nothing of it is run, written or believed without a check.
//!
//! A database of another program with the same tables is read too, as long as an export can carry all of it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::schema::{APPLICATION_ID, COLUMNS, CONTENT_DIGEST, VERSION, migrate_connection, versions};
use super::{Artifact, ArtifactError, MAX_BYTES};
use crate::domain::definition::{Definition, Navigation, StepRow, is_datetime};
use crate::domain::export::{CustomRow, RuntimeRow, State, state::STATUSES};
use crate::domain::names::{InvalidName, StepId, WorkshopId};

/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The most problems that are named.
const MAX_PROBLEMS: usize = 20;

/// Reads and checks the artifact at `path`.
pub fn read(path: &Path) -> Result<Artifact, ArtifactError> {
    Reading::open(path)?.artifact()
}

/// Reads the artifact at `path` with the rows of its runtime tables.
pub fn read_with_state(path: &Path) -> Result<(Artifact, State), ArtifactError> {
    let mut reading = Reading::open(path)?;
    let artifact = reading.artifact()?;
    let state = reading.state()?;
    Ok((artifact, state))
}

/// An open file whose schema is known to be ours.
struct Reading<'p> {
    path: &'p Path,
    connection: Connection,
    /// Written by this program, so that a content digest is due.
    is_ours: bool,
    cannot_carry: Vec<String>,
}

impl<'p> Reading<'p> {
    fn open(path: &'p Path) -> Result<Self, ArtifactError> {
        check_file(path)?;
        let failed = || ArtifactError::sqlite("open", path);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed())?;
        confine(&connection).map_err(failed())?;
        let (application, version) = versions(&connection).map_err(failed())?;
        if application != APPLICATION_ID && application != 0 {
            let reason = format!("its application id {application:#x} is that of another program");
            return Err(ArtifactError::NotAnArtifact { path: path.to_owned(), reason });
        }
        if version > VERSION {
            return Err(ArtifactError::Newer { path: path.to_owned(), found: version });
        }
        let mut reading = Self { path, connection, is_ours: application == APPLICATION_ID, cannot_carry: Vec::new() };
        reading.check_schema()?;
        reading.check_pages()?;
        if version < VERSION && !reading.has_table("artifact").map_err(failed())? {
            connection =
                migrated_copy(&reading.connection).map_err(ArtifactError::sqlite("migrate a copy of", path))?;
            reading.connection = connection;
            reading.is_ours = false;
        }
        Ok(reading)
    }

    fn failed(&self) -> impl FnOnce(rusqlite::Error) -> ArtifactError + use<'p> {
        ArtifactError::sqlite("read", self.path)
    }

    fn damaged(&self, reason: impl Into<String>) -> ArtifactError {
        ArtifactError::Damaged { path: self.path.to_owned(), reason: reason.into() }
    }

    fn has_table(&self, name: &str) -> rusqlite::Result<bool> {
        self.connection.table_exists(None, name)
    }

    /// Ends with everything that was found to have no place in an export.
    fn refuse(&mut self) -> Result<(), ArtifactError> {
        let mut what = std::mem::take(&mut self.cannot_carry);
        if what.is_empty() {
            return Ok(());
        }
        let more = what.len().saturating_sub(MAX_PROBLEMS);
        what.truncate(MAX_PROBLEMS);
        if more > 0 {
            what.push(format!("and {more} more"));
        }
        Err(ArtifactError::CannotCarry { path: self.path.to_owned(), what })
    }

    /// Only plain tables with exactly our columns are read: views, triggers and generated columns are programs.
    fn check_schema(&mut self) -> Result<(), ArtifactError> {
        let failed = || ArtifactError::sqlite("read", self.path);
        let mut statement = self
            .connection
            .prepare(
                "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            )
            .map_err(failed())?;
        let rows: Vec<(String, String, String)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .and_then(Iterator::collect)
            .map_err(failed())?;
        drop(statement);
        let mut tables = Vec::new();
        for (kind, name, sql) in rows {
            let is_virtual = sql.trim_start().to_ascii_lowercase().starts_with("create virtual");
            match kind.as_str() {
                "table" if !is_virtual => tables.push(name),
                "index" => {}
                _ => self.cannot_carry.push(format!("the {kind} \"{name}\"")),
            }
        }
        let missing: Vec<&str> =
            COLUMNS.iter().map(|(table, _)| *table).filter(|table| !tables.iter().any(|it| it == table)).collect();
        if !missing.is_empty() {
            let reason = format!("it has no table {}", missing.join(", "));
            return Err(ArtifactError::NotAnArtifact { path: self.path.to_owned(), reason });
        }
        for table in &tables {
            let known = COLUMNS.iter().find(|(name, _)| name == table).map(|(_, columns)| *columns);
            let columns = match known {
                Some(columns) => columns,
                None if table == "artifact" => &["key", "value"],
                None => {
                    self.cannot_carry.push(format!("the table \"{table}\""));
                    continue;
                }
            };
            let mut statement =
                self.connection.prepare("SELECT name, hidden FROM pragma_table_xinfo(?1)").map_err(failed())?;
            let found: Vec<(String, i64)> = statement
                .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))
                .and_then(Iterator::collect)
                .map_err(failed())?;
            for (column, hidden) in &found {
                if *hidden != 0 || !columns.contains(&column.as_str()) {
                    self.cannot_carry.push(format!("the column \"{column}\" of \"{table}\""));
                }
            }
            if let Some(column) = columns.iter().find(|column| !found.iter().any(|(name, _)| name == *column)) {
                let reason = format!("its table \"{table}\" has no column \"{column}\"");
                return Err(ArtifactError::NotAnArtifact { path: self.path.to_owned(), reason });
            }
        }
        self.refuse()
    }

    fn check_pages(&self) -> Result<(), ArtifactError> {
        let check: String =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(self.failed())?;
        if check != "ok" {
            return Err(self.damaged(check));
        }
        let mut statement = self.connection.prepare("PRAGMA foreign_key_check").map_err(self.failed())?;
        let mut rows = statement.query([]).map_err(self.failed())?;
        if let Some(row) = rows.next().map_err(self.failed())? {
            let (table, parent): (String, String) =
                row.get(0).and_then(|table| Ok((table, row.get(2)?))).map_err(self.failed())?;
            return Err(self.damaged(format!("a row of \"{table}\" refers to a row of \"{parent}\" that is not there")));
        }
        Ok(())
    }

    /// The texts of all rows of `sql`; a value that is no valid text, or NULL in a column of `required`, is noted and
    /// left out.
    fn rows(&mut self, table: &str, sql: &str, required: &[usize]) -> Result<Vec<Texts>, ArtifactError> {
        let failed = || ArtifactError::sqlite("read", self.path);
        let mut statement = self.connection.prepare(sql).map_err(failed())?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).map_err(failed())?;
        let mut texts = Vec::new();
        let mut problems = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            let mut values = Vec::with_capacity(columns.len());
            for (index, column) in columns.iter().enumerate() {
                let value = match text(row, index) {
                    Ok(None) if required.contains(&index) => Err("is NULL".to_owned()),
                    value => value,
                };
                match value {
                    Ok(value) => values.push(value),
                    Err(problem) => {
                        // The first column is the row's key in every query here.
                        let key = values.first().cloned().flatten().unwrap_or_default();
                        problems.push(format!("{column} of {table} \"{key}\" {problem}"));
                        values.push(None);
                    }
                }
            }
            texts.push(Texts(values));
        }
        drop(rows);
        drop(statement);
        self.cannot_carry.append(&mut problems);
        Ok(texts)
    }

    fn name<T>(&mut self, what: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, InvalidName>) -> Option<T> {
        match parse(text) {
            Ok(name) => Some(name),
            Err(error) => {
                self.cannot_carry.push(format!("{what} {error}"));
                None
            }
        }
    }

    fn artifact(&mut self) -> Result<Artifact, ArtifactError> {
        let definition = self.definition()?;
        let content_digest = definition.content_digest();
        let has_table = self.has_table("artifact").map_err(self.failed())?;
        let sql = "SELECT key, value FROM artifact ORDER BY 1";
        let recorded = if has_table { self.rows("artifact", sql, &[0, 1])? } else { Vec::new() };
        self.refuse()?;
        let recorded = recorded.iter().find(|row| row.text(0) == CONTENT_DIGEST).map(|row| row.text(1));
        match recorded {
            Some(recorded) if recorded != content_digest.to_string() => {
                return Err(self.damaged(format!("its rows have the digest {content_digest}, it says {recorded}")));
            }
            None if self.is_ours => return Err(self.damaged("it has no content digest")),
            _ => {}
        }
        Ok(Artifact { images: definition.image_digests(), definition, content_digest })
    }

    fn definition(&mut self) -> Result<Definition, ArtifactError> {
        let workshops =
            self.rows("workshop", "SELECT id, name, version, created_at FROM workshop ORDER BY id", &[0, 1, 2, 3])?;
        if workshops.len() != 1 {
            let ids: Vec<String> = workshops.iter().take(5).map(|row| format!("\"{}\"", row.text(0))).collect();
            let several = format!("{} workshops ({}) where one file holds one", workshops.len(), ids.join(", "));
            self.cannot_carry.push(if ids.is_empty() { "no workshop at all".into() } else { several });
            self.refuse()?;
        }
        let workshop = workshops.into_iter().next().unwrap_or_default();
        let id = self.name("the workshop id", workshop.text(0), WorkshopId::parse);
        if !is_datetime(workshop.text(3)) {
            self.cannot_carry.push(format!("created_at \"{}\", which is no date with a time", workshop.text(3)));
        }
        let steps = self.steps()?;
        self.refuse()?;
        // Every problem above has ended this already.
        let Some(id) = id else { return Err(self.damaged("it has no workshop")) };
        let [_, name, version, created_at] = workshop.into_texts();
        let definition = Definition { id, name, version, created_at, steps };
        definition.check().map_err(|error| self.damaged(error.to_string()))?;
        Ok(definition)
    }

    fn steps(&mut self) -> Result<Vec<StepRow>, ArtifactError> {
        let sql = "SELECT id, title, markdown, image_tag, goss_spec FROM steps ORDER BY position, id";
        let rows = self.rows("step", sql, &[0, 1, 3])?;
        self.check_positions()?;
        if rows.is_empty() {
            self.cannot_carry.push("a workshop without steps".into());
        }
        let metadata_rows =
            self.rows("step_metadata", "SELECT step_id, key, value FROM step_metadata ORDER BY 1, 2", &[0, 1, 2])?;
        let mut metadata: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for row in metadata_rows {
            let [step, key, value] = row.into_texts();
            metadata.entry(step).or_default().insert(key, value);
        }
        let sql = "SELECT step_id, next_step_id, prev_step_id, unlock_condition FROM navigation ORDER BY 1";
        let mut navigation: BTreeMap<String, Texts> =
            self.rows("navigation", sql, &[0])?.into_iter().map(|row| (row.text(0).to_owned(), row)).collect();
        let mut steps = Vec::with_capacity(rows.len());
        for mut row in rows {
            let Some(id) = self.name("the step id", row.text(0), StepId::parse) else { continue };
            let Some(mut links) = navigation.remove(id.as_str()) else {
                self.cannot_carry.push(format!("step \"{id}\" without a row of navigation"));
                continue;
            };
            let mut target =
                |index: usize| links.take(index).and_then(|target| self.name("the step id", &target, StepId::parse));
            let (next, prev) = (target(1), target(2));
            let navigation = Navigation { next, prev, unlock_condition: links.take(3) };
            steps.push(StepRow {
                metadata: metadata.remove(id.as_str()).unwrap_or_default(),
                id,
                title: row.take(1).unwrap_or_default(),
                markdown: row.take(2),
                image_tag: row.take(3).unwrap_or_default(),
                goss_spec: row.take(4),
                navigation,
            });
        }
        Ok(steps)
    }

    fn check_positions(&mut self) -> Result<(), ArtifactError> {
        let failed = || ArtifactError::sqlite("read", self.path);
        let mut statement =
            self.connection.prepare("SELECT id, position FROM steps ORDER BY position, id").map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        let mut expected = 1;
        while let Some(row) = rows.next().map_err(failed())? {
            let position = row.get_ref(1).map_err(failed())?;
            if position != ValueRef::Integer(expected) {
                let id = String::from_utf8_lossy(row.get_ref(0).map_err(failed())?.as_bytes().unwrap_or_default())
                    .into_owned();
                let found = position.as_i64().map_or_else(|_| "no integer".to_owned(), |number| number.to_string());
                self.cannot_carry.push(format!("the position of step \"{id}\" ({found} where {expected} is due)"));
                break;
            }
            expected += 1;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<State, ArtifactError> {
        let mut state = State::default();
        let sql = "SELECT workspace_id, step_id, status, started_at, completed_at FROM runtime_state ORDER BY 1, 2";
        for mut row in self.rows("runtime_state", sql, &[0, 1, 2])? {
            if !STATUSES.contains(&row.text(2)) {
                self.cannot_carry.push(format!("the status \"{}\" of workspace \"{}\"", row.text(2), row.text(0)));
            }
            let (started_at, completed_at) = (row.take(3), row.take(4));
            let [workspace_id, step_id, status, ..] = row.into_texts::<5>();
            state.runtime.push(RuntimeRow { workspace_id, step_id, status, started_at, completed_at });
        }
        for row in
            self.rows("custom_state", "SELECT workspace_id, key, value FROM custom_state ORDER BY 1, 2", &[0, 1, 2])?
        {
            let [workspace_id, key, value] = row.into_texts();
            state.custom.push(CustomRow { workspace_id, key, value });
        }
        self.refuse()?;
        Ok(state)
    }
}

/// The texts of one row; NULL is none.
#[derive(Default)]
struct Texts(Vec<Option<String>>);

impl Texts {
    fn text(&self, index: usize) -> &str {
        self.0.get(index).and_then(Option::as_deref).unwrap_or_default()
    }

    fn take(&mut self, index: usize) -> Option<String> {
        self.0.get_mut(index).and_then(Option::take)
    }

    fn into_texts<const N: usize>(self) -> [String; N] {
        let mut values = self.0.into_iter();
        std::array::from_fn(|_| values.next().flatten().unwrap_or_default())
    }
}

fn text(row: &Row<'_>, index: usize) -> Result<Option<String>, String> {
    let bytes = match row.get_ref(index) {
        Ok(ValueRef::Null) => return Ok(None),
        Ok(ValueRef::Text(bytes)) => bytes,
        Ok(ValueRef::Blob(_)) => return Err("is a blob".into()),
        Ok(ValueRef::Integer(_) | ValueRef::Real(_)) => return Err("is a number".into()),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    if let Some(offset) = bytes.iter().position(|&byte| byte == 0) {
        return Err(format!("has a NUL character at byte {offset}"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(error) => Err(format!("is not valid UTF-8 at byte {}", error.valid_up_to())),
    }
}

/// Refuses what SQLite should not even open: no regular file, too many bytes, another format.
fn check_file(path: &Path) -> Result<(), ArtifactError> {
    let io = || ArtifactError::io("open", path);
    let metadata = std::fs::metadata(path).map_err(io())?;
    let not = |reason: &str| ArtifactError::NotAnArtifact { path: path.to_owned(), reason: reason.into() };
    if !metadata.is_file() {
        return Err(not("it is no regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(ArtifactError::TooLarge { path: path.to_owned(), size: metadata.len() });
    }
    let mut start = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(16).read_to_end(&mut start)).map_err(io())?;
    if start != MAGIC { Err(not("it is no SQLite file")) } else { Ok(()) }
}

/// Nothing in the file may run code, and no value may be larger than the file could be.
fn confine(connection: &Connection) -> rusqlite::Result<()> {
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_BYTES as i32),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 100_000),
        (Limit::SQLITE_LIMIT_COLUMN, 100),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 20),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
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
    connection.execute_batch(
        "PRAGMA query_only = ON; PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA ignore_check_constraints = ON;",
    )
}

/// The database in memory, brought to the newest version there: the file itself is only read.
fn migrated_copy(connection: &Connection) -> rusqlite::Result<Connection> {
    let mut copy = Connection::open_in_memory()?;
    rusqlite::backup::Backup::new(connection, &mut copy)?.run_to_completion(1000, std::time::Duration::ZERO, None)?;
    migrate_connection(&mut copy, None)?;
    confine(&copy)?;
    Ok(copy)
}
