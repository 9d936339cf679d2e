//! WorkspaceInstance objects: made, read fresh, changed as somebody read them, and deleted.
//!
//! Every change names the version it was made for, so that nothing written meanwhile is lost; trying again is the
//! caller's.

use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::Request;
use serde_json::{Map, Value};

use super::objects::{Target, path};
use super::{Cluster, Error};
use crate::crd::{Kind, WorkspaceInstance};

/// The part of an instance that one request can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstancePart {
    /// Everything but the status.
    Wish,
    /// The status.
    Status,
}

impl Cluster {
    /// The instance as the server has it now.
    pub async fn read_instance(&self, namespace: &str, name: &str) -> Result<Option<WorkspaceInstance>, Error> {
        let found = self.get_of(Kind::WorkspaceInstance, Some(namespace), name).await?;
        found.map(|object| typed(&format!("read WorkspaceInstance/{namespace}/{name}"), object)).transpose()
    }

    /// Makes an instance; none, and nothing is written, where one of its name is there.
    pub async fn create_instance(&self, manifest: &Value, manager: &str) -> Result<Option<Value>, Error> {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let attempt = format!("create WorkspaceInstance/{namespace}/{name}");
        let parameters = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        let body = serde_json::to_vec(manifest).expect("a JSON value is written as JSON");
        let request = Request::new(path(Kind::WorkspaceInstance, Some(namespace)))
            .create(&parameters, body)
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        match self.call(&attempt, self.client.request(request)).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::Stale { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Merges `patch` into one part of an instance, if it still is at `resource_version`; gives the whole object.
    ///
    /// [`Error::Stale`] where somebody changed it since, [`Error::Missing`] where it is gone.
    pub async fn patch_instance(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        part: InstancePart,
        patch: &Value,
        manager: &str,
    ) -> Result<Value, Error> {
        let subresource = (part == InstancePart::Status).then_some("status");
        let what = if subresource.is_some() { "the status of " } else { "" };
        let attempt = format!("change {what}WorkspaceInstance/{namespace}/{name}");
        let parameters = PatchParams {
            field_manager: Some(manager.to_owned()),
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::default()
        };
        let mut patch = patch.clone();
        patch["metadata"]["resourceVersion"] = resource_version.into();
        let target = Target { kind: Kind::WorkspaceInstance, namespace: Some(namespace), name, subresource };
        self.patch(&attempt, &target, &parameters, &Patch::Merge(&patch)).await
    }
}

/// What has to be merged into `before` to get `part` of `after`; none where they are equal.
///
/// Of the metadata only labels, annotations and finalizers are somebody's to write.
#[must_use]
pub fn difference(before: &Value, after: &Value, part: InstancePart) -> Option<Value> {
    let mut patch = Map::new();
    match part {
        InstancePart::Status => {
            if let Some(status) = merge_patch(before.get("status"), after.get("status")) {
                patch.insert("status".into(), status);
            }
        }
        InstancePart::Wish => {
            if let Some(spec) = merge_patch(before.get("spec"), after.get("spec")) {
                patch.insert("spec".into(), spec);
            }
            let mut metadata = Map::new();
            for field in ["labels", "annotations", "finalizers"] {
                let of = |object: &'_ Value| object.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
                if let Some(change) = merge_patch(of(before).as_ref(), of(after).as_ref()) {
                    metadata.insert(field.into(), change);
                }
            }
            if !metadata.is_empty() {
                patch.insert("metadata".into(), Value::Object(metadata));
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The JSON merge patch (RFC 7386) from one value to another; none where they are equal.
fn merge_patch(before: Option<&Value>, after: Option<&Value>) -> Option<Value> {
    match (before, after) {
        (before, after) if before == after => None,
        (_, None) => Some(Value::Null),
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
            let changes =
                names.filter_map(|name| Some((name.clone(), merge_patch(before.get(name), after.get(name))?)));
            Some(Value::Object(changes.collect()))
        }
        (_, Some(after)) => Some(after.clone()),
    }
}

fn typed(attempt: &str, object: Value) -> Result<WorkspaceInstance, Error> {
    serde_json::from_value(object)
        .map_err(|source| Error::Answer { attempt: attempt.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(before: Value, after: Value, wish: Option<Value>, status: Option<Value>) {
        assert_eq!(difference(&before, &after, InstancePart::Wish), wish, "{before} to {after}");
        assert_eq!(difference(&before, &after, InstancePart::Status), status, "{before} to {after}");
    }

    #[test]
    fn only_what_differs_is_written() {
        check(json!({"spec": {"a": 1}}), json!({"spec": {"a": 1}}), None, None);
        check(
            json!({"spec": {"a": 1, "b": {"c": [1], "d": 2}}, "status": {"x": 1}}),
            json!({"spec": {"a": 1, "b": {"c": [1, 2]}}, "status": {"x": 1, "y": {"z": 1}}}),
            Some(json!({"spec": {"b": {"c": [1, 2], "d": null}}})),
            Some(json!({"status": {"y": {"z": 1}}})),
        );
        check(
            json!({"metadata": {"resourceVersion": "1"}, "spec": {}}),
            json!({"metadata": {"resourceVersion": "2", "annotations": {"a": "1"}}, "spec": {}, "status": {"x": 1}}),
            Some(json!({"metadata": {"annotations": {"a": "1"}}})),
            Some(json!({"status": {"x": 1}})),
        );
        check(json!({"status": {"x": 1}}), json!({}), None, Some(json!({"status": null})));
    }
}
