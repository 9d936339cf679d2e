//! The runtime tables of a working database, which only `--with-state` exports: the snapshots for backup and resume.
//!
//! They are no part of a definition and of its digest.

use serde::Serialize;

use crate::domain::tree::FileTree;

use super::emit::{EmitError, emit};
use super::reader::Reader;
use super::tables::{optional, read_rows, required};

/// The file of `runtime_state`.
pub const RUNTIME: &str = "runtime_state.yaml";
const CUSTOM: &str = "custom_state.yaml";
/// The files of both tables, in either layout.
pub const FILES: [&str; 2] = [RUNTIME, CUSTOM];
/// The values that `runtime_state.status` may have.
pub const STATUSES: [&str; 3] = ["pending", "active", "completed"];

/// The rows of both runtime tables, sorted by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// `runtime_state`.
    pub runtime: Vec<RuntimeRow>,
    /// `custom_state`.
    pub custom: Vec<CustomRow>,
}

/// A row of `runtime_state`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RuntimeRow {
    /// `workspace_id`.
    pub workspace_id: String,
    /// `step_id`.
    pub step_id: String,
    /// `status`: one of [`STATUSES`].
    pub status: String,
    /// `started_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// `completed_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
}

/// A row of `custom_state`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CustomRow {
    /// `workspace_id`.
    pub workspace_id: String,
    /// `key`.
    pub key: String,
    /// `value`.
    pub value: String,
}

impl State {
    /// True without any row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runtime.is_empty() && self.custom.is_empty()
    }
}

/// Adds the files of the tables that have rows.
pub fn render(state: &State, files: &mut FileTree) -> Result<(), EmitError> {
    if !state.runtime.is_empty() {
        files.insert_file(RUNTIME, emit(&state.runtime)?.into_bytes(), false);
    }
    if !state.custom.is_empty() {
        files.insert_file(CUSTOM, emit(&state.custom)?.into_bytes(), false);
    }
    Ok(())
}

/// Reads the rows of both tables; rows with one key are an error.
pub fn read(reader: &mut Reader<'_>) -> State {
    let mut state = State::default();
    let columns = ["workspace_id", "step_id", "status", "started_at", "completed_at"];
    read_rows(reader, RUNTIME, &columns, |row, problems| {
        let workspace = required(row, "workspace_id", problems);
        let step = required(row, "step_id", problems);
        let status = required(row, "status", problems);
        let (started_at, completed_at) =
            (optional(row, "started_at", problems), optional(row, "completed_at", problems));
        let (Some(workspace), Some(step), Some(status)) = (workspace, step, status) else { return };
        if !STATUSES.contains(&status.value.as_str()) {
            let message = format!("there is no status \"{}\"", status.value);
            let help = format!("write one of {}", STATUSES.join(", "));
            problems.error("unknown-value", status.place, &row.path("status"), message, help);
            return;
        }
        let (workspace_id, step_id) = (workspace.value, step.value);
        if state.runtime.iter().any(|it| it.workspace_id == workspace_id && it.step_id == step_id) {
            let message = format!("workspace \"{workspace_id}\" has two rows for step \"{step_id}\"");
            problems.error("duplicate-key", row.place, &row.path("step_id"), message, "keep one of the two");
            return;
        }
        let (started_at, completed_at) = (started_at.map(|it| it.value), completed_at.map(|it| it.value));
        state.runtime.push(RuntimeRow { workspace_id, step_id, status: status.value, started_at, completed_at });
    });
    read_rows(reader, CUSTOM, &["workspace_id", "key", "value"], |row, problems| {
        let workspace = required(row, "workspace_id", problems);
        let (key, value) = (required(row, "key", problems), required(row, "value", problems));
        let (Some(workspace), Some(key), Some(value)) = (workspace, key, value) else { return };
        if state.custom.iter().any(|it| it.workspace_id == workspace.value && it.key == key.value) {
            let message = format!("workspace \"{}\" has two rows for key \"{}\"", workspace.value, key.value);
            problems.error("duplicate-key", key.place, &row.path("key"), message, "keep one of the two");
            return;
        }
        state.custom.push(CustomRow { workspace_id: workspace.value, key: key.value, value: value.value });
    });
    state.runtime.sort();
    state.custom.sort();
    state
}
