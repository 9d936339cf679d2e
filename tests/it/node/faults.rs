//! Whatever breaks, the learner is at a step that runs, with the same progress, and the reason is on the instance.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Course, Seat, condition, navigate, statuses};
use crate::support::cluster::CONTROLLER;
use crate::support::node::{PATIENCE, REPOSITORIES, node};
use crate::support::registry::{LOGIN, Registry};
use crate::support::wait::wait_for;

/// Publishes a workshop and takes the image of its second step out of the registry. A replica that took over would put it
/// back, so the caller holds them.
fn publish_with_missing_image(id: &str) {
    let course = Course::write(id, "lifecycle: {idleSuspend: false}\n");
    let template = course.publish();
    let step = &template["spec"]["steps"][1];
    let (tag, digest) = (step["imageTag"].as_str().unwrap(), step["imageDigest"].as_str().unwrap());
    let (repository, _) = tag.trim_start_matches(&node().registry.host()).rsplit_once(':').unwrap();
    let url = format!("http://{}/v2{repository}/manifests/{digest}", node().registry.host());
    let output =
        Command::new("curl").args(["--silent", "--show-error", "--fail", "-X", "DELETE", &url]).output().unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_step_whose_image_is_missing_leads_back_to_the_one_before_with_the_reason() {
    let _replicas = node().hold_replicas();
    publish_with_missing_image("missing-image");
    let (seat, mut learner) = Seat::running("missing-image", "ada", json!({}));
    let reference = seat.reference();
    learner.type_line(&reference, "touch /tmp/answer; echo do\"\"ne", "done");
    assert_eq!(learner.api(&reference, &Method::POST, "validate", None)["passed"], true);
    navigate(&mut learner, &reference, "next");
    let said = seat.wait_for("be back in the first step and say why", |object| {
        let status = &object["status"];
        let notice = status["notice"].as_str().filter(|text| !text.is_empty())?;
        let is_back = status["phase"] == "Running" && status["currentStep"] == "one";
        (is_back && object["spec"]["currentStep"] == "one").then(|| notice.to_owned())
    });
    assert!(said.contains("two") && said.contains("not found"), "{said}");
    learner.type_line(&reference, "echo ba\"\"ck", "back");
    assert_eq!(statuses(&mut learner, &reference)[0], "completed");
}

#[test]
fn a_first_step_whose_image_is_missing_says_so_on_the_instance() {
    let _replicas = node().hold_replicas();
    publish_with_missing_image("missing-first");
    let seat = Seat::create("missing-first", "ada", json!({ "currentStep": "two" }));
    let said = seat.wait_for("say why it does not run", |object| {
        let ready = condition(object, "Ready")?;
        let message = ready["message"].as_str()?.to_owned();
        (ready["status"] == "False" && message.contains("not found")).then_some(message)
    });
    assert!(said.contains("ErrImagePull") || said.contains("ImagePullBackOff"), "{said}");
}

#[test]
fn a_killed_backend_comes_back_with_step_and_progress() {
    let course = Course::write("killed", "lifecycle: {idleSuspend: false}\n");
    course.publish();
    let (seat, mut learner) = Seat::running("killed", "ada", json!({}));
    let reference = seat.reference();
    learner.type_line(&reference, "touch /tmp/answer; echo do\"\"ne", "done");
    assert_eq!(learner.api(&reference, &Method::POST, "validate", None)["passed"], true);
    seat.wait_for("keep the progress", |object| {
        (object.pointer("/status/progress/0/status")? == "completed").then_some(())
    });
    let epoch = |object: &Value| object["status"]["epoch"].as_i64();
    let before = seat.object().as_ref().and_then(epoch).expect("an epoch");
    // From the machine: within the container nobody may.
    let id = seat.container();
    let killed = Command::new("runc").args(["--root", "/run/containerd/runc/k8s.io", "kill", &id, "KILL"]).status();
    assert!(killed.unwrap().success());
    seat.wait_for("have a backend again", |object| {
        (object["status"]["phase"] == "Running" && epoch(object)? > before).then_some(())
    });
    assert_eq!(statuses(&mut learner, &reference)[0], "completed");
    learner.type_line(&reference, "cat /etc/step; echo ba\"\"ck", "back");
}

#[test]
fn a_namespace_that_is_not_ours_is_neither_used_nor_removed() {
    let course = Course::write("foreign", "");
    course.publish();
    let namespace = node().cluster.create_namespace("class");
    // The name of the namespace to come, as DESIGN gives it.
    let digest = workshop::domain::digest::Digest::of(format!("{namespace}/ada").as_bytes()).hex();
    let home = format!("ws-ada-{}", &digest[..10]);
    node().cluster.kubectl(&["create", "namespace", &home]);
    node().cluster.kubectl(&["create", "configmap", "-n", &home, "precious"]);
    let seat = Seat::create_in(&namespace, "foreign", "ada", json!({}));
    seat.wait_for("say that the namespace is somebody else's", |object| {
        let ready = condition(object, "Ready")?;
        (ready["status"] == "False" && ready["message"].as_str()?.contains(&home)).then_some(())
    });
    node().cluster.kubectl(&["delete", "workspaceinstance", "-n", &namespace, "ada", "--timeout=60s"]);
    wait_for("the instance to be gone", PATIENCE, || seat.object().is_none().then_some(()));
    let left = node().cluster.get(&["configmap", "-n", &home, "precious"]).expect("what was there is there");
    assert_eq!(left["metadata"]["name"], "precious");
    let other = node().cluster.get(&["namespace", &home]).expect("the namespace is there");
    assert_eq!(other["status"]["phase"], "Active");
    assert!(node().cluster.get(&["deployment", "-n", &home, "workspace"]).is_none());
}

#[test]
fn a_leader_that_is_killed_in_the_middle_of_a_switch_costs_nobody_anything() {
    let course = Course::write("leaderless", "lifecycle: {idleSuspend: false}\n");
    course.publish();
    let (seat, mut learner) = Seat::running("leaderless", "ada", json!({}));
    let (waiting, _) = Seat::running("leaderless", "bob", json!({}));
    let reference = seat.reference();
    learner.type_line(&reference, "touch /tmp/answer; echo do\"\"ne", "done");
    assert_eq!(learner.api(&reference, &Method::POST, "validate", None)["passed"], true);
    let mut replicas = node().hold_replicas();
    assert_eq!(replicas.len(), 2, "no other test ends one");
    navigate(&mut learner, &reference, "next");
    seat.wait_for("be on its way", |object| (object.pointer("/status/run/step")? == "two").then_some(()));
    drop(replicas.remove(0));
    assert_eq!(seat.object().unwrap()["status"]["phase"], "Transitioning", "it was killed in the middle");
    replicas[0].wait_for_log("this process leads");
    drop(replicas);
    seat.wait("Running", "two");
    assert_eq!(statuses(&mut learner, &reference)[..2], ["completed", "active"]);
    learner.type_line(&reference, "cat /etc/step; echo sho\"\"wn", "two");
    // What asked for nothing went on, and what is asked now is done by the one that leads now.
    assert_eq!(waiting.pods().len(), 1);
    waiting.patch(&json!({ "spec": { "currentStep": "three" } }));
    waiting.wait("Running", "three");
}

#[test]
fn images_of_a_private_registry_are_pulled_with_a_copy_of_its_secret() {
    let node = node();
    let private = Registry::start_with_login_in(&node.cluster);
    let login = json!({ "auths": { (private.host()): { "username": LOGIN.0, "password": LOGIN.1 } } });
    let entry = format!("--from-literal=.dockerconfigjson={login}");
    let kind = "--type=kubernetes.io/dockerconfigjson";
    node.cluster.kubectl(&["create", "secret", "generic", "private", "-n", REPOSITORIES, kind, &entry]);
    // What docs/gitops.md asks the administrator for.
    let user = format!("--user={CONTROLLER}");
    let role = "--clusterrole=workshop-repository-manager";
    node.cluster.kubectl(&["create", "rolebinding", "workshop", "-n", REPOSITORIES, role, &user]);
    let course = Course::write("private", "lifecycle: {idleSuspend: false}\n");
    course.repository.commit("what there is");
    course.repository.push();
    let registry = format!("{}/private", private.host());
    let compile = json!({ "mode": "Inline", "registry": registry, "secretRef": { "name": "private" } });
    node.follow_with("private", &course.repository.head(), &compile);
    let (seat, mut learner) = Seat::running("private", "ada", json!({}));
    learner.type_line(&seat.reference(), "cat /etc/step; echo sho\"\"wn", "one");
    let pods = node.cluster.get(&["pods", "-n", &seat.home()]).unwrap();
    assert_eq!(pods["items"][0]["spec"]["imagePullSecrets"], json!([{ "name": "workspace-pull" }]), "{pods:#}");
    let home = seat.home();
    node.cluster.kubectl(&["delete", "workspaceinstance", "-n", &seat.namespace, "ada", "--wait=false"]);
    seat.wait_gone(&home);
}
