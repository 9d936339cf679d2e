//! What the workspace itself may do to its instance: the operations behind the management API.
//!
//! A backend claims an epoch when it starts; what an older one sends is refused, so that of two at once only the
//! newer one writes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::operate::set_status;
use super::record::wish_of;
use super::view::Parts;
use super::{Error, Workspaces, read_instance};
use crate::crd::WorkspaceInstance;
use crate::crd::instance::{ProgressStatus, StepProgress as Row};
use crate::domain::lifecycle::{Extension, extension};
use crate::domain::management::{Instance, Progress, Session, Snapshot, is_within_limits};
use crate::domain::object::Live;
use crate::domain::progress::{Status, StepProgress};

/// The most rows of progress.
const MAX_ROWS: usize = 200;
/// The longest text in a row, in bytes.
const MAX_TEXT: usize = 64;

/// What a session's operations end with.
pub type SessionError = Error;

impl Workspaces {
    /// The instance with this uid as its own workspace may know it.
    pub fn told(&self, uid: &str) -> Result<Instance, Error> {
        let live = self.session_live(uid)?;
        let instance = read_instance(&live)?;
        let template = self.template_of(&instance)?;
        Ok(tell(&Parts::new(&instance, template.as_ref())))
    }

    /// A starting backend takes over: its epoch, and all that is known.
    pub fn claim(&self, uid: &str) -> Result<Session, Error> {
        let live = self.session_live(uid)?;
        let template = self.template_of(&read_instance(&live)?)?;
        let claimed = self.inner.store.change_object(&live.key, |object, scope| {
            let instance = same(object, uid)?;
            let epoch = epoch_of(&instance) + 1;
            set_status(object, "epoch", epoch.into());
            set_status(object, "sequence", 0.into());
            Ok::<_, Error>(Session {
                epoch: unsigned(epoch),
                instance: tell(&Parts::new(&instance, template.as_ref())),
                progress: Progress { epoch: unsigned(epoch), sequence: 0, steps: rows_of(&instance) },
                custom_state: scope.custom_state(uid)?,
            })
        })?;
        claimed.ok_or_else(|| Error::no_instance(uid))
    }

    /// Progress and custom state as they are kept.
    pub fn progress(&self, uid: &str) -> Result<(Progress, BTreeMap<String, String>), Error> {
        let live = self.session_live(uid)?;
        let read = self.inner.store.change_object(&live.key, |object, scope| {
            let instance = same(object, uid)?;
            let status = instance.status.as_ref();
            let sequence = status.and_then(|status| status.sequence).unwrap_or_default();
            let (epoch, steps) = (unsigned(epoch_of(&instance)), rows_of(&instance));
            Ok::<_, Error>((Progress { epoch, sequence: unsigned(sequence), steps }, scope.custom_state(uid)?))
        })?;
        read.ok_or_else(|| Error::no_instance(uid))
    }

    /// Keeps a snapshot of progress in place of the one before.
    pub fn write_progress(&self, uid: &str, snapshot: &Snapshot) -> Result<(), Error> {
        check_snapshot(snapshot)?;
        let rows: Vec<Row> = snapshot.steps.iter().map(row_to).collect();
        let rows = serde_json::to_value(rows).map_err(|source| Error::Unreadable { name: uid.to_owned(), source })?;
        let live = self.session_live(uid)?;
        self.inner
            .store
            .change_object(&live.key, |object, scope| {
                let instance = same(object, uid)?;
                check_epoch(&instance, snapshot.epoch)?;
                let known = instance.status.as_ref().and_then(|status| status.sequence).map_or(0, unsigned);
                // The same one again is a repeated request, whose answer was lost.
                if snapshot.sequence < known {
                    let message = format!("snapshot {} is older than the kept one, {known}", snapshot.sequence);
                    return Err(Error::refused("StaleEpoch", message, "send the newest progress"));
                }
                set_status(object, "progress", rows);
                set_status(object, "sequence", signed(snapshot.sequence).into());
                scope.write_custom_state(uid, &snapshot.custom_state).map_err(Error::from)
            })?
            .ok_or_else(|| Error::no_instance(uid))
    }

    /// The workspace asks to go to a step; its gates were its own matter.
    pub fn request_step(&self, uid: &str, epoch: u64, step: &str) -> Result<(), Error> {
        let live = self.session_live(uid)?;
        self.change_live(&live, |parts, object| {
            check_epoch(parts.instance, epoch)?;
            let steps = parts.steps();
            if !steps.iter().any(|known| known == step) {
                return Err(Error::no_step(step, &steps));
            }
            object["spec"]["currentStep"] = step.into();
            Ok(())
        })
    }

    /// The workspace asks for its step anew.
    pub fn request_reset(&self, uid: &str, epoch: u64) -> Result<(), Error> {
        let live = self.session_live(uid)?;
        self.change_live(&live, |parts, object| {
            check_epoch(parts.instance, epoch)?;
            object["spec"]["resetRequest"] = Timestamp::now().to_string().into();
            Ok(())
        })
    }

    /// The workspace asks for more time, within its learner's limit; the new end as RFC 3339.
    pub fn request_extension(&self, uid: &str, by: Option<std::time::Duration>) -> Result<String, Error> {
        self.extend_object(&self.session_live(uid)?, Extension { by, is_learner: true })
    }

    /// The bytes of the artifact that the instance is pinned to; no other is given.
    pub fn artifact(&self, uid: &str, digest: &str) -> Result<Vec<u8>, Error> {
        let instance = self.told(uid)?;
        let known = instance.artifact.digest == digest;
        let path = self.artifact_path(digest).filter(|_| known).ok_or_else(|| Error::NotFound {
            what: "artifact",
            name: digest.to_owned(),
            help: Some(format!("the instance is pinned to {}", instance.artifact.digest)),
        })?;
        std::fs::read(path).map_err(|source| Error::Artifact { digest: digest.to_owned(), source })
    }

    fn session_live(&self, uid: &str) -> Result<Live, Error> {
        self.live_by_uid(uid)?.ok_or_else(|| Error::no_instance(uid))
    }
}

/// The instance as its workspace may know it.
fn tell(parts: &Parts<'_>) -> Instance {
    let now = Timestamp::now();
    let (ttl, hold) = (parts.settings.lifecycle.ttl.get(), wish_of(parts.instance).hold);
    let asked = Extension { by: None, is_learner: true };
    let end = extension(asked, ttl, parts.record.started_at, parts.expires_at(), now);
    // Asked early, extending would only be clicking: it is offered once the end is near.
    parts.told(end.is_some() && !hold && parts.is_warning(now), now)
}

/// The instance in `object`, if it still is the one with this uid.
fn same(object: &Value, uid: &str) -> Result<WorkspaceInstance, Error> {
    let live = Live::from_manifest(object.clone()).filter(|live| live.uid == uid);
    read_instance(&live.ok_or_else(|| Error::no_instance(uid))?)
}

fn epoch_of(instance: &WorkspaceInstance) -> i64 {
    instance.status.as_ref().and_then(|status| status.epoch).unwrap_or_default()
}

fn check_epoch(instance: &WorkspaceInstance, epoch: u64) -> Result<(), Error> {
    let known = unsigned(epoch_of(instance));
    if epoch == known {
        return Ok(());
    }
    let message = format!("epoch {epoch} is not the newest one, {known}: another backend took over");
    Err(Error::refused("StaleEpoch", message, "claim a new epoch by POST sessions"))
}

fn check_snapshot(snapshot: &Snapshot) -> Result<(), Error> {
    let invalid = |message: String| Err(Error::Invalid { message, help: None });
    if snapshot.steps.len() > MAX_ROWS {
        return invalid(format!("progress has {} rows, more than {MAX_ROWS}", snapshot.steps.len()));
    }
    if !is_within_limits(&snapshot.custom_state) {
        return invalid("custom state is more than 64 entries of 4 KiB, or a key is not a plain name".to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    for row in &snapshot.steps {
        if row.step.is_empty() || row.step.len() > MAX_TEXT || !seen.insert(&row.step) {
            return invalid(format!("progress has no or two rows for a step called {:?}", cut(&row.step)));
        }
        for moment in [&row.started_at, &row.completed_at].into_iter().flatten() {
            if moment.len() > MAX_TEXT || moment.parse::<Timestamp>().is_err() {
                return invalid(format!("{:?} is no moment such as 2027-01-31T12:00:00Z", cut(moment)));
            }
        }
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

fn rows_of(instance: &WorkspaceInstance) -> Vec<StepProgress> {
    let rows = instance.status.iter().flat_map(|status| &status.progress);
    rows.map(|row| StepProgress {
        step: row.step.clone(),
        status: match row.status {
            ProgressStatus::Pending => Status::Pending,
            ProgressStatus::Active => Status::Active,
            ProgressStatus::Completed => Status::Completed,
        },
        started_at: row.started_at.clone(),
        completed_at: row.completed_at.clone(),
        skipped: row.skipped,
    })
    .collect()
}

fn row_to(row: &StepProgress) -> Row {
    Row {
        step: row.step.clone(),
        status: match row.status {
            Status::Pending => ProgressStatus::Pending,
            Status::Active => ProgressStatus::Active,
            Status::Completed => ProgressStatus::Completed,
        },
        started_at: row.started_at.clone(),
        completed_at: row.completed_at.clone(),
        skipped: row.skipped,
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
