//! The artifact's tables as text: who writes artifacts and who keeps a working copy of one have the same.
//!
//! A shipped migration is never changed; a new version appends one. Nothing here speaks to a database.

/// `PRAGMA application_id` of an artifact: the letters `WSHP`.
pub const APPLICATION_ID: i32 = 0x5753_4850;
/// `PRAGMA user_version`: the newest schema version.
pub const VERSION: i32 = MIGRATIONS.len() as i32;
/// The row of the table `artifact` that holds the content digest.
pub const CONTENT_DIGEST: &str = "content_digest";

/// Version 0: the tables as any program may write them; `datetime` keeps such text as it is.
pub const TABLES: &str = "\
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
pub const MIGRATIONS: [&str; 1] = ["\
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
