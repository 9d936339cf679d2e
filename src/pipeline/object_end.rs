//! Where objects live: a cluster, or the embedded store of local mode. A pair known in advance, hence an enum.
//!
//! It reads and writes single objects; what is written and in which order is the plan's matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::adapters::cluster::{self, Cluster};
use crate::adapters::store::{self, Store};
use crate::crd::labels;
use crate::domain::object::{Kind, Live, ObjectKey, removal_patch};
use crate::domain::plan::{Action, Change};

/// More new objects than this are checked for other owners by one list instead of single reads.
const MAX_SINGLE_READS: usize = 8;

/// Where objects live.
#[derive(Debug, Clone)]
pub enum ObjectEnd {
    /// A Kubernetes cluster.
    Cluster(Box<Cluster>),
    /// The embedded store.
    Embedded(Arc<Store>),
}

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused or did not answer.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The embedded store failed.
    #[error(transparent)]
    Embedded(#[from] store::Error),
}

impl ObjectEnd {
    /// The objects that carry the owner's label.
    pub async fn list_owned(&self, owner: &str) -> Result<Vec<Live>, Error> {
        match self {
            Self::Cluster(cluster) => {
                let mut objects = Vec::new();
                for kind in Kind::ALL {
                    objects.extend(cluster.list_owned(kind, owner).await?);
                }
                Ok(objects)
            }
            Self::Embedded(store) => Ok(store.list_objects(Some(owner))?),
        }
    }

    /// The object of this key.
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Live>, Error> {
        match self {
            Self::Cluster(cluster) => Ok(cluster.get(key).await?),
            Self::Embedded(store) => Ok(store.object(key)?),
        }
    }

    /// Of these keys those that exist, with the owner they carry; each belongs to somebody else than the asker.
    pub async fn owners(&self, keys: &[ObjectKey]) -> Result<BTreeMap<ObjectKey, Option<String>>, Error> {
        let mut owners = BTreeMap::new();
        match self {
            Self::Cluster(cluster) if keys.len() > MAX_SINGLE_READS => {
                for kind in Kind::ALL.into_iter().filter(|kind| keys.iter().any(|key| key.kind == *kind)) {
                    owners.extend(cluster.list_owners(kind).await?);
                }
                owners.retain(|key, _| keys.contains(key));
            }
            _ => {
                for key in keys {
                    if let Some(live) = self.get(key).await? {
                        owners.insert(key.clone(), live.label(labels::OWNER).map(str::to_owned));
                    }
                }
            }
        }
        Ok(owners)
    }

    /// Carries out one change. Force is used only on objects that the plan took from the owner's own list.
    pub async fn carry_out(&self, change: &Change) -> Result<(), Error> {
        match (change.action, &change.desired, &change.live) {
            (Action::Create | Action::Update, Some(desired), live) => {
                match self {
                    Self::Embedded(store) => {
                        let mut manifest = desired.manifest.clone();
                        if let (None, Some(step), Some(spec)) =
                            (live, &desired.first_step, manifest.get_mut("spec").and_then(Value::as_object_mut))
                        {
                            spec.insert("currentStep".into(), step.clone().into());
                        }
                        store.apply_object(&manifest, labels::OWNER)?;
                    }
                    Self::Cluster(cluster) => apply_to_cluster(cluster, change, desired, live.as_ref()).await?,
                }
                Ok(())
            }
            (Action::Delete, _, Some(live)) => {
                match self {
                    Self::Cluster(cluster) => cluster.delete(&live.key, &live.uid).await?,
                    Self::Embedded(store) => delete_embedded(store, live)?,
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Deletes an object of the embedded store; an instance that was ever started is only marked, so that what runs for it
/// and what it keeps are taken away first.
pub fn delete_embedded(store: &Store, live: &Live) -> Result<(), store::Error> {
    if live.key.kind != Kind::WorkspaceInstance || live.manifest.pointer("/status/pinned").is_none() {
        return store.delete_object(&live.key, &live.uid).map(drop);
    }
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
    store
        .change_object(&live.key, |object, _| {
            if object.pointer("/metadata/uid").and_then(Value::as_str) == Some(&live.uid)
                && object.pointer("/metadata/deletionTimestamp").is_none()
            {
                object["metadata"]["deletionTimestamp"] = now.into();
            }
            Ok::<_, store::Error>(())
        })
        .map(drop)
}

async fn apply_to_cluster(
    cluster: &Cluster,
    change: &Change,
    desired: &crate::domain::plan::Desired,
    live: Option<&Live>,
) -> Result<(), Error> {
    use crate::domain::object::fields_of_others;
    match live {
        // The creation carries the roster's step under a manager of its own: a crash between the two writes leaves
        // an instance that the next sync completes, and no sync ever owns the field.
        None => {
            if let Some(step) = &desired.first_step {
                let mut first = desired.manifest.clone();
                if let Some(spec) = first.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.insert("currentStep".into(), json!(step));
                }
                cluster.apply(&first, labels::ROSTER_MANAGER, true).await?;
            }
        }
        Some(live) => {
            let theirs = fields_of_others(change.key.kind);
            if let Some(patch) = removal_patch(&desired.manifest, &live.manifest, theirs) {
                cluster.merge_patch(&change.key, &patch).await?;
            }
        }
    }
    cluster.apply(&desired.manifest, labels::FIELD_MANAGER, true).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Value, expected: Option<bool>) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let manifest = json!({
            "apiVersion": crate::crd::API_VERSION, "kind": "WorkspaceInstance",
            "metadata": {"name": "first-ada", "namespace": "default"},
            "spec": {"templateRef": {"name": "first"}, "owner": "ada"},
        });
        let live = store.apply_object(&manifest, labels::OWNER).unwrap().unwrap();
        let change = |object: &mut Value, _: &store::Scope<'_>| {
            object["status"] = status.clone();
            Ok::<_, store::Error>(())
        };
        store.change_object(&live.key, change).unwrap();
        let live = store.object(&live.key).unwrap().unwrap();
        for _ in 0..2 {
            delete_embedded(&store, &live).unwrap();
        }
        let left = store.object(&live.key).unwrap();
        let is_marked = left.map(|left| left.manifest.pointer("/metadata/deletionTimestamp").is_some());
        assert_eq!(is_marked, expected, "{status}");
    }

    #[test]
    fn an_instance_that_was_started_is_left_to_the_operator_to_take_away() {
        check(json!({"phase": "Pending"}), None);
        check(json!({"phase": "Running", "pinned": {"templateRevision": "r"}}), Some(true));
    }
}
