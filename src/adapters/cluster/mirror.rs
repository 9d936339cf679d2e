//! A copy of all instances and templates in memory, kept up by watches: asked without any request to the API server.
//!
//! What is here may be older than what the server has, so that nothing of it is written without the version it was
//! read at. An object that cannot be read is skipped with a warning, and what was last read of it stays.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Cluster, Error};
use crate::crd::{Kind, WorkspaceInstance, WorkspaceTemplate};

/// How many uids of objects that are gone are remembered, so that a late answer brings none of them back.
const REMEMBERED: usize = 1024;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The instance with this uid: it is new, different or gone, or somebody wants it looked at.
    Instance(String),
    /// The template of this name: it is new, different or gone.
    Template(String),
    /// All that exist are known, for the first time or again after a break.
    Listed,
}

/// A copy of all instances and templates; clones share it.
#[derive(Debug, Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    instances: RwLock<Table<WorkspaceInstance>>,
    templates: RwLock<Table<WorkspaceTemplate>>,
    changes: watch::Sender<u64>,
    /// Kinds that were listed.
    listed: watch::Sender<u8>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<Changed>>>,
}

/// So many kinds have to be listed before all is known.
const KINDS: u8 = 2;

impl Cluster {
    /// A mirror of this cluster until `stop`; must be called inside a tokio runtime.
    ///
    /// A kind that the cluster does not know yet is waited for.
    #[must_use]
    pub fn mirror(&self, stop: CancellationToken) -> Mirror {
        let inner = Inner {
            instances: RwLock::default(),
            templates: RwLock::default(),
            changes: watch::Sender::new(0),
            listed: watch::Sender::new(0),
            subscribers: Mutex::default(),
        };
        let mirror = Mirror { inner: Arc::new(inner) };
        let instances = mirror.clone().keep(self.clone(), Kind::WorkspaceInstance, |inner| &inner.instances, told);
        let templates = mirror.clone().keep(
            self.clone(),
            Kind::WorkspaceTemplate,
            |inner| &inner.templates,
            |object| Changed::Template(object.name_any()),
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(instances));
        tokio::spawn(stop.run_until_cancelled_owned(templates));
        mirror
    }
}

fn told(instance: &WorkspaceInstance) -> Changed {
    Changed::Instance(instance.uid().unwrap_or_default())
}

impl Mirror {
    /// The instance of this name.
    #[must_use]
    pub fn instance(&self, namespace: &str, name: &str) -> Option<Arc<WorkspaceInstance>> {
        read(&self.inner.instances).objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The instance with this uid.
    #[must_use]
    pub fn instance_by_uid(&self, uid: &str) -> Option<Arc<WorkspaceInstance>> {
        let table = read(&self.inner.instances);
        table.keys.get(uid).and_then(|key| table.objects.get(key)).cloned()
    }

    /// All instances, by namespace and name.
    #[must_use]
    pub fn instances(&self) -> Vec<Arc<WorkspaceInstance>> {
        read(&self.inner.instances).objects.values().cloned().collect()
    }

    /// The template of this name.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<Arc<WorkspaceTemplate>> {
        read(&self.inner.templates).objects.get(&(String::new(), name.to_owned())).cloned()
    }

    /// All templates, by name.
    #[must_use]
    pub fn templates(&self) -> Vec<Arc<WorkspaceTemplate>> {
        read(&self.inner.templates).objects.values().cloned().collect()
    }

    /// Counts changes of all objects, and tells of each.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Each change from now on, in order; begins with [`Changed::Listed`] where all is known already.
    #[must_use]
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Changed> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut subscribers = self.inner.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_listed() {
            let _ = sender.send(Changed::Listed);
        }
        subscribers.push(sender);
        receiver
    }

    /// Whether all that exist are known.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        *self.inner.listed.borrow() >= KINDS
    }

    /// Waits until all that exist are known.
    pub async fn listed(&self) {
        // The sender is in `self` and outlives the wait.
        let _ = self.inner.listed.subscribe().wait_for(|kinds| *kinds >= KINDS).await;
    }

    /// Says that somebody wants the instance with this uid looked at, e.g. because it could not be reached.
    pub fn nudge(&self, uid: &str) {
        self.tell(Changed::Instance(uid.to_owned()));
    }

    /// Takes in what a write gave back, so that who wrote it reads it at once.
    pub fn learn(&self, instance: WorkspaceInstance) {
        let change = told(&instance);
        if write(&self.inner.instances).learn(Arc::new(slim(instance))) {
            self.changed([change]);
        }
    }

    /// Keeps one table up, for ever.
    async fn keep<K>(
        self,
        cluster: Cluster,
        kind: Kind,
        table: fn(&Inner) -> &RwLock<Table<K>>,
        told: fn(&K) -> Changed,
    ) where
        K: Resource + DeserializeOwned,
    {
        let mut events = pin!(cluster.watch_kind(kind, watcher::Config::default()));
        let mut interruption = String::new();
        let mut is_listed = false;
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    say(kind, &error, &mut interruption);
                    continue;
                }
            };
            interruption.clear();
            let table = table(&self.inner);
            match event {
                Event::Init => write(table).seen = Some(HashSet::new()),
                Event::InitApply(object) => {
                    if let Some(object) = take_in(kind, table, object) {
                        let change = told(&object);
                        if write(table).put_listed(object) {
                            self.changed([change]);
                        }
                    }
                }
                Event::Apply(object) => {
                    if let Some(object) = take_in(kind, table, object) {
                        let change = told(&object);
                        if write(table).put(object) {
                            self.changed([change]);
                        }
                    }
                }
                Event::Delete(object) => {
                    let removed = write(table).remove(&object.metadata.uid.unwrap_or_default());
                    self.changed(removed.iter().map(|object| told(object)));
                }
                Event::InitDone => {
                    let removed = write(table).remove_unseen();
                    self.changed(removed.iter().map(|object| told(object)));
                    if !is_listed {
                        is_listed = true;
                        self.inner.listed.send_modify(|kinds| *kinds += 1);
                    }
                    if self.is_listed() {
                        self.inner.changes.send_modify(|count| *count += 1);
                        self.tell(Changed::Listed);
                    }
                }
            }
        }
    }

    fn changed(&self, changes: impl IntoIterator<Item = Changed>) {
        for change in changes {
            self.inner.changes.send_modify(|count| *count += 1);
            self.tell(change);
        }
    }

    fn tell(&self, change: Changed) {
        let mut subscribers = self.inner.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }
}

/// The object as its type; what cannot be read counts as being there.
fn take_in<K>(kind: Kind, table: &RwLock<Table<K>>, object: DynamicObject) -> Option<Arc<K>>
where
    K: Resource + DeserializeOwned,
{
    let metadata = object.metadata.clone();
    match object.try_parse::<K>() {
        Ok(object) => Some(Arc::new(slim(object))),
        Err(error) => {
            let (namespace, name) = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
            tracing::warn!(kind = %kind, namespace, name, %error, "an object cannot be read and is passed over");
            write(table).see(&metadata.uid.unwrap_or_default());
            None
        }
    }
}

/// Says why a watch does not run, once for each reason.
fn say(kind: Kind, error: &Error, interruption: &mut String) {
    let message = error.to_string();
    if *interruption != message {
        if matches!(error, Error::NotServed { .. }) {
            tracing::warn!("waiting for the cluster to know the kind {kind}: `workshop crds | kubectl apply -f -`");
        } else {
            tracing::warn!(kind = %kind, error = error as &dyn std::error::Error, "a watch is interrupted");
        }
        *interruption = message;
    }
}

/// Without what nobody asks a mirror for: who set which field is a third of an object.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

type Key = (String, String);

/// The objects of one kind.
#[derive(Debug)]
struct Table<K> {
    objects: BTreeMap<Key, Arc<K>>,
    keys: HashMap<String, Key>,
    /// Uids that the listing under way has told of; none while there is no listing.
    seen: Option<HashSet<String>>,
    /// Uids of those that went last.
    gone: VecDeque<String>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), keys: HashMap::new(), seen: None, gone: VecDeque::new() }
    }
}

impl<K: Resource> Table<K> {
    /// Puts an object in; false where what is here is as new.
    fn put(&mut self, object: Arc<K>) -> bool {
        let (key, uid) = identity(object.meta());
        let known = self.objects.get(&key);
        if known.is_some_and(|known| known.meta().uid.as_ref() == Some(&uid) && !is_newer(object.meta(), known.meta()))
        {
            return false;
        }
        self.replace(key, uid, object);
        true
    }

    /// Puts in what a listing told: it counts even where its version is lower, as after a restored backup.
    fn put_listed(&mut self, object: Arc<K>) -> bool {
        let (key, uid) = identity(object.meta());
        self.see(&uid);
        let known = self.objects.get(&key);
        if known.is_some_and(|known| {
            known.meta().uid == object.meta().uid && version(known.meta()) == version(object.meta())
        }) {
            return false;
        }
        self.replace(key, uid, object);
        true
    }

    /// Puts in what a write gave, unless it is gone by now.
    fn learn(&mut self, object: Arc<K>) -> bool {
        let (_, uid) = identity(object.meta());
        if self.gone.contains(&uid) {
            return false;
        }
        self.see(&uid);
        self.put(object)
    }

    fn see(&mut self, uid: &str) {
        if let Some(seen) = &mut self.seen {
            seen.insert(uid.to_owned());
        }
    }

    fn replace(&mut self, key: Key, uid: String, object: Arc<K>) {
        if let Some(before) = self.objects.insert(key.clone(), object) {
            let (_, before) = identity(before.meta());
            if before != uid {
                self.forget(before);
            }
        }
        self.keys.insert(uid, key);
    }

    fn remove(&mut self, uid: &str) -> Option<Arc<K>> {
        let key = self.forget(uid.to_owned());
        key.and_then(|key| self.objects.remove(&key))
    }

    /// Removes what the listing did not tell of.
    fn remove_unseen(&mut self) -> Vec<Arc<K>> {
        let Some(seen) = self.seen.take() else { return Vec::new() };
        let lost: Vec<String> = self.keys.keys().filter(|uid| !seen.contains(*uid)).cloned().collect();
        lost.iter().filter_map(|uid| self.remove(uid)).collect()
    }

    fn forget(&mut self, uid: String) -> Option<Key> {
        let key = self.keys.remove(&uid);
        if self.gone.len() == REMEMBERED {
            self.gone.pop_front();
        }
        self.gone.push_back(uid);
        key
    }
}

fn identity(metadata: &ObjectMeta) -> (Key, String) {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    ((text(&metadata.namespace), text(&metadata.name)), text(&metadata.uid))
}

fn version(metadata: &ObjectMeta) -> Option<&str> {
    metadata.resource_version.as_deref()
}

/// Whether `found` is a later version than `known`; versions of one kind are numbers that grow.
fn is_newer(found: &ObjectMeta, known: &ObjectMeta) -> bool {
    let number = |metadata| version(metadata).and_then(|version| version.parse::<u64>().ok());
    match (number(found), number(known)) {
        (Some(found), Some(known)) => found > known,
        _ => version(found) != version(known),
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, uid: &str, version: &str) -> Arc<WorkspaceInstance> {
        let object = serde_json::json!({
            "apiVersion": crate::crd::API_VERSION, "kind": "WorkspaceInstance",
            "metadata": {"name": name, "namespace": "n", "uid": uid, "resourceVersion": version},
            "spec": {"templateRef": {"name": "t"}, "owner": "ada"},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn shown(table: &Table<WorkspaceInstance>) -> Vec<(&str, &str)> {
        assert_eq!(table.keys.len(), table.objects.len());
        let metas = table.objects.values().map(|object| &object.metadata);
        metas.map(|meta| (meta.uid.as_deref().unwrap(), meta.resource_version.as_deref().unwrap())).collect()
    }

    #[test]
    fn only_newer_versions_are_taken_and_what_is_gone_stays_gone() {
        let mut table = Table::default();
        assert!(table.put(instance("a", "u1", "9")));
        assert!(!table.put(instance("a", "u1", "9")) && !table.put(instance("a", "u1", "8")));
        // As numbers, not as text.
        assert!(table.learn(instance("a", "u1", "10")));
        assert_eq!(shown(&table), [("u1", "10")]);
        assert!(table.remove("u1").is_some() && table.remove("u1").is_none());
        assert!(!table.learn(instance("a", "u1", "11")));
        assert_eq!(shown(&table), []);
    }

    #[test]
    fn another_object_of_one_name_takes_its_place_and_is_not_removed_with_it() {
        let mut table = Table::default();
        table.put(instance("a", "u1", "5"));
        assert!(table.put(instance("a", "u2", "4")));
        assert!(table.remove("u1").is_none());
        assert_eq!(shown(&table), [("u2", "4")]);
    }

    #[test]
    fn a_listing_drops_what_it_does_not_tell_of_and_keeps_what_was_written_meanwhile() {
        let mut table = Table::default();
        for (name, uid) in [("a", "u1"), ("b", "u2"), ("c", "u3")] {
            table.put(instance(name, uid, "5"));
        }
        table.seen = Some(HashSet::new());
        assert!(!table.put_listed(instance("a", "u1", "5")));
        // A restored backup has lower versions.
        assert!(table.put_listed(instance("c", "u3", "2")));
        assert!(table.learn(instance("d", "u4", "7")));
        let removed = table.remove_unseen();
        assert_eq!(removed.len(), 1);
        assert_eq!(shown(&table), [("u1", "5"), ("u3", "2"), ("u4", "7")]);
    }
}
