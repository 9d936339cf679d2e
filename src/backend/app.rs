//! What all requests share: the open workshop, where the learner is in it, and who has to be told.
//!
//! Decisions are the domain's, files the store's; here they are put together and kept in step.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;

use crate::domain::goss::Report;
use crate::domain::management::{CustomState, Instance, MAX_CUSTOM_ENTRIES, Phase, Progress, Snapshot};
use crate::domain::progress::{Ledger, StepProgress};
use crate::domain::token::VerifyKey;

use super::config::Config;
use super::content::Renderer;
use super::events::Events;
use super::files::FilesClient;
use super::management::Management;
use super::metrics::Metrics;
use super::store::{Store, StoreError, Workshop};
use super::terminal::Terminal;

/// The time of a row or an answer, RFC 3339 in whole seconds.
pub fn now() -> String {
    jiff::Timestamp::from_second(seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Seconds since 1970.
pub fn seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What runs as the learner.
#[derive(Debug)]
pub struct Machine {
    /// Their home.
    pub home: PathBuf,
    /// Their files.
    pub files: FilesClient,
    /// Their shell; none where the workshop has no terminal.
    pub terminal: Option<Terminal>,
    /// The environment of the image, for checks that run as root.
    pub environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Who the commands of checks run as; none where the learner is root.
    pub command_user: Option<super::checks::CommandUser>,
}

/// The open workshop and where the learner is in it.
#[derive(Debug)]
pub struct Live {
    /// The working copy.
    pub store: Store,
    /// The workshop.
    pub workshop: Workshop,
    /// Rules and progress.
    pub ledger: Ledger,
    /// Answers and notes.
    pub custom: CustomState,
    /// The current step.
    pub step: String,
    /// The instance, once the management API told it.
    pub instance: Option<Instance>,
    /// What the management API gave this backend; none before, and alone.
    pub epoch: Option<u64>,
    /// Another backend has taken over: nothing is handed over any more.
    pub is_stale: bool,
    /// Counts the snapshots.
    pub sequence: u64,
    /// Something was not handed over yet.
    pub is_dirty: bool,
    /// The last report of the current step.
    pub report: Option<Arc<Report>>,
}

impl Live {
    /// Where the instance is in its life; one that is alone runs.
    pub fn phase(&self) -> Phase {
        self.instance.as_ref().map_or(Phase::Running, |instance| instance.phase)
    }

    /// The position of a step, from 1.
    pub fn position(&self, step: &str) -> Option<usize> {
        self.workshop.steps.iter().position(|rules| rules.id == step).map(|index| index + 1)
    }

    /// Progress as it is handed over.
    pub fn progress(&self) -> Progress {
        Progress { epoch: self.epoch.unwrap_or(0), sequence: self.sequence, steps: self.ledger.rows().to_vec() }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let epoch = self.epoch.filter(|_| !self.is_stale)?;
        let (steps, custom_state) = (self.ledger.rows().to_vec(), self.custom.clone());
        Some(Snapshot { epoch, sequence: self.sequence, steps, custom_state })
    }

    /// Takes over what the management API knows: of both sides what is further.
    pub fn merge(&mut self, progress: &Progress, custom: CustomState) {
        let mut rows = self.ledger.rows().to_vec();
        for theirs in &progress.steps {
            match rows.iter_mut().find(|ours| ours.step == theirs.step) {
                Some(ours) => merge_row(ours, theirs),
                None => rows.push(StepProgress { skipped: theirs.skipped, ..theirs.clone() }),
            }
        }
        self.ledger = Ledger::new(self.workshop.steps.clone(), rows);
        for (key, value) in custom {
            if self.custom.len() < MAX_CUSTOM_ENTRIES {
                self.custom.entry(key).or_insert(value);
            }
        }
    }
}

/// The earlier of two times, which sort as texts.
fn earlier(a: Option<String>, b: Option<String>) -> Option<String> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn merge_row(ours: &mut StepProgress, theirs: &StepProgress) {
    use crate::domain::progress::Status;
    if theirs.status == Status::Completed {
        ours.status = Status::Completed;
    }
    ours.started_at = earlier(ours.started_at.take(), theirs.started_at.clone());
    ours.completed_at = earlier(ours.completed_at.take(), theirs.completed_at.clone());
    ours.skipped = (ours.skipped || theirs.skipped) && ours.status != Status::Completed;
}

/// What all requests share.
#[derive(Debug)]
pub struct App {
    /// The container contract.
    pub config: Config,
    /// What verifies tokens; none until it is known, and then nobody is let in.
    pub verify_key: OnceLock<VerifyKey>,
    /// Who is asked for other steps.
    pub management: OnceLock<Management>,
    /// What browsers are told.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
    /// The texts as HTML.
    pub renderer: Renderer,
    /// What runs as the learner.
    pub machine: OnceLock<Machine>,
    /// Held while checks run.
    pub checking: tokio::sync::Mutex<()>,
    /// Held while something is handed over, so that snapshots arrive in order.
    saving: tokio::sync::Mutex<()>,
    /// Something has to be handed over.
    pub changed: Notify,
    /// When the workspace was last used, in seconds since 1970.
    used: AtomicI64,
    /// When this program started.
    pub started_at: String,
    live: Mutex<Option<Live>>,
    failure: Mutex<Option<String>>,
    stopping: tokio::sync::watch::Sender<bool>,
    /// Whether the management API has told what it keeps of this workspace.
    session: tokio::sync::watch::Sender<bool>,
}

impl App {
    /// The shared part of a backend that has not opened anything yet.
    pub fn new(config: Config) -> Arc<Self> {
        let assets = format!("{}api/v1/assets/", config.base_path);
        Arc::new(Self {
            config,
            verify_key: OnceLock::new(),
            management: OnceLock::new(),
            events: Events::default(),
            metrics: Metrics::default(),
            renderer: Renderer::new(assets),
            machine: OnceLock::new(),
            checking: tokio::sync::Mutex::default(),
            saving: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            used: AtomicI64::new(0),
            started_at: now(),
            live: Mutex::default(),
            failure: Mutex::new(Some("the workspace is starting".to_owned())),
            stopping: tokio::sync::watch::Sender::new(false),
            session: tokio::sync::watch::Sender::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the open workshop; none before it is open. Nothing in it may wait.
    pub fn with<R>(&self, work: impl FnOnce(&mut Live) -> R) -> Option<R> {
        self.lock().as_mut().map(work)
    }

    /// Why nobody can be let in; none when ready.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says why nobody can be let in, or that it is ready.
    pub fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Ends what would go on for ever.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Turns true at the end.
    pub fn stopping(&self) -> tokio::sync::watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// The management API has told what it keeps.
    pub fn begin_session(&self) {
        self.session.send_replace(true);
    }

    /// Waits until it is known what was kept of this workspace; false when that takes too long. Alone there is nothing
    /// to wait for.
    pub async fn has_session(&self, patience: Duration) -> bool {
        if self.config.management.is_none() && self.management.get().is_none() {
            return true;
        }
        let mut session = self.session.subscribe();
        tokio::time::timeout(patience, session.wait_for(|begun| *begun)).await.is_ok_and(|begun| begun.is_ok())
    }

    /// Begins with an opened working copy.
    pub fn open(&self, store: Store, workshop: Workshop) -> Result<(), StoreError> {
        let ledger = Ledger::new(workshop.steps.clone(), store.progress()?);
        let custom = store.custom_state()?;
        let active = |row: &&StepProgress| row.status == crate::domain::progress::Status::Active;
        let step = match &self.config.step {
            Some(step) => step.clone(),
            // Alone, the learner goes on where they were.
            None => match ledger.rows().iter().find(active).map(|row| row.step.clone()) {
                Some(step) if ledger.rules(&step).is_some() => step,
                _ => workshop.steps.first().map(|rules| rules.id.clone()).unwrap_or_default(),
            },
        };
        if !workshop.steps.iter().any(|rules| rules.id == step) {
            return Err(StoreError::NoSuchStep(step));
        }
        let live = Live {
            store,
            workshop,
            ledger,
            custom,
            step: step.clone(),
            instance: None,
            epoch: None,
            is_stale: false,
            sequence: 0,
            is_dirty: false,
            report: None,
        };
        *self.lock() = Some(live);
        self.enter(&step)
    }

    /// Puts another artifact of the same workshop in place; progress stays.
    pub fn replace(&self, store: Store, workshop: Workshop) {
        self.with(|live| {
            live.ledger = Ledger::new(workshop.steps.clone(), live.ledger.rows().to_vec());
            live.store = store;
            live.workshop = workshop;
            live.report = None;
        });
        self.write_spec();
        let step = self.with(|live| live.step.clone());
        self.events.send("content", &json!({ "step": step }));
        self.tell(&["steps", "state"]);
    }

    /// Makes `step` the current one, as far as rows and the check spec go.
    pub fn enter(&self, step: &str) -> Result<(), StoreError> {
        let now = now();
        let entered = self.with(|live| {
            live.step = step.to_owned();
            live.report = None;
            live.ledger.enter(step, &now);
            live.store.save_progress(&live.ledger)
        });
        self.write_spec();
        self.mark_changed();
        entered.unwrap_or(Ok(()))
    }

    /// Changes progress; what is written is handed over and told.
    pub fn record(&self, change: impl FnOnce(&mut Ledger)) -> Result<(), StoreError> {
        let recorded = self.with(|live| {
            change(&mut live.ledger);
            live.store.save_progress(&live.ledger)
        });
        self.mark_changed();
        self.tell(&["progress", "steps", "state"]);
        recorded.unwrap_or(Ok(()))
    }

    /// Something is to be handed over.
    pub fn mark_changed(&self) {
        self.with(|live| {
            live.is_dirty = true;
            live.sequence += 1;
        });
        self.changed.notify_one();
    }

    /// Tells the browsers under these names; `state` is put together for each of them.
    pub fn tell(&self, names: &[&'static str]) {
        for name in names {
            match *name {
                "progress" => {
                    if let Some(progress) = self.with(|live| super::api::progress_view(live)) {
                        self.events.send(name, &progress);
                    }
                }
                name => self.events.send(name, &json!({})),
            }
        }
    }

    /// The spec of the current step, for those who look for it where it always is; nobody but us reads it.
    fn write_spec(&self) {
        let directory = self.config.path("/workshop/.goss");
        let spec = self.with(|live| live.store.spec(&live.step).ok().flatten()).flatten();
        let write = || -> std::io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            let file = directory.join("goss.yaml");
            let Some(spec) = &spec else {
                return match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            };
            let new = directory.join(".goss.yaml.new");
            let _ = std::fs::remove_file(&new);
            let mut options = std::fs::OpenOptions::new();
            let mut target = options.write(true).create_new(true).mode(0o600).open(&new)?;
            std::io::Write::write_all(&mut target, spec.as_bytes())?;
            std::fs::rename(&new, &file)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, directory = %directory.display(), "the check spec cannot be written");
        }
    }

    /// Somebody used the workspace.
    pub fn touch(&self) {
        self.used.store(seconds(), Ordering::Relaxed);
    }

    /// When the workspace was last used, in seconds since 1970; 0 for never.
    pub fn used(&self) -> i64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Hands over what was not handed over yet; true when nothing is left.
    pub async fn hand_over(&self) -> bool {
        let Some(management) = self.management.get() else { return true };
        let _saving = self.saving.lock().await;
        let due = self.with(|live| if live.is_dirty { live.snapshot() } else { None }).flatten();
        let Some(snapshot) = due else { return true };
        match management.save(&snapshot).await {
            Ok(()) => {
                self.with(|live| live.is_dirty = live.sequence != snapshot.sequence);
                true
            }
            Err(error) if error.is_stale() => {
                tracing::warn!("another backend has taken over; progress of this one is not kept any more");
                self.with(|live| live.is_stale = true);
                let text = "another container has taken over this workspace; open it again";
                self.events.send("message", &json!({ "level": "error", "message": text }));
                true
            }
            Err(error) => {
                tracing::warn!(error = %super::chain(&error), "progress is not handed over yet");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::progress::Status;

    fn row(status: Status, started: &str, completed: Option<&str>, skipped: bool) -> StepProgress {
        StepProgress {
            step: "one".into(),
            status,
            started_at: Some(started.into()),
            completed_at: completed.map(Into::into),
            skipped,
        }
    }

    #[test]
    fn of_two_rows_what_is_further_and_earlier_stays() {
        let check = |ours: StepProgress, theirs: StepProgress, expected: StepProgress| {
            let mut merged = ours.clone();
            merge_row(&mut merged, &theirs);
            assert_eq!(merged, expected, "{ours:?} {theirs:?}");
        };
        check(
            row(Status::Active, "2", None, false),
            row(Status::Completed, "1", Some("3"), false),
            row(Status::Completed, "1", Some("3"), false),
        );
        check(
            row(Status::Completed, "1", Some("2"), false),
            row(Status::Pending, "3", None, true),
            row(Status::Completed, "1", Some("2"), false),
        );
        check(
            row(Status::Active, "1", None, false),
            row(Status::Pending, "1", None, true),
            row(Status::Active, "1", None, true),
        );
    }
}
