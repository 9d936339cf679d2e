//! The objects that a workshop should have: its template and the instances of its roster. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::crd::labels;
use crate::domain::digest::Digest;
use crate::domain::names::{UnitKey, WorkshopId};
use crate::domain::workshop::Workshop;

/// What besides the workshop itself goes into its objects.
#[derive(Debug)]
pub struct Around<'a> {
    /// The owner label's value.
    pub owner: &'a str,
    /// The workshop's identity.
    pub unit: &'a UnitKey,
    /// The digest that decides whether work is due.
    pub work: Digest,
    /// The digest that the base was resolved to.
    pub base: Option<Digest>,
    /// The digest of the recipe's bytes.
    pub recipe: Option<Digest>,
    /// The artifact's digest and size in bytes.
    pub artifact: (Digest, u64),
    /// Image digests by step id.
    pub images: &'a BTreeMap<String, Digest>,
    /// Where nodes pull from, when that is another name than where images are pushed.
    pub pull_registry: Option<&'a str>,
    /// The Secret for pulling: namespace and name.
    pub pull_secret: Option<(&'a str, &'a str)>,
    /// The namespace of the instances.
    pub target_namespace: &'a str,
}

/// The manifests, each with the first step of a new instance.
#[must_use]
pub fn build_objects(workshop: &Workshop, around: &Around<'_>) -> Vec<(Value, Option<String>)> {
    let mut objects = vec![(build_template(workshop, around), None)];
    if let Some(roster) = &workshop.roster {
        for entry in &roster.instances {
            let name = roster.instance_name(&workshop.id, entry);
            let mut spec = Map::new();
            spec.insert("templateRef".into(), json!({ "name": workshop.id }));
            spec.insert("owner".into(), entry.owner.clone().into());
            if !entry.members.is_empty() {
                spec.insert("members".into(), json!(entry.members));
            }
            if let Some(overrides) = &entry.overrides {
                spec.insert("overrides".into(), overrides.clone());
            }
            let mut labels = build_labels(around.owner, &workshop.id);
            if let Some(class) = &roster.class {
                labels.insert(labels::CLASS.into(), class.clone().into());
            }
            let manifest = json!({
                "apiVersion": crate::crd::API_VERSION,
                "kind": "WorkspaceInstance",
                "metadata": {
                    "name": name,
                    "namespace": around.target_namespace,
                    "labels": labels,
                    "annotations": { (labels::PATH): workshop.path },
                },
                "spec": spec,
            });
            objects.push((manifest, entry.step.as_ref().map(ToString::to_string)));
        }
    }
    objects
}

fn build_template(workshop: &Workshop, around: &Around<'_>) -> Value {
    let mut annotations = Map::new();
    annotations.insert(labels::UNIT_KEY.into(), around.unit.tree.to_string().into());
    annotations.insert(labels::PATH.into(), workshop.path.clone().into());
    annotations.insert(labels::WORK.into(), around.work.to_string().into());
    let optional = [
        (labels::TAG, around.unit.tag.clone()),
        (labels::BASE_DIGEST, around.base.map(|digest| digest.to_string())),
        (labels::RECIPE, around.recipe.map(|digest| digest.to_string())),
    ];
    annotations.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));

    let steps: Vec<Value> = workshop
        .definition
        .steps
        .iter()
        .map(|step| {
            let tag = match (&workshop.recipe, around.pull_registry) {
                (Some(recipe), Some(registry)) => format!("{}:{}", recipe.image.full(Some(registry)), step.id),
                _ => step.image_tag.clone(),
            };
            let mut row = json!({ "id": step.id, "title": step.title, "imageTag": tag });
            if let (Some(digest), Some(row)) = (around.images.get(step.id.as_str()), row.as_object_mut()) {
                row.insert("imageDigest".into(), digest.to_string().into());
            }
            row
        })
        .collect();
    let mut spec = json!({
        "defaults": workshop.workspace,
        "steps": steps,
        "artifact": { "digest": around.artifact.0.to_string(), "size": around.artifact.1 },
    });
    if let (Some((namespace, name)), Some(spec)) = (around.pull_secret, spec.as_object_mut()) {
        spec.insert("imagePullSecret".into(), json!({ "namespace": namespace, "name": name }));
    }
    json!({
        "apiVersion": crate::crd::API_VERSION,
        "kind": "WorkspaceTemplate",
        "metadata": {
            "name": workshop.id,
            "labels": build_labels(around.owner, &workshop.id),
            "annotations": annotations,
        },
        "spec": spec,
    })
}

fn build_labels(owner: &str, id: &WorkshopId) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert(labels::OWNER.into(), owner.into());
    map.insert(labels::WORKSHOP.into(), id.as_str().into());
    map
}
