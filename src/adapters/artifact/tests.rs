//! The file an artifact is: round trips, identity, migrations and what is refused.

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::domain::definition::IMAGE_DIGEST;
use crate::domain::export::{CustomRow, Layout, RuntimeRow, State, any_definition, compose, parse, render};
use crate::domain::tree::FileTree;

fn definition() -> Definition {
    let mut files = FileTree::default();
    for (path, text) in [
        ("workshop.yaml", "schema: 1\nid: w\nname: W\nsteps: [a, b]\n"),
        ("steps/a/step.yaml", "title: A\nimageTag: r.io/w:a\nmetadata: {skip: 'false'}\n"),
        ("steps/a/content.md", "# A\r\n"),
        ("steps/b/step.yaml", "title: B\nimageTag: r.io/w:b\n"),
    ] {
        files.insert_file(path, text.as_bytes(), false);
    }
    compose::compose(&parse("", &files).value.unwrap(), None, None, None).value.unwrap()
}

fn written(directory: &Path) -> PathBuf {
    let path = directory.join("w.db");
    write(&definition(), &BTreeMap::new(), &path).unwrap();
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_come_back_and_equal_rows_give_equal_bytes(definition in any_definition()) {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one.db"), directory.path().join("two.db"));
        let first = write(&definition, &BTreeMap::new(), &one).unwrap();
        let artifact = read(&one).unwrap();
        prop_assert_eq!(&artifact.definition, &definition);
        prop_assert_eq!(artifact.content_digest, definition.content_digest());

        let files = render(&artifact.definition, Layout::Tree, &State::default()).unwrap();
        let back = compose::compose(&parse("", &files).value.unwrap(), None, None, None).value.unwrap();
        let second = write(&back, &BTreeMap::new(), &two).unwrap();
        prop_assert_eq!(first, second);
        prop_assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
        prop_assert_eq!(first, Digest::of(&std::fs::read(&one).unwrap()));
    }

    #[test]
    fn a_damaged_file_is_refused_or_read_but_never_panics(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path());
        let mut bytes = std::fs::read(&path).unwrap();
        for (index, value) in hits {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Some(cut) = cut {
            let length = cut.index(bytes.len());
            bytes.truncate(length);
        }
        std::fs::write(&path, bytes).unwrap();
        let _ = read_with_state(&path);
    }
}

#[test]
fn image_digests_are_metadata_outside_of_the_content_digest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.db");
    let images = BTreeMap::from([("b".to_owned(), Digest::of(b"manifest"))]);
    write(&definition(), &images, &path).unwrap();
    let artifact = read(&path).unwrap();
    assert_eq!(artifact.images, images);
    assert_eq!(artifact.content_digest, definition().content_digest());
    assert_eq!(artifact.definition.steps[1].metadata[IMAGE_DIGEST], Digest::of(b"manifest").to_string());
}

#[test]
fn runtime_rows_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.db");
    let state = State {
        runtime: vec![RuntimeRow {
            workspace_id: "x".into(),
            step_id: "a".into(),
            status: "completed".into(),
            started_at: Some("2026-01-01T00:00:00Z".into()),
            completed_at: Some(String::new()),
        }],
        custom: vec![CustomRow { workspace_id: "x".into(), key: "note".into(), value: "1".into() }],
    };
    write_with_state(&definition(), &BTreeMap::new(), &state, &path).unwrap();
    assert_eq!(read_with_state(&path).unwrap().1, state);
    assert_eq!(read(&path).unwrap().content_digest, definition().content_digest());
}

#[test]
fn the_file_is_marked_and_needs_no_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path());
    let connection = Connection::open(&path).unwrap();
    let pragma = |name: &str| -> String {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
        match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        }
    };
    assert_eq!(pragma("application_id"), APPLICATION_ID.to_string());
    assert_eq!(pragma("user_version"), "1");
    assert_eq!(pragma("journal_mode"), "delete");
    assert_eq!(pragma("encoding"), "UTF-8");
    let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "nothing is left beside the artifact");
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path());
    let before = std::fs::read(&path).unwrap();
    let mut broken = definition();
    broken.steps[0].markdown = Some("a\0".into());
    assert!(matches!(write(&broken, &BTreeMap::new(), &path), Err(ArtifactError::Definition { .. })));
    let mut huge = definition();
    huge.steps[0].markdown = Some("x".repeat(MAX_BYTES as usize));
    assert!(matches!(write(&huge, &BTreeMap::new(), &path), Err(ArtifactError::TooLarge { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(write(&definition(), &BTreeMap::new(), directory.path()).is_err(), "a directory is no file");
    assert!(write(&definition(), &BTreeMap::new(), &directory.path().join("none/w.db")).is_err());
}

/// What reading says after `sql` was run on a good artifact.
fn after(sql: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path());
    Connection::open(&path).unwrap().execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
    let name = format!("\"{}\" ", path.display());
    read(&path).map_or_else(|error| error.to_string().replace(&name, ""), |_| "read".to_owned())
}

/// As [`after`], on a file that does not say it is ours.
fn foreign(sql: &str) -> String {
    after(&format!("PRAGMA application_id = 0; DROP TABLE artifact; {sql}"))
}

#[test]
fn a_file_of_ours_that_was_changed_is_refused() {
    assert_eq!(after(""), "read");
    for (sql, expected) in [
        ("UPDATE steps SET title = 'other'", "is damaged: its rows have the digest"),
        ("UPDATE step_metadata SET value = 'true'", "is damaged: its rows have the digest"),
        ("DELETE FROM artifact", "is damaged: it has no content digest"),
        ("PRAGMA user_version = 2", "has schema version 2, this program reads up to 1"),
        ("PRAGMA application_id = 7", "is no artifact: its application id 0x7 is that of another program"),
        ("DROP TABLE navigation", "is no artifact: it has no table navigation"),
        ("DELETE FROM steps WHERE id = 'b'", "is damaged: a row of"),
    ] {
        assert!(after(sql).starts_with(expected), "{sql}: {}", after(sql));
    }
    assert_eq!(after("INSERT INTO step_metadata VALUES ('a', 'image.digest', 'x')"), "read");
}

#[test]
fn a_foreign_database_is_read_when_all_of_it_can_be_carried() {
    assert_eq!(foreign(""), "read");
    assert_eq!(foreign("PRAGMA user_version = 0"), "read");
    assert_eq!(foreign("CREATE INDEX i ON steps (title)"), "read");
    assert_eq!(foreign("UPDATE workshop SET created_at = '2024-01-01 10:00:00'"), "read");
    for (sql, expected) in [
        ("INSERT INTO workshop VALUES ('v', '', '', '')", "2 workshops (\"v\", \"w\") where one file holds one"),
        ("UPDATE steps SET position = 7 WHERE id = 'b'", "the position of step \"b\" (7 where 2 is due)"),
        ("UPDATE steps SET position = 'x'", "the position of step \"a\" (no integer where 1 is due)"),
        ("DELETE FROM navigation WHERE step_id = 'b'", "step \"b\" without a row of navigation"),
        ("UPDATE steps SET title = x'00'", "title of step \"a\" is a blob; title of step \"b\" is a blob"),
        (
            "UPDATE steps SET markdown = 'ab' || char(0) || 'c' WHERE id = 'a'",
            "markdown of step \"a\" has a NUL character at byte 2",
        ),
        (
            "UPDATE steps SET markdown = CAST(x'61ff' AS TEXT) WHERE id = 'a'",
            "markdown of step \"a\" is not valid UTF-8 at byte 1",
        ),
        ("UPDATE workshop SET created_at = 2024", "created_at of workshop \"w\" is a number"),
        ("UPDATE workshop SET created_at = 'x'", "created_at \"x\", which is no date with a time"),
        ("CREATE TABLE extra (a)", "the table \"extra\""),
        ("CREATE VIEW v AS SELECT 1", "the view \"v\""),
        ("CREATE TRIGGER t AFTER DELETE ON steps BEGIN SELECT 1; END", "the trigger \"t\""),
        ("ALTER TABLE steps ADD COLUMN extra TEXT", "the column \"extra\" of \"steps\""),
        ("ALTER TABLE steps ADD COLUMN g TEXT AS (title || 'x')", "the column \"g\" of \"steps\""),
        (
            "UPDATE workshop SET id = 'A b'; UPDATE steps SET workshop_id = 'A b'",
            "the workshop id \"A b\" has characters other than a-z, 0-9 and -",
        ),
        (
            "CREATE TABLE n (id TEXT, name TEXT, version TEXT, created_at TEXT); INSERT INTO n SELECT id, NULL, version, created_at FROM workshop; DROP TABLE workshop; ALTER TABLE n RENAME TO workshop; CREATE UNIQUE INDEX u ON workshop (id)",
            "name of workshop \"w\" is NULL",
        ),
    ] {
        let found = foreign(sql);
        let said = found.strip_prefix("cannot be carried whole: ").unwrap_or(&found);
        assert!(said.starts_with(expected), "{sql}: {found}");
    }
}

#[test]
fn what_is_no_artifact_is_refused_before_sqlite_sees_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, "hello").unwrap();
    assert!(read(&path).unwrap_err().to_string().ends_with("is no artifact: it is no SQLite file"));
    assert!(read(directory.path()).unwrap_err().to_string().ends_with("is no artifact: it is no regular file"));
    assert!(matches!(read(&directory.path().join("none")), Err(ArtifactError::Io { .. })));
    std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert!(matches!(read(&path), Err(ArtifactError::TooLarge { .. })));
}

#[test]
fn an_older_file_is_brought_to_the_newest_version_in_one_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path());
    let old = "DROP TABLE artifact; PRAGMA application_id = 0; PRAGMA user_version = 0";
    Connection::open(&path).unwrap().execute_batch(old).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(read(&path).unwrap().definition, definition());
    assert_eq!(std::fs::read(&path).unwrap(), before, "reading changes nothing");
    migrate(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    assert_eq!(schema::versions(&connection).unwrap(), (APPLICATION_ID, VERSION));
    assert_eq!(read(&path).unwrap().content_digest, definition().content_digest());

    connection.execute_batch(&format!("{old}; CREATE TABLE artifact (key, value)")).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(migrate(&path).is_err(), "its table artifact is in the way");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_read_only_file_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path());
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    assert!(read(&path).is_ok());
}
