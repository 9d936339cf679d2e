//! The working copy of the artifact: the backend is its only writer.
//!
//! Texts, checks and rules are read from it; progress and custom state are written to it. What may be done with them
//! is the domain's.

mod open;
mod rows;

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _};

use crate::domain::artifact_schema::VERSION;
use crate::domain::management::CustomState;
use crate::domain::progress::{Ledger, Status, StepProgress, StepRules};

pub use open::{MAX_BYTES, Source, install, open};

/// The file in the state directory.
pub const FILE: &str = "workshop.db";
/// The entry of custom state that lists the skipped steps: the table of progress has no column for it, and no key of
/// a learner has a colon.
const SKIPPED: &str = "workshop:skipped";

/// Why there is no working copy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is nothing to copy.
    #[error("there is no artifact at \"{}\"", .0.display())]
    Absent(PathBuf),
    /// The file system refused.
    #[error("failed to {attempt} \"{}\"", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("failed to {attempt} the artifact")]
    Sqlite {
        /// What was attempted.
        attempt: &'static str,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The bytes are no artifact.
    #[error("the artifact cannot be used: {0}")]
    NotAnArtifact(String),
    /// A schema of a later program.
    #[error("the artifact has schema version {0}, this program reads up to {VERSION}")]
    Newer(i32),
    /// More bytes than an artifact may have.
    #[error("the artifact has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Broken pages, or rows that do not match their digest.
    #[error("the artifact is damaged: {0}")]
    Damaged(String),
    /// An artifact that cannot take the place of the one there is.
    #[error("the artifact is of workshop \"{found}\", this workspace is of \"{expected}\"")]
    OtherWorkshop {
        /// Its workshop.
        found: String,
        /// The workshop of the workspace.
        expected: String,
    },
    /// The step that the learner is in is not there.
    #[error("the artifact has no step \"{0}\"")]
    NoSuchStep(String),
}

impl StoreError {
    fn sqlite(attempt: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged(source.to_string())
            }
            _ => Self::Sqlite { attempt, source },
        }
    }

    /// True when the bytes are at fault, not the machine.
    pub fn is_content(&self) -> bool {
        !matches!(self, Self::Absent(_) | Self::Io { .. } | Self::Sqlite { .. })
    }
}

/// A workshop without its texts, which stay in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workshop {
    /// Its id.
    pub id: String,
    /// Its display name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The rules of its steps, in their order.
    pub steps: Vec<StepRules>,
}

/// The open working copy.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    workspace: String,
}

impl Store {
    fn column(&self, column: &'static str, step: &str) -> Result<Option<String>, StoreError> {
        let sql = match column {
            "markdown" => "SELECT markdown FROM steps WHERE id = ?1",
            _ => "SELECT goss_spec FROM steps WHERE id = ?1",
        };
        let mut statement = self.connection.prepare_cached(sql).map_err(StoreError::sqlite("read"))?;
        let value = statement.query_row([step], |row| row.get(0)).optional().map_err(StoreError::sqlite("read"))?;
        Ok(value.flatten())
    }

    /// The tutorial text of a step.
    pub fn markdown(&self, step: &str) -> Result<Option<String>, StoreError> {
        self.column("markdown", step)
    }

    /// The check spec of a step.
    pub fn spec(&self, step: &str) -> Result<Option<String>, StoreError> {
        self.column("goss_spec", step)
    }

    /// The progress of this workspace.
    pub fn progress(&self) -> Result<Vec<StepProgress>, StoreError> {
        let failed = || StoreError::sqlite("read the progress in");
        let skipped: Vec<String> =
            self.custom_value(SKIPPED)?.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT step_id, status, started_at, completed_at FROM runtime_state WHERE workspace_id = ?1
                 ORDER BY step_id",
            )
            .map_err(failed())?;
        let rows = statement
            .query_map([&self.workspace], |row| {
                let (step, status): (String, String) = (row.get(0)?, row.get(1)?);
                let status = Status::parse(&status).unwrap_or_default();
                let is_skipped = skipped.contains(&step);
                Ok(StepProgress {
                    step,
                    status,
                    started_at: row.get(2)?,
                    completed_at: row.get(3)?,
                    skipped: is_skipped,
                })
            })
            .map_err(failed())?;
        rows.collect::<Result<_, _>>().map_err(failed())
    }

    /// Writes all progress of this workspace; rows of steps that the artifact does not have are left out.
    pub fn save_progress(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        let failed = || StoreError::sqlite("write the progress to");
        let transaction = self.connection.transaction().map_err(failed())?;
        {
            transaction
                .execute("DELETE FROM runtime_state WHERE workspace_id = ?1", [&self.workspace])
                .map_err(failed())?;
            let mut insert = transaction
                .prepare_cached(
                    "INSERT INTO runtime_state (workspace_id, step_id, status, started_at, completed_at)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .map_err(failed())?;
            for row in ledger.rows().iter().filter(|row| ledger.rules(&row.step).is_some()) {
                let values = (&self.workspace, &row.step, row.status.as_str(), &row.started_at, &row.completed_at);
                insert.execute(values).map_err(failed())?;
            }
            let skipped: Vec<&str> =
                ledger.rows().iter().filter(|row| row.skipped).map(|row| row.step.as_str()).collect();
            let skipped = serde_json::Value::from(skipped).to_string();
            transaction
                .execute("INSERT OR REPLACE INTO custom_state VALUES (?1, ?2, ?3)", (&self.workspace, SKIPPED, skipped))
                .map_err(failed())?;
        }
        transaction.commit().map_err(failed())
    }

    fn custom_value(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row(
                "SELECT value FROM custom_state WHERE workspace_id = ?1 AND key = ?2",
                (&self.workspace, key),
                |row| row.get(0),
            )
            .optional()
            .map_err(StoreError::sqlite("read the custom state in"))
    }

    /// Answers and notes of this workspace.
    pub fn custom_state(&self) -> Result<CustomState, StoreError> {
        let failed = || StoreError::sqlite("read the custom state in");
        let mut statement = self
            .connection
            .prepare_cached("SELECT key, value FROM custom_state WHERE workspace_id = ?1 AND key <> ?2")
            .map_err(failed())?;
        let rows =
            statement.query_map((&self.workspace, SKIPPED), |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed())?;
        rows.collect::<Result<_, _>>().map_err(failed())
    }

    /// Sets an entry of custom state, or removes it.
    pub fn set_custom(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        let done = match value {
            Some(value) => self
                .connection
                .execute("INSERT OR REPLACE INTO custom_state VALUES (?1, ?2, ?3)", (&self.workspace, key, value)),
            None => self
                .connection
                .execute("DELETE FROM custom_state WHERE workspace_id = ?1 AND key = ?2", (&self.workspace, key)),
        };
        done.map(|_| ()).map_err(StoreError::sqlite("write the custom state to"))
    }
}

#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod tests;
