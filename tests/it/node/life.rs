//! Sleep, waking, the end of time, and what outlives all of it.

use jiff::{Timestamp, ToSpan as _};
use reqwest::Method;
use serde_json::json;

use super::{Course, Seat, condition, navigate, statuses};
use crate::support::node::{PATIENCE, node};
use crate::support::wait::wait_for;

#[test]
fn an_unused_workspace_falls_asleep_and_wakes_when_somebody_comes_back() {
    let course = Course::write("idle", "lifecycle: {idleTimeout: 10s}\n");
    course.publish();
    let (seat, mut learner) = Seat::running("idle", "ada", json!({}));
    let reference = seat.reference();
    learner.type_line(&reference, "touch /tmp/answer; echo do\"\"ne", "done");
    assert_eq!(learner.api(&reference, &Method::POST, "validate", None)["passed"], true);
    seat.wait("Suspended", "one");
    wait_for("the pod to be gone", PATIENCE, || seat.pods().is_empty().then_some(()));
    let object = seat.object().unwrap();
    assert!(object["spec"]["suspended"].is_null(), "nobody asked for it: {object:#}");
    assert_eq!(condition(&object, "Ready").unwrap()["reason"], "Idle", "{object:#}");

    learner.open(&reference);
    seat.wait("Running", "one");
    assert_eq!(statuses(&mut learner, &reference)[0], "completed");
}

#[test]
fn a_workspace_whose_time_is_over_is_announced_then_removed() {
    let course = Course::write("expiring", "lifecycle: {ttl: 30m}\n");
    course.publish();
    let (seat, _) = Seat::running("expiring", "ada", json!({}));
    let object = seat.object().unwrap();
    assert!(condition(&object, "Expiring").is_none_or(|found| found["status"] == "False"), "{object:#}");
    let home = seat.home();

    let soon = Timestamp::now().checked_add(4.minutes()).unwrap();
    seat.patch(&json!({ "spec": { "expiresAt": soon.to_string() } }));
    seat.wait_for("say that its time is over soon", |object| {
        (condition(object, "Expiring")?["status"] == "True").then_some(())
    });
    wait_for("an event that says so", PATIENCE, || {
        let events = node().cluster.get(&["events.events.k8s.io", "-n", &seat.namespace])?;
        let events = events["items"].as_array()?.clone();
        events.into_iter().find(|event| event["reason"] == "Expiring" && event["type"] == "Warning")
    });
    assert_eq!(seat.object().unwrap()["status"]["phase"], "Running");

    // One that is held outlives its end.
    let now = Timestamp::now().to_string();
    seat.patch(&json!({ "spec": { "hold": true, "expiresAt": now } }));
    seat.wait_for("be held", |object| {
        let handled = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        (handled && object["status"]["phase"] == "Running").then_some(())
    });
    // Let go, it is told anew before it goes: five minutes, or its time to live where that is less.
    seat.wait_for("say nothing of its end", |object| condition(object, "Expiring").is_none().then_some(()));
    seat.patch(&json!({ "spec": { "hold": false, "overrides": { "lifecycle": { "ttl": "5s" } } } }));
    seat.wait_for("say that its time is over soon", |object| {
        (condition(object, "Expiring")?["status"] == "True").then_some(())
    });
    seat.wait_gone(&home);
}

#[test]
fn files_below_persist_outlive_a_step_switch_and_a_sleep() {
    let node = node();
    let course = Course::write("persistent", "lifecycle: {persist: 64Mi, idleSuspend: false}\n");
    course.publish();
    let directory = node.cluster.directory().join("volume");
    std::fs::create_dir_all(&directory).unwrap();
    // The cluster has nobody who makes volumes.
    node.cluster.apply(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": "persistent" },
        "spec": {
            "capacity": { "storage": "64Mi" },
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": { "path": directory },
        },
    }));
    let (seat, mut learner) = Seat::running("persistent", "ada", json!({}));
    let reference = seat.reference();
    learner.type_line(
        &reference,
        "echo kept > /persist/letter && touch /tmp/lost /tmp/answer; echo wro\"\"te",
        "wrote",
    );
    assert_eq!(learner.api(&reference, &Method::POST, "validate", None)["passed"], true);
    navigate(&mut learner, &reference, "next");
    seat.wait("Running", "two");
    let look = "ls /tmp; cat /persist/letter /etc/step; echo sho\"\"wn";
    let output = learner.type_line(&reference, look, "shown");
    assert!(output.contains("kept") && output.contains("two") && !output.contains("lost"), "{output}");
    seat.patch(&json!({ "spec": { "suspended": true } }));
    seat.wait("Suspended", "two");
    wait_for("the pod to be gone", PATIENCE, || seat.pods().is_empty().then_some(()));
    seat.patch(&json!({ "spec": { "suspended": false } }));
    seat.wait("Running", "two");
    learner.type_line(&reference, look, "kept");
}
