//! The rows of an artifact as values.
//!
//! Reads; what cannot be a definition is refused with what is wrong with it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};

use super::{StoreError, Workshop};
use crate::domain::definition::{Definition, Navigation, StepRow};
use crate::domain::names::{InvalidName, StepId, WorkshopId};
use crate::domain::progress::{Condition, SKIP, StepRules};

fn wrong(error: &InvalidName) -> StoreError {
    StoreError::NotAnArtifact(error.to_string())
}

/// All rows of the definition.
pub fn read_definition(connection: &Connection) -> Result<Definition, StoreError> {
    let failed = || StoreError::sqlite("read");
    let mut statement = connection.prepare("SELECT id, name, version, created_at FROM workshop").map_err(failed())?;
    let workshops: Vec<[String; 4]> = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))
        .and_then(Iterator::collect)
        .map_err(failed())?;
    let [[id, name, version, created_at]]: [[String; 4]; 1] = workshops
        .try_into()
        .map_err(|found: Vec<_>| StoreError::NotAnArtifact(format!("it holds {} workshops", found.len())))?;

    let mut statement = connection.prepare("SELECT step_id, key, value FROM step_metadata").map_err(failed())?;
    let mut metadata: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))).map_err(failed())?;
    for row in rows {
        let (step, key, value) = row.map_err(failed())?;
        metadata.entry(step).or_default().insert(key, value);
    }

    let mut statement = connection
        .prepare(
            "SELECT s.id, s.title, s.markdown, s.image_tag, s.goss_spec, n.next_step_id, n.prev_step_id,
             n.unlock_condition FROM steps s LEFT JOIN navigation n ON n.step_id = s.id ORDER BY s.position",
        )
        .map_err(failed())?;
    let mut rows = statement.query([]).map_err(failed())?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        let text = |index: usize| row.get::<_, Option<String>>(index).map_err(failed());
        let step = |index: usize| -> Result<Option<StepId>, StoreError> {
            text(index)?.map(|id| StepId::parse(&id).map_err(|error| wrong(&error))).transpose()
        };
        let id: String = row.get(0).map_err(failed())?;
        steps.push(StepRow {
            metadata: metadata.remove(&id).unwrap_or_default(),
            id: StepId::parse(&id).map_err(|error| wrong(&error))?,
            title: row.get(1).map_err(failed())?,
            markdown: text(2)?,
            image_tag: row.get(3).map_err(failed())?,
            goss_spec: text(4)?,
            navigation: Navigation { next: step(5)?, prev: step(6)?, unlock_condition: text(7)? },
        });
    }
    let id = WorkshopId::parse(&id).map_err(|error| wrong(&error))?;
    let definition = Definition { id, name, version, created_at, steps };
    definition.check().map_err(|error| StoreError::NotAnArtifact(error.to_string()))?;
    Ok(definition)
}

/// What the backend keeps of a definition in memory.
pub fn workshop(definition: &Definition) -> Workshop {
    let rules = |step: &StepRow| StepRules {
        id: step.id.to_string(),
        title: step.title.clone(),
        next: step.navigation.next.as_ref().map(ToString::to_string),
        previous: step.navigation.prev.as_ref().map(ToString::to_string),
        unlock: step.navigation.unlock_condition.as_deref().map(Condition::parse),
        has_checks: step.goss_spec.is_some(),
        can_skip: step.metadata.get(SKIP).is_none_or(|value| value != "false"),
    };
    Workshop {
        id: definition.id.to_string(),
        name: definition.name.clone(),
        version: definition.version.clone(),
        steps: definition.steps.iter().map(rules).collect(),
    }
}

/// A row of the table `artifact`.
pub fn artifact_value(connection: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    connection
        .query_row("SELECT value FROM artifact WHERE key = ?1", [key], |row| row.get(0))
        .optional()
        .map_err(StoreError::sqlite("read"))
}

type Texts<const N: usize> = Vec<[Option<String>; N]>;

/// The rows of `runtime_state` and `custom_state`, of all workspaces.
pub fn read_state(connection: &Connection) -> rusqlite::Result<(Texts<5>, Texts<3>)> {
    let mut statement =
        connection.prepare("SELECT workspace_id, step_id, status, started_at, completed_at FROM runtime_state")?;
    let runtime = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))?
        .collect::<Result<_, _>>()?;
    let mut statement = connection.prepare("SELECT workspace_id, key, value FROM custom_state")?;
    let custom =
        statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?.collect::<Result<_, _>>()?;
    Ok((runtime, custom))
}
