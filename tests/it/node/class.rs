//! Many at once, and what is large.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::{Course, Seat};
use crate::support::node::{PATIENCE, node};
use crate::support::wait::wait_for;

#[test]
fn twenty_learners_are_let_in_at_once_and_leave_nothing_behind() {
    let course = Course::write("crowd", "lifecycle: {idleSuspend: false}\nresources: {cpu: 100m, memory: 64Mi}\n");
    course.publish();
    let node = node();
    let namespace = node.cluster.create_namespace("class");
    let began = Instant::now();
    let made = node.json(&[
        "workspace",
        "create",
        "--cluster",
        "-n",
        &namespace,
        "--template",
        "crowd",
        "--count",
        "20",
        "--prefix",
        "student-",
    ]);
    assert_eq!(made["instances"].as_array().map(Vec::len), Some(20), "{made:#}");
    let list = || {
        let list = node.cluster.get(&["workspaceinstances", "-n", &namespace]).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    };
    wait_for("twenty workspaces to run", PATIENCE, || {
        list().iter().all(|instance| instance["status"]["phase"] == "Running").then_some(())
    });
    eprintln!("twenty workspaces ran after {:?}", began.elapsed());
    let seats: Vec<Seat> = list()
        .iter()
        .map(|instance| {
            let name = instance["metadata"]["name"].as_str().unwrap().to_owned();
            Seat { node, namespace: namespace.clone(), name }
        })
        .collect();
    std::thread::scope(|scope| {
        for seat in &seats {
            scope.spawn(move || {
                let mut learner = seat.enter();
                let reference = seat.reference();
                let line = format!("echo I am {}; touch /tmp/answer; echo do\"\"ne", seat.name);
                let output = learner.type_line(&reference, &line, "done\r\n");
                assert!(output.contains(&format!("I am {}\r\n", seat.name)), "{output}");
                assert_eq!(learner.api(&reference, &Method::POST, "validate", None)["passed"], true);
            });
        }
    });
    let homes: Vec<String> = seats.iter().map(Seat::home).collect();
    let names: Vec<&str> = seats.iter().map(|seat| seat.name.as_str()).collect();
    let delete = [&["workspace", "delete", "--cluster", "-n", &namespace], names.as_slice()].concat();
    assert!(node.run(&delete).status.success());
    for (seat, home) in seats.iter().zip(&homes) {
        seat.wait_gone(home);
    }
}

#[test]
fn an_artifact_of_five_megabytes_reaches_the_pod_through_the_management_api() {
    let course = Course::write("large", "lifecycle: {idleSuspend: false}\n");
    // Text that does not compress: a hash of a hash of a hash.
    let mut text = String::from("# one\n\n");
    let mut digest = workshop::domain::digest::Digest::of(b"large");
    while text.len() < 5 << 20 {
        digest = workshop::domain::digest::Digest::of(digest.to_string().as_bytes());
        text.push_str(&digest.hex());
        text.push('\n');
    }
    course.file("export/steps/three/content.md", &text);
    let template = course.publish();
    assert!(template["spec"]["artifact"]["size"].as_u64().unwrap() > 5 << 20, "{template:#}");
    let (seat, mut learner) = Seat::running("large", "ada", json!({}));
    let reference = seat.reference();
    learner.type_line(&reference, "touch /tmp/answer; echo do\"\"ne", "done");
    assert_eq!(learner.api(&reference, &Method::POST, "validate", None)["passed"], true);
    let maps = node().cluster.get(&["configmaps", "-n", &seat.home()]).unwrap();
    let maps = maps["items"].as_array().unwrap();
    assert!(maps.iter().all(|map| !map["metadata"]["name"].as_str().unwrap().starts_with("artifact-")), "{maps:#?}");
}
