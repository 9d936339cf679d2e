//! Objects of local mode, with the part of an API server's manners that a sync needs.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde_json::{Map, Value};

use super::{Error, Store, json, statement};
use crate::domain::digest::hex;
use crate::domain::object::{Kind, Live, ObjectKey, fields_of_others, key_of};

impl Store {
    /// The objects that carry the owner's label value, in the order of applying; all when none is named.
    pub fn list_objects(&self, owner: Option<&str>) -> Result<Vec<Live>, Error> {
        let connection = self.connection();
        let mut rows = connection
            .prepare_cached("select manifest from objects where ?1 is null or owner = ?1")
            .map_err(statement("list objects"))?;
        let manifests: Vec<String> = rows
            .query_map(params![owner], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(statement("list objects"))?;
        let mut objects = manifests
            .iter()
            .map(|text| serde_json::from_str(text).map_err(json("an object")))
            .filter_map(|manifest| manifest.map(Live::from_manifest).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        objects.sort_by(|left: &Live, right| left.key.cmp(&right.key));
        Ok(objects)
    }

    /// Key, uid and version of every object: enough to see what changed.
    pub fn object_versions(&self) -> Result<Vec<(ObjectKey, String, i64)>, Error> {
        let connection = self.connection();
        let mut rows = connection
            .prepare_cached(
                "select kind, namespace, name, uid, resource_version from objects order by kind, namespace, name",
            )
            .map_err(statement("list objects"))?;
        // A kind that this program does not know was written by a newer one, and is left out.
        let read = |row: &rusqlite::Row<'_>| {
            let (kind, namespace): (String, String) = (row.get(0)?, row.get(1)?);
            let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
            let (name, uid, version) = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(Kind::parse(&kind).map(|kind| (ObjectKey { kind, namespace, name }, uid, version)))
        };
        rows.query_map([], read)
            .and_then(|rows| rows.filter_map(Result::transpose).collect())
            .map_err(statement("list objects"))
    }

    /// The object of this key.
    pub fn object(&self, key: &ObjectKey) -> Result<Option<Live>, Error> {
        let text: Option<String> = self
            .connection()
            .prepare_cached("select manifest from objects where kind = ?1 and namespace = ?2 and name = ?3")
            .and_then(|mut row| {
                row.query_row(params![key.kind.as_str(), namespace(key), key.name], |row| row.get(0)).optional()
            })
            .map_err(statement("read an object"))?;
        read_manifest(text.as_deref())
    }

    /// The object with this uid.
    pub fn object_by_uid(&self, uid: &str) -> Result<Option<Live>, Error> {
        let text: Option<String> = self
            .connection()
            .prepare_cached("select manifest from objects where uid = ?1")
            .and_then(|mut row| row.query_row(params![uid], |row| row.get(0)).optional())
            .map_err(statement("read an object"))?;
        read_manifest(text.as_deref())
    }

    /// Makes the object as `manifest` says and keeps what belongs to others; gives the object as it is now.
    pub fn apply_object(&self, manifest: &Value, owner_label: &str) -> Result<Option<Live>, Error> {
        let Some(key) = key_of(manifest) else { return Ok(None) };
        // Most applies change nothing, and asking that needs no wait for a program that writes.
        let live = self.object(&key)?;
        if let Some(live) = live
            && merge(manifest, Some(&live.manifest), key.kind) == live.manifest
        {
            return Ok(Some(live));
        }
        self.write(&key, |live, _| Ok::<_, Error>((Some(merge(manifest, live, key.kind)), ())), owner_label)
            .map(|(live, ())| live)
    }

    /// Makes a new object; nothing, and nothing is written, where one of its name is there.
    pub fn create_object(&self, manifest: &Value, owner_label: &str) -> Result<Option<Live>, Error> {
        let Some(key) = key_of(manifest) else { return Ok(None) };
        let create = |live: Option<&Value>, _: &Scope<'_>| {
            let is_new = live.is_none();
            Ok::<_, Error>((is_new.then(|| manifest.clone()), is_new))
        };
        let (live, is_new) = self.write(&key, create, owner_label)?;
        Ok(live.filter(|_| is_new))
    }

    /// Changes an object as one step that nobody else's write comes between; nothing is kept when `change` fails.
    ///
    /// Gives what `change` gave, or nothing where the object is not there.
    pub fn change_object<T, E: From<Error>>(
        &self,
        key: &ObjectKey,
        change: impl FnOnce(&mut Value, &Scope<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let change = |live: Option<&Value>, scope: &Scope<'_>| {
            let Some(live) = live else { return Ok((None, None)) };
            let mut changed = live.clone();
            let given = change(&mut changed, scope)?;
            Ok::<_, E>(((changed != *live).then_some(changed), Some(given)))
        };
        self.write(key, change, crate::crd::labels::OWNER).map(|(_, given)| given)
    }

    /// Reads, decides and writes in one transaction; gives the object as it is afterwards.
    fn write<T, E: From<Error>>(
        &self,
        key: &ObjectKey,
        decide: impl FnOnce(Option<&Value>, &Scope<'_>) -> Result<(Option<Value>, T), E>,
        owner_label: &str,
    ) -> Result<(Option<Live>, T), E> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(statement("begin to change an object"))?;
        let text: Option<String> = transaction
            .prepare_cached("select manifest from objects where kind = ?1 and namespace = ?2 and name = ?3")
            .and_then(|mut row| {
                row.query_row(params![key.kind.as_str(), namespace(key), key.name], |row| row.get(0)).optional()
            })
            .map_err(statement("read an object"))?;
        let live: Option<Value> =
            text.map(|text| serde_json::from_str(&text)).transpose().map_err(json("an object"))?;
        let scope = Scope { connection: &transaction };
        let (wished, given) = decide(live.as_ref(), &scope)?;
        let Some(mut object) = wished else {
            transaction.commit().map_err(statement("end reading an object"))?;
            return Ok((live.and_then(Live::from_manifest), given));
        };
        number(&transaction, &mut object, live.as_ref())?;
        let owner = object.get("metadata").and_then(|metadata| metadata.get("labels")?.get(owner_label)?.as_str());
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let version: i64 = text("/metadata/resourceVersion").parse().unwrap_or_default();
        transaction
            .prepare_cached("insert or replace into objects values (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
            .and_then(|mut row| {
                row.execute(params![
                    key.kind.as_str(),
                    namespace(key),
                    key.name,
                    text("/metadata/uid"),
                    owner,
                    version,
                    object.to_string()
                ])
            })
            .map_err(statement("write an object"))?;
        transaction.commit().map_err(statement("write an object"))?;
        drop(connection);
        self.changed(object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default());
        Ok((Live::from_manifest(object), given))
    }

    /// Removes the object of this key, if it is still the one with this uid, and what is kept beside it.
    pub fn delete_object(&self, key: &ObjectKey, uid: &str) -> Result<bool, Error> {
        let mut connection = self.connection();
        let deleted = connection
            .transaction()
            .and_then(|transaction| {
                let rows = transaction.execute(
                    "delete from objects where kind = ?1 and namespace = ?2 and name = ?3 and uid = ?4",
                    params![key.kind.as_str(), namespace(key), key.name, uid],
                )?;
                transaction.execute("delete from custom_state where uid = ?1", params![uid])?;
                transaction.commit()?;
                Ok(rows > 0)
            })
            .map_err(statement("delete an object"))?;
        drop(connection);
        self.changed(uid);
        Ok(deleted)
    }
}

/// What belongs to an object and is written together with it.
#[derive(Debug)]
pub struct Scope<'a> {
    connection: &'a Connection,
}

impl Scope<'_> {
    /// The custom state of the instance with this uid, by key.
    pub fn custom_state(&self, uid: &str) -> Result<BTreeMap<String, String>, Error> {
        self.connection
            .prepare_cached("select key, value from custom_state where uid = ?1")
            .and_then(|mut rows| rows.query_map(params![uid], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(statement("read custom state"))
    }

    /// Puts `state` in place of the custom state of the instance with this uid.
    pub fn write_custom_state(&self, uid: &str, state: &BTreeMap<String, String>) -> Result<(), Error> {
        let failed = statement("write custom state");
        if self.custom_state(uid)? == *state {
            return Ok(());
        }
        self.connection.execute("delete from custom_state where uid = ?1", params![uid]).map_err(&failed)?;
        let mut row =
            self.connection.prepare_cached("insert into custom_state values (?1, ?2, ?3)").map_err(&failed)?;
        for (key, value) in state {
            row.execute(params![uid, key, value]).map_err(&failed)?;
        }
        Ok(())
    }
}

/// The object that a row holds, where there is a row.
fn read_manifest(text: Option<&str>) -> Result<Option<Live>, Error> {
    let manifest = text.map(serde_json::from_str).transpose().map_err(json("an object"))?;
    Ok(manifest.and_then(Live::from_manifest))
}

fn namespace(key: &ObjectKey) -> &str {
    key.namespace.as_deref().unwrap_or_default()
}

/// Gives an object what an API server does: a uid, the moment of its creation, a version, and a generation that
/// counts the changes of its spec.
fn number(connection: &Connection, object: &mut Value, live: Option<&Value>) -> Result<(), Error> {
    let (version, moment): (i64, String) = connection
        .query_row(
            "select coalesce(max(resource_version), 0) + 1, strftime('%Y-%m-%dT%H:%M:%SZ', 'now') from objects",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(statement("number an object"))?;
    let old = |pointer: &str| live.and_then(|live| live.pointer(pointer)).filter(|value| !value.is_null());
    let uid = match old("/metadata/uid").and_then(Value::as_str) {
        Some(uid) => uid.to_owned(),
        None => new_uid(connection)?,
    };
    let generation = old("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    let is_same_spec = live.is_some_and(|live| live.get("spec") == object.get("spec"));
    let created = old("/metadata/creationTimestamp").and_then(Value::as_str).map_or(moment, str::to_owned);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("uid".into(), uid.into());
        metadata.insert("resourceVersion".into(), version.to_string().into());
        metadata.insert("generation".into(), (generation + i64::from(!is_same_spec)).max(1).into());
        metadata.insert("creationTimestamp".into(), created.into());
    }
    Ok(())
}

fn new_uid(connection: &Connection) -> Result<String, Error> {
    let bytes: Vec<u8> =
        connection.query_row("select randomblob(16)", [], |row| row.get(0)).map_err(statement("make a uid"))?;
    let digits = hex(&bytes);
    Ok(format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]))
}

/// `desired` over `live`: our labels, annotations and spec, and of the rest what others put there.
fn merge(desired: &Value, live: Option<&Value>, kind: Kind) -> Value {
    let Some(live) = live else { return desired.clone() };
    let mut merged = live.clone();
    for map in ["labels", "annotations"] {
        let wished =
            desired.pointer(&format!("/metadata/{map}")).and_then(Value::as_object).cloned().unwrap_or_default();
        if wished.is_empty() {
            continue;
        }
        if let Some(metadata) = merged.get_mut("metadata").and_then(Value::as_object_mut) {
            let present = metadata.entry(map).or_insert_with(|| Value::Object(Map::new()));
            if let Some(present) = present.as_object_mut() {
                present.extend(wished);
            }
        }
    }
    let mut spec = desired.get("spec").cloned().unwrap_or_default();
    for field in fields_of_others(kind) {
        let Some(name) = field.strip_prefix("spec.") else { continue };
        if let (Some(value), Some(spec)) = (live.get("spec").and_then(|spec| spec.get(name)), spec.as_object_mut()) {
            spec.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
    if let Some(object) = merged.as_object_mut() {
        object.insert("spec".into(), spec);
    }
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(step: Option<&str>, owner: &str) -> Value {
        let mut manifest = json!({
            "apiVersion": "workshop.platform/v1alpha1", "kind": "WorkspaceInstance",
            "metadata": {"name": "a-ada", "namespace": "default", "labels": {"o": "r1"}},
            "spec": {"templateRef": {"name": "a"}, "owner": owner},
        });
        if let Some(step) = step {
            manifest["spec"]["currentStep"] = step.into();
        }
        manifest
    }

    #[test]
    fn applying_again_writes_nothing_and_keeps_what_others_own() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let first = store.apply_object(&instance(Some("two"), "ada"), "o").unwrap().unwrap();
        let second = store.apply_object(&instance(None, "ada"), "o").unwrap().unwrap();
        assert_eq!(first, second);
        let third = store.apply_object(&instance(None, "bob"), "o").unwrap().unwrap();
        assert_eq!(third.text("/spec/currentStep"), Some("two"));
        assert_eq!((third.text("/spec/owner"), third.uid == first.uid), (Some("bob"), true));
        assert_eq!(store.list_objects(Some("r1")).unwrap(), std::slice::from_ref(&third));
        assert_eq!(store.list_objects(Some("other")).unwrap(), []);
        assert!(!store.delete_object(&third.key, "another-uid").unwrap());
        assert!(store.delete_object(&third.key, &third.uid).unwrap());
        assert_eq!(store.object(&third.key).unwrap(), None);
    }
    #[test]
    fn a_change_is_one_step_with_what_belongs_to_the_object_and_nothing_when_it_fails() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let mut changes = store.changes();
        let made = store.create_object(&instance(None, "ada"), "o").unwrap().unwrap();
        assert!(changes.has_changed().unwrap());
        assert_eq!(store.create_object(&instance(None, "bob"), "o").unwrap(), None);
        assert_eq!(store.object_by_uid(&made.uid).unwrap().unwrap(), made);
        let version = |live: &Live| live.text("/metadata/resourceVersion").unwrap().parse::<i64>().unwrap();
        let generation = |live: &Live| live.manifest.pointer("/metadata/generation").unwrap().as_i64().unwrap();
        let notes = BTreeMap::from([("notes".to_owned(), "text".to_owned())]);
        let failed = store.change_object(&made.key, |object, scope| {
            object["status"] = json!({"phase": "Running"});
            scope.write_custom_state(&made.uid, &notes)?;
            Err::<(), _>(Error::Locked { path: "x".into(), patience: std::time::Duration::ZERO })
        });
        assert!(failed.is_err());
        assert_eq!(store.object(&made.key).unwrap().unwrap(), made);
        changes.mark_unchanged();
        let given = store.change_object(&made.key, |object, scope| {
            assert_eq!(scope.custom_state(&made.uid)?, BTreeMap::new());
            object["status"] = json!({"phase": "Running"});
            scope.write_custom_state(&made.uid, &notes)?;
            Ok::<_, Error>(7)
        });
        assert_eq!(given.unwrap(), Some(7));
        let changed = store.object(&made.key).unwrap().unwrap();
        assert!(version(&changed) > version(&made) && changes.has_changed().unwrap());
        assert_eq!((generation(&made), generation(&changed)), (1, 1));
        changes.mark_unchanged();
        let kept = store.change_object(&made.key, |_, scope| scope.custom_state(&made.uid)).unwrap();
        assert_eq!((kept, changes.has_changed().unwrap()), (Some(notes), false));
        // A sync's apply goes on keeping the status.
        let applied = store.apply_object(&instance(None, "bob"), "o").unwrap().unwrap();
        assert_eq!((generation(&applied), applied.text("/status/phase")), (2, Some("Running")));
        store.delete_object(&made.key, &made.uid).unwrap();
        assert_eq!(store.change_object(&made.key, |_, _| Ok::<_, Error>(())).unwrap(), None);
    }
}
