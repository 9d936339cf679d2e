//! An example from a commit to a learner at a prompt, through its steps, to nothing left.

use reqwest::Method;
use serde_json::json;

use super::{Seat, condition, navigate, statuses};
use crate::support::files::copy_tree;
use crate::support::node::{PATIENCE, node};
use crate::support::wait::wait_for;

#[test]
fn an_example_goes_from_a_commit_to_a_learner_in_a_pod_and_leaves_nothing_behind() {
    let node = node();
    let repository = node.git.create("journey");
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workshops/first-steps-in-the-shell");
    copy_tree(&example, &repository.work_tree().join("first-steps-in-the-shell"));
    let recipe = "first-steps-in-the-shell/step-spec.yaml";
    let text = std::fs::read_to_string(repository.work_tree().join(recipe)).unwrap();
    let base = format!("{}/busybox:1.36", node.registry.host());
    repository.write(recipe, &text.replace("docker.io/library/busybox:1.36", &base));
    repository.commit("the first workshop");
    repository.push();
    node.follow("journey", &repository.head());

    let seat = Seat::create("first-steps", "ada", json!({}));
    let reference = seat.reference();
    let object = seat.wait("Running", "look-around");
    let ready = condition(&object, "Ready").expect("a condition Ready");
    assert_eq!(ready["status"], "True", "{ready}");
    let home = seat.home();
    let mut learner = seat.enter();

    // A prompt in a pod, as the learner and not as root.
    let output =
        learner.type_line(&reference, "id -u; hostname; ls -a lighthouse/lamp-room; echo loo\"\"ked", "looked");
    assert!(output.contains("1000\r\n"), "{output}");

    // A check that fails, and the door it keeps shut.
    let report = learner.api(&reference, &Method::POST, "validate", None);
    assert_eq!(report["passed"], false, "{report:#}");
    let refused = learner.post(&format!("/w/{reference}/api/v1/navigate"), &json!({ "action": "next" }));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("ChecksFailing")), "{refused:?}");

    // Solved: the check passes, the machine is exchanged, what was achieved stays.
    learner.type_line(&reference, "echo amber > ~/answer.txt; touch /tmp/of-the-first; echo sol\"\"ved", "solved");
    let report = learner.api(&reference, &Method::POST, "validate", None);
    assert_eq!(report["passed"], true, "{report:#}");
    learner.api(&reference, &Method::PUT, "custom-state/notes", Some(&json!({ "value": "the lamp is amber" })));
    navigate(&mut learner, &reference, "next");
    seat.wait("Running", "tidy-up");
    assert_eq!(statuses(&mut learner, &reference)[..2], ["completed", "active"]);
    let output = learner.type_line(&reference, "ls /tmp; cat ~/answer.txt; echo loo\"\"ked", "looked");
    assert!(output.contains("amber") && !output.contains("of-the-first"), "{output}");
    let notes = learner.api(&reference, &Method::GET, "custom-state/notes", None);
    assert_eq!(notes["value"], "the lamp is amber");

    // A jump that nobody gates, and the same step anew.
    seat.patch(&json!({ "spec": { "currentStep": "make-it-yours" } }));
    seat.wait("Running", "make-it-yours");
    learner.type_line(&reference, "echo mine > ~/mine; echo wro\"\"te", "wrote");
    let before = seat.pods();
    seat.patch(&json!({ "spec": { "resetRequest": "because" } }));
    wait_for("a fresh machine of the same step", PATIENCE, || {
        let pods = seat.pods();
        (!pods.is_empty() && pods.iter().all(|pod| !before.contains(pod))).then_some(())
    });
    seat.wait("Running", "make-it-yours");
    learner.type_line(&reference, "ls ~/mine 2>&1; echo sho\"\"wn", "No such file");
    assert_eq!(statuses(&mut learner, &reference)[0], "completed");

    // Asleep there is no pod; awake it is the same place.
    seat.patch(&json!({ "spec": { "suspended": true } }));
    seat.wait("Suspended", "make-it-yours");
    wait_for("the pod to be gone", PATIENCE, || seat.pods().is_empty().then_some(()));
    seat.patch(&json!({ "spec": { "suspended": false } }));
    seat.wait("Running", "make-it-yours");
    assert_eq!(statuses(&mut learner, &reference)[0], "completed");
    learner.type_line(&reference, "echo ba\"\"ck", "back");

    node.cluster.kubectl(&["delete", "workspaceinstance", "-n", &seat.namespace, &seat.name, "--wait=false"]);
    seat.wait_gone(&home);
    let answer = learner.get(&format!("/w/{reference}/api/v1/state"));
    assert!([401, 404].contains(&answer.status), "{answer:?}");
}
