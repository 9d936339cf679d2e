//! What runs for an instance, read from its Deployment and its pods. Pure.
//!
//! Waiting is told from failing: a pod that finds no node or whose image is still on its way waits, and says for what.

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::crd::labels;
use crate::domain::container::place;
use crate::domain::lifecycle::Seen;

/// How long the API server may refuse to make pods before that counts: quotas are counted with a delay.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(5);

/// What containers wait for when they do not fail.
const BEGINNING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Words of a registry's or the kubelet's refusal that another try does not change.
const FINAL: [&str; 6] = ["not found", "manifest unknown", "unauthorized", "denied", "forbidden", "invalid reference"];

/// What runs, in the words of the decision; a Deployment without pods wanted is nothing. `answered` is the container whose
/// backend said that it is ready, which its kubelet learns later.
#[must_use]
pub fn seen_of(deployment: Option<&Deployment>, pods: &[Pod], answered: Option<&str>, now: Timestamp) -> Seen {
    let Some(deployment) = deployment.filter(|deployment| deployment.spec.replicas != Some(0)) else {
        return Seen::Nothing;
    };
    let fingerprint = annotation_of(deployment, labels::FINGERPRINT).unwrap_or_default();
    let running =
        |is_ready, since, waits_for| Seen::Running { fingerprint: fingerprint.to_owned(), is_ready, since, waits_for };
    let ended = |reason| Seen::Ended { fingerprint: fingerprint.to_owned(), reason };
    let Some(pod) = pod_of(deployment, pods) else {
        return match refusal(deployment, now) {
            Some(reason) => ended(reason),
            None => running(false, now, None),
        };
    };
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is = |kind: &str, value: &str| conditions.iter().find(|one| one.type_ == kind && one.status == value);
    let has_answered = begun(pod).is_some_and(|(container, _)| answered == Some(&container));
    if has_answered || is("Ready", "True").is_some() {
        return running(true, now, None);
    }
    if let Some(unscheduled) = is("PodScheduled", "False") {
        let why = unscheduled.message.clone().unwrap_or_else(|| "no node".to_owned());
        return running(false, now, Some(format!("it waits for a node: {why}")));
    }
    let container = status.container_statuses.unwrap_or_default().into_iter().next();
    let Some(container) = container else { return running(false, now, None) };
    if let Some(reason) = failure(&container) {
        return ended(reason);
    }
    let state = container.state.unwrap_or_default();
    if let Some(began) = state.running.and_then(|running| running.started_at) {
        // Its kubelet says that all is well, and is not heard of any more: what runs there is not to be thrown away.
        // The cluster itself puts the pod elsewhere if that lasts.
        if is("ContainersReady", "True").is_some() {
            return running(false, now, Some("its node does not answer".to_owned()));
        }
        // One that was ready has its time anew: too much work for its processors is no reason to take that work away.
        let changed = is("Ready", "False").and_then(|ready| ready.last_transition_time.as_ref());
        let since = changed.map_or(began.0, |changed| changed.0.max(began.0));
        return running(false, since, None);
    }
    if let Some(reason) = late(deployment) {
        return ended(reason);
    }
    let waiting = state.waiting.and_then(|waiting| waiting.message.filter(|text| !text.is_empty()).or(waiting.reason));
    running(false, now, waiting.filter(|word| !BEGINNING.contains(&word.as_str())))
}

/// The pod of the last start.
#[must_use]
pub fn pod_of<'a>(deployment: &Deployment, pods: &'a [Pod]) -> Option<&'a Pod> {
    pods.iter().find(|pod| {
        let annotations = pod.metadata.annotations.as_ref();
        let is_same = |name: &str| {
            let own = annotations.and_then(|annotations| annotations.get(name));
            own.map(String::as_str) == annotation_of(deployment, name)
        };
        pod.metadata.deletion_timestamp.is_none()
            && is_same(labels::FINGERPRINT)
            && is_same(labels::START)
            && !is_failed(pod)
    })
}

fn annotation_of<'a>(deployment: &'a Deployment, name: &str) -> Option<&'a str> {
    deployment.spec.template.metadata.as_ref()?.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The container of a pod that runs and was never found ready, with where it will answer.
#[must_use]
pub fn begun(pod: &Pod) -> Option<(String, SocketAddr)> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let began = container.state.as_ref()?.running.as_ref()?.started_at.as_ref()?;
    let is_new = pod.metadata.deletion_timestamp.is_none() && was_never_ready(pod, began.0);
    Some((container.container_id.clone().filter(|_| is_new)?, address_of(pod)?))
}

/// Where the backend in a pod answers.
#[must_use]
pub fn address_of(pod: &Pod) -> Option<SocketAddr> {
    let address = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
    Some(SocketAddr::new(address, place::PORT))
}

/// Whether the kubelet has said nothing about being ready since the container began.
fn was_never_ready(pod: &Pod, began: Timestamp) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.and_then(|conditions| conditions.iter().find(|one| one.type_ == "Ready"));
    ready.is_none_or(|ready| {
        ready.status != "True" && ready.last_transition_time.as_ref().is_none_or(|changed| changed.0 <= began)
    })
}

/// Why pods that are waited for do not come, as far as one of them says: no node, no image, a container that ends.
#[must_use]
pub fn trouble(pods: &[Pod]) -> Option<String> {
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).find_map(|pod| {
        let status = pod.status.as_ref()?;
        let unscheduled =
            status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
        if let Some(unscheduled) = unscheduled {
            return Some(unscheduled.message.clone().unwrap_or_else(|| "it finds no node".to_owned()));
        }
        let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        containers.into_iter().find_map(failure)
    })
}

/// A pod that ended for good, such as one that its node threw out: another one takes its place.
fn is_failed(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Failed")
}

/// Why the container of a pod cannot run, where another try of the same will not help.
fn failure(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or_default();
    let told = || if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
    match reason {
        "CrashLoopBackOff" => {
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let mut text = "CrashLoopBackOff".to_owned();
            if let Some(last) = last {
                text.push_str(&format!(": it ended with code {}", last.exit_code));
                if let Some(why) = last.reason.as_deref().filter(|why| !["Error", "Completed"].contains(why)) {
                    text.push_str(&format!(" ({why})"));
                }
                if let Some(words) = last.message.as_deref().map(str::trim).filter(|words| !words.is_empty()) {
                    text.push_str(&format!(": {words}"));
                }
            }
            Some(text)
        }
        // The first failure may be the network's; the back-off follows within seconds.
        "ErrImagePull" => {
            let lower = message.to_lowercase();
            FINAL.iter().any(|word| lower.contains(word)).then(told)
        }
        "ImagePullBackOff" if message.contains("ErrImagePull") => {
            Some(message.split_once("ErrImagePull").map_or_else(told, |(_, why)| format!("ErrImagePull{why}")))
        }
        "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError" => Some(told()),
        _ => None,
    }
}

fn condition<'a>(
    deployment: &'a Deployment,
    kind: &str,
    value: &str,
) -> Option<&'a k8s_openapi::api::apps::v1::DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_.as_deref() == Some(kind) && condition.status.as_deref() == Some(value))
}

/// Why the API server refuses to make pods: a quota, a runtime class, Pod Security.
fn refusal(deployment: &Deployment, now: Timestamp) -> Option<String> {
    let refused = condition(deployment, "ReplicaFailure", "True")?;
    let since = refused.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_lasting = now.duration_since(since) >= REFUSED_FOR;
    is_lasting.then(|| refused.message.clone().unwrap_or_else(|| "no pod could be made".to_owned()))
}

/// The rollout took longer than it may.
fn late(deployment: &Deployment) -> Option<String> {
    let late = condition(deployment, "Progressing", "False")?;
    let is_late = late.reason.as_deref() == Some("ProgressDeadlineExceeded");
    is_late.then(|| late.message.clone().unwrap_or_else(|| "it took too long to start".to_owned()))
}

/// The ConfigMap with the artifact, the identity of what is around, whether it pulls with a Secret, and its pods.
#[must_use]
pub fn made_of(deployment: &Deployment) -> Made {
    let annotations = deployment.metadata.annotations.as_ref();
    let spec = &deployment.spec;
    let pod = spec.template.spec.as_ref();
    let volumes = pod.and_then(|pod| pod.volumes.as_ref());
    Made {
        surroundings: annotations.and_then(|all| all.get(labels::SURROUNDINGS)).cloned().unwrap_or_default(),
        artifact: volumes
            .into_iter()
            .flatten()
            .find_map(|volume| volume.config_map.as_ref().map(|map| map.name.clone())),
        has_pull: pod.and_then(|pod| pod.image_pull_secrets.as_ref()).is_some_and(|secrets| !secrets.is_empty()),
        replicas: spec.replicas.unwrap_or(1),
    }
}

/// What a Deployment was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The identity of the objects around it.
    pub surroundings: String,
    /// The name of the ConfigMap with its artifact.
    pub artifact: Option<String>,
    /// It pulls with a Secret.
    pub has_pull: bool,
    /// How many pods it is to have.
    pub replicas: i32,
}

#[cfg(test)]
mod tests;
