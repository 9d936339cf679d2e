//! What can be asked of an instance that exists: another step, anew, sleep, wake, more time, its end.
//!
//! Each is one write of the object's spec, or of the part of its status that says what people did.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::record::moment_text;
use super::view::Parts;
use super::{Error, InstanceView, Workspaces, key, read_instance};
use crate::crd::labels;
use crate::domain::lifecycle::{Extension, extension};
use crate::domain::object::Live;

/// Activity closer together than this is written once.
const ACTIVITY_GRAIN: Duration = Duration::from_secs(5);

impl Workspaces {
    /// Deletes an instance: it is `Terminating` until what runs for it is taken away.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        let live = self.inner.store.object(&key(name))?.ok_or_else(|| Error::no_instance(name))?;
        // Where nothing was ever started there is nothing to wait for.
        if live.manifest.pointer("/status/pinned").is_none() {
            self.inner.store.delete_object(&live.key, &live.uid)?;
            return Ok(());
        }
        self.mark_deleted(&live)
    }

    /// Marks an instance as deleted; the operator does the rest.
    pub fn mark_deleted(&self, live: &Live) -> Result<(), Error> {
        let now = moment_text(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default());
        self.inner.store.change_object(&live.key, |object, _| {
            if object.pointer("/metadata/uid").and_then(Value::as_str) == Some(&live.uid)
                && object.pointer("/metadata/deletionTimestamp").is_none()
            {
                object["metadata"]["deletionTimestamp"] = now.into();
            }
            Ok::<_, Error>(())
        })?;
        Ok(())
    }

    /// Goes to a step; gates do not bind.
    pub fn goto(&self, name: &str, step: &str) -> Result<InstanceView, Error> {
        self.change(name, |parts, object| {
            let steps = parts.steps();
            if !steps.iter().any(|known| known == step) {
                return Err(Error::no_step(step, &steps));
            }
            object["spec"]["currentStep"] = step.into();
            // Whoever moves it wants it awake.
            rouse(parts, object, Timestamp::now());
            Ok(())
        })
    }

    /// Starts its step anew; it moves to its template's revision.
    pub fn reset(&self, name: &str) -> Result<InstanceView, Error> {
        self.change(name, |parts, object| {
            object["spec"]["resetRequest"] = new_value().into();
            rouse(parts, object, Timestamp::now());
            Ok(())
        })
    }

    /// Moves it to its template's revision.
    pub fn update(&self, name: &str) -> Result<InstanceView, Error> {
        let live = self.inner.store.object(&key(name))?.ok_or_else(|| Error::no_instance(name))?;
        let id = read_instance(&live)?.spec.template_ref.name;
        // Read before: a change asks the store for nothing else.
        let offer = self.template(&id)?.ok_or_else(|| {
            let message = format!("its workshop \"{id}\" is not there any more");
            Error::refused("TemplateGone", message, "it goes on with what it runs")
        })?;
        self.change(name, |parts, object| {
            let step = parts.step();
            if !offer.spec.steps.iter().any(|offered| offered.id == step) {
                let message = format!("its step \"{step}\" is not in the newest revision of \"{id}\"");
                return Err(Error::refused("StepGone", message, "go to another step first"));
            }
            object["metadata"]["annotations"][labels::UPDATE] = new_value().into();
            Ok(())
        })
    }

    /// Puts it to sleep until [`Self::resume`].
    pub fn suspend(&self, name: &str) -> Result<InstanceView, Error> {
        self.change(name, |_, object| {
            object["spec"]["suspended"] = true.into();
            Ok(())
        })
    }

    /// Wakes it, whoever put it to sleep, and tries again where it failed.
    pub fn resume(&self, name: &str) -> Result<InstanceView, Error> {
        self.change(name, |parts, object| {
            if object["spec"].get("suspended").is_some() {
                object["spec"]["suspended"] = false.into();
            }
            rouse(parts, object, Timestamp::now());
            Ok(())
        })
    }

    /// Wakes it because somebody wants to use it; one that somebody put to sleep stays so.
    pub fn wake(&self, name: &str) -> Result<InstanceView, Error> {
        self.change(name, |parts, object| {
            if parts.record.asleep.is_some() {
                rouse(parts, object, Timestamp::now());
            }
            Ok(())
        })
    }

    /// Keeps it from ending and from sleeping by itself, or not any more.
    pub fn hold(&self, name: &str, hold: bool) -> Result<InstanceView, Error> {
        self.change(name, |_, object| {
            object["spec"]["hold"] = hold.into();
            Ok(())
        })
    }

    /// Gives it more time, without its learner's limit; the new end as RFC 3339.
    pub fn extend(&self, name: &str, by: Option<Duration>) -> Result<String, Error> {
        let live = self.inner.store.object(&key(name))?.ok_or_else(|| Error::no_instance(name))?;
        self.extend_object(&live, Extension { by, is_learner: false })
    }

    pub(super) fn extend_object(&self, live: &Live, asked: Extension) -> Result<String, Error> {
        self.change_live(live, |parts, object| {
            let ttl = parts.settings.lifecycle.ttl.get();
            let end = extension(asked, ttl, parts.record.started_at, parts.expires_at(), Timestamp::now());
            let Some(end) = end else {
                let (message, help) = if parts.record.started_at.is_none() {
                    ("it has not started: its time does not run yet", "extend it once it runs")
                } else {
                    ("its time cannot be extended any further", "ask who runs the workshop")
                };
                return Err(Error::refused("ExtendRefused", message, help));
            };
            // Whole seconds: a spec is read by people.
            let end = Timestamp::from_second(end.as_second()).unwrap_or(end).to_string();
            object["spec"]["expiresAt"] = end.clone().into();
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.insert("expiresAt".into(), end.clone().into());
            }
            Ok(end)
        })
    }

    /// Says that the instance with this uid was used; that wakes one that fell asleep before.
    pub fn touch(&self, uid: &str, at: Timestamp) -> Result<(), Error> {
        let live = self.live_by_uid(uid)?.ok_or_else(|| Error::no_instance(uid))?;
        // A clock that runs ahead must not keep it awake for ever.
        let at = at.min(Timestamp::now());
        let last = live.text("/status/lastActivityAt").and_then(|last| last.parse::<Timestamp>().ok());
        let is_asleep = live.manifest.pointer("/status/asleep").is_some();
        if last
            .is_some_and(|last| at <= last || (!is_asleep && at.duration_since(last).unsigned_abs() < ACTIVITY_GRAIN))
        {
            return Ok(());
        }
        self.inner.store.change_object(&live.key, |object, _| {
            set_status(object, "lastActivityAt", moment_text(at).into());
            Ok::<_, Error>(())
        })?;
        Ok(())
    }

    /// Changes the instance of this name and shows it as it is then.
    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&Parts<'_>, &mut Value) -> Result<(), Error>,
    ) -> Result<InstanceView, Error> {
        let live = self.inner.store.object(&key(name))?.ok_or_else(|| Error::no_instance(name))?;
        self.change_live(&live, change)?;
        self.get(name)?.ok_or_else(|| Error::no_instance(name))
    }

    /// Changes an instance, unless it is being deleted or another one has its name by now.
    pub(super) fn change_live<T>(
        &self,
        live: &Live,
        change: impl FnOnce(&Parts<'_>, &mut Value) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let name = &live.key.name;
        // Read before the transaction: the store is not asked for another object inside it.
        let template = self.template_of(&read_instance(live)?)?;
        let changed = self.inner.store.change_object(&live.key, |object, _| {
            let now = Live::from_manifest(object.clone()).filter(|now| now.uid == live.uid);
            let now = now.ok_or_else(|| Error::no_instance(name))?;
            let instance = read_instance(&now)?;
            if instance.metadata.deletion_timestamp.is_some() {
                return Err(Error::refused("Terminating", format!("\"{name}\" is being deleted"), "make a new one"));
            }
            change(&Parts::new(&instance, template.as_ref()), object)
        })?;
        changed.ok_or_else(|| Error::no_instance(name))
    }
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
fn new_value() -> String {
    Timestamp::now().to_string()
}
