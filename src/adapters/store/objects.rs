//! Objects of local mode, with the part of an API server's manners that a sync needs.

use rusqlite::{OptionalExtension, params};
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

    /// The object of this key.
    pub fn object(&self, key: &ObjectKey) -> Result<Option<Live>, Error> {
        let text: Option<String> = self
            .connection()
            .prepare_cached("select manifest from objects where kind = ?1 and namespace = ?2 and name = ?3")
            .and_then(|mut row| {
                row.query_row(params![key.kind.as_str(), namespace(key), key.name], |row| row.get(0)).optional()
            })
            .map_err(statement("read an object"))?;
        Ok(text
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(json("an object"))?
            .and_then(Live::from_manifest))
    }

    /// Makes the object as `manifest` says and keeps what belongs to others; gives the object as it is now.
    pub fn apply_object(&self, manifest: &Value, owner_label: &str) -> Result<Option<Live>, Error> {
        let Some(key) = key_of(manifest) else { return Ok(None) };
        let live = self.object(&key)?;
        let merged = merge(manifest, live.as_ref().map(|live| &live.manifest), key.kind);
        if live.as_ref().is_some_and(|live| live.manifest == merged) {
            return Ok(live);
        }
        let connection = self.connection();
        let version: i64 = connection
            .query_row("select coalesce(max(resource_version), 0) + 1 from objects", [], |row| row.get(0))
            .map_err(statement("number an object"))?;
        let mut merged = merged;
        let uid = live.map_or_else(|| new_uid(&connection), |live| Ok(live.uid))?;
        let metadata =
            merged.as_object_mut().and_then(|object| object.get_mut("metadata")).and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            metadata.insert("uid".into(), uid.clone().into());
            metadata.insert("resourceVersion".into(), version.to_string().into());
        }
        let owner = merged.get("metadata").and_then(|metadata| metadata.get("labels")?.get(owner_label)?.as_str());
        connection
            .prepare_cached("insert or replace into objects values (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
            .and_then(|mut row| {
                row.execute(params![
                    key.kind.as_str(),
                    namespace(&key),
                    key.name,
                    uid,
                    owner,
                    version,
                    merged.to_string()
                ])
            })
            .map_err(statement("write an object"))?;
        Ok(Live::from_manifest(merged))
    }

    /// Removes the object of this key, if it is still the one with this uid.
    pub fn delete_object(&self, key: &ObjectKey, uid: &str) -> Result<bool, Error> {
        self.connection()
            .execute(
                "delete from objects where kind = ?1 and namespace = ?2 and name = ?3 and uid = ?4",
                params![key.kind.as_str(), namespace(key), key.name, uid],
            )
            .map(|rows| rows > 0)
            .map_err(statement("delete an object"))
    }
}

fn namespace(key: &ObjectKey) -> &str {
    key.namespace.as_deref().unwrap_or_default()
}

fn new_uid(connection: &rusqlite::Connection) -> Result<String, Error> {
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
}
