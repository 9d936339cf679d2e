//! The life of an instance as it should be.

use jiff::Timestamp;
use serde_json::json;

use super::scene::{PATIENCE, Scene, condition, image};
use crate::support::cluster::Moment;
use crate::support::wait::wait_for;

const ADA: &str = "ada";

pub fn an_instance_becomes_a_namespace_of_its_own_in_few_writes(scene: &Scene) {
    // The template's own status is written once, before there is any instance.
    wait_for("the template is ready", PATIENCE, || {
        let template = scene.cluster.get(&["workspacetemplate", "course"])?;
        (condition(&template, "Ready") == "True Succeeded").then_some(())
    });
    let began = Moment::now();
    let instance = scene.run(ADA);
    let writes = scene.writes_since(began);
    assert!(writes.len() < 15, "{} writes: {writes:#?}", writes.len());
    assert_eq!(condition(&instance, "Ready"), "True Succeeded");
    assert_eq!(instance["status"]["currentStep"], "one");
    assert_eq!(instance["status"]["namespace"], scene.room(ADA));
    assert_eq!(instance["metadata"]["finalizers"], json!(["workshop.platform/workspace"]));
    let namespace = scene.cluster.get(&["namespace", &scene.room(ADA)]).unwrap();
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(labels["workshop.platform/instance-uid"], instance["metadata"]["uid"]);
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "baseline");
    for (kind, name) in [
        ("resourcequota", "workspace"),
        ("limitrange", "workspace"),
        ("serviceaccount", "workspace"),
        ("networkpolicy", "workspace"),
        ("secret", "workspace-token"),
        ("rolebinding", "workshop-instance-manager"),
    ] {
        assert!(scene.object(ADA, kind, name).is_some(), "{kind} {name}");
    }
    let service = scene.object(ADA, "service", "workspace").unwrap();
    let address = format!("{}:7681", service["spec"]["clusterIP"].as_str().unwrap());
    assert_eq!(instance["status"]["run"]["address"], address);
    let pod = scene.pod(ADA).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["image"], format!("r.example/course:one@{}", image("one", "a")));
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let map = volumes.iter().find_map(|volume| volume.pointer("/configMap/name")).unwrap();
    let map = scene.object(ADA, "configmap", map.as_str().unwrap()).unwrap();
    assert_eq!(map["immutable"], true);
}

pub fn a_step_switch_is_few_writes_and_one_image(scene: &Scene) {
    let began = Moment::now();
    scene.patch(ADA, &json!({ "spec": { "currentStep": "two" } }));
    scene.wait(ADA, "it goes to the step", |instance| instance["status"]["phase"] == "Transitioning");
    scene.make_ready(ADA);
    scene.wait(ADA, "it is there", |instance| {
        instance["status"]["phase"] == "Running" && instance["status"]["currentStep"] == "two"
    });
    let writes = scene.writes_since(began);
    assert!(writes.len() < 6, "{} writes: {writes:#?}", writes.len());
    assert_eq!(writes.iter().filter(|call| call.resource == "deployments").count(), 1, "{writes:#?}");
    let pod = scene.pod(ADA).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["image"], format!("r.example/course:two@{}", image("two", "a")));
}

pub fn a_newer_template_touches_nothing_until_somebody_asks(scene: &Scene) {
    let generation = || scene.object(ADA, "deployment", "workspace").unwrap()["metadata"]["generation"].clone();
    let before = generation();
    scene.publish("b");
    scene.wait(ADA, "it knows of the newer one", |instance| {
        condition(instance, "UpdateAvailable") == "True NewerRevision"
    });
    assert_eq!(generation(), before);
    scene.patch(ADA, &json!({ "metadata": { "annotations": { "workshop.platform/update": "1" } } }));
    scene.wait(ADA, "it moves", |instance| instance["status"]["phase"] == "Transitioning");
    scene.make_ready(ADA);
    let instance = scene.wait(ADA, "it runs again", |instance| instance["status"]["phase"] == "Running");
    assert_eq!(condition(&instance, "UpdateAvailable"), "");
    let pod = scene.pod(ADA).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["image"], format!("r.example/course:two@{}", image("two", "b")));
    // A reset of the same image is another pod.
    scene.patch(ADA, &json!({ "spec": { "resetRequest": "1" } }));
    wait_for("another pod", PATIENCE, || {
        scene.pod(ADA).filter(|other| other["metadata"]["uid"] != pod["metadata"]["uid"])
    });
    scene.make_ready(ADA);
    scene.wait(ADA, "it runs again", |instance| {
        instance["status"]["phase"] == "Running" && instance["status"]["resetHandled"] == "1"
    });
}

pub fn what_overrides_may_not_is_refused_and_what_runs_goes_on(scene: &Scene) {
    let before = scene.pod(ADA).unwrap();
    scene.patch(ADA, &json!({ "spec": { "overrides": { "resources": { "memory": "4Gi" } } } }));
    let instance = scene.wait(ADA, "it is refused", |instance| condition(instance, "Ready") == "False InvalidSpec");
    let message = instance["status"]["message"].as_str().unwrap();
    assert!(message.contains("resources.memory may be at most the template's 512Mi"), "{message}");
    assert_eq!(instance["status"]["phase"], "Running");
    assert_eq!(scene.pod(ADA).unwrap()["metadata"]["uid"], before["metadata"]["uid"]);
    scene.patch(ADA, &json!({ "spec": { "overrides": null } }));
    scene.wait(ADA, "it is ready again", |instance| condition(instance, "Ready") == "True Succeeded");
    assert_eq!(scene.pod(ADA).unwrap()["metadata"]["uid"], before["metadata"]["uid"]);
}

pub fn one_that_sleeps_has_no_pods(scene: &Scene) {
    scene.patch(ADA, &json!({ "spec": { "suspended": true } }));
    scene.wait(ADA, "it sleeps", |instance| instance["status"]["phase"] == "Suspended");
    let replicas = || scene.object(ADA, "deployment", "workspace").map(|object| object["spec"]["replicas"].clone());
    wait_for("no replicas", PATIENCE, || (replicas() == Some(json!(0))).then_some(()));
    scene.patch(ADA, &json!({ "spec": { "suspended": false } }));
    wait_for("one replica", PATIENCE, || (replicas() == Some(json!(1))).then_some(()));
    scene.make_ready(ADA);
    let instance = scene.wait(ADA, "it runs again", |instance| instance["status"]["phase"] == "Running");
    assert!(instance["status"]["run"]["address"].is_string());
}

pub fn the_end_is_told_before_it_comes(scene: &Scene) {
    scene.run("bob");
    let soon = Timestamp::from_second(Timestamp::now().as_second() + 8).unwrap();
    let spec = json!({ "expiresAt": soon.to_string(), "overrides": { "lifecycle": { "ttl": "5s" } } });
    scene.patch("bob", &json!({ "spec": spec }));
    scene.wait("bob", "its end is told", |instance| condition(instance, "Expiring") == "True Expiring");
    let events = || {
        let events = scene.cluster.get(&["events", "-n", &scene.namespace]).unwrap_or_default();
        let events = events["items"].as_array().cloned().unwrap_or_default();
        events.into_iter().any(|event| event["reason"] == "Expiring" && event["involvedObject"]["name"] == "bob")
    };
    wait_for("an event", PATIENCE, || events().then_some(()));
    scene.wait_gone("bob");
    assert!(Timestamp::now() >= soon);
}
