//! What is seen of a Deployment and its pods, case by case.

use serde_json::{Value, json};

use super::*;

/// Where no backend has answered yet.
fn seen_of(deployment: Option<&Deployment>, pods: &[Pod], now: Timestamp) -> Seen {
    super::seen_of(deployment, pods, None, now)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn deployment(replicas: i32, conditions: Value) -> Deployment {
    let annotations = json!({ labels::FINGERPRINT: "f", labels::START: "s" });
    serde_json::from_value(json!({
        "metadata": { "annotations": { labels::SURROUNDINGS: "d" } },
        "spec": {
            "replicas": replicas,
            "selector": {},
            "template": {
                "metadata": { "annotations": annotations },
                "spec": {
                    "containers": [{ "name": "workspace" }],
                    "imagePullSecrets": [{ "name": "pull" }],
                    "volumes": [{ "name": "state" }, { "name": "artifact", "configMap": { "name": "artifact-1" } }],
                },
            },
        },
        "status": { "conditions": conditions },
    }))
    .unwrap()
}

fn pod(status: Value) -> Pod {
    let annotations = json!({ labels::FINGERPRINT: "f", labels::START: "s" });
    serde_json::from_value(json!({ "metadata": { "annotations": annotations }, "status": status })).unwrap()
}

fn waiting(reason: &str, message: &str) -> Pod {
    pod(
        json!({ "containerStatuses": [container(json!({ "waiting": { "reason": reason, "message": message } }), json!({}))] }),
    )
}

fn container(state: Value, last: Value) -> Value {
    json!({
        "name": "workspace", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": state, "lastState": last,
    })
}

/// `nothing`, `ready`, `starts`, `starts: <what>` or `ended: <why>`.
fn told(seen: &Seen) -> String {
    match seen {
        Seen::Nothing => "nothing".to_owned(),
        Seen::Running { is_ready: true, .. } => "ready".to_owned(),
        Seen::Running { waits_for: None, .. } => "starts".to_owned(),
        Seen::Running { waits_for: Some(what), .. } => format!("starts: {what}"),
        Seen::Ended { reason, .. } => format!("ended: {reason}"),
    }
}

#[track_caller]
fn check(pods: &[Pod], expected: &str) {
    assert_eq!(told(&seen_of(Some(&deployment(1, json!([]))), pods, at(100))), expected);
}

#[test]
fn what_is_not_wished_is_nothing() {
    assert_eq!(seen_of(None, &[], at(0)), Seen::Nothing);
    let ready = pod(json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
    assert_eq!(seen_of(Some(&deployment(0, json!([]))), &[ready], at(0)), Seen::Nothing);
}

#[test]
fn only_the_pod_of_the_latest_start_counts() {
    check(&[], "starts");
    let ready = || pod(json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
    check(&[ready()], "ready");
    let change = |name: &str, value: &str| {
        let mut pod = ready();
        pod.metadata.annotations.as_mut().unwrap().insert(name.to_owned(), value.to_owned());
        pod
    };
    check(&[change(labels::FINGERPRINT, "older")], "starts");
    check(&[change(labels::START, "older")], "starts");
    let mut leaving = ready();
    leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    check(&[leaving.clone()], "starts");
    check(&[leaving, ready()], "ready");
    let evicted = pod(json!({ "phase": "Failed", "conditions": [{ "type": "Ready", "status": "True" }] }));
    check(&[evicted], "starts");
}

#[test]
fn waiting_is_no_failure() {
    let unscheduled = json!({ "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" });
    check(&[pod(json!({ "conditions": [unscheduled] }))], "starts: it waits for a node: 0/3 nodes are available");
    check(&[waiting("ContainerCreating", "")], "starts");
    check(&[waiting("ErrImagePull", "connection reset by peer")], "starts: connection reset by peer");
    let since = json!({ "running": { "startedAt": at(7).to_string() } });
    let seen = seen_of(
        Some(&deployment(1, json!([]))),
        &[pod(json!({ "containerStatuses": [container(since, json!({}))] }))],
        at(100),
    );
    // The backend's time to answer counts from when its container runs.
    assert!(matches!(seen, Seen::Running { is_ready: false, since, .. } if since == at(7)), "{seen:?}");
}

#[test]
fn a_failure_has_its_real_reason() {
    check(&[waiting("ErrImagePull", "r.io/w:one: not found")], "ended: ErrImagePull: r.io/w:one: not found");
    check(
        &[waiting("ImagePullBackOff", "Back-off pulling image \"i\": ErrImagePull: no such host")],
        "ended: ErrImagePull: no such host",
    );
    check(&[waiting("InvalidImageName", "a b")], "ended: InvalidImageName: a b");
    check(
        &[waiting("CreateContainerConfigError", "secret \"x\" not found")],
        "ended: CreateContainerConfigError: secret \"x\" not found",
    );
    let last = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled", "message": "last words\n" } });
    let looping = container(json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } }), last);
    check(
        &[pod(json!({ "containerStatuses": [looping] }))],
        "ended: CrashLoopBackOff: it ended with code 137 (OOMKilled): last words",
    );
}

#[test]
fn a_refusal_to_make_pods_counts_once_it_lasts() {
    let refused = json!([{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "pods \"x\" is forbidden: exceeded quota", "lastTransitionTime": at(0).to_string(),
    }]);
    for (now, expected) in [(1, "starts"), (5, "ended: pods \"x\" is forbidden: exceeded quota")] {
        assert_eq!(told(&seen_of(Some(&deployment(1, refused.clone())), &[], at(now))), expected);
    }
    let late = json!([{
        "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too long",
    }]);
    let creating = [waiting("ContainerCreating", "")];
    assert_eq!(told(&seen_of(Some(&deployment(1, late.clone())), &creating, at(0))), "ended: too long");
    // A cluster without room is nobody's mistake, however long it takes.
    let unscheduled = pod(json!({ "conditions": [{ "type": "PodScheduled", "status": "False" }] }));
    assert_eq!(
        told(&seen_of(Some(&deployment(1, late)), &[unscheduled], at(0))),
        "starts: it waits for a node: no node"
    );
}

#[test]
fn a_deployment_says_what_it_was_made_of() {
    let made = Made { surroundings: "d".into(), artifact: Some("artifact-1".into()), has_pull: true, replicas: 3 };
    assert_eq!(made_of(&deployment(3, json!([]))), made);
}

#[test]
fn one_that_was_ready_has_its_time_anew_and_a_silent_node_is_waited_for() {
    let pod_with = |conditions: Value| {
        let running = container(json!({ "running": { "startedAt": at(10).to_string() } }), json!({}));
        pod(json!({ "containerStatuses": [running], "conditions": conditions }))
    };
    let unready = |at: Timestamp| json!({ "type": "Ready", "status": "False", "lastTransitionTime": at.to_string() });
    let since = |conditions: Value| match seen_of(Some(&deployment(1, json!([]))), &[pod_with(conditions)], at(100)) {
        Seen::Running { is_ready: false, since, waits_for, .. } => (since, waits_for),
        other => panic!("{other:?}"),
    };
    // Never ready: its time runs from its container's start, whenever the pod was made.
    assert_eq!(since(json!([unready(at(5))])), (at(10), None));
    assert_eq!(since(json!([])), (at(10), None));
    // Ready until a moment ago.
    assert_eq!(since(json!([unready(at(90))])), (at(90), None));
    let silent = json!([unready(at(40)), { "type": "ContainersReady", "status": "True" }]);
    assert_eq!(since(silent), (at(100), Some("its node does not answer".to_owned())));
}

#[test]
fn a_backend_that_answered_is_ready_until_its_kubelet_knows_better() {
    let pod_with = |id: &str, conditions: Value| {
        let mut running = container(json!({ "running": { "startedAt": at(10).to_string() } }), json!({}));
        running["containerID"] = id.into();
        pod(json!({ "containerStatuses": [running], "conditions": conditions, "podIP": "10.244.0.7" }))
    };
    let ready = |status: &str, at: Timestamp| json!([{ "type": "Ready", "status": status, "lastTransitionTime": at.to_string() }]);
    let check = |pod: Pod, expected: &str, expected_begun: bool| {
        let begins = expected_begun.then(|| ("c-1".to_owned(), "10.244.0.7:7681".parse().unwrap()));
        assert_eq!(begun(&pod), begins, "{pod:?}");
        let seen = super::seen_of(Some(&deployment(1, json!([]))), &[pod], Some("c-1"), at(100));
        assert_eq!(told(&seen), expected);
    };
    check(pod_with("c-1", ready("False", at(5))), "ready", true);
    check(pod_with("c-1", json!([])), "ready", true);
    check(pod_with("c-1", ready("True", at(12))), "ready", false);
    // It was ready, and is not any more.
    check(pod_with("c-1", ready("False", at(50))), "starts", false);
    // Another container answered, before this one began.
    let other = pod_with("c-2", ready("False", at(5)));
    assert_eq!(told(&super::seen_of(Some(&deployment(1, json!([]))), &[other], Some("c-1"), at(100))), "starts");
    // Nothing runs that could be asked.
    let creating = waiting("ContainerCreating", "");
    assert_eq!(begun(&creating), None);
}
