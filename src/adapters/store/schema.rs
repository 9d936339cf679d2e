//! The schema of the embedded store and its append-only migrations.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::Error;

/// Marks the file as an embedded store: "WSst".
const APPLICATION_ID: i64 = 0x5753_7374;

/// One batch of statements per version; never edited once released, only appended.
const MIGRATIONS: &[&str] = &[
    "
    create table objects (
        kind text not null,
        namespace text not null,
        name text not null,
        uid text not null,
        owner text,
        resource_version integer not null,
        manifest text not null,
        primary key (kind, namespace, name)
    ) without rowid;
    create index objects_by_owner on objects (owner);
    create index objects_by_version on objects (resource_version);
    create table sources (
        owner text primary key,
        source text not null,
        revision text not null,
        commit_id text not null,
        settings text not null
    ) without rowid;
    create table units (
        owner text not null,
        path text not null,
        id text,
        work text not null,
        state text not null,
        record text not null,
        primary key (owner, path)
    ) without rowid;
",
    "
    create index objects_by_uid on objects (uid);
    create table custom_state (
        uid text not null,
        key text not null,
        value text not null,
        primary key (uid, key)
    ) without rowid;
",
];

/// The newest version of the schema.
const KNOWN: i64 = MIGRATIONS.len() as i64;

pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let open = |source| Error::Open { path: path.to_owned(), source };
    // Reading needs no wait for a program that writes at this moment.
    if read_version(connection, path)? == KNOWN {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(open)?;
    // Asked again: a program without the lock of this one may have been faster.
    let version = read_version(&transaction, path)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(migration).map_err(open)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(open)?;
    transaction.pragma_update(None, "user_version", KNOWN).map_err(open)?;
    transaction.commit().map_err(open)
}

/// The version of the schema in the file, 0 for an empty one; an error for a file that is not for this program.
fn read_version(connection: &Connection, path: &Path) -> Result<i64, Error> {
    // One statement: what another program commits meanwhile is seen whole or not at all.
    let question = "select application_id, user_version, (select count(*) from sqlite_schema)
        from pragma_application_id, pragma_user_version";
    let (application, version, tables) = connection
        .query_row(question, [], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?)))
        .map_err(|source| Error::Open { path: path.to_owned(), source })?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(Error::Foreign { path: path.to_owned(), found: application });
    }
    if version > KNOWN {
        return Err(Error::Newer { path: path.to_owned(), found: version, known: KNOWN });
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::store::Store;

    #[test]
    fn a_store_opens_again_and_foreign_or_newer_files_are_refused() {
        let state = tempfile::tempdir().unwrap();
        drop(Store::open(state.path()).unwrap());
        drop(Store::open(state.path()).unwrap());
        let path = state.path().join("store.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(state.path()), Err(Error::Newer { found: 99, .. })));
        let other = tempfile::tempdir().unwrap();
        Connection::open(other.path().join("store.db")).unwrap().execute_batch("create table t (a)").unwrap();
        assert!(matches!(Store::open(other.path()), Err(Error::Foreign { .. })));
    }
}
