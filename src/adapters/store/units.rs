//! What a sync remembers of a source and of each of its workshops: enough to do nothing when nothing changed.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Store, json, statement};
use crate::domain::digest::Digest;

/// The last revision of a source that was brought in completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    /// The source as people see it, without credentials.
    pub source: String,
    /// The revision as people see it.
    pub revision: String,
    /// The commit's id; empty for a folder.
    pub commit: String,
    /// The digest of everything else that the result depends on: platform, registry, options.
    pub settings: String,
}

/// How the last work on a workshop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitState {
    /// Its objects are known.
    Ready,
    /// Its content is wrong: final for its unit key.
    Invalid,
    /// Something outside failed, or a command did: worth another try.
    Failed,
}

/// What is remembered of one workshop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The directory, from the source's root.
    pub path: String,
    /// The workshop's id, when it could be read.
    pub id: Option<String>,
    /// The workshop's image repository, when it has a recipe.
    pub image: Option<String>,
    /// The unit key.
    pub unit: String,
    /// The digest that decides whether work is due.
    pub work: Digest,
    /// The digest of the recipe's bytes.
    pub recipe: Option<Digest>,
    /// The digest that the recipe's base was resolved to.
    pub base: Option<Digest>,
    /// How the last work ended.
    pub state: UnitState,
    /// Why, unless ready; `PATH:LINE:COLUMN: …` for content.
    pub message: String,
    /// Tries that failed at this unit key.
    pub tries: u32,
    /// The digest of the artifact's file.
    pub artifact: Option<Digest>,
    /// The wished objects, as manifests, with the first step of an instance.
    pub objects: Vec<(Value, Option<String>)>,
    /// The steps with their images, as reported.
    pub steps: Value,
    /// The digest of the settings that are in the objects and in nothing else.
    #[serde(default)]
    pub placement: String,
}

impl Store {
    /// What is remembered of a source.
    pub fn source(&self, owner: &str) -> Result<Option<SourceRecord>, Error> {
        self.connection()
            .prepare_cached("select source, revision, commit_id, settings from sources where owner = ?1")
            .and_then(|mut row| {
                row.query_row(params![owner], |row| {
                    Ok(SourceRecord {
                        source: row.get(0)?,
                        revision: row.get(1)?,
                        commit: row.get(2)?,
                        settings: row.get(3)?,
                    })
                })
                .optional()
            })
            .map_err(statement("read a source"))
    }

    /// Remembers a source.
    pub fn write_source(&self, owner: &str, record: &SourceRecord) -> Result<(), Error> {
        self.connection()
            .execute(
                "insert or replace into sources values (?1, ?2, ?3, ?4, ?5)",
                params![owner, record.source, record.revision, record.commit, record.settings],
            )
            .map(|_| ())
            .map_err(statement("write a source"))
    }

    /// Every source with its owner's name.
    pub fn sources(&self) -> Result<Vec<(String, SourceRecord)>, Error> {
        let connection = self.connection();
        let mut rows = connection
            .prepare_cached("select owner, source, revision, commit_id, settings from sources order by source")
            .map_err(statement("list sources"))?;
        rows.query_map([], |row| {
            Ok((
                row.get(0)?,
                SourceRecord { source: row.get(1)?, revision: row.get(2)?, commit: row.get(3)?, settings: row.get(4)? },
            ))
        })
        .and_then(Iterator::collect)
        .map_err(statement("list sources"))
    }

    /// Forgets a source and its units; its objects are the caller's matter.
    pub fn forget_source(&self, owner: &str) -> Result<(), Error> {
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(statement("forget a source"))?;
        transaction
            .execute("delete from sources where owner = ?1", params![owner])
            .and_then(|_| transaction.execute("delete from units where owner = ?1", params![owner]))
            .map_err(statement("forget a source"))?;
        transaction.commit().map_err(statement("forget a source"))
    }

    /// What is remembered of every workshop of a source.
    pub fn units(&self, owner: &str) -> Result<Vec<UnitRecord>, Error> {
        let connection = self.connection();
        let mut rows = connection
            .prepare_cached("select record from units where owner = ?1 order by path")
            .map_err(statement("list units"))?;
        let texts: Vec<String> = rows
            .query_map(params![owner], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(statement("list units"))?;
        texts.iter().map(|text| serde_json::from_str(text).map_err(json("a unit"))).collect()
    }

    /// Remembers a workshop; each call is durable on its own, so that a killed sync goes on where it was.
    pub fn write_unit(&self, owner: &str, record: &UnitRecord) -> Result<(), Error> {
        let text = serde_json::to_string(record).map_err(json("a unit"))?;
        let state = match record.state {
            UnitState::Ready => "ready",
            UnitState::Invalid => "invalid",
            UnitState::Failed => "failed",
        };
        self.connection()
            .prepare_cached("insert or replace into units values (?1, ?2, ?3, ?4, ?5, ?6)")
            .and_then(|mut row| {
                row.execute(params![owner, record.path, record.id, record.work.to_string(), state, text])
            })
            .map(|_| ())
            .map_err(statement("write a unit"))
    }

    /// Forgets the workshops of a source that are not at one of these paths.
    pub fn retain_units(&self, owner: &str, paths: &std::collections::BTreeSet<String>) -> Result<(), Error> {
        let connection = self.connection();
        let known: Vec<String> = connection
            .prepare_cached("select path from units where owner = ?1")
            .and_then(|mut rows| rows.query_map(params![owner], |row| row.get(0))?.collect())
            .map_err(statement("list units"))?;
        for path in known.iter().filter(|path| !paths.contains(*path)) {
            connection
                .execute("delete from units where owner = ?1 and path = ?2", params![owner, path])
                .map_err(statement("forget a unit"))?;
        }
        Ok(())
    }
}
