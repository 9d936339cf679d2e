//! What the workspace itself may do to its instance: the operations behind the management API.
//!
//! A backend claims an epoch when it starts; what an older one sends is refused, so that of two at once only the
//! newer one writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::cluster_end::{busy, pause};
use super::end::{End, Held, blocking, identity, same};
use super::operate::set_status;
use super::record::wish_of;
use super::view::Parts;
use super::{Error, Workspaces};
use crate::crd::WorkspaceInstance;
use crate::crd::instance::{ProgressStatus, StepProgress as Row};
use crate::domain::digest::Digest;
use crate::domain::lifecycle::{Extension, extension};
use crate::domain::management::{Instance, Progress, Session, Snapshot, is_within_limits};
use crate::domain::progress::{Status, StepProgress};

/// The most rows of progress.
const MAX_ROWS: usize = 200;
/// The longest text in a row, in bytes.
const MAX_TEXT: usize = 64;
/// How often a snapshot is tried where others write custom state at the same time.
const TRIES: u32 = 5;

/// What a session's operations end with.
pub type SessionError = Error;

impl Workspaces {
    /// The instance with this uid as its own workspace may know it, at this moment.
    pub async fn told(&self, uid: &str) -> Result<Instance, Error> {
        let held = self.inner.end.again(self.session(uid).await?).await?.ok_or_else(|| Error::no_instance(uid))?;
        self.tell_of(&held).await
    }

    /// The same once its version is another one than `version`, or after `wait`.
    ///
    /// What wakes the wait is a change of this instance only. In a cluster it costs no request until there is one: the
    /// mirror says that something changed, and the server is asked what, because a mirror may be older than what the
    /// asker knows.
    pub async fn told_after(&self, uid: &str, version: Option<&str>, wait: Duration) -> Result<Instance, Error> {
        let Some(version) = version.filter(|_| !wait.is_zero()) else { return self.told(uid).await };
        // Subscribed before reading: no change falls between.
        let mut changes = self.watch_instance(uid);
        let until = tokio::time::Instant::now() + wait;
        loop {
            let known = self.tell_of(&self.session(uid).await?).await?;
            if known.version != version {
                let told = self.told(uid).await?;
                if told.version != version {
                    return Ok(told);
                }
            }
            match tokio::time::timeout_at(until, changes.changed()).await {
                Ok(Ok(())) => {}
                // Nothing tells of changes here.
                Ok(Err(_)) => tokio::time::sleep_until(until).await,
                // Time itself changes an instance too: its end comes near.
                Err(_) => return self.tell_of(&self.session(uid).await?).await,
            }
        }
    }

    /// A starting backend takes over: its epoch, and all that is known.
    pub async fn claim(&self, uid: &str) -> Result<Session, Error> {
        let held = self.session(uid).await?;
        let template = self.template_of(&held).await?;
        let claim = move |instance: &WorkspaceInstance, object: &mut Value| {
            let epoch = epoch_of(instance) + 1;
            set_status(object, "epoch", epoch.into());
            set_status(object, "sequence", 0.into());
            Ok::<_, Error>(Session {
                epoch: unsigned(epoch),
                instance: tell(&Parts::new(instance, template.as_deref())),
                progress: Progress { epoch: unsigned(epoch), sequence: 0, steps: rows_of(instance) },
                custom_state: BTreeMap::new(),
            })
        };
        match &self.inner.end {
            End::Store(store) => {
                let (key, uid) = identity(&held);
                blocking(store, move |store| {
                    let claimed = store.change_object(&key, |object, scope| {
                        let mut session = claim(&same(object, &key, &uid)?, object)?;
                        session.custom_state = scope.custom_state(&uid)?;
                        Ok::<_, Error>(session)
                    })?;
                    claimed.ok_or_else(|| Error::no_instance(&uid))
                })
                .await
            }
            End::Cluster(cluster) => {
                let (mut session, claimed) = cluster.change(&held, claim).await?;
                // Read after the claim: from then on nobody older writes.
                session.custom_state = cluster.custom_state(&claimed).await?;
                Ok(session)
            }
        }
    }

    /// Keeps a snapshot of progress in place of the one before.
    pub async fn write_progress(&self, uid: &str, snapshot: &Snapshot) -> Result<(), Error> {
        check_snapshot(snapshot)?;
        let rows: Vec<Row> = snapshot.steps.iter().map(row_to).collect();
        let rows = serde_json::to_value(rows).map_err(|source| Error::Unreadable { name: uid.to_owned(), source })?;
        let held = self.session(uid).await?;
        let (epoch, sequence) = (snapshot.epoch, snapshot.sequence);
        let keep =
            move |instance: &WorkspaceInstance, object: &mut Value| keep(instance, object, epoch, sequence, &rows);
        match &self.inner.end {
            End::Store(store) => {
                let ((key, uid), state) = (identity(&held), snapshot.custom_state.clone());
                blocking(store, move |store| {
                    let kept = store.change_object(&key, |object, scope| {
                        keep(&same(object, &key, &uid)?, object)?;
                        scope.write_custom_state(&uid, &state).map_err(Error::from)
                    })?;
                    kept.ok_or_else(|| Error::no_instance(&uid))
                })
                .await
            }
            End::Cluster(cluster) => {
                for tried in 0..TRIES {
                    pause(tried).await;
                    // The instance first: it says whether this backend may still write.
                    let ((), instance) = cluster.change(&held, &keep).await?;
                    let state = &snapshot.custom_state;
                    if cluster.write_custom_state(&instance, (epoch, sequence), state).await? {
                        return Ok(());
                    }
                }
                Err(busy(uid))
            }
        }
    }

    /// The workspace asks to go to a step; its gates were its own matter.
    pub async fn request_step(&self, uid: &str, epoch: u64, step: &str) -> Result<(), Error> {
        let (held, step) = (self.session(uid).await?, step.to_owned());
        let go = move |parts: &Parts<'_>, object: &mut Value| {
            check_epoch(parts.instance, epoch)?;
            let steps = parts.steps();
            if !steps.contains(&step) {
                return Err(Error::no_step(&step, &steps));
            }
            object["spec"]["currentStep"] = step.clone().into();
            Ok(())
        };
        self.change_held(&held, go).await.map(drop)
    }

    /// The workspace asks for its step anew.
    pub async fn request_reset(&self, uid: &str, epoch: u64) -> Result<(), Error> {
        let (held, now) = (self.session(uid).await?, Timestamp::now());
        let reset = move |parts: &Parts<'_>, object: &mut Value| {
            check_epoch(parts.instance, epoch)?;
            object["spec"]["resetRequest"] = now.to_string().into();
            Ok(())
        };
        self.change_held(&held, reset).await.map(drop)
    }

    /// The workspace asks for more time, within its learner's limit; the new end as RFC 3339.
    pub async fn request_extension(&self, uid: &str, by: Option<Duration>) -> Result<String, Error> {
        self.extend_held(&self.session(uid).await?, Extension { by, is_learner: true }).await
    }

    /// The bytes of the artifact that the instance is pinned to; no other is given.
    ///
    /// They are in the state directory of the replica that brought the workshop in, and in a cluster, where they are
    /// small, in a ConfigMap in the namespace of each workspace too.
    pub async fn artifact(&self, uid: &str, digest: &str) -> Result<Vec<u8>, Error> {
        let held = self.session(uid).await?;
        let pinned = self.tell_of(&held).await?.artifact.digest;
        let parsed = digest.parse::<Digest>().ok().filter(|_| pinned == digest).ok_or_else(|| Error::NotFound {
            what: "artifact",
            name: digest.to_owned(),
            help: Some(format!("the instance is pinned to {pinned}")),
        })?;
        self.find_artifact(&held, parsed).await
    }

    /// The bytes of an artifact: out of the state directory, else out of the cluster, else from where
    /// [`Self::bring_artifacts_by`] says.
    pub async fn find_artifact(&self, instance: &WorkspaceInstance, digest: Digest) -> Result<Vec<u8>, Error> {
        let path = crate::pipeline::sync::artifact_path(&self.inner.state, digest);
        let failed = |source| Error::Artifact { digest: digest.to_string(), source };
        let missing = match tokio::fs::read(&path).await {
            Ok(bytes) => return Ok(bytes),
            Err(source) => failed(source),
        };
        let End::Cluster(cluster) = &self.inner.end else { return Err(missing) };
        if let Some(bytes) = cluster.artifact(instance, &digest).await? {
            return Ok(bytes);
        }
        let mut why = String::new();
        if let Some(bring) = self.inner.bring.get() {
            match bring(Arc::new(instance.clone()), digest).await {
                Ok(()) => return tokio::fs::read(&path).await.map_err(failed),
                Err(reason) => why = format!(": {reason}"),
            }
        }
        let message = format!("the artifact {digest} is neither in the state directory nor in the cluster{why}");
        let help = "the next sync of its repository brings it back; ask again then";
        Err(Error::unavailable("ArtifactAway", message, help))
    }

    async fn session(&self, uid: &str) -> Result<Held, Error> {
        self.inner.end.instance_by_uid(uid).await?.ok_or_else(|| Error::no_instance(uid))
    }

    async fn tell_of(&self, instance: &Held) -> Result<Instance, Error> {
        let template = self.template_of(instance).await?;
        Ok(tell(&Parts::new(instance, template.as_deref())))
    }
}

/// Puts progress into an instance, unless it is of an older backend or older than what is kept.
fn keep(
    instance: &WorkspaceInstance,
    object: &mut Value,
    epoch: u64,
    sequence: u64,
    rows: &Value,
) -> Result<(), Error> {
    check_epoch(instance, epoch)?;
    let known = instance.status.as_ref().and_then(|status| status.sequence).map_or(0, unsigned);
    // The same one again is a repeated request, whose answer was lost.
    if sequence < known {
        let message = format!("snapshot {sequence} is older than the kept one, {known}");
        return Err(Error::refused("StaleEpoch", message, "send the newest progress"));
    }
    let kept = object.pointer("/status/progress");
    let is_same = kept.map_or(rows.as_array().is_some_and(Vec::is_empty), |kept| kept == rows);
    // The next one with the same rows need not be written: there is none between both that could still come.
    if !is_same || sequence > known + 1 {
        set_status(object, "progress", rows.clone());
        set_status(object, "sequence", signed(sequence).into());
    }
    Ok(())
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
