//! Where instances are kept: the embedded store of local mode, or a cluster. A pair known in advance, hence an enum.
//!
//! It reads and changes single objects, typed; what is changed is decided by the operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::cluster_end::ClusterEnd;
use super::{Error, NAMESPACE, key, record};
use crate::adapters::store::{Store, UnitRecord};
use crate::crd::{WorkspaceInstance, WorkspaceTemplate, labels};
use crate::domain::object::{Kind, Live, ObjectKey};

/// Where instances are kept.
pub(super) enum End {
    /// The embedded store; its SQLite work is done aside from the threads that serve.
    Store(Arc<Store>),
    /// A cluster.
    Cluster(Box<ClusterEnd>),
}

/// An instance as it was read.
pub(super) type Held = Arc<WorkspaceInstance>;

impl End {
    /// How an instance is named in addresses and on the command line.
    pub fn reference(&self, instance: &WorkspaceInstance) -> String {
        let name = instance.metadata.name.as_deref().unwrap_or_default();
        match self {
            Self::Store(_) => name.to_owned(),
            Self::Cluster(_) => {
                let namespace = instance.metadata.namespace.as_deref().unwrap_or_default();
                labels::instance_reference(namespace, name)
            }
        }
    }

    /// The instance of this reference.
    pub async fn instance(&self, reference: &str) -> Result<Option<Held>, Error> {
        match self {
            Self::Store(store) => {
                let key = key(reference);
                blocking(store, move |store| store.object(&key)?.as_ref().map(read_instance).transpose()).await
            }
            Self::Cluster(cluster) => cluster.instance(reference).await,
        }
    }

    /// The instance with this uid.
    pub async fn instance_by_uid(&self, uid: &str) -> Result<Option<Held>, Error> {
        match self {
            Self::Store(store) => {
                let uid = uid.to_owned();
                blocking(store, move |store| {
                    let live = store.object_by_uid(&uid)?.filter(|live| live.key.kind == Kind::WorkspaceInstance);
                    live.as_ref().map(read_instance).transpose()
                })
                .await
            }
            Self::Cluster(cluster) => cluster.instance_by_uid(uid),
        }
    }

    /// The same instance as it is at this moment; others may have written since `held` was read.
    pub async fn again(&self, held: Held) -> Result<Option<Held>, Error> {
        match self {
            // What the store gives is never old.
            Self::Store(_) => Ok(Some(held)),
            Self::Cluster(cluster) => cluster.again(&held).await,
        }
    }

    /// All instances of a namespace, or of all, by namespace and name.
    pub async fn instances(&self, namespace: Option<&str>) -> Result<Vec<Held>, Error> {
        match self {
            Self::Store(_) if namespace.is_some_and(|namespace| namespace != NAMESPACE) => Ok(Vec::new()),
            Self::Store(store) => {
                blocking(store, |store| {
                    let objects = store.list_objects(None)?;
                    let instances = objects.iter().filter(|live| live.key.kind == Kind::WorkspaceInstance);
                    instances.map(read_instance).collect()
                })
                .await
            }
            Self::Cluster(cluster) => cluster.instances(namespace).await,
        }
    }

    /// The template of this name.
    pub async fn template(&self, name: &str) -> Result<Option<Arc<WorkspaceTemplate>>, Error> {
        match self {
            Self::Store(store) => {
                let name = name.to_owned();
                blocking(store, move |store| Ok(template(store, &name)?.map(Arc::new))).await
            }
            Self::Cluster(cluster) => cluster.template(name).await,
        }
    }

    /// All templates, by name.
    pub async fn templates(&self) -> Result<Vec<Arc<WorkspaceTemplate>>, Error> {
        match self {
            Self::Store(store) => {
                blocking(store, |store| {
                    let objects = store.list_objects(None)?;
                    let templates = objects.iter().filter(|live| live.key.kind == Kind::WorkspaceTemplate);
                    templates.map(|live| read_template(live).map(Arc::new)).collect()
                })
                .await
            }
            Self::Cluster(cluster) => cluster.templates().await,
        }
    }

    /// How many instances there are of each template.
    pub async fn counts(&self) -> Result<BTreeMap<String, usize>, Error> {
        let names: Vec<String> = match self {
            Self::Store(store) => {
                blocking(store, |store| {
                    let objects = store.list_objects(None)?;
                    Ok(objects
                        .iter()
                        .filter_map(|live| live.text("/spec/templateRef/name"))
                        .map(str::to_owned)
                        .collect())
                })
                .await?
            }
            Self::Cluster(cluster) => {
                let instances = cluster.instances(None).await?;
                instances.iter().map(|instance| instance.spec.template_ref.name.clone()).collect()
            }
        };
        let mut counts = BTreeMap::new();
        for name in names {
            *counts.entry(name).or_default() += 1;
        }
        Ok(counts)
    }

    /// What is known of the workshops of the followed sources; in a cluster the repositories' status says so.
    pub async fn units(&self) -> Result<Vec<UnitRecord>, Error> {
        let Self::Store(store) = self else { return Ok(Vec::new()) };
        blocking(store, |store| {
            let mut units = Vec::new();
            for (owner, _) in store.sources()? {
                units.extend(store.units(&owner)?);
            }
            Ok(units)
        })
        .await
    }

    /// Changes an instance so that nothing that others write meanwhile is lost; nothing is kept when `change` fails.
    ///
    /// `change` may be asked several times, each time with the object as it is then, and has to give the same for the
    /// same. Gives what it gave, and the object as it is afterwards.
    pub async fn change<T, F>(&self, held: &WorkspaceInstance, change: F) -> Result<(T, Held), Error>
    where
        T: Send + 'static,
        F: Fn(&WorkspaceInstance, &mut Value) -> Result<T, Error> + Send + Sync + 'static,
    {
        match self {
            Self::Store(store) => {
                let (key, uid) = identity(held);
                blocking(store, move |store| {
                    let changed = store.change_object(&key, |object, _| {
                        let instance = same(object, &key, &uid)?;
                        let given = change(&instance, object)?;
                        Ok::<_, Error>((given, Arc::new(read_value(object.clone(), &key.name)?)))
                    })?;
                    changed.ok_or_else(|| Error::no_instance(&key.name))
                })
                .await
            }
            Self::Cluster(cluster) => cluster.change(held, change).await,
        }
    }
}

/// What names an instance: its key and its uid.
pub(super) fn identity(instance: &WorkspaceInstance) -> (ObjectKey, String) {
    let metadata = &instance.metadata;
    let key = ObjectKey {
        kind: Kind::WorkspaceInstance,
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone().unwrap_or_default(),
    };
    (key, metadata.uid.clone().unwrap_or_default())
}

/// The instance in `object`, if it still is the one with this uid.
pub(super) fn same(object: &Value, key: &ObjectKey, uid: &str) -> Result<WorkspaceInstance, Error> {
    if object.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) {
        return Err(Error::no_instance(&key.name));
    }
    read_value(object.clone(), &key.name)
}

pub(super) fn read_value(object: Value, name: &str) -> Result<WorkspaceInstance, Error> {
    serde_json::from_value(object).map_err(|source| Error::Unreadable { name: name.to_owned(), source })
}

fn read_instance(live: &Live) -> Result<Held, Error> {
    let read = record::read_instance(live).map(Arc::new);
    read.map_err(|source| Error::Unreadable { name: live.key.name.clone(), source })
}

fn read_template(live: &Live) -> Result<WorkspaceTemplate, Error> {
    serde_json::from_value(live.manifest.clone())
        .map_err(|source| Error::Unreadable { name: live.key.name.clone(), source })
}

/// The template of this name in the embedded store; for the local operator, which works beside it.
pub fn template(store: &Store, name: &str) -> Result<Option<WorkspaceTemplate>, Error> {
    let key = ObjectKey { kind: Kind::WorkspaceTemplate, namespace: None, name: name.to_owned() };
    store.object(&key)?.as_ref().map(read_template).transpose()
}

/// Marks an instance of the embedded store as deleted; the local operator does the rest.
pub fn mark_deleted(store: &Store, live: &Live) -> Result<(), Error> {
    let now = jiff::Timestamp::now();
    let now = record::moment_text(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now));
    store.change_object(&live.key, |object, _| {
        if object.pointer("/metadata/uid").and_then(Value::as_str) == Some(&live.uid)
            && object.pointer("/metadata/deletionTimestamp").is_none()
        {
            object["metadata"]["deletionTimestamp"] = now.into();
        }
        Ok::<_, Error>(())
    })?;
    Ok(())
}

/// Does work of the store aside from the threads that serve: it may wait for the disk or for another program.
pub(super) async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let store = Arc::clone(store);
    aside(move || work(&store)).await?
}

/// Does work that waits aside from the threads that serve.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(given) => Ok(given),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::unavailable("Ending", "the program is ending", "ask again once it runs")),
        },
    }
}
