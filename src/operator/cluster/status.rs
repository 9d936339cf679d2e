//! Fifth beat: what an instance's status says after a look, and what is told besides. Builds values; writes only events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;

use super::build::Subject;
use super::outcome::{Class, Problem};
use crate::adapters::cluster::{Cluster, Severity};
use crate::crd::conditions::{self, READY, RECONCILING, STALLED, cut_message};
use crate::crd::instance::{AccessEndpoint, Phase};
use crate::crd::{API_VERSION, Kind, WorkspaceInstance, WorkspaceInstanceStatus};
use crate::domain::container::place;
use crate::domain::lifecycle::{Action, Decision, Event, Reason};
use crate::pipeline::workspace::record::{reason_of, write_record};

/// Where a workspace answers.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Its Service, which stays the same over all pods.
    pub service: Option<String>,
    /// The pod that became ready.
    pub pod: Option<String>,
}

/// The status that follows from a decision.
pub(super) fn build(
    old: &WorkspaceInstanceStatus,
    instance: &WorkspaceInstance,
    subject: &Subject,
    decision: &Decision,
    addresses: Addresses,
    gateway: Option<&str>,
    now: Timestamp,
) -> WorkspaceInstanceStatus {
    let mut status = old.clone();
    write_record(&decision.record, &mut status, instance.metadata.generation, now);
    if let Some(run) = &mut status.run {
        run.address = addresses.service;
        run.pod_address = addresses.pod;
    }
    if decision.actions.iter().any(|action| matches!(action, Action::Start(_))) {
        status.namespace = Some(subject.room());
        let url = gateway.map(|gateway| format!("{}{}", gateway.trim_end_matches('/'), subject.base_path()));
        status.access_endpoints = url.map(|url| AccessEndpoint { name: "web".to_owned(), url }).into_iter().collect();
    }
    status
}

/// The status after a failure: what is known stays.
pub(super) fn build_failed(
    old: &WorkspaceInstanceStatus,
    instance: &WorkspaceInstance,
    problem: &Problem,
    now: Timestamp,
) -> WorkspaceInstanceStatus {
    let mut status = old.clone();
    let generation = instance.metadata.generation;
    status.phase = status.phase.or(Some(Phase::Pending));
    status.message = Some(cut_message(&problem.message));
    let (set, unset) = if problem.class == Class::Person { (STALLED, RECONCILING) } else { (RECONCILING, STALLED) };
    for kind in [READY, set] {
        let is_true = kind != READY;
        conditions::set(&mut status.conditions, kind, is_true, problem.reason, &problem.message, generation, now);
    }
    conditions::remove(&mut status.conditions, unset);
    status
}

/// Whether both say the same but for why: messages and conditions of one that is tried again and again.
pub(super) fn is_same_but_told(old: &WorkspaceInstanceStatus, new: &WorkspaceInstanceStatus) -> bool {
    let plain = |status: &WorkspaceInstanceStatus| WorkspaceInstanceStatus {
        message: None,
        conditions: Vec::new(),
        ..status.clone()
    };
    plain(old) == plain(new)
}

/// Whether a failure is news: its reason is, or what passes by itself has not passed for a while.
pub(super) fn is_worth_telling(
    old: &WorkspaceInstanceStatus,
    new: &WorkspaceInstanceStatus,
    problem: &Problem,
    failures: u32,
) -> bool {
    let reason = |status: &WorkspaceInstanceStatus| {
        conditions::get(&status.conditions, READY).map(|ready| (ready.reason.clone(), ready.message.clone()))
    };
    match problem.reason {
        // Nothing of the instance's, and the server has enough to do.
        conditions::Reason::ApiUnavailable => false,
        _ => reason(old) != reason(new) && (problem.class != Class::Waiting || failures > 2),
    }
}

/// `ADDRESS:PORT` of a Service.
pub(super) fn address_of(service: Option<&Value>) -> Option<String> {
    let address: std::net::IpAddr = service?.pointer("/spec/clusterIP")?.as_str()?.parse().ok()?;
    Some(std::net::SocketAddr::new(address, place::PORT).to_string())
}

/// Tells what people should hear; what a condition says as well is no event unless it is a warning.
pub(super) async fn tell(cluster: &Cluster, instance: &WorkspaceInstance, event: &Event) {
    let severity = match event.reason {
        Reason::Expiring | Reason::Expired | Reason::StepFailed | Reason::Restarting | Reason::CrashLooping => {
            Severity::Warning
        }
        Reason::Idle => Severity::Normal,
        _ => return,
    };
    cluster.send_event(&reference(instance), severity, reason_of(event.reason), "Reconcile", &event.message).await;
}

/// Tells of a failure.
pub(super) async fn warn(cluster: &Cluster, instance: &WorkspaceInstance, problem: &Problem) {
    let about = reference(instance);
    cluster.send_event(&about, Severity::Warning, problem.reason, "Reconcile", &problem.message).await;
}

fn reference(instance: &WorkspaceInstance) -> ObjectReference {
    ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(Kind::WorkspaceInstance.name().to_owned()),
        namespace: instance.metadata.namespace.clone(),
        name: instance.metadata.name.clone(),
        uid: instance.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
