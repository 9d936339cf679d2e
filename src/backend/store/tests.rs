//! Working copies of good, old, new and broken artifacts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::*;

const ARTIFACT: &str = "artifact/workshop.db";

fn opened(directory: &Path) -> Result<(Store, Workshop), StoreError> {
    open(&directory.join("state"), &directory.join("artifact"), "uid-1")
}

fn after(sql: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    fixture::write(&directory.path().join(ARTIFACT), "");
    Connection::open(directory.path().join(ARTIFACT)).unwrap().execute_batch(sql).unwrap();
    let said = opened(directory.path()).map_or_else(|error| error.to_string(), |_| "opened".to_owned());
    let left: Vec<_> = std::fs::read_dir(directory.path().join("state")).unwrap().flatten().collect();
    assert_eq!(left.len(), usize::from(said == "opened"), "{left:?}");
    said
}

#[test]
fn the_working_copy_is_the_artifact_and_nobody_elses() {
    let directory = tempfile::tempdir().unwrap();
    fixture::write(&directory.path().join(ARTIFACT), "");
    let (store, workshop) = opened(directory.path()).unwrap();
    assert_eq!((workshop.id.as_str(), workshop.steps.len()), ("first-steps", 3));
    assert_eq!(workshop.steps.iter().map(|step| step.can_skip).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(store.markdown("two").unwrap().as_deref(), Some("Two"));
    assert_eq!(store.spec("three").unwrap(), None);
    assert_eq!(store.markdown("none").unwrap(), None);
    let mode = |path: &str| directory.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode("state/workshop.db")), (0o700, 0o600));
}

#[test]
fn a_compressed_artifact_is_unpacked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(ARTIFACT);
    fixture::write(&path, "");
    let packed = zstd::encode_all(std::fs::File::open(&path).unwrap(), 3).unwrap();
    std::fs::write(path.with_extension("db.zst"), packed).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(opened(directory.path()).unwrap().1.name, "First steps");
}

#[test]
fn an_older_artifact_is_migrated_and_a_newer_or_broken_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    fixture::write_old(&directory.path().join(ARTIFACT));
    let before = std::fs::read(directory.path().join(ARTIFACT)).unwrap();
    let (store, _) = opened(directory.path()).unwrap();
    let version: i32 = store.connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, VERSION);
    assert_eq!(std::fs::read(directory.path().join(ARTIFACT)).unwrap(), before);

    assert_eq!(after(""), "opened");
    assert_eq!(after("PRAGMA user_version = 2"), "the artifact has schema version 2, this program reads up to 1");
    for (sql, expected) in [
        ("PRAGMA application_id = 7", "the artifact cannot be used: its application id 0x7 is another program's"),
        ("DROP TABLE custom_state", "the artifact cannot be used: its table \"custom_state\" has no column"),
        ("UPDATE steps SET title = 'x'", "the artifact is damaged: its rows have the digest"),
        ("DELETE FROM artifact", "the artifact is damaged: its rows have the digest"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM workshop", "the artifact cannot be used: it holds 0 workshops"),
    ] {
        assert!(after(sql).starts_with(expected), "{sql}: {}", after(sql));
    }
    assert!(matches!(opened(Path::new("/nowhere")), Err(StoreError::Absent(_))));
}

#[test]
fn progress_and_custom_state_outlive_a_new_copy_of_the_same_workshop() {
    let directory = tempfile::tempdir().unwrap();
    fixture::write(&directory.path().join(ARTIFACT), "");
    let (mut store, workshop) = opened(directory.path()).unwrap();
    let mut ledger = Ledger::new(workshop.steps.clone(), Vec::new());
    ledger.enter("one", "2026-01-01T00:00:00Z");
    ledger.skip("one");
    ledger.enter("two", "2026-01-01T00:01:00Z");
    ledger.complete("two", "2026-01-01T00:02:00Z");
    store.save_progress(&ledger).unwrap();
    store.set_custom("notes", Some("mine")).unwrap();
    store.set_custom("gone", Some("x")).unwrap();
    store.set_custom("gone", None).unwrap();
    drop(store);

    std::fs::remove_file(directory.path().join(ARTIFACT)).unwrap();
    fixture::write(&directory.path().join(ARTIFACT), "UPDATE steps SET title = 'Newer' WHERE id = 'one';");
    let (store, workshop) = opened(directory.path()).unwrap();
    assert_eq!(workshop.steps[0].title, "Newer");
    assert_eq!(store.progress().unwrap(), ledger.rows());
    assert_eq!(store.custom_state().unwrap(), CustomState::from([("notes".into(), "mine".into())]));
    drop(store);

    // Another workspace has its own rows, another workshop none of them.
    let other = open(&directory.path().join("state"), &directory.path().join("artifact"), "uid-2").unwrap().0;
    assert_eq!((other.progress().unwrap(), other.custom_state().unwrap()), (Vec::new(), CustomState::new()));
    drop(other);
    std::fs::remove_file(directory.path().join(ARTIFACT)).unwrap();
    let sql = "PRAGMA foreign_keys = OFF; UPDATE workshop SET id = 'other'; UPDATE steps SET workshop_id = 'other';";
    fixture::write(&directory.path().join(ARTIFACT), sql);
    assert_eq!(opened(directory.path()).unwrap().0.progress().unwrap(), []);
}

#[test]
fn what_takes_the_place_of_the_working_copy_is_of_the_same_workshop_and_has_the_step() {
    let directory = tempfile::tempdir().unwrap();
    fixture::write(&directory.path().join(ARTIFACT), "");
    drop(opened(directory.path()).unwrap());
    let state = directory.path().join("state");
    let bytes = std::fs::read(directory.path().join(ARTIFACT)).unwrap();
    let install = |bytes: &[u8], workshop, step| {
        install(&state, &Source::Bytes(bytes), "uid-1", Some((workshop, step)))
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(install(&bytes, "first-steps", "one"), Ok(()));
    let refused = "the artifact is of workshop \"first-steps\", this workspace is of \"other\"";
    assert_eq!(install(&bytes, "other", "one"), Err(refused.into()));
    assert_eq!(install(&bytes, "first-steps", "four"), Err("the artifact has no step \"four\"".into()));
    assert!(install(&bytes[..bytes.len() / 2], "first-steps", "one").is_err());
    assert!(install(b"no database", "first-steps", "one").is_err());
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
}
