//! What goes wrong: steps that do not start, rights that vanish, namespaces that hang or belong to somebody else.

use serde_json::json;
use workshop::crd::labels;

use super::scene::{PATIENCE, Scene, condition};
use crate::support::wait::wait_for;

const EVE: &str = "eve";

pub fn a_step_that_does_not_start_leads_back_with_its_reason(scene: &Scene) {
    scene.run(EVE);
    scene.patch(EVE, &json!({ "spec": { "currentStep": "two" } }));
    scene.wait(EVE, "it goes to the step", |instance| instance["status"]["phase"] == "Transitioning");
    let waiting = json!({ "waiting": { "reason": "ErrImagePull", "message": "r.example/course:two: not found" } });
    scene.play_node(
        EVE,
        &json!({ "containerStatuses": [{
            "name": "workspace", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": waiting,
        }] }),
    );
    let instance = scene.wait(EVE, "it goes back", |instance| instance["spec"]["currentStep"] == "one");
    assert_eq!(instance["status"]["currentStep"], "one");
    scene.make_ready(EVE);
    let instance = scene.wait(EVE, "it runs again", |instance| instance["status"]["phase"] == "Running");
    let message = instance["status"]["message"].as_str().unwrap();
    assert!(message.contains("ErrImagePull: r.example/course:two: not found"), "{message}");
}

pub fn rights_that_are_taken_away_are_told_and_it_heals(scene: &Scene) {
    let role = scene.cluster.get(&["clusterrole", "workshop-instance-manager"]).unwrap();
    let mut empty = role.clone();
    empty["rules"] = json!([]);
    let replace = |role: &serde_json::Value| {
        let mut role = role.clone();
        role["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let said = scene.cluster.try_kubectl(&["replace", "-f", "-"], Some(&role.to_string()));
        assert!(said.ok, "{}", said.err);
    };
    let before = scene.pod(EVE).unwrap();
    replace(&empty);
    scene.patch(EVE, &json!({ "spec": { "resetRequest": "rights" } }));
    let instance = scene.wait(EVE, "it says so", |instance| condition(instance, "Ready") == "False Forbidden");
    let message = instance["status"]["message"].as_str().unwrap();
    assert!(message.contains("not allowed"), "{message}");
    replace(&role);
    wait_for("another pod", PATIENCE, || {
        scene.pod(EVE).filter(|other| other["metadata"]["uid"] != before["metadata"]["uid"])
    });
    scene.make_ready(EVE);
    scene.wait(EVE, "it heals", |instance| {
        condition(instance, "Ready") == "True Succeeded" && instance["status"]["resetHandled"] == "rights"
    });
}

pub fn what_somebody_changes_around_a_workspace_is_put_back(scene: &Scene) {
    let room = scene.room(EVE);
    let pod = scene.pod(EVE).unwrap();
    scene.cluster.kubectl(&["delete", "networkpolicy", "workspace", "-n", &room]);
    let patch = json!({ "spec": { "hard": { "pods": "99" } } }).to_string();
    scene.cluster.kubectl(&["patch", "resourcequota", "workspace", "-n", &room, "--type=merge", "-p", &patch]);
    let before = scene.object(EVE, "service", "workspace").unwrap();
    scene.patch(EVE, &json!({ "metadata": { "annotations": { "reconcile.workshop.platform/requestedAt": "1" } } }));
    wait_for("the policy is back", PATIENCE, || scene.object(EVE, "networkpolicy", "workspace"));
    wait_for("the quota is back", PATIENCE, || {
        let quota = scene.object(EVE, "resourcequota", "workspace")?;
        (quota["spec"]["hard"]["pods"] == "2").then_some(())
    });
    // What nobody changed is not written, and the learner notices nothing.
    let after = scene.object(EVE, "service", "workspace").unwrap();
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert_eq!(scene.pod(EVE).unwrap()["metadata"]["uid"], pod["metadata"]["uid"]);
}

pub fn a_namespace_that_hangs_says_what_it_waits_for(scene: &Scene) {
    let room = scene.room(EVE);
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "held", "namespace": room, "finalizers": ["tests.example/hold"] },
    });
    scene.cluster.apply(&held);
    scene.delete(EVE);
    let instance = scene.wait(EVE, "it says what it waits for", |instance| {
        instance["status"]["message"].as_str().is_some_and(|message| message.contains("tests.example/hold"))
    });
    assert_eq!(instance["status"]["phase"], "Terminating");
    let patch = json!({ "metadata": { "finalizers": null } }).to_string();
    scene.cluster.kubectl(&["patch", "configmap", "held", "-n", &room, "--type=merge", "-p", &patch]);
    scene.wait_gone(EVE);
}

pub fn a_namespace_of_somebody_else_is_left_alone(scene: &Scene) {
    let room = scene.room("mallory");
    scene.cluster.kubectl(&["create", "namespace", &room]);
    let namespace = || scene.cluster.get(&["namespace", &room]).unwrap();
    let before = namespace();
    scene.create("mallory", json!({}));
    scene.wait("mallory", "it says so", |instance| condition(instance, "Ready") == "False NamespaceTaken");
    scene.delete("mallory");
    wait_for("the instance goes", PATIENCE, || scene.instance("mallory").is_none().then_some(()));
    let after = namespace();
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    scene.cluster.kubectl(&["delete", "namespace", &room, "--wait=false"]);
}

pub fn one_of_the_same_name_waits_for_its_predecessor(scene: &Scene) {
    let first = scene.run("twin");
    let room = scene.room("twin");
    scene.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "held", "namespace": room, "finalizers": ["tests.example/hold"] },
    }));
    scene.delete("twin");
    wait_for("its namespace goes", PATIENCE, || {
        scene.cluster.get(&["namespace", &room])?["metadata"].get("deletionTimestamp").cloned()
    });
    // Somebody who loses patience.
    scene.patch("twin", &json!({ "metadata": { "finalizers": null } }));
    wait_for("the first is gone", PATIENCE, || scene.instance("twin").is_none().then_some(()));
    scene.create("twin", json!({}));
    scene.wait("twin", "it waits", |instance| {
        instance["status"]["message"].as_str().is_some_and(|message| message.contains("of its predecessor"))
    });
    let patch = json!({ "metadata": { "finalizers": null } }).to_string();
    scene.cluster.kubectl(&["patch", "configmap", "held", "-n", &room, "--type=merge", "-p", &patch]);
    let uid = scene.instance("twin").unwrap()["metadata"]["uid"].clone();
    wait_for("a namespace of its own", PATIENCE, || {
        (scene.cluster.get(&["namespace", &room])?["metadata"]["labels"][labels::INSTANCE_UID] == uid).then_some(())
    });
    scene.make_ready("twin");
    let second = scene.wait("twin", "it runs", |instance| instance["status"]["phase"] == "Running");
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    scene.delete("twin");
    scene.wait_gone("twin");
}
