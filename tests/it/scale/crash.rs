//! The controller killed at each stage of what it does for a workspace: the next one brings it to its end, once.

use serde_json::json;

use super::PATIENCE;
use crate::support::controller::Controller;
use crate::support::crowd::{Crowd, NAMESPACE, STEPS, names};

/// Stages of a start and of a switch, in their order.
const STAGES: [&str; 6] = [
    "operator-after-record",
    "operator-after-namespace",
    "operator-mid-surroundings",
    "operator-after-surroundings",
    "operator-after-deployment",
    "operator-before-status",
];

#[test]
fn a_controller_killed_at_any_stage_leaves_nothing_half_done() {
    let mut crowd = Crowd::start("operator-crash", 2);
    for (round, stage) in STAGES.iter().enumerate() {
        let seat = names(&format!("seat-{round}"), 1);
        crowd.controller.terminate();
        let doomed = crowd.start_controller(&[("WORKSHOP_FAILPOINT", stage)]);
        crowd.create(&seat, &json!({}));
        doomed.wait_killed();
        restart(&mut crowd);
        crowd.wait_running(&seat, STEPS[0], PATIENCE);

        let switched = ["operator-after-record", "operator-after-deployment", "operator-before-status"];
        if switched.contains(stage) {
            crowd.controller.terminate();
            let doomed = crowd.start_controller(&[("WORKSHOP_FAILPOINT", stage)]);
            crowd.go_to(&seat, STEPS[1]);
            doomed.wait_killed();
            restart(&mut crowd);
            crowd.wait_running(&seat, STEPS[1], PATIENCE);
        }
        let namespace = crowd.of(&seat)[0].status.clone().unwrap().namespace.unwrap();
        let pods = || crowd.cluster.get(&["pods", "-n", &namespace]).unwrap()["items"].as_array().unwrap().len();
        crowd.until("one pod and no other", PATIENCE, || pods() == 1);
    }

    // The end of one, cut off as well.
    let last = names("seat-0", 1);
    crowd.controller.terminate();
    let doomed = crowd.start_controller(&[("WORKSHOP_FAILPOINT", "operator-after-removal")]);
    crowd.delete(&last);
    doomed.wait_killed();
    assert!(crowd.mirror.instance(NAMESPACE, &last[0]).is_some(), "it goes after its namespace");
    restart(&mut crowd);
    crowd.wait_gone(&last, PATIENCE);
    assert_eq!(crowd.namespaces().len(), STAGES.len() - 1);
}

fn restart(crowd: &mut Crowd) {
    let none: [(&str, &str); 0] = [];
    let next: Controller = crowd.start_controller(&none);
    crowd.controller = next;
}
