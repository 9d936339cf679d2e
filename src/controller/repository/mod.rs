//! The reconciliation of one WorkshopRepository, in five beats: dereference, validate, build, apply, status.
//!
//! A worker lives as long as its object and holds the sync between two looks at the source, so that an unchanged
//! repository costs one listing of references and nothing else.

mod apply;
mod build;
mod dereference;
mod mailbox;
mod remove;
mod status;
mod validate;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::outcome::{Class, Problem, next_look};
use crate::adapters::cluster::Severity;
use crate::adapters::watch::Watch;
use crate::crd::conditions::{READY, Reason, get};
use crate::crd::{API_VERSION, Kind, WorkshopRepository, WorkshopRepositoryStatus};
use crate::domain::chain;
use crate::domain::object::{Kind as OwnedKind, ObjectKey};
use crate::domain::revision::RefSpec;
use crate::failpoint;
use crate::pipeline::sync::{ObjectOutcome, Sync, SyncReport, Trigger};

use apply::{Applied, Around};
use mailbox::Mailbox;
use status::Ended;
use validate::Valid;

pub(crate) use mailbox::Message;

/// Work that takes longer shows in the status; shorter work would only double the writes.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// How soon a status that could not be written is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(5);

/// How long an object that somebody keeps changing is left to them.
const TRUCE: Duration = Duration::from_secs(600);

/// The most events about single workshops after one sync.
const MAX_EVENTS: usize = 10;

/// The worker of one repository.
pub(super) struct Worker {
    shared: Arc<Shared>,
    namespace: String,
    name: String,
    uid: String,
    stop: CancellationToken,
    mailbox: Mailbox,
    /// The status as we wrote it last.
    status: WorkshopRepositoryStatus,
    built: Option<Built>,
    /// The generation of the spec that `reported` is about.
    generation: Option<i64>,
    /// How the last sync that looked at everything ended.
    reported: Option<Ended>,
    /// Why the next sync runs, where an earlier one for that reason did not reach its end.
    owed: Option<Trigger>,
    failures: u32,
    deleted_by_us: BTreeSet<ObjectKey>,
    fight: Option<(ObjectKey, String, Instant)>,
}

/// The sync of a generation of the spec.
struct Built {
    generation: Option<i64>,
    sync: Arc<Sync>,
    valid: Valid,
}

/// What to do after a reconciliation.
enum Next {
    /// Wait this long, or until something happens.
    Wait(Option<Duration>),
    /// Begin again at once.
    Again,
    /// The worker has done its duty.
    End,
}

impl Worker {
    /// A worker for `repository`; none for an object without the metadata that every stored object has.
    pub(super) fn new(
        shared: Arc<Shared>,
        repository: Arc<WorkshopRepository>,
        receiver: mpsc::UnboundedReceiver<Message>,
        stop: CancellationToken,
    ) -> Option<Self> {
        let metadata = &repository.metadata;
        Some(Self {
            shared,
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            stop,
            status: repository.status.clone().unwrap_or_default(),
            mailbox: Mailbox::new(receiver, repository),
            built: None,
            generation: None,
            reported: None,
            owed: None,
            failures: 0,
            deleted_by_us: BTreeSet::new(),
            fight: None,
        })
    }

    /// Reconciles until the repository is gone or the worker is stopped.
    pub(super) async fn work(mut self) {
        loop {
            let wait = match self.reconcile().await {
                Next::End => return,
                Next::Again => continue,
                Next::Wait(wait) => wait,
            };
            let look = wait.map(|wait| tokio::time::Instant::now() + wait);
            while !self.mailbox.has_news() {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = sleep_until(look) => break,
                    wake = self.mailbox.receive() => if wake.is_none() { return },
                }
            }
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    async fn reconcile(&mut self) -> Next {
        let repository = self.mailbox.current();
        self.heed_news();
        if repository.metadata.deletion_timestamp.is_some() {
            return self.remove(&repository).await;
        }
        if repository.spec.suspend {
            self.built = None;
            let status = status::build_suspended(&self.status, &repository, Timestamp::now());
            let written = self.write_status(status).await;
            return Next::Wait((!written).then_some(STATUS_RETRY));
        }
        let begun = Instant::now();
        let requested = validate::requested_at(&repository)
            .filter(|requested| self.status.last_handled_reconcile_at.as_ref() != Some(requested));
        let ended = match self.prepare(&repository).await {
            Err(problem) => Ended::failed(&problem, None),
            Ok(()) => match self.bring_in(&repository, requested.is_some()).await {
                Some(ended) => ended,
                None if self.stop.is_cancelled() => return Next::End,
                None => return Next::Again,
            },
        };
        self.end(&repository, ended, requested, begun).await
    }

    /// Takes note of what happened, before anything decides that nothing is to be done.
    fn heed_news(&mut self) {
        let news = self.mailbox.take_news(&self.deleted_by_us);
        if news.drifted && self.owed != Some(Trigger::Requested) {
            self.owed = Some(Trigger::Drift);
        }
        if let Some((object, manager)) = news.fought {
            self.fight = Some((object, manager, Instant::now()));
        }
    }

    /// Dereference, validate and build, where that was not done for this spec yet.
    async fn prepare(&mut self, repository: &WorkshopRepository) -> Result<(), Problem> {
        let generation = repository.metadata.generation;
        // An approval is an annotation, which makes no new generation. Nobody else holds the sync between two runs.
        if let Some(built) = &mut self.built
            && built.generation == generation
            && let Some(sync) = Arc::get_mut(&mut built.sync)
        {
            sync.settings.approved = validate::approved(repository);
            return Ok(());
        }
        self.built = None;
        // The same spec with other Secrets is no reason to try again what failed for good.
        if self.generation != generation {
            self.generation = generation;
            self.reported = None;
        }
        let valid = validate::check(repository)?;
        self.keep_finalizer(repository).await?;
        let identities = dereference::read_identities(&self.shared, repository, &self.namespace).await?;
        let sync = build::build(&self.shared, repository, &self.namespace, &self.uid, &valid, identities)?;
        let watch = build::local_directory(&valid.source).and_then(|directory| {
            Watch::start(&directory)
                .inspect_err(|error| tracing::warn!(%error, "changes of the source are noticed by polling only"))
                .ok()
        });
        self.mailbox.watch_files(watch);
        self.built = Some(Built { generation, sync: Arc::new(sync), valid });
        Ok(())
    }

    /// Apply: the sync, in the state it is due in. None when it has to begin again or to stop.
    async fn bring_in(&mut self, repository: &WorkshopRepository, is_requested: bool) -> Option<Ended> {
        let built = self.built.as_ref()?;
        let truce_is_over = self.fight.as_ref().is_some_and(|(_, _, since)| since.elapsed() >= TRUCE);
        if is_requested || truce_is_over {
            self.fight = None;
        }
        let trigger = if is_requested || self.reported.is_none() || self.owed == Some(Trigger::Requested) {
            Trigger::Requested
        } else if truce_is_over || self.owed == Some(Trigger::Drift) {
            Trigger::Drift
        } else {
            Trigger::Poll
        };
        self.owed = Some(trigger);
        let permit = tokio::select! {
            permit = self.shared.permits.acquire() => permit.ok()?,
            () = self.stop.cancelled() => return None,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let is_over = CancellationToken::new();
        let showing = tokio::spawn(show_progress(
            Arc::clone(&self.shared),
            self.mailbox.current(),
            self.status.clone(),
            receiver,
            is_over.clone(),
        ));
        let around = Around {
            trigger,
            interval: built.valid.intervals.interval,
            stop: &self.stop,
            mailbox: &mut self.mailbox,
            begun: sender,
        };
        let applied = apply::run(&built.sync, around).await;
        drop(permit);
        is_over.cancel();
        // The two writes of the status must not change their order.
        let (attempted, shown) = showing.await.unwrap_or_default();
        if let Some(status) = shown {
            self.status = status;
        }
        let result = match applied {
            Applied::Done(result) => *result,
            Applied::Overtaken => {
                tracing::info!(repository = self.name, "a newer commit or spec overtook the one that was brought in");
                return None;
            }
            Applied::Stopped => return None,
        };
        let is_manual = repository.spec.approval == crate::crd::repository::Approval::Manual;
        Some(match result {
            Err(error) => Ended::failed(&status::of_sync(&error), attempted),
            Ok(report) if report.unchanged => {
                self.owed = None;
                self.unchanged(&report)
            }
            Ok(report) => {
                self.owed = None;
                self.deleted_by_us = deleted(&report);
                let ended = Ended::reported(&report, is_manual);
                self.reported = Some(ended.clone());
                ended
            }
        })
    }

    /// Nothing is new: what was true of the last look at everything is true again.
    fn unchanged(&self, report: &SyncReport) -> Ended {
        match &self.reported {
            Some(ended) if ended.class == Some(Class::Outside) => {
                // Nothing was tried again, because it was tried often enough.
                let mut ended = ended.clone();
                ended.class = Some(Class::Person);
                ended.conditions.reconciling = false;
                ended.conditions.stalled = true;
                ended
            }
            Some(ended) => ended.clone(),
            None => Ended::reported(report, false),
        }
    }

    /// Status: the end of a reconciliation, written where it is news.
    async fn end(
        &mut self,
        repository: &WorkshopRepository,
        ended: Ended,
        handled: Option<String>,
        begun: Instant,
    ) -> Next {
        let ended = match &self.fight {
            Some((object, manager, _)) => ended.fought(&object.to_string(), manager),
            None => ended,
        };
        self.failures = if ended.class.is_some() { self.failures.saturating_add(1) } else { 0 };
        self.shared.metrics.count_sync(ended.conditions.reason, begun.elapsed());
        let old = self.status.clone();
        let status = status::build_status(&old, repository, &ended, handled, Timestamp::now());
        let is_news = status != old;
        if is_news {
            self.tell(repository, &old, &status, &ended).await;
        }
        let written = self.write_status(status).await;
        let intervals = self.built.as_ref().map(|built| built.valid.intervals);
        let is_pinned = self.built.as_ref().is_some_and(|built| matches!(built.sync.reference, RefSpec::Commit(_)));
        let chance = std::hash::RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        let mut wait = match intervals.or_else(|| validate::check(repository).ok().map(|valid| valid.intervals)) {
            Some(intervals) => next_look(ended.class, self.failures, intervals, is_pinned, chance),
            None => None,
        };
        let names_secrets = repository.spec.secret_ref.is_some() || repository.spec.compile.secret_ref.is_some();
        if names_secrets && ended.may_be_for_credentials() {
            self.built = None;
        }
        if let Some((_, _, since)) = &self.fight {
            let truce = TRUCE.saturating_sub(since.elapsed());
            wait = Some(wait.map_or(truce, |wait| wait.min(truce)));
        }
        if !written {
            wait = Some(wait.map_or(STATUS_RETRY, |wait| wait.min(STATUS_RETRY)));
        }
        Next::Wait(wait)
    }

    /// Writes a status that differs from the one written last; false when it could not be written.
    async fn write_status(&mut self, status: WorkshopRepositoryStatus) -> bool {
        if status == self.status {
            return true;
        }
        failpoint::reached("before-status");
        match self.shared.cluster.apply_repository_status(&self.namespace, &self.name, &status).await {
            Ok(()) => {
                self.status = status;
                true
            }
            Err(error) => {
                tracing::warn!(
                    namespace = self.namespace,
                    name = self.name,
                    error = chain::line(&error),
                    "the status was not written"
                );
                false
            }
        }
    }

    /// Logs and sends events about what changed since the old status.
    async fn tell(
        &self,
        repository: &WorkshopRepository,
        old: &WorkshopRepositoryStatus,
        new: &WorkshopRepositoryStatus,
        ended: &Ended,
    ) {
        let conditions = &ended.conditions;
        let regarding = self.regarding(repository);
        let cluster = &self.shared.cluster;
        let (namespace, name) = (&self.namespace, &self.name);
        let before = get(&old.conditions, READY).map(|ready| (ready.reason.as_str(), ready.message.as_str()));
        let cut = crate::crd::conditions::cut_message(&conditions.message);
        if conditions.ready && new.last_applied_revision != old.last_applied_revision {
            tracing::info!(namespace, name, "{}", conditions.message);
            cluster.send_event(&regarding, Severity::Normal, Reason::Succeeded, "Sync", &conditions.message).await;
        } else if !conditions.ready && before != Some((conditions.reason.as_str(), cut.as_str())) {
            tracing::warn!(namespace, name, reason = %conditions.reason, "{}", conditions.message);
            cluster.send_event(&regarding, Severity::Warning, conditions.reason, "Sync", &conditions.message).await;
        }
        let Some(content) = &ended.content else { return };
        let news = content.not_ready.iter().filter(|workshop| !old.not_ready.contains(workshop));
        for workshop in news.take(MAX_EVENTS) {
            let reason = Reason::ALL.iter().find(|reason| reason.as_str() == workshop.reason);
            let message = format!("{}: {}", workshop.path, workshop.message);
            cluster
                .send_event(&regarding, Severity::Warning, *reason.unwrap_or(&Reason::Failed), "Sync", &message)
                .await;
        }
        if let Some(tag) = &content.moved_tag
            && new.last_attempted_revision != old.last_attempted_revision
        {
            let message = format!("the tag \"{tag}\" names another commit than before");
            tracing::warn!(namespace, name, "{message}");
            cluster.send_event(&regarding, Severity::Warning, Reason::TagMoved, "Sync", &message).await;
        }
    }

    fn regarding(&self, repository: &WorkshopRepository) -> ObjectReference {
        ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(Kind::WorkshopRepository.name().to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: repository.metadata.resource_version.clone(),
            field_path: None,
        }
    }
}

/// Waits for the moment; for ever where there is none.
async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The objects that a sync deleted.
fn deleted(report: &SyncReport) -> BTreeSet<ObjectKey> {
    let rows = report.workshops.iter().flat_map(|workshop| &workshop.objects);
    rows.filter(|row| row.result == ObjectOutcome::Deleted)
        .filter_map(|row| {
            let (namespace, name) = match row.name.split_once('/') {
                Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
                None => (None, row.name.clone()),
            };
            Some(ObjectKey { kind: OwnedKind::parse(row.kind)?, namespace, name })
        })
        .collect()
}

/// Notes the revision that is worked on, and shows it in the status when that takes long.
async fn show_progress(
    shared: Arc<Shared>,
    repository: Arc<WorkshopRepository>,
    old: WorkshopRepositoryStatus,
    mut begun: mpsc::UnboundedReceiver<String>,
    is_over: CancellationToken,
) -> (Option<String>, Option<WorkshopRepositoryStatus>) {
    let revision = tokio::select! {
        biased;
        revision = begun.recv() => revision,
        () = is_over.cancelled() => begun.try_recv().ok(),
    };
    let Some(revision) = revision else { return (None, None) };
    let is_long = tokio::select! {
        () = is_over.cancelled() => false,
        () = tokio::time::sleep(SHOWN_AFTER) => true,
    };
    let metadata = &repository.metadata;
    let (Some(namespace), Some(name), true) = (&metadata.namespace, &metadata.name, is_long) else {
        return (Some(revision), None);
    };
    let status = status::build_progress(&old, &repository, &revision, Timestamp::now());
    match shared.cluster.apply_repository_status(namespace, name, &status).await {
        Ok(()) => (Some(revision), Some(status)),
        Err(error) => {
            tracing::debug!(%error, "progress was not shown");
            (Some(revision), None)
        }
    }
}
