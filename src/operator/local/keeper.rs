//! The life of one instance: look at it and at what runs, decide, write, act; then wait for the next reason to look.
//!
//! One thing after the other, so that nothing is started while something is being stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

use super::start::{base_path, build_spec, persist_directory};
use super::{Containers, GRACE, Listing, Shared};
use crate::adapters::store;
use crate::crd::WorkspaceInstance;
use crate::domain::container::{Found, FoundState};
use crate::domain::lifecycle::{Action, Decision, Inputs, Record, Revision, Seen, Start, decide};
use crate::domain::management::Phase;
use crate::domain::object::{Live, ObjectKey};
use crate::domain::token::Role;
use crate::domain::workspace::Permit;
use crate::pipeline::upstream;
use crate::pipeline::workspace::record::{
    overrides_of, permit_of, read_instance, record_of, revision_of, wish_of, write_record,
};
use crate::pipeline::workspace::{mark_deleted, template};

/// The first pause between two questions whether a backend is ready; it doubles up to [`SLOWEST_PROBE`].
const FASTEST_PROBE: Duration = Duration::from_millis(5);
/// The longest such pause.
const SLOWEST_PROBE: Duration = Duration::from_millis(250);
/// How long a backend may take to answer such a question.
const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// After what failed here, such as a full disk, so long is waited.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait before a text that was not taken is handed over again.
const SLOWEST_PREVIEW: Duration = Duration::from_secs(30);
/// The longest wait for nothing at all.
const LONGEST: Duration = Duration::from_secs(3600);

/// Keeps the container of one instance.
pub(super) struct Keeper<R> {
    shared: Arc<Shared<R>>,
    key: ObjectKey,
    uid: String,
    notify: Arc<Notify>,
    listing: watch::Receiver<Arc<Listing>>,
    /// What runs, as far as is known.
    container: Option<Found>,
    /// When this task last started or stopped something: what the runtime was asked before does not count.
    acted: Instant,
    /// Since when the container is waited for.
    since: Timestamp,
    is_ready: bool,
    probe: Duration,
    /// What could not be started, and why.
    failed: Option<(String, String)>,
    /// When a text may be handed over again, and the pause after that.
    preview: Option<(Instant, Duration)>,
    /// The step whose next one's image was brought along.
    prepared: Option<String>,
}

/// Why an instance could not be looked at.
#[derive(Debug, thiserror::Error)]
enum LookError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Its object has another form than this program knows.
    #[error("the object cannot be read")]
    Unreadable(#[from] serde_json::Error),
}

/// What a look ended with.
enum Turn {
    /// Something was done: look again.
    Again,
    /// Nothing is to do before this.
    Wait(Duration),
    /// The instance is gone.
    Gone,
}

impl<R: Containers> Keeper<R> {
    pub fn new(
        shared: Arc<Shared<R>>,
        key: ObjectKey,
        uid: String,
        notify: Arc<Notify>,
        listing: watch::Receiver<Arc<Listing>>,
    ) -> Self {
        let container = listing.borrow().found.get(&uid).cloned();
        let mut keeper = Self {
            container,
            shared,
            key,
            uid,
            notify,
            listing,
            acted: Instant::now(),
            since: Timestamp::now(),
            is_ready: false,
            probe: FASTEST_PROBE,
            failed: None,
            preview: None,
            prepared: None,
        };
        keeper.listing.mark_unchanged();
        keeper
    }

    pub async fn run(mut self) {
        let stop = self.shared.settings.stop.clone();
        loop {
            if stop.is_cancelled() {
                return;
            }
            let pause = match self.turn().await {
                Turn::Gone => return,
                Turn::Again => continue,
                Turn::Wait(pause) => pause,
            };
            let until = tokio::time::Instant::now() + pause;
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.notify.notified() => break,
                    changed = self.listing.changed() => {
                        if changed.is_err() || self.take_listing().await {
                            break;
                        }
                    }
                    () = tokio::time::sleep_until(until) => break,
                }
            }
        }
    }

    /// Takes what the runtime said, if it was asked after the last act; true where it is news.
    async fn take_listing(&mut self) -> bool {
        let listing = Arc::clone(&self.listing.borrow_and_update());
        if listing.asked <= self.acted {
            return false;
        }
        let found = listing.found.get(&self.uid).cloned();
        if found == self.container {
            return false;
        }
        let is_other = |left: &Found, right: &Found| {
            (&left.generation_label, left.started_at) != (&right.generation_label, right.started_at)
        };
        match (&self.container, &found) {
            (Some(old), Some(new)) if !is_other(old, new) && new.state == FoundState::Running => {}
            _ => self.forget_ready(),
        }
        self.container = found;
        true
    }

    fn forget_ready(&mut self) {
        self.is_ready = false;
        self.since = Timestamp::now();
        self.probe = FASTEST_PROBE;
        self.shared.settings.workspaces.set_address(&self.uid, None);
    }

    async fn turn(&mut self) -> Turn {
        self.ask_ready().await;
        let seen = self.seen().await;
        let decided = match self.decide(&seen) {
            Ok(Some(decided)) => decided,
            Ok(None) => {
                self.stop().await;
                return Turn::Gone;
            }
            Err(error) => {
                warn!(name = self.key.name, error = &error as &dyn std::error::Error, "failed to look at an instance");
                return Turn::Wait(RETRY);
            }
        };
        let (decision, wished) = decided;
        for event in &decision.events {
            (self.shared.settings.listener)(&self.key.name, event);
        }
        let mut pause = decision.look_again.map_or(LONGEST, |moment| {
            let span = moment.duration_since(Timestamp::now());
            Duration::try_from(span).unwrap_or(Duration::ZERO).max(Duration::from_millis(1))
        });
        if self.waits_for_answer() {
            pause = pause.min(self.probe);
            self.probe = SLOWEST_PROBE.min(self.probe * 2);
        }
        self.prepare_next(&decision.record);
        match self.act(&decision, wished).await {
            Turn::Wait(longest) => Turn::Wait(pause.min(longest)),
            other => other,
        }
    }

    /// Brings the next step's image along while the learner works.
    fn prepare_next(&mut self, record: &Record) {
        if record.phase != Phase::Running || self.prepared == record.step {
            return;
        }
        self.prepared.clone_from(&record.step);
        let steps = record.pin.iter().flat_map(|pin| &pin.steps);
        let Some(next) = steps.skip_while(|step| Some(&step.id) != record.step.as_ref()).nth(1) else { return };
        let (shared, image) = (Arc::clone(&self.shared), next.image());
        tokio::spawn(async move {
            // A step that cannot start is told when somebody goes there.
            if let Err(error) = shared.settings.runtime.prepare(&image).await {
                debug!(image, error, "failed to bring an image along");
            }
        });
    }

    fn waits_for_answer(&self) -> bool {
        !self.is_ready && self.container.as_ref().is_some_and(|found| found.state == FoundState::Running)
    }

    /// Asks the backend of a running container whether it is ready.
    async fn ask_ready(&mut self) {
        if !self.waits_for_answer() {
            return;
        }
        let Some(address) = self.container.as_ref().and_then(|found| found.address.clone()) else { return };
        if upstream::is_ready(&address, PROBE_WITHIN).await {
            self.is_ready = true;
            self.shared.settings.workspaces.set_address(&self.uid, Some(address));
        }
    }

    /// What runs, in the words of the decision.
    async fn seen(&self) -> Seen {
        if let Some((fingerprint, reason)) = &self.failed {
            return Seen::Ended { fingerprint: fingerprint.clone(), reason: reason.clone() };
        }
        let Some(found) = &self.container else { return Seen::Nothing };
        let fingerprint = self.shared.settings.fingerprint_of(&found.generation_label);
        match found.state {
            FoundState::Running => {
                Seen::Running { fingerprint, is_ready: self.is_ready, since: self.since, waits_for: None }
            }
            // Somebody's start was cut off: no fault of the step's.
            FoundState::Created => Seen::Ended { fingerprint: String::new(), reason: String::new() },
            FoundState::Exited { code } => {
                let code = code.map_or_else(|| "it ended".to_owned(), |code| format!("it ended with code {code}"));
                let words = self.shared.settings.runtime.last_words(&self.uid).await;
                let reason = if words.is_empty() { code } else { format!("{code}: {words}") };
                Seen::Ended { fingerprint, reason }
            }
        }
    }

    /// Decides, and writes what follows; the step that was wished is given along. Nothing where the object is gone, which
    /// one that cannot be read is not.
    fn decide(&self, seen: &Seen) -> Result<Option<(Decision, Option<String>)>, LookError> {
        let store = &self.shared.settings.store;
        let Some(live) = store.object(&self.key)?.filter(|live| live.uid == self.uid) else { return Ok(None) };
        let instance = read_instance(&live)?;
        let (template, permit) = self.template(&instance);
        let template = template.as_ref().map_err(String::as_str);
        let decide_on = |instance: &WorkspaceInstance| {
            let record = instance.status.as_ref().map(record_of).unwrap_or_default();
            let overrides = overrides_of(instance);
            let decision = decide(Inputs {
                wish: &wish_of(instance),
                overrides: overrides.as_ref(),
                permit,
                template,
                record: &record,
                seen,
                live_text: true,
                now: now(),
            });
            (record, decision)
        };
        let (record, decision) = decide_on(&instance);
        let observed = instance.status.as_ref().and_then(|status| status.observed_generation);
        let wished = instance.spec.current_step.clone();
        if is_same(&record, &decision.record) && observed == instance.metadata.generation {
            return Ok(Some((decision, wished)));
        }
        // Decided anew on what is there inside the transaction: whoever wrote meanwhile is not overwritten.
        store
            .change_object(&self.key, |object, _| {
                let live = Live::from_manifest(object.clone()).filter(|live| live.uid == self.uid);
                let Some(Ok(instance)) = live.as_ref().map(read_instance) else { return Ok((decision, wished)) };
                let (_, decision) = decide_on(&instance);
                let mut status = instance.status.clone().unwrap_or_default();
                write_record(&decision.record, &mut status, instance.metadata.generation, now());
                match serde_json::to_value(&status) {
                    Ok(status) => object["status"] = status,
                    Err(error) => warn!(name = self.key.name, %error, "failed to write a status"),
                }
                Ok::<_, store::Error>((decision, instance.spec.current_step))
            })
            .map_err(LookError::Store)
    }

    fn template(&self, instance: &WorkspaceInstance) -> (Result<Revision, String>, Permit) {
        let workspaces = &self.shared.settings.workspaces;
        let id = &instance.spec.template_ref.name;
        match template(&self.shared.settings.store, id) {
            Ok(Some(template)) => {
                let offer = match workspaces.problem(&template) {
                    None => Ok(revision_of(&template)),
                    Some(problem) => Err(format!("its workshop \"{id}\" cannot be used: {problem}")),
                };
                (offer, permit_of(&template))
            }
            Ok(None) => (Err(format!("its workshop \"{id}\" is not there")), Permit::default()),
            Err(error) => (Err(error.to_string()), Permit::default()),
        }
    }

    async fn act(&mut self, decision: &Decision, wished: Option<String>) -> Turn {
        let mut turn = Turn::Wait(LONGEST);
        let mut actions = decision.actions.iter().peekable();
        while let Some(action) = actions.next() {
            debug!(name = self.key.name, ?action, "acts");
            turn = match action {
                Action::Stop => {
                    // An image that is not there leaves what runs alone.
                    if let Some(Action::Start(start)) = actions.peek()
                        && let Err(reason) = self.shared.settings.runtime.prepare(&start.image).await
                    {
                        self.failed = Some((start.fingerprint.clone(), reason));
                        return Turn::Again;
                    }
                    if !self.stop().await {
                        return Turn::Wait(RETRY);
                    }
                    Turn::Again
                }
                Action::Start(start) => {
                    self.start(start).await;
                    Turn::Again
                }
                Action::Preview { artifact } => self.hand_over(artifact).await,
                Action::GoTo { step } => {
                    self.failed = None;
                    self.go_back(step, wished.as_deref());
                    Turn::Again
                }
                Action::Delete => match self.shared.settings.store.object(&self.key) {
                    Ok(Some(live)) if mark_deleted(&self.shared.settings.store, &live).is_ok() => Turn::Again,
                    _ => Turn::Wait(RETRY),
                },
                Action::Forget => {
                    let workspaces = &self.shared.settings.workspaces;
                    workspaces.set_address(&self.uid, None);
                    let directory = persist_directory(&self.shared.settings, &self.uid);
                    if let Err(error) = std::fs::remove_dir_all(&directory)
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        warn!(%error, "failed to remove \"{}\"", directory.display());
                    }
                    match self.shared.settings.store.delete_object(&self.key, &self.uid) {
                        Ok(_) => return Turn::Gone,
                        Err(_) => Turn::Wait(RETRY),
                    }
                }
            };
        }
        turn
    }

    /// Ends what runs; false where that failed.
    async fn stop(&mut self) -> bool {
        self.shared.settings.workspaces.set_address(&self.uid, None);
        let stopped = self.shared.settings.runtime.stop(&self.uid, GRACE).await;
        self.acted = Instant::now();
        self.forget_ready();
        if let Err(error) = &stopped {
            warn!(name = self.key.name, error, "failed to end a workspace");
            return false;
        }
        (self.failed, self.preview, self.container) = (None, None, None);
        true
    }

    async fn start(&mut self, start: &Start) {
        let shared = Arc::clone(&self.shared);
        let Ok(_turn) = shared.starts.acquire().await else { return };
        self.failed = None;
        let started = match build_spec(&shared.settings, &self.key, &self.uid, start) {
            Ok(spec) => shared.settings.runtime.start(&spec, &shared.settings.label_of(&start.fingerprint)).await,
            Err(error) => Err(error),
        };
        self.acted = Instant::now();
        self.forget_ready();
        match started {
            Ok(found) => self.container = Some(found),
            Err(reason) => self.failed = Some((start.fingerprint.clone(), reason)),
        }
    }

    /// Hands the pin's artifact to the running backend.
    async fn hand_over(&mut self, artifact: &str) -> Turn {
        if let Some((due, _)) = self.preview
            && let Some(rest) = due.checked_duration_since(Instant::now())
        {
            return Turn::Wait(rest.max(Duration::from_millis(1)));
        }
        let workspaces = &self.shared.settings.workspaces;
        let handed = async {
            let path = workspaces.artifact_path(artifact).ok_or("it has no artifact")?;
            let bytes = tokio::fs::read(&path).await.map_err(|error| error.to_string())?;
            let address = workspaces.address(&self.uid).ok_or("its backend does not answer")?;
            let signed = workspaces.sign(&self.uid, "preview", Role::Instructor, Duration::from_secs(60));
            let token = signed.map_err(|error| error.to_string())?;
            let sent = upstream::put_artifact(&address, &base_path(&self.key.name), &token, bytes).await;
            sent.map_err(|error| crate::domain::chain::line(&error))
        };
        match handed.await {
            Ok(()) => {
                self.preview = None;
                let written = self.shared.settings.store.change_object(&self.key, |object, _| {
                    if let Some(run) = object.pointer_mut("/status/run").and_then(Value::as_object_mut) {
                        run.insert("artifactDigest".into(), artifact.into());
                    }
                    Ok::<_, store::Error>(())
                });
                if written.is_ok() { Turn::Again } else { Turn::Wait(RETRY) }
            }
            Err(error) => {
                warn!(name = self.key.name, error, "failed to hand new texts to a workspace");
                let pause = self.preview.map_or(RETRY, |(_, pause)| SLOWEST_PREVIEW.min(pause * 2));
                self.preview = Some((Instant::now() + pause, pause));
                Turn::Wait(pause)
            }
        }
    }

    /// Writes the step before into the spec, unless somebody asked for another one meanwhile.
    fn go_back(&self, step: &str, wished: Option<&str>) {
        let written = self.shared.settings.store.change_object(&self.key, |object, _| {
            if object.pointer("/spec/currentStep").and_then(Value::as_str) == wished {
                object["spec"]["currentStep"] = step.into();
            }
            Ok::<_, store::Error>(())
        });
        if let Err(error) = written {
            warn!(name = self.key.name, error = &error as &dyn std::error::Error, "failed to go back to a step");
        }
    }
}

/// The time in the milliseconds that are kept.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Whether both say the same; why they do is not kept.
fn is_same(kept: &Record, decided: &Record) -> bool {
    Record { reason: None, ..decided.clone() } == *kept
}
