//! Between the wire form of an instance and the values of `domain::lifecycle`, both ways and without loss.
//!
//! The cluster's operator and the local one use the same; nothing is decided here.

use jiff::Timestamp;
use serde_json::Value;

use crate::crd::conditions::{self, EXPIRING, READY, RECONCILING, STALLED, UPDATE_AVAILABLE};
use crate::crd::{WorkspaceInstance, WorkspaceInstanceStatus, WorkspaceTemplate, instance, labels};
use crate::domain::lifecycle::{Asleep, Reason, Record, Restarts, Revision, Run, SleepCause, Step, Wish};
use crate::domain::management::Phase;
use crate::domain::object::Live;
use crate::domain::workspace::Permit;

/// The instance in `live`.
pub fn read_instance(live: &Live) -> Result<WorkspaceInstance, serde_json::Error> {
    serde_json::from_value(live.manifest.clone())
}

/// A moment as it stands in an object; milliseconds are kept, because a use just after falling asleep counts.
#[must_use]
pub fn moment_text(moment: Timestamp) -> String {
    let millis = moment.as_millisecond();
    let rounded = Timestamp::from_millisecond(millis).unwrap_or(moment);
    if millis % 1000 == 0 { rounded.to_string() } else { format!("{rounded:.3}") }
}

fn moment(text: Option<&String>) -> Option<Timestamp> {
    text.and_then(|text| text.parse().ok())
}

/// What the spec of `instance` asks for.
#[must_use]
pub fn wish_of(instance: &WorkspaceInstance) -> Wish {
    let spec = &instance.spec;
    let annotations = instance.metadata.annotations.as_ref();
    Wish {
        step: spec.current_step.clone(),
        suspended: spec.suspended.unwrap_or(false),
        hold: spec.hold.unwrap_or(false),
        expires_at: moment(spec.expires_at.as_ref()),
        reset: spec.reset_request.clone(),
        update: annotations.and_then(|annotations| annotations.get(labels::UPDATE)).cloned(),
        is_deleted: instance.metadata.deletion_timestamp.is_some(),
    }
}

/// The overrides of `instance` in the shape of workspace.yaml.
#[must_use]
pub fn overrides_of(instance: &WorkspaceInstance) -> Option<Value> {
    instance.spec.overrides.as_ref().and_then(|overrides| serde_json::to_value(overrides).ok())
}

/// What a template lets its instances loosen.
#[must_use]
pub fn permit_of(template: &WorkspaceTemplate) -> Permit {
    let annotations = template.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(labels::ALLOW));
    text.map(|text| Permit::parse(text)).unwrap_or_default()
}

/// What a template offers now.
#[must_use]
pub fn revision_of(template: &WorkspaceTemplate) -> Revision {
    let spec = &template.spec;
    let annotations = template.metadata.annotations.as_ref();
    let unit_key = annotations.and_then(|annotations| annotations.get(labels::UNIT_KEY)).cloned();
    Revision {
        unit_key: unit_key.unwrap_or_default(),
        artifact: spec.artifact.digest.clone(),
        artifact_size: u64::try_from(spec.artifact.size).unwrap_or_default(),
        steps: spec
            .steps
            .iter()
            .map(|step| Step {
                id: step.id.clone(),
                title: step.title.clone(),
                image_tag: step.image_tag.clone(),
                image_digest: step.image_digest.clone(),
            })
            .collect(),
        defaults: serde_json::to_value(&spec.defaults).unwrap_or_default(),
    }
}

/// What the status of an instance says.
#[must_use]
pub fn record_of(status: &WorkspaceInstanceStatus) -> Record {
    let flag = |kind| conditions::get(&status.conditions, kind).is_some_and(|condition| condition.status == "True");
    Record {
        phase: status.phase.map(phase_of).unwrap_or_default(),
        reason: None,
        message: status.message.clone(),
        step: status.current_step.clone(),
        started_at: moment(status.started_at.as_ref()),
        expires_at: moment(status.expires_at.as_ref()),
        last_activity_at: moment(status.last_activity_at.as_ref()),
        pin: status.pinned.as_ref().map(|pin| Revision {
            unit_key: pin.unit_key.clone(),
            artifact: pin.artifact_digest.clone(),
            artifact_size: pin.artifact_size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            steps: pin
                .steps
                .iter()
                .map(|step| Step {
                    id: step.id.clone(),
                    title: step.title.clone().unwrap_or_else(|| step.id.clone()),
                    image_tag: step.image_tag.clone(),
                    image_digest: step.image_digest.clone(),
                })
                .collect(),
            defaults: serde_json::to_value(pin.defaults.clone().unwrap_or_default()).unwrap_or_default(),
        }),
        run: status.run.as_ref().map(|run| Run {
            step: run.step.clone(),
            fingerprint: run.fingerprint.clone(),
            artifact: run.artifact_digest.clone(),
            since: moment(Some(&run.since)).unwrap_or(Timestamp::UNIX_EPOCH),
            ready_at: moment(run.ready_at.as_ref()),
        }),
        restarts: status.restarts.as_ref().map(|restarts| Restarts {
            count: u32::try_from(restarts.count).unwrap_or_default(),
            first: moment(Some(&restarts.first)).unwrap_or(Timestamp::UNIX_EPOCH),
            fingerprint: restarts.fingerprint.clone(),
            due: moment(restarts.due.as_ref()),
            reason: restarts.reason.clone(),
        }),
        asleep: status.asleep.as_ref().map(|asleep| Asleep {
            since: moment(Some(&asleep.since)).unwrap_or(Timestamp::UNIX_EPOCH),
            cause: match asleep.cause {
                instance::SleepCause::Idle => SleepCause::Idle,
                instance::SleepCause::Expired => SleepCause::Expired,
            },
        }),
        renewed_at: moment(status.renewed_at.as_ref()),
        reset_handled: status.reset_handled.clone(),
        update_handled: status.update_handled.clone(),
        notice: status.notice.clone(),
        warned_at: conditions::get(&status.conditions, EXPIRING)
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.last_transition_time.0),
        is_outdated: flag(UPDATE_AVAILABLE),
    }
}

/// Writes a record into a status and leaves the rest of it (progress, endpoints, epochs) as it is.
pub fn write_record(record: &Record, status: &mut WorkspaceInstanceStatus, generation: Option<i64>, now: Timestamp) {
    let text = |moment: Option<Timestamp>| moment.map(moment_text);
    status.observed_generation = generation;
    status.phase = Some(phase_to(record.phase));
    status.message = record.message.as_deref().map(conditions::cut_message);
    status.notice = record.notice.as_deref().map(conditions::cut_message);
    status.current_step.clone_from(&record.step);
    status.started_at = text(record.started_at);
    status.expires_at = text(record.expires_at);
    status.last_activity_at = text(record.last_activity_at);
    status.pinned = record.pin.as_ref().map(|pin| instance::Pin {
        unit_key: pin.unit_key.clone(),
        artifact_digest: pin.artifact.clone(),
        artifact_size: i64::try_from(pin.artifact_size).ok(),
        defaults: serde_json::from_value(pin.defaults.clone()).ok(),
        steps: pin
            .steps
            .iter()
            .map(|step| instance::PinnedStep {
                id: step.id.clone(),
                title: Some(step.title.clone()),
                image_tag: step.image_tag.clone(),
                image_digest: step.image_digest.clone(),
            })
            .collect(),
    });
    // Addresses are of the runtime, which the record knows nothing of.
    let (address, pod_address) = status.run.take().map(|run| (run.address, run.pod_address)).unwrap_or_default();
    status.run = record.run.as_ref().map(|run| instance::Run {
        address: address.clone(),
        pod_address: pod_address.clone(),
        step: run.step.clone(),
        fingerprint: run.fingerprint.clone(),
        artifact_digest: run.artifact.clone(),
        since: moment_text(run.since),
        ready_at: text(run.ready_at),
    });
    status.restarts = record.restarts.as_ref().map(|restarts| instance::Restarts {
        count: restarts.count.into(),
        first: moment_text(restarts.first),
        fingerprint: restarts.fingerprint.clone(),
        due: text(restarts.due),
        reason: conditions::cut_message(&restarts.reason),
    });
    status.asleep = record.asleep.map(|asleep| instance::Asleep {
        since: moment_text(asleep.since),
        cause: match asleep.cause {
            SleepCause::Idle => instance::SleepCause::Idle,
            SleepCause::Expired => instance::SleepCause::Expired,
        },
    });
    status.renewed_at = text(record.renewed_at);
    status.reset_handled.clone_from(&record.reset_handled);
    status.update_handled.clone_from(&record.update_handled);
    write_conditions(record, &mut status.conditions, generation, now);
}

fn write_conditions(
    record: &Record,
    into: &mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    generation: Option<i64>,
    now: Timestamp,
) {
    // A decision always says why; only a record that was just read does not.
    let Some(reason) = record.reason.map(reason_of) else { return };
    let message = record.message.as_deref().unwrap_or_default();
    let mut set = |kind, holds, reason, message: &str| {
        if holds {
            conditions::set(into, kind, true, reason, message, generation, now);
        } else {
            conditions::remove(into, kind);
        }
    };
    let working =
        matches!(record.phase, Phase::Pending | Phase::Provisioning | Phase::Transitioning | Phase::Terminating);
    set(RECONCILING, working, reason, message);
    // It may run on as it was before its spec became what cannot be.
    let is_wrong = record.reason == Some(Reason::InvalidSpec);
    set(STALLED, record.phase == Phase::Failed || is_wrong, reason, message);
    let newer = "its template is newer than what it runs";
    set(UPDATE_AVAILABLE, record.is_outdated, conditions::Reason::NewerRevision, newer);
    // Since when it is true is when it was told.
    conditions::remove(into, EXPIRING);
    if let Some(warned_at) = record.warned_at {
        let message = record.expires_at.map_or_else(
            || "its time is over soon".to_owned(),
            |end| format!("its time is over at {}", moment_text(end)),
        );
        conditions::set(into, EXPIRING, true, conditions::Reason::Expiring, &message, generation, warned_at);
    }
    // One that sleeps as it should is as its spec asks.
    let ready = matches!(record.phase, Phase::Running | Phase::Suspended) && !is_wrong;
    conditions::set(into, READY, ready, reason, message, generation, now);
}

/// The phase as the objects have it.
#[must_use]
pub const fn phase_to(phase: Phase) -> instance::Phase {
    match phase {
        Phase::Pending => instance::Phase::Pending,
        Phase::Provisioning => instance::Phase::Provisioning,
        Phase::Running => instance::Phase::Running,
        Phase::Transitioning => instance::Phase::Transitioning,
        Phase::Suspended => instance::Phase::Suspended,
        Phase::Failed => instance::Phase::Failed,
        Phase::Terminating => instance::Phase::Terminating,
    }
}

/// The phase as the rest of the program has it.
#[must_use]
pub const fn phase_of(phase: instance::Phase) -> Phase {
    match phase {
        instance::Phase::Pending => Phase::Pending,
        instance::Phase::Provisioning => Phase::Provisioning,
        instance::Phase::Running => Phase::Running,
        instance::Phase::Transitioning => Phase::Transitioning,
        instance::Phase::Suspended => Phase::Suspended,
        instance::Phase::Failed => Phase::Failed,
        instance::Phase::Terminating => Phase::Terminating,
    }
}

/// The word of conditions and events.
#[must_use]
pub const fn reason_of(reason: Reason) -> conditions::Reason {
    use conditions::Reason as Word;
    match reason {
        Reason::Succeeded => Word::Succeeded,
        Reason::Progressing => Word::Progressing,
        Reason::TemplateUnusable => Word::TemplateUnusable,
        Reason::InvalidSpec => Word::InvalidSpec,
        Reason::Suspended => Word::Suspended,
        Reason::Idle => Word::Idle,
        Reason::Expired => Word::Expired,
        Reason::Expiring => Word::Expiring,
        Reason::StepFailed => Word::StepFailed,
        Reason::Restarting => Word::Restarting,
        Reason::CrashLooping => Word::CrashLooping,
        Reason::NewerRevision => Word::NewerRevision,
        Reason::Deleted => Word::Deleted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_record_comes_back_from_the_status_it_was_written_to() {
        let full = Record {
            phase: Phase::Transitioning,
            reason: None,
            message: Some("m".into()),
            step: Some("one".into()),
            started_at: Some(at(1_000)),
            expires_at: Some(at(90_001)),
            last_activity_at: Some(at(2_345)),
            pin: Some(Revision {
                unit_key: "u".into(),
                artifact: "sha256:a".into(),
                artifact_size: 7,
                steps: vec![Step {
                    id: "one".into(),
                    title: "One".into(),
                    image_tag: "a:one".into(),
                    image_digest: Some("sha256:b".into()),
                }],
                defaults: json!({"lifecycle": {"ttl": "1h"}}),
            }),
            run: Some(Run {
                step: "one".into(),
                fingerprint: "f".into(),
                artifact: "sha256:a".into(),
                since: at(1),
                ready_at: Some(at(999)),
            }),
            restarts: Some(Restarts {
                count: 3,
                first: at(5),
                fingerprint: "f".into(),
                due: Some(at(6)),
                reason: "why".into(),
            }),
            asleep: Some(Asleep { since: at(123), cause: SleepCause::Expired }),
            renewed_at: Some(at(77_000)),
            reset_handled: Some("r".into()),
            update_handled: Some("u".into()),
            notice: Some("n".into()),
            warned_at: Some(at(60_000)),
            is_outdated: true,
        };
        for record in [full, Record::default()] {
            let mut status = WorkspaceInstanceStatus::default();
            let told = Record { reason: Some(Reason::Progressing), ..record.clone() };
            write_record(&told, &mut status, Some(3), at(0));
            assert_eq!(record_of(&status), record);
            let wire = serde_json::to_value(&status).unwrap();
            assert_eq!(serde_json::from_value::<WorkspaceInstanceStatus>(wire).unwrap(), status);
        }
    }
}
