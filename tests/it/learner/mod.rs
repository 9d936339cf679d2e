//! What a learner lives through on one machine: the real `workshop up`, the native runtime, the real backend.

mod faults;
mod journey;
mod strangers;
mod switch;

use serde_json::json;

use crate::support::learner::Learner;
use crate::support::local::Local;

/// The example that the tests use, and its workshop's id.
const EXAMPLE: &str = "first-steps-in-the-shell";
const WORKSHOP: &str = "first-steps";

/// A machine that serves the example. Running workspaces needs root, and says so.
fn machine() -> Local {
    assert!(
        rustix::process::geteuid().is_root(),
        "the native runtime runs workspaces as root: run these tests as root"
    );
    Local::start(&[EXAMPLE])
}

/// Makes an instance and waits until it runs; gives its learner, who opened its page.
fn running(local: &Local, name: &str) -> Learner {
    create(local, name);
    local.wait_for(name, "Running", "look-around");
    enter(local, name)
}

/// Somebody who opened the workspace's page on the machine's own browser.
fn enter(local: &Local, name: &str) -> Learner {
    let mut learner = Learner::owner(&local.address());
    learner.open(name);
    learner
}

fn create(local: &Local, name: &str) {
    let output = local.run(&["workspace", "create", "--template", WORKSHOP, "--owner", "ada", name]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Solves the first step in the terminal and checks it.
fn solve_first(learner: &mut Learner, name: &str) {
    learner.type_line(name, "echo amber > ~/answer.txt; echo sol\"\"ved", "solved");
    let report = learner.api(name, &reqwest::Method::POST, "validate", None);
    assert_eq!(report["passed"], true, "{report:#}");
}

/// The statuses of all steps, in their order.
fn statuses(learner: &mut Learner, name: &str) -> Vec<String> {
    let steps = learner.api(name, &reqwest::Method::GET, "steps", None);
    let steps = steps["steps"].as_array().expect("steps").clone();
    steps.iter().map(|step| step["status"].as_str().expect("a status").to_owned()).collect()
}

/// Asks for the next step, as the page does.
fn next(learner: &mut Learner, name: &str) {
    learner.api(name, &reqwest::Method::POST, "navigate", Some(&json!({ "action": "next" })));
}
