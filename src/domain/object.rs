//! Objects of our kinds as JSON values: their key, what we own of them, and whether one is already as wished.
//!
//! The typed shapes are in `crd`; this is the part that a plan needs, equal for a cluster and the embedded store.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The kinds a repository's sync creates, in the order they are applied; they are pruned in the opposite order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A workshop as the cluster knows it; cluster-scoped.
    WorkspaceTemplate,
    /// One learner's workspace; namespaced.
    WorkspaceInstance,
}

impl Kind {
    /// Every kind, in the order of applying.
    pub const ALL: [Self; 2] = [Self::WorkspaceTemplate, Self::WorkspaceInstance];

    /// The kind's name as in YAML.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkspaceTemplate => "WorkspaceTemplate",
            Self::WorkspaceInstance => "WorkspaceInstance",
        }
    }

    /// The kind's plural in lower case, as in URLs.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::WorkspaceTemplate => "workspacetemplates",
            Self::WorkspaceInstance => "workspaceinstances",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What names an object; the order is the order of applying.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The namespace of a namespaced kind.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// `Kind/name` or `Kind/namespace/name`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => write!(f, "{}/{}", self.kind, self.name),
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

/// An object that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// What names it.
    pub key: ObjectKey,
    /// Its uid, the precondition of its deletion.
    pub uid: String,
    /// The whole object.
    pub manifest: Value,
}

impl Live {
    /// The object in `manifest`, if it is of one of our kinds and has a name.
    #[must_use]
    pub fn from_manifest(manifest: Value) -> Option<Self> {
        let key = key_of(&manifest)?;
        let uid = manifest.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { key, uid, manifest })
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.manifest.get("metadata")?.get("labels")?.get(name)?.as_str()
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.manifest.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// A text of the object at a JSON pointer.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.manifest.pointer(pointer)?.as_str()
    }
}

/// The key in a manifest.
#[must_use]
pub fn key_of(manifest: &Value) -> Option<ObjectKey> {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Some(ObjectKey {
        kind: Kind::parse(manifest.get("kind")?.as_str()?)?,
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name")?,
    })
}

/// The field paths in which `live` is not as `desired` says: labels and annotations that we set, and the whole spec
/// but the fields in `theirs`, which belong to others.
#[must_use]
pub fn differences(desired: &Value, live: &Value, theirs: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    for map in ["labels", "annotations"] {
        let wished = desired.pointer(&format!("/metadata/{map}")).and_then(Value::as_object);
        let present = live.pointer(&format!("/metadata/{map}")).and_then(Value::as_object);
        for (name, value) in wished.into_iter().flatten() {
            if present.and_then(|present| present.get(name)) != Some(value) {
                paths.push(format!("metadata.{map}.{name}"));
            }
        }
    }
    let empty = Value::Object(Map::new());
    compare("spec", desired.get("spec").unwrap_or(&empty), live.get("spec").unwrap_or(&empty), theirs, &mut paths);
    paths
}

fn compare(path: &str, desired: &Value, live: &Value, theirs: &[&str], paths: &mut Vec<String>) {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            for (name, value) in desired {
                let path = format!("{path}.{name}");
                match live.get(name) {
                    Some(present) => compare(&path, value, present, theirs, paths),
                    None => paths.push(path),
                }
            }
            for name in live.keys().filter(|name| !desired.contains_key(*name)) {
                let path = format!("{path}.{name}");
                if !theirs.contains(&path.as_str()) {
                    paths.push(path);
                }
            }
        }
        _ if desired == live => {}
        _ => paths.push(path.to_owned()),
    }
}

/// The fields of `live.spec` that nobody wishes, as a JSON merge patch that removes them; server-side apply leaves
/// such fields alone because another manager set them.
#[must_use]
pub fn removal_patch(desired: &Value, live: &Value, theirs: &[&str]) -> Option<Value> {
    fn extras(path: &str, desired: &Value, live: &Value, theirs: &[&str]) -> Option<Value> {
        let (desired, live) = (desired.as_object()?, live.as_object()?);
        let mut patch = Map::new();
        for (name, present) in live {
            let path = format!("{path}.{name}");
            match desired.get(name) {
                None if !theirs.contains(&path.as_str()) => {
                    patch.insert(name.clone(), Value::Null);
                }
                Some(wished) => {
                    if let Some(inner) = extras(&path, wished, present, theirs) {
                        patch.insert(name.clone(), inner);
                    }
                }
                None => {}
            }
        }
        (!patch.is_empty()).then_some(Value::Object(patch))
    }
    let spec = extras("spec", desired.get("spec")?, live.get("spec")?, theirs)?;
    Some(serde_json::json!({ "spec": spec }))
}

/// The fields of an instance's spec that people and the operator own, never a sync.
pub const INSTANCE_FIELDS_OF_OTHERS: &[&str] =
    &["spec.currentStep", "spec.suspended", "spec.hold", "spec.expiresAt", "spec.resetRequest"];

/// The spec fields of `kind` that a sync leaves alone.
#[must_use]
pub const fn fields_of_others(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::WorkspaceTemplate => &[],
        Kind::WorkspaceInstance => INSTANCE_FIELDS_OF_OTHERS,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(desired: &Value, live: &Value, expected: &[&str]) {
        assert_eq!(differences(desired, live, INSTANCE_FIELDS_OF_OTHERS), expected);
    }

    #[test]
    fn only_what_we_own_counts_as_a_difference() {
        let desired = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"owner": "ada", "list": [1, 2]}});
        check(
            &desired,
            &json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"owner": "ada", "list": [1, 2], "currentStep": "x"}, "status": {}}),
            &[],
        );
        check(
            &desired,
            &json!({"metadata": {"labels": {"a": "2"}}, "spec": {"owner": "bob", "list": [1]}}),
            &["metadata.labels.a", "spec.owner", "spec.list"],
        );
        check(
            &desired,
            &json!({"metadata": {"labels": {"a": "1"}}, "spec": {"owner": "ada", "list": [1, 2], "extra": 1}}),
            &["spec.extra"],
        );
    }

    #[test]
    fn fields_that_nobody_wishes_are_removed_by_a_patch() {
        let desired = json!({"spec": {"defaults": {"cpu": "1"}}});
        let live = json!({"spec": {"defaults": {"cpu": "2", "gpu": "1"}, "currentStep": "x"}});
        assert_eq!(
            removal_patch(&desired, &live, INSTANCE_FIELDS_OF_OTHERS),
            Some(json!({"spec": {"defaults": {"gpu": null}}}))
        );
        assert_eq!(removal_patch(&desired, &desired, &[]), None);
    }
}
