//! What can be asked of an instance that exists: another step, anew, sleep, wake, more time, its end.
//!
//! Each is one write of the object's spec, or of the part of its status that says what people did.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::end::{End, Held, blocking, mark_deleted};
use super::record::moment_text;
use super::view::Parts;
use super::{Error, InstanceView, Workspaces, key};
use crate::adapters::cluster;
use crate::crd::{WorkspaceInstance, labels};
use crate::domain::lifecycle::{Extension, SleepCause, extension};

/// Activity closer together than this is written once.
const ACTIVITY_GRAIN: Duration = Duration::from_secs(5);
/// The same in a cluster, where each write goes through all replicas of the API server's store.
const CLUSTER_GRAIN: Duration = Duration::from_secs(60);

impl Workspaces {
    /// Deletes an instance: it is `Terminating` until what runs for it is taken away.
    pub async fn delete(&self, reference: &str) -> Result<(), Error> {
        match &self.inner.end {
            End::Store(store) => {
                let name = reference.to_owned();
                blocking(store, move |store| {
                    let live = store.object(&key(&name))?.ok_or_else(|| Error::no_instance(&name))?;
                    // Where nothing was ever started there is nothing to wait for.
                    if live.manifest.pointer("/status/pinned").is_none() {
                        store.delete_object(&live.key, &live.uid)?;
                        return Ok(());
                    }
                    mark_deleted(store, &live)
                })
                .await
            }
            End::Cluster(cluster) => {
                let key = cluster.key(reference);
                // As JSON: what cannot be read can be deleted.
                let object = cluster.object(&key).await?.ok_or_else(|| Error::no_instance(reference))?;
                if object.pointer("/metadata/deletionTimestamp").is_some() {
                    return Ok(());
                }
                let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
                match cluster.cluster.delete(&key, uid).await {
                    Err(cluster::Error::Stale { .. }) => Err(Error::no_instance(reference)),
                    deleted => Ok(deleted?),
                }
            }
        }
    }

    /// Goes to a step; gates do not bind.
    pub async fn goto(&self, reference: &str, step: &str) -> Result<InstanceView, Error> {
        let (step, now) = (step.to_owned(), Timestamp::now());
        self.change(reference, move |parts, object| {
            let steps = parts.steps();
            if !steps.contains(&step) {
                return Err(Error::no_step(&step, &steps));
            }
            let is_there = parts.step() == step;
            object["spec"]["currentStep"] = step.clone().into();
            // A move wakes one that nobody used by itself; else going there is a use.
            let is_over = parts.record.asleep.is_some_and(|asleep| asleep.cause == SleepCause::Expired);
            if is_over || is_there {
                rouse(parts, object, now);
            }
            Ok(())
        })
        .await
    }

    /// Starts its step anew, and wakes it for that; it moves to its template's revision.
    pub async fn reset(&self, reference: &str) -> Result<InstanceView, Error> {
        let now = Timestamp::now();
        self.change(reference, move |_, object| {
            object["spec"]["resetRequest"] = new_value(now).into();
            Ok(())
        })
        .await
    }

    /// Moves it to its template's revision.
    pub async fn update(&self, reference: &str) -> Result<InstanceView, Error> {
        let id = self.held(reference).await?.spec.template_ref.name.clone();
        // Read before: a change asks for nothing else.
        let offer = self.template(&id).await?.ok_or_else(|| {
            let message = format!("its workshop \"{id}\" is not there any more");
            Error::refused("TemplateGone", message, "it goes on with what it runs")
        })?;
        let now = Timestamp::now();
        self.change(reference, move |parts, object| {
            let step = parts.step();
            if !offer.spec.steps.iter().any(|offered| offered.id == step) {
                let message = format!("its step \"{step}\" is not in the newest revision of \"{id}\"");
                return Err(Error::refused("StepGone", message, "go to another step first"));
            }
            object["metadata"]["annotations"][labels::UPDATE] = new_value(now).into();
            Ok(())
        })
        .await
    }

    /// Puts it to sleep until [`Self::resume`].
    pub async fn suspend(&self, reference: &str) -> Result<InstanceView, Error> {
        self.change(reference, |_, object| {
            object["spec"]["suspended"] = true.into();
            Ok(())
        })
        .await
    }

    /// Wakes it, whoever put it to sleep, and tries again where it failed.
    pub async fn resume(&self, reference: &str) -> Result<InstanceView, Error> {
        let now = Timestamp::now();
        self.change(reference, move |parts, object| {
            if object["spec"].get("suspended").is_some() {
                object["spec"]["suspended"] = false.into();
            }
            rouse(parts, object, now);
            Ok(())
        })
        .await
    }

    /// Wakes it because somebody wants to use it; one that somebody put to sleep stays so.
    pub async fn wake(&self, reference: &str) -> Result<InstanceView, Error> {
        let now = Timestamp::now();
        self.change(reference, move |parts, object| {
            if parts.record.asleep.is_some() {
                rouse(parts, object, now);
            }
            Ok(())
        })
        .await
    }

    /// Keeps it from ending and from sleeping by itself, or not any more.
    pub async fn hold(&self, reference: &str, hold: bool) -> Result<InstanceView, Error> {
        self.change(reference, move |_, object| {
            object["spec"]["hold"] = hold.into();
            Ok(())
        })
        .await
    }

    /// Gives it more time, without its learner's limit; the new end as RFC 3339.
    pub async fn extend(&self, reference: &str, by: Option<Duration>) -> Result<String, Error> {
        let held = self.held(reference).await?;
        self.extend_held(&held, Extension { by, is_learner: false }).await
    }

    pub(super) async fn extend_held(&self, held: &Held, asked: Extension) -> Result<String, Error> {
        let now = Timestamp::now();
        let extend = move |parts: &Parts<'_>, object: &mut Value| {
            let ttl = parts.settings.lifecycle.ttl.get();
            let end = extension(asked, ttl, parts.record.started_at, parts.expires_at(), now);
            let Some(end) = end else {
                let (message, help) = if parts.record.started_at.is_none() {
                    ("it has not started: its time does not run yet", "extend it once it runs")
                } else {
                    ("its time cannot be extended any further", "ask who runs the workshop")
                };
                return Err(Error::refused("ExtendRefused", message, help));
            };
            // Whole seconds: a spec is read by people. The status follows when the operator looks; until then the later
            // of both counts, so that one write is enough.
            let end = Timestamp::from_second(end.as_second()).unwrap_or(end).to_string();
            object["spec"]["expiresAt"] = end.clone().into();
            Ok(end)
        };
        Ok(self.change_held(held, extend).await?.0)
    }

    /// Says that the instance with this uid was used; that wakes one that fell asleep before.
    pub async fn touch(&self, uid: &str, at: Timestamp) -> Result<(), Error> {
        let held = self.inner.end.instance_by_uid(uid).await?.ok_or_else(|| Error::no_instance(uid))?;
        // A clock that runs ahead must not keep it awake for ever.
        let at = at.min(Timestamp::now());
        let grain = match &self.inner.end {
            End::Store(_) => ACTIVITY_GRAIN,
            End::Cluster(_) => {
                let template = self.template_of(&held).await?;
                let timeout = Parts::new(&held, template.as_deref()).settings.lifecycle.idle_timeout.get();
                (timeout / 10).clamp(ACTIVITY_GRAIN, CLUSTER_GRAIN)
            }
        };
        if is_known(&held, at, grain) {
            return Ok(());
        }
        let touch = move |instance: &WorkspaceInstance, object: &mut Value| {
            if !is_known(instance, at, grain) {
                set_status(object, "lastActivityAt", moment_text(at).into());
            }
            Ok(())
        };
        self.inner.end.change(&held, touch).await.map(drop)
    }

    /// Changes the instance of this reference and shows it as it is then.
    async fn change(
        &self,
        reference: &str,
        change: impl Fn(&Parts<'_>, &mut Value) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        let held = self.held(reference).await?;
        let ((), changed) = self.change_held(&held, change).await?;
        self.view(&changed).await
    }

    /// Changes an instance, unless it is being deleted or another one has its name by now; what `change` gave, and the
    /// instance as it is then. `change` may be asked several times, and has to give the same for the same.
    pub(super) async fn change_held<T: Send + 'static>(
        &self,
        held: &WorkspaceInstance,
        change: impl Fn(&Parts<'_>, &mut Value) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<(T, Held), Error> {
        // Read before the transaction: the store is not asked for another object inside it.
        let template = self.template_of(held).await?;
        let change = move |instance: &WorkspaceInstance, object: &mut Value| {
            if instance.metadata.deletion_timestamp.is_some() {
                let name = instance.metadata.name.as_deref().unwrap_or_default();
                return Err(Error::refused("Terminating", format!("\"{name}\" is being deleted"), "make a new one"));
            }
            change(&Parts::new(instance, template.as_deref()), object)
        };
        self.inner.end.change(held, change).await
    }
}

/// Whether a use at `at` need not be written: a later one is, or one just before it while it is awake.
fn is_known(instance: &WorkspaceInstance, at: Timestamp, grain: Duration) -> bool {
    let Some(status) = &instance.status else { return false };
    let last = status.last_activity_at.as_ref().and_then(|last| last.parse::<Timestamp>().ok());
    let is_close = |last: Timestamp| status.asleep.is_none() && at.duration_since(last).unsigned_abs() < grain;
    last.is_some_and(|last| at <= last || is_close(last))
}

/// Sets a field of an object's status.
pub(super) fn set_status(object: &mut Value, field: &str, value: Value) {
    if !object.get("status").is_some_and(Value::is_object) {
        object["status"] = json!({});
    }
    object["status"][field] = value;
}

/// Counts as use from now on, and forgets failed starts.
fn rouse(parts: &Parts<'_>, object: &mut Value, now: Timestamp) {
    // Later than the sleep even where both are in one millisecond.
    let since = parts.record.asleep.map(|asleep| asleep.since);
    let at = since.map_or(now, |since| now.max(since + Duration::from_millis(1)));
    set_status(object, "lastActivityAt", moment_text(at).into());
    if let Some(status) = object["status"].as_object_mut() {
        status.remove("restarts");
    }
}

/// A value that was never there before: what asks for a reset or an update.
fn new_value(now: Timestamp) -> String {
    now.to_string()
}
