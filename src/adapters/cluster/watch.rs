//! Watches: repositories in all namespaces, and the objects that carry an owner label.
//!
//! A watch that breaks is started again with back-off; a kind that the cluster does not know is waited for, and the
//! stream says so. An object that cannot be read is passed on as what is wrong with it and blinds nobody.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;

use super::{Cluster, Error};
use crate::crd::{API_VERSION, GROUP, Kind, VERSION, WorkshopRepository, labels};
use crate::domain::object::{Kind as OwnedKind, Live, ObjectKey};

/// How long to wait before a watch that failed is started again.
const AGAIN: Duration = Duration::from_secs(2);

/// Something about the repositories.
#[derive(Debug)]
pub enum RepositoryEvent {
    /// It exists, maybe changed.
    Present(Box<WorkshopRepository>),
    /// It exists, but its fields cannot be read.
    Unreadable {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its generation.
        generation: Option<i64>,
        /// What is wrong.
        message: String,
    },
    /// It is gone.
    Gone {
        /// Its uid.
        uid: String,
    },
    /// All that exist were told; these are their uids. Those not among them are gone.
    Complete(Vec<String>),
    /// The watch cannot run now.
    Interrupted(Error),
}

/// Something about the objects that carry an owner label.
#[derive(Debug)]
pub enum OwnedEvent {
    /// It exists, maybe changed.
    Present(Box<Live>),
    /// It is gone, or lost its owner label.
    Gone(Box<Live>),
    /// All that exist were told; those not among them are gone.
    Complete(HashSet<ObjectKey>),
    /// The watch cannot run now.
    Interrupted(Error),
}

impl Cluster {
    /// Repositories of all namespaces, from now on for ever.
    pub fn watch_repositories(&self) -> impl Stream<Item = RepositoryEvent> + Send + use<> {
        let mut uids = Vec::new();
        self.watch_kind(Kind::WorkshopRepository, watcher::Config::default()).filter_map(move |event| {
            let event = match event {
                Err(error) => Some(RepositoryEvent::Interrupted(error)),
                Ok(Event::Init) => {
                    uids.clear();
                    None
                }
                Ok(Event::InitApply(object)) => {
                    uids.extend(object.metadata.uid.clone());
                    Some(read_repository(&object))
                }
                Ok(Event::InitDone) => Some(RepositoryEvent::Complete(std::mem::take(&mut uids))),
                Ok(Event::Apply(object)) => Some(read_repository(&object)),
                Ok(Event::Delete(object)) => {
                    Some(RepositoryEvent::Gone { uid: object.metadata.uid.clone().unwrap_or_default() })
                }
            };
            std::future::ready(event)
        })
    }

    /// Objects of one kind that carry an owner label, in all namespaces, from now on for ever.
    pub fn watch_owned(&self, kind: OwnedKind) -> impl Stream<Item = OwnedEvent> + Send + use<> {
        let config = watcher::Config::default().labels(labels::OWNER);
        let mut keys = HashSet::new();
        self.watch_kind(kind.into(), config).filter_map(move |event| {
            let event = match event {
                Err(error) => Some(OwnedEvent::Interrupted(error)),
                Ok(Event::Init) => {
                    keys.clear();
                    None
                }
                Ok(Event::InitApply(object)) => read_owned(kind, &object).map(|live| {
                    keys.insert(live.key.clone());
                    OwnedEvent::Present(Box::new(live))
                }),
                Ok(Event::Apply(object)) => read_owned(kind, &object).map(Box::new).map(OwnedEvent::Present),
                Ok(Event::Delete(object)) => read_owned(kind, &object).map(Box::new).map(OwnedEvent::Gone),
                Ok(Event::InitDone) => Some(OwnedEvent::Complete(std::mem::take(&mut keys))),
            };
            std::future::ready(event)
        })
    }

    pub(super) fn watch_kind(
        &self,
        kind: Kind,
        config: watcher::Config,
    ) -> impl Stream<Item = Result<Event<DynamicObject>, Error>> + Send + use<> {
        let resource = ApiResource {
            group: GROUP.to_owned(),
            version: VERSION.to_owned(),
            api_version: API_VERSION.to_owned(),
            kind: kind.name().to_owned(),
            plural: kind.plural().to_owned(),
        };
        let objects: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let attempt = format!("watch {}", kind.plural());
        watcher(objects, config).backoff(Again).map(move |event| event.map_err(|error| read_error(&attempt, error)))
    }
}

/// The same wait before each new start: a cluster that comes back, or gets our kinds, is noticed soon.
pub(super) struct Again;

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(AGAIN)
    }
}

impl Backoff for Again {
    fn reset(&mut self) {}
}

fn read_error(attempt: &str, error: watcher::Error) -> Error {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Error::from_kube(attempt, error),
        watcher::Error::WatchError(status) => Error::from_kube(attempt, kube::Error::Api(status)),
        error @ watcher::Error::NoResourceVersion => {
            Error::Answer { attempt: attempt.to_owned(), source: Box::new(error) }
        }
    }
}

fn read_repository(object: &DynamicObject) -> RepositoryEvent {
    let read = manifest(Kind::WorkshopRepository, object).and_then(serde_json::from_value);
    match read {
        Ok(repository) => RepositoryEvent::Present(Box::new(repository)),
        Err(error) => RepositoryEvent::Unreadable {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            generation: object.metadata.generation,
            message: error.to_string(),
        },
    }
}

fn read_owned(kind: OwnedKind, object: &DynamicObject) -> Option<Live> {
    manifest(kind.into(), object).ok().and_then(Live::from_manifest)
}

/// Objects that come out of a list do not say what they are.
fn manifest(kind: Kind, object: &DynamicObject) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    value["apiVersion"] = API_VERSION.into();
    value["kind"] = kind.name().into();
    Ok(value)
}
