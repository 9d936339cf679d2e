//! Writes an artifact: the same rows give the same bytes, and a failure leaves the file that was there.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::{ArtifactError, MAX_BYTES, schema};
use crate::domain::definition::{Definition, IMAGE_DIGEST};
use crate::domain::digest::Digest;
use crate::domain::export::State;

/// Writes the rows of `definition`, and for each step of `images` its manifest digest, to `path`; gives the sha256 of
/// the file's bytes. The parent directory has to exist.
pub fn write(definition: &Definition, images: &BTreeMap<String, Digest>, path: &Path) -> Result<Digest, ArtifactError> {
    write_with_state(definition, images, &State::default(), path)
}

/// As [`write`], with rows of the runtime tables.
pub fn write_with_state(
    definition: &Definition,
    images: &BTreeMap<String, Digest>,
    state: &State,
    path: &Path,
) -> Result<Digest, ArtifactError> {
    definition.check().map_err(|source| ArtifactError::Definition { path: path.to_owned(), source })?;
    let failed = || ArtifactError::sqlite("write the artifact", path);
    let connection = build(definition, images, state).map_err(failed())?;

    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |attempt| ArtifactError::io(attempt, path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".artifact-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(parent).map_err(io("write the artifact"))?;
    let Some(name) = file.path().to_str() else {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8");
        return Err(io("write the artifact")(source));
    };
    connection.execute("VACUUM INTO ?1", [name]).map_err(failed())?;
    let bytes = std::fs::read(file.path()).map_err(io("read back the artifact"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ArtifactError::TooLarge { path: path.to_owned(), size: bytes.len() as u64 });
    }
    // No flush to the disk: it would cost more than all the rest, a file that a power failure cut short is refused by
    // its digest, and every artifact can be made again from its source.
    file.persist(path).map_err(|error| io("write the artifact")(error.error))?;
    Ok(Digest::of(&bytes))
}

/// All rows in a database in memory, whose settings are those of the file.
fn build(definition: &Definition, images: &BTreeMap<String, Digest>, state: &State) -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA encoding = 'UTF-8'; PRAGMA auto_vacuum = NONE; PRAGMA synchronous = OFF;
         PRAGMA foreign_keys = ON; BEGIN;",
    )?;
    schema::create(&connection)?;
    insert_definition(&connection, definition, images)?;
    insert_state(&connection, state)?;
    schema::store_digest(&connection, &definition.content_digest())?;
    connection.execute_batch("COMMIT")?;
    Ok(connection)
}

fn insert_definition(
    connection: &Connection,
    definition: &Definition,
    images: &BTreeMap<String, Digest>,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO workshop (id, name, version, created_at) VALUES (?1, ?2, ?3, ?4)",
        (definition.id.as_str(), &definition.name, &definition.version, &definition.created_at),
    )?;
    let mut step_row = connection.prepare(
        "INSERT INTO steps (id, workshop_id, position, title, markdown, image_tag, goss_spec)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (index, step) in definition.steps.iter().enumerate() {
        let workshop = definition.id.as_str();
        let texts = (&step.title, &step.markdown, &step.image_tag, &step.goss_spec);
        step_row.execute((step.id.as_str(), workshop, index as i64 + 1, texts.0, texts.1, texts.2, texts.3))?;
    }
    let mut metadata_row = connection.prepare("INSERT INTO step_metadata (step_id, key, value) VALUES (?1, ?2, ?3)")?;
    let mut navigation_row = connection.prepare(
        "INSERT INTO navigation (step_id, next_step_id, prev_step_id, unlock_condition) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for step in &definition.steps {
        let mut metadata: BTreeMap<&str, String> =
            step.metadata.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        metadata.extend(images.get(step.id.as_str()).map(|digest| (IMAGE_DIGEST, digest.to_string())));
        for (key, value) in metadata {
            metadata_row.execute((step.id.as_str(), key, value))?;
        }
        let navigation = &step.navigation;
        navigation_row.execute((
            step.id.as_str(),
            navigation.next.as_ref().map(AsRef::<str>::as_ref),
            navigation.prev.as_ref().map(AsRef::<str>::as_ref),
            &navigation.unlock_condition,
        ))?;
    }
    Ok(())
}

fn insert_state(connection: &Connection, state: &State) -> rusqlite::Result<()> {
    let mut runtime = connection.prepare(
        "INSERT INTO runtime_state (workspace_id, step_id, status, started_at, completed_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in &state.runtime {
        runtime.execute((&row.workspace_id, &row.step_id, &row.status, &row.started_at, &row.completed_at))?;
    }
    let mut custom = connection.prepare("INSERT INTO custom_state (workspace_id, key, value) VALUES (?1, ?2, ?3)")?;
    for row in &state.custom {
        custom.execute((&row.workspace_id, &row.key, &row.value))?;
    }
    Ok(())
}
