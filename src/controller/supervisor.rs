//! Watches repositories and their objects, and keeps one worker per repository.
//!
//! It decides who is woken, never what is done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::drift::{Drift, Verdict};
use super::repository::{Message, Worker};
use super::{GRACE, Shared};
use crate::adapters::cluster::{Error, OwnedEvent, RepositoryEvent};
use crate::crd::conditions::{READY, Reason, STALLED, set};
use crate::crd::{WorkshopRepository, WorkshopRepositoryStatus};
use crate::domain::object::{Kind, ObjectKey};

/// How long a worker that broke down rests.
const REST: Duration = Duration::from_secs(10);

struct Supervisor {
    shared: Arc<Shared>,
    ending: CancellationToken,
    workers: HashMap<String, Seat>,
    tasks: JoinSet<String>,
    drift: Drift,
    /// Kinds whose objects were all told once.
    listed: HashSet<Kind>,
    /// What each watch said last about being interrupted.
    interruptions: HashMap<&'static str, String>,
}

struct Seat {
    sender: mpsc::UnboundedSender<Message>,
    stop: CancellationToken,
    repository: Arc<WorkshopRepository>,
}

/// Works until `ending` is cancelled, then lets the workers end.
pub(super) async fn supervise(shared: Arc<Shared>, ending: CancellationToken) {
    let mut supervisor = Supervisor {
        shared: Arc::clone(&shared),
        ending: ending.clone(),
        workers: HashMap::new(),
        tasks: JoinSet::new(),
        drift: Drift::default(),
        listed: HashSet::new(),
        interruptions: HashMap::new(),
    };
    let repositories = shared.cluster.watch_repositories();
    tokio::pin!(repositories);
    let owned = futures_util::stream::select_all(
        Kind::ALL.map(|kind| shared.cluster.watch_owned(kind).map(move |event| (kind, event)).boxed()),
    );
    tokio::pin!(owned);
    loop {
        tokio::select! {
            () = ending.cancelled() => break,
            Some(event) = repositories.next() => supervisor.on_repository(event),
            Some((kind, event)) = owned.next() => supervisor.on_object(kind, event),
            Some(result) = supervisor.tasks.join_next_with_id() => supervisor.on_task(result),
        }
    }
    supervisor.workers.clear();
    let rest = async { while supervisor.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::warn!("some workers did not end in time and are cut off");
        supervisor.tasks.shutdown().await;
    }
}

impl Supervisor {
    fn on_repository(&mut self, event: RepositoryEvent) {
        match event {
            RepositoryEvent::Present(repository) => {
                let Some(uid) = repository.metadata.uid.clone() else { return };
                let repository = Arc::new(*repository);
                match self.workers.get_mut(&uid) {
                    Some(seat) => {
                        seat.repository = Arc::clone(&repository);
                        let _ = seat.sender.send(Message::Changed(repository));
                    }
                    None => self.seat(uid, repository, Duration::ZERO),
                }
            }
            RepositoryEvent::Unreadable { namespace, name, generation, message } => {
                tracing::warn!(namespace, name, message, "a repository cannot be read");
                let shared = Arc::clone(&self.shared);
                let ending = self.ending.clone();
                tokio::spawn(async move {
                    let mut status = WorkshopRepositoryStatus { observed_generation: generation, ..Default::default() };
                    for (kind, is_true) in [(READY, false), (STALLED, true)] {
                        let now = Timestamp::now();
                        set(&mut status.conditions, kind, is_true, Reason::InvalidSpec, &message, generation, now);
                    }
                    let write = shared.cluster.apply_repository_status(&namespace, &name, &status);
                    let _ = ending.run_until_cancelled(write).await;
                });
            }
            RepositoryEvent::Gone { uid } => self.unseat(&uid),
            RepositoryEvent::Complete(uids) => {
                self.continued("workshoprepositories");
                let gone: Vec<String> = self.workers.keys().filter(|uid| !uids.contains(uid)).cloned().collect();
                for uid in gone {
                    self.unseat(&uid);
                }
                self.shared.metrics.set_ready(true);
            }
            RepositoryEvent::Interrupted(error) => self.interrupted("workshoprepositories", &error),
        }
        self.shared.metrics.set_repositories(self.workers.len());
    }

    fn on_object(&mut self, kind: Kind, event: OwnedEvent) {
        match event {
            OwnedEvent::Present(live) => {
                let is_first = !self.listed.contains(&kind);
                let verdict = self.drift.present(&live, is_first, Instant::now());
                self.heed(&live.key, verdict);
            }
            OwnedEvent::Gone(live) => {
                let verdict = self.drift.gone(&live.key);
                self.heed(&live.key, verdict);
            }
            OwnedEvent::Complete(keys) => {
                self.continued(kind.plural());
                self.listed.insert(kind);
                for key in self.drift.missing(kind, &keys) {
                    let verdict = self.drift.gone(&key);
                    self.heed(&key, verdict);
                }
            }
            OwnedEvent::Interrupted(error) => self.interrupted(kind.plural(), &error),
        }
    }

    /// Tells the owner of an object what somebody did to it. Owners that are no repositories here watch themselves.
    fn heed(&self, key: &ObjectKey, verdict: Verdict) {
        let (owner, message) = match verdict {
            Verdict::Fine => return,
            Verdict::Gone { owner } => (owner, Message::ObjectGone(key.clone())),
            Verdict::Drifted { owner, manager } => {
                self.shared.metrics.count_drift();
                tracing::info!(object = %key, manager, "an object was changed and is put back");
                (owner, Message::Drifted)
            }
            Verdict::Fought { owner, manager } => {
                self.shared.metrics.count_drift();
                (owner, Message::Fought { object: key.clone(), manager })
            }
        };
        if let Some(seat) = self.workers.get(&owner) {
            let _ = seat.sender.send(message);
        }
    }

    fn seat(&mut self, uid: String, repository: Arc<WorkshopRepository>, rest: Duration) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let stop = self.ending.child_token();
        let worker = Worker::new(Arc::clone(&self.shared), Arc::clone(&repository), receiver, stop.clone());
        let Some(worker) = worker else { return };
        let ended = uid.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(rest).await;
            worker.work().await;
            ended
        });
        self.workers.insert(uid, Seat { sender, stop, repository });
    }

    fn unseat(&mut self, uid: &str) {
        if let Some(seat) = self.workers.remove(uid) {
            seat.stop.cancel();
            if let Err(error) = self.shared.store.forget_source(uid) {
                tracing::warn!(%error, "what was known of a deleted repository remains in the store");
            }
        }
    }

    fn on_task(&mut self, result: Result<(tokio::task::Id, String), tokio::task::JoinError>) {
        let Err(error) = result else { return };
        if !error.is_panic() {
            return;
        }
        tracing::error!(%error, "a worker broke down and begins again");
        // Whose it was is known by whose mailbox is closed.
        let broken: Vec<String> =
            self.workers.iter().filter(|(_, seat)| seat.sender.is_closed()).map(|(uid, _)| uid.clone()).collect();
        for uid in broken {
            if let Some(seat) = self.workers.remove(&uid)
                && seat.repository.metadata.deletion_timestamp.is_none()
            {
                self.seat(uid, seat.repository, REST);
            }
        }
    }

    /// Says once why a watch cannot run.
    fn interrupted(&mut self, what: &'static str, error: &Error) {
        let message = match error {
            Error::NotServed { .. } => format!(
                "waiting for the kind {what}, which the cluster does not know yet: run `workshop crds | kubectl apply -f -`"
            ),
            error => format!("the watch of {what} is interrupted: {error}"),
        };
        if self.interruptions.get(what) != Some(&message) {
            tracing::warn!("{message}");
            self.interruptions.insert(what, message);
        }
    }

    fn continued(&mut self, what: &'static str) {
        if self.interruptions.remove(what).is_some() {
            tracing::warn!("the watch of {what} runs again");
        }
    }
}
