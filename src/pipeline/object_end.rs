//! Where objects live: a cluster, or the embedded store of local mode. A pair known in advance, hence an enum.
//!
//! It reads and writes single objects; what is written and in which order is the plan's matter.

use std::collections::BTreeMap;
use std::sync::Arc;

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
                    Self::Embedded(store) => {
                        store.delete_object(&live.key, &live.uid)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
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
