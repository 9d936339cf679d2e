//! The operator of local mode: keeps one container per instance, as the objects of the embedded store ask.
//!
//! One task per instance looks, decides (`domain::lifecycle`), writes and acts, one thing after the other; many
//! instances do so at once. What runs is asked from the runtime, so that a new program adopts what it finds.

mod containers;
mod keeper;
mod runtime;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

pub use containers::Containers;

use crate::adapters::store::Store;
use crate::domain::container::Found;
use crate::domain::digest::Digest;
use crate::domain::lifecycle::Event;
use crate::domain::object::{Kind, ObjectKey};
use crate::pipeline::workspace::Workspaces;
use keeper::Keeper;

/// How often the runtime is asked what runs.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to say so.
const LIST_WITHIN: Duration = Duration::from_secs(10);
/// Changes that come closer together are looked at once.
const GATHER: Duration = Duration::from_millis(5);
/// How long a container has to end by itself: its backend flushes and hangs up within 2 s.
const GRACE: Duration = Duration::from_secs(2);
/// How long everything has to end with the program.
const END_WITHIN: Duration = Duration::from_secs(5);
/// So many containers are started at once, per processor.
const STARTS_PER_PROCESSOR: usize = 2;

/// Hears what is told of an instance, by its name.
pub type Listener = Arc<dyn Fn(&str, &Event) + Send + Sync>;

/// What the operator works with.
#[derive(Clone)]
pub struct Settings<R> {
    /// The instances.
    pub workspaces: Workspaces,
    /// The store that they are in.
    pub store: Arc<Store>,
    /// Where they run.
    pub runtime: R,
    /// The management API's Unix socket, alone in its directory, for the native runtime.
    pub management_socket: Option<PathBuf>,
    /// The management API's address as containers reach it, for engines.
    pub management_url: Option<String>,
    /// Ends the operator, and with it all containers.
    pub stop: CancellationToken,
    /// Hears what happens.
    pub listener: Listener,
}

impl<R> Settings<R> {
    /// What a container is labelled with: its fingerprint, and where it was told to find the management API.
    fn label_of(&self, fingerprint: &str) -> String {
        match &self.management_url {
            Some(url) => format!("{fingerprint}-{}", Digest::of(url.as_bytes()).short()),
            None => fingerprint.to_owned(),
        }
    }

    /// The fingerprint of a container with this label; one that looks for the management API elsewhere has another
    /// than any that is wished, so it is started anew.
    fn fingerprint_of(&self, label: &str) -> String {
        let plain = label.split_once('-').map_or(label, |(plain, _)| plain);
        if self.label_of(plain) == label { plain.to_owned() } else { label.to_owned() }
    }
}

/// What runs, as the runtime said at one moment.
#[derive(Debug)]
struct Listing {
    /// When it was asked.
    asked: Instant,
    found: BTreeMap<String, Found>,
}

/// What all tasks share.
struct Shared<R> {
    settings: Settings<R>,
    starts: Semaphore,
}

/// The task of one instance.
struct Task {
    version: i64,
    notify: Arc<Notify>,
    /// Ends with the operator, however that ends: two tasks of one instance would fight.
    handle: AbortOnDropHandle<()>,
}

/// Keeps containers as instances ask, until told to stop; then ends all of them and returns.
pub async fn run<R: Containers>(settings: Settings<R>) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let shared = Arc::new(Shared { starts: Semaphore::new(processors * STARTS_PER_PROCESSOR), settings });
    let mut supervisor = Supervisor {
        listing: watch::Sender::new(Arc::new(Listing { asked: Instant::now(), found: BTreeMap::new() })),
        tasks: BTreeMap::new(),
        templates: Vec::new(),
        shared,
    };
    supervisor.run().await;
    supervisor.end().await;
}

struct Supervisor<R> {
    shared: Arc<Shared<R>>,
    listing: watch::Sender<Arc<Listing>>,
    tasks: BTreeMap<String, Task>,
    /// Versions of the templates at the last look.
    templates: Vec<(ObjectKey, i64)>,
}

impl<R: Containers> Supervisor<R> {
    async fn run(&mut self) {
        let settings = &self.shared.settings;
        let (stop, mut changes) = (settings.stop.clone(), settings.workspaces.changes());
        // What runs is known before the first decision: nothing is started twice.
        while !self.list().await {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LIST_EVERY) => {}
            }
        }
        self.look();
        let mut next_list = tokio::time::Instant::now() + LIST_EVERY;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next_list) => {
                    self.list().await;
                    self.look();
                    next_list = tokio::time::Instant::now() + LIST_EVERY;
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                    changes.mark_unchanged();
                    self.look();
                }
            }
        }
    }

    /// What runs; a runtime that hangs has not said that nothing does.
    async fn ask_runtime(&self) -> Result<Vec<Found>, String> {
        let asked = tokio::time::timeout(LIST_WITHIN, self.shared.settings.runtime.list()).await;
        asked.unwrap_or_else(|_| Err(format!("it did not answer within {LIST_WITHIN:?}")))
    }

    /// Asks the runtime what runs; containers of nobody are removed.
    async fn list(&self) -> bool {
        let asked = Instant::now();
        let found = match self.ask_runtime().await {
            Ok(found) => found.into_iter().map(|found| (found.uid.clone(), found)).collect(),
            Err(error) => {
                warn!(error, "failed to ask the runtime what runs");
                return false;
            }
        };
        self.listing.send_replace(Arc::new(Listing { asked, found }));
        true
    }

    /// Starts a task for each new instance, and wakes those whose instance or template changed.
    fn look(&mut self) {
        let versions = match self.shared.settings.store.object_versions() {
            Ok(versions) => versions,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "failed to look at the instances");
                return;
            }
        };
        let mut templates = Vec::new();
        let mut uids = BTreeSet::new();
        let mut due = Vec::new();
        for (key, uid, version) in versions {
            if key.kind != Kind::WorkspaceInstance {
                templates.push((key, version));
                continue;
            }
            uids.insert(uid.clone());
            match self.tasks.get_mut(&uid).filter(|task| !task.handle.is_finished()) {
                Some(task) if task.version != version => {
                    task.version = version;
                    due.push(uid);
                }
                Some(_) => {}
                None => self.keep(key, uid, version),
            }
        }
        if templates != self.templates {
            self.templates = templates;
            due.extend(self.tasks.keys().cloned());
        }
        due.extend(self.tasks.keys().filter(|uid| !uids.contains(*uid)).cloned());
        for task in due.iter().filter_map(|uid| self.tasks.get(uid)) {
            task.notify.notify_one();
        }
        // A task ends by itself once its object is gone; until then its container is its own matter.
        self.tasks.retain(|uid, task| uids.contains(uid) || !task.handle.is_finished());
        for uid in self.listing.borrow().found.keys().filter(|uid| !self.tasks.contains_key(*uid)) {
            let (runtime, uid) = (self.shared.settings.runtime.clone(), uid.clone());
            tokio::spawn(async move {
                if let Err(error) = runtime.stop(&uid, GRACE).await {
                    warn!(uid, error, "failed to remove the container of an instance that is not there any more");
                }
            });
        }
    }

    fn keep(&mut self, key: ObjectKey, uid: String, version: i64) {
        let notify = Arc::new(Notify::new());
        let keeper =
            Keeper::new(Arc::clone(&self.shared), key, uid.clone(), Arc::clone(&notify), self.listing.subscribe());
        let handle = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        self.tasks.insert(uid, Task { version, notify, handle });
    }

    /// Ends all containers at once.
    async fn end(&mut self) {
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        let tasks = std::mem::take(&mut self.tasks);
        let ended = join_all(tasks.into_values().map(|task| task.handle));
        // What is being started at this moment is given a moment, so that it is found below.
        let _ = tokio::time::timeout(GRACE / 2, ended).await;
        let settings = &self.shared.settings;
        let found = match self.ask_runtime().await {
            Ok(found) => found,
            Err(error) => return warn!(error, "failed to ask the runtime what is to be ended"),
        };
        let stops = found.iter().map(|found| async {
            if let Err(error) = settings.runtime.stop(&found.uid, GRACE).await {
                warn!(uid = found.uid, error, "failed to end a workspace");
            }
            settings.workspaces.set_address(&found.uid, None);
        });
        if tokio::time::timeout_at(deadline, join_all(stops)).await.is_err() {
            warn!("some workspaces did not end within {END_WITHIN:?}; the next start finds them");
        }
        self.show_ended();
    }

    /// What ended with the program is not shown as running.
    fn show_ended(&self) {
        let store = &self.shared.settings.store;
        let Ok(versions) = store.object_versions() else { return };
        for (key, _, _) in versions.into_iter().filter(|(key, ..)| key.kind == Kind::WorkspaceInstance) {
            let written = store.change_object(&key, |object, _| {
                let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return Ok(()) };
                let phase = status.get("phase").and_then(Value::as_str).unwrap_or_default();
                if ["Running", "Transitioning", "Provisioning"].contains(&phase) {
                    status.insert("phase".into(), "Pending".into());
                    status.insert("message".into(), "`workshop up` starts it".into());
                }
                Ok::<_, crate::adapters::store::Error>(())
            });
            if let Err(error) = written {
                warn!(error = &error as &dyn std::error::Error, "failed to write what ended");
            }
        }
    }
}

#[cfg(test)]
mod tests;
