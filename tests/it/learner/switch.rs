//! Step switches and the life of a workspace, seen by its learner.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::{EXAMPLE, WORKSHOP, create, machine, next, running, solve_first, statuses};
use crate::support::local::PATIENCE;
use crate::support::wait::wait_for;

#[test]
fn a_step_switch_replaces_the_machine_and_keeps_the_progress() {
    let local = machine();
    let name = "ada";
    let mut learner = running(&local, name);

    let refused = learner.post(&format!("/w/{name}/api/v1/navigate"), &json!({ "action": "next" }));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("ChecksFailing")), "{refused:?}");

    solve_first(&mut learner, name);
    learner.api(name, &Method::PUT, "custom-state/notes", Some(&json!({ "value": "the lamp is amber" })));
    learner.type_line(name, "touch /tmp/of-the-first-step; echo tou\"\"ched", "touched");
    next(&mut learner, name);
    local.wait_for(name, "Running", "tidy-up");
    assert_eq!(statuses(&mut learner, name)[..2], ["completed", "active"]);
    let output = learner.type_line(name, "ls /tmp; cat ~/answer.txt; echo loo\"\"ked", "looked");
    assert!(output.contains("amber"), "the second step's image has the first one's answer: {output}");
    assert!(!output.contains("of-the-first-step"), "the first step's machine is gone: {output}");
    let notes = learner.api(name, &Method::GET, "custom-state/notes", None);
    assert_eq!(notes["value"], "the lamp is amber");

    // Back, forward by a jump that nobody gates, anew.
    learner.api(name, &Method::POST, "navigate", Some(&json!({ "action": "previous" })));
    local.wait_for(name, "Running", "look-around");
    local.json(&["workspace", "goto", name, "make-it-yours"]);
    local.wait_for(name, "Running", "make-it-yours");
    learner.type_line(name, "echo mine > ~/mine; echo wro\"\"te", "wrote");
    local.json(&["workspace", "reset", name]);
    wait_for("a fresh machine of the same step", PATIENCE, || {
        let output = learner.type_line(name, "ls ~/mine 2>&1; echo sho\"\"wn", "shown");
        output.contains("No such file").then_some(())
    });
    assert_eq!(statuses(&mut learner, name)[0], "completed");
}

#[test]
fn a_suspended_workspace_wakes_with_its_progress_and_a_deleted_one_is_gone() {
    let local = machine();
    let name = "ada";
    let mut learner = running(&local, name);
    solve_first(&mut learner, name);
    local.json(&["workspace", "suspend", name]);
    local.wait_for(name, "Suspended", "look-around");
    local.json(&["workspace", "resume", name]);
    local.wait_for(name, "Running", "look-around");
    assert_eq!(statuses(&mut learner, name)[0], "completed");
    local.json(&["workspace", "delete", name]);
    wait_for("the instance to be gone", PATIENCE, || local.instance(name).is_none().then_some(()));
    let answer = learner.get(&format!("/w/{name}/api/v1/state"));
    assert!([401, 404].contains(&answer.status), "{answer:?}");
}

#[test]
fn a_changed_text_is_there_within_moments_and_the_terminal_is_not_touched() {
    let local = machine();
    let name = "ada";
    let mut learner = running(&local, name);
    learner.type_line(name, "MARK=still-the-same-shell; echo s\"\"et", "set");
    let text = local.source().join(EXAMPLE).join("export/steps/look-around/content.md");
    let old = std::fs::read_to_string(&text).unwrap();
    let began = Instant::now();
    std::fs::write(&text, old.replace("# Look around", "# Look around you")).unwrap();
    wait_for("the new text", PATIENCE, || {
        let step = learner.api(name, &Method::GET, "steps/look-around", None);
        step["html"].as_str().unwrap_or_default().contains("Look around you").then_some(())
    });
    eprintln!("a changed text was there after {:?}", began.elapsed());
    learner.type_line(name, "echo \"$MARK\"", "still-the-same-shell\r\n");
}

#[test]
fn ten_workspaces_run_beside_each_other() {
    let local = machine();
    let began = Instant::now();
    let output = local.run(&["workspace", "create", "--template", WORKSHOP, "--count", "10", "--prefix", "seat-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_for("ten workspaces to run", PATIENCE, || {
        let list = local.json(&["workspace", "list"]);
        let instances = list["instances"].as_array().expect("instances");
        (instances.len() == 10 && instances.iter().all(|instance| instance["phase"] == "Running")).then_some(())
    });
    eprintln!("ten workspaces ran after {:?}", began.elapsed());
    create(&local, "one-more");
    local.wait_for("one-more", "Running", "look-around");
}
