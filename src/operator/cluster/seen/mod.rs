//! What runs for an instance, read from its Deployment and its pods. Pure.
//!
//! Waiting is told from failing: a pod that finds no node or whose image is still on its way waits, and says for what.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::crd::labels;
use crate::domain::lifecycle::Seen;

/// How long the API server may refuse to make pods before that counts: quotas are counted with a delay.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(5);

/// What containers wait for when they do not fail.
const BEGINNING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Words of a registry's or the kubelet's refusal that another try does not change.
const FINAL: [&str; 6] = ["not found", "manifest unknown", "unauthorized", "denied", "forbidden", "invalid reference"];

/// What runs, in the words of the decision; a Deployment without pods wanted is nothing.
#[must_use]
pub fn seen_of(deployment: Option<&Deployment>, pods: &[Pod], now: Timestamp) -> Seen {
    let Some(spec) = deployment.map(|deployment| &deployment.spec) else { return Seen::Nothing };
    if spec.replicas == Some(0) {
        return Seen::Nothing;
    }
    let annotations = spec.template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    let annotation = |name: &str| annotations.and_then(|annotations| annotations.get(name)).cloned();
    let (fingerprint, start) = (annotation(labels::FINGERPRINT).unwrap_or_default(), annotation(labels::START));
    let running =
        |is_ready, since, waits_for| Seen::Running { fingerprint: fingerprint.clone(), is_ready, since, waits_for };
    let ended = |reason| Seen::Ended { fingerprint: fingerprint.clone(), reason };
    let pod = pods.iter().find(|pod| {
        let annotations = pod.metadata.annotations.as_ref();
        let of = |name: &str| annotations.and_then(|annotations| annotations.get(name));
        pod.metadata.deletion_timestamp.is_none()
            && of(labels::FINGERPRINT) == Some(&fingerprint)
            && of(labels::START) == start.as_ref()
            && !is_failed(pod)
    });
    let Some(pod) = pod else {
        return match refusal(deployment, now) {
            Some(reason) => ended(reason),
            None => running(false, now, None),
        };
    };
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is = |kind: &str, value: &str| conditions.iter().find(|one| one.type_ == kind && one.status == value);
    if is("Ready", "True").is_some() {
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
    deployment: Option<&'a Deployment>,
    kind: &str,
    value: &str,
) -> Option<&'a k8s_openapi::api::apps::v1::DeploymentCondition> {
    let conditions = deployment?.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_.as_deref() == Some(kind) && condition.status.as_deref() == Some(value))
}

/// Why the API server refuses to make pods: a quota, a runtime class, Pod Security.
fn refusal(deployment: Option<&Deployment>, now: Timestamp) -> Option<String> {
    let refused = condition(deployment, "ReplicaFailure", "True")?;
    let since = refused.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_lasting = now.duration_since(since) >= REFUSED_FOR;
    is_lasting.then(|| refused.message.clone().unwrap_or_else(|| "no pod could be made".to_owned()))
}

/// The rollout took longer than it may.
fn late(deployment: Option<&Deployment>) -> Option<String> {
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
