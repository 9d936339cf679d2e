//! `workshop controller` with many workspaces on simulated nodes, with exactly the rights in `manifests/`:
//! what it costs, what it survives, and that nothing of it stays.
//!
//! One controller keeps all workspaces of a cluster, so the scenes play one after the other. `WORKSHOP_SCALE` says how
//! many workspaces: 50 by default, because a workspace costs the cluster's own parts several hundred calls from its making
//! to the emptying of its namespace, and a thousand take minutes on two shared cores; the benchmark `operator` has 1,000.

mod crash;
mod endings;
mod faults;
mod own_cluster;

use std::time::{Duration, Instant};

use serde_json::json;
use workshop::crd::WorkspaceInstance;
use workshop::crd::instance::Phase;

use crate::support::cluster::{CONTROLLER, Moment};
use crate::support::crowd::{Crowd, STEPS, names, phase_and_step};

/// For everything that takes as long as there are workspaces; most of it is over in seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// The figures of the design.
const WRITES_PER_INSTANCE: usize = 15;
const WRITES_PER_SWITCH: usize = 6;

#[test]
fn workspaces_by_the_hundred_survive_what_happens_to_clusters() {
    let began = Instant::now();
    let crowd = Crowd::start("scale", 5);
    let said = |scene: &str| eprintln!("{:6.1} s: {scene}", began.elapsed().as_secs_f64());
    let seats = names("seat", size());
    all_at_once_run_with_few_writes(&crowd, &seats);
    said("all_at_once_run_with_few_writes");
    a_switch_of_all_steps_takes_few_writes(&crowd, &seats);
    said("a_switch_of_all_steps_takes_few_writes");
    calm_workspaces_cost_nothing(&crowd, &seats);
    said("calm_workspaces_cost_nothing");
    faults::others_write_to_the_same_instances(&crowd, &seats);
    said("others_write_to_the_same_instances");
    faults::the_api_server_goes_away_in_the_middle(&crowd, &seats);
    said("the_api_server_goes_away_in_the_middle");
    faults::the_history_of_the_watches_is_gone(&crowd, &seats);
    said("the_history_of_the_watches_is_gone");
    faults::rights_are_taken_away_and_given_back(&crowd, &seats);
    said("rights_are_taken_away_and_given_back");
    let start = Moment::now();
    endings::a_namespace_that_does_not_end_holds_up_only_its_own(&crowd);
    said("a_namespace_that_does_not_end_holds_up_only_its_own");
    endings::an_instance_made_anew_waits_for_the_old_namespace(&crowd);
    said("an_instance_made_anew_waits_for_the_old_namespace");
    endings::everything_of_all_is_gone_and_nothing_else(&crowd, &seats);
    said("everything_of_all_is_gone_and_nothing_else");
    assert!(crowd.controller.ended().is_none(), "the same process kept them all the time");
    crowd.until("the controller to close its watches of pods", PATIENCE, || {
        crowd.cluster.open_watches_since(start, CONTROLLER, "pods") == 0
    });
}

fn size() -> usize {
    std::env::var("WORKSHOP_SCALE").map_or(50, |text| text.parse().expect("WORKSHOP_SCALE is a number"))
}

fn all_at_once_run_with_few_writes(crowd: &Crowd, seats: &[String]) {
    let start = Moment::now();
    crowd.create(seats, &json!({}));
    crowd.wait_running(seats, STEPS[0], PATIENCE);
    for instance in crowd.of(seats) {
        let status = instance.status.as_ref().unwrap();
        assert!(status.namespace.as_ref().is_some_and(|name| name.starts_with("ws-seat-")));
        assert!(status.pinned.is_some() && status.started_at.is_some(), "{status:?}");
    }
    assert_eq!(crowd.namespaces().len(), seats.len());
    let writes = crowd.writes_since(start);
    let count: usize = writes.values().sum();
    eprintln!("writes for {} instances: {count}: {writes:?}", seats.len());
    assert!(count < WRITES_PER_INSTANCE * seats.len(), "{count} writes for {} instances: {writes:?}", seats.len());
    assert!(count >= 10 * seats.len(), "the log of calls is not what it seems: {writes:?}");
}

fn a_switch_of_all_steps_takes_few_writes(crowd: &Crowd, seats: &[String]) {
    let start = Moment::now();
    crowd.go_to(seats, STEPS[1]);
    crowd.wait_running(seats, STEPS[1], PATIENCE);
    let writes = crowd.writes_since(start);
    let count: usize = writes.values().sum();
    eprintln!("writes for {} switches: {count}: {writes:?}", seats.len());
    assert!(count < WRITES_PER_SWITCH * seats.len(), "{count} writes for {} switches: {writes:?}", seats.len());
    assert!(count >= 2 * seats.len(), "the log of calls is not what it seems: {writes:?}");
}

/// What is changed about them but asks for nothing is looked at, and nothing is written.
fn calm_workspaces_cost_nothing(crowd: &Crowd, seats: &[String]) {
    let start = Moment::now();
    crowd.patch(seats, &json!({ "metadata": { "annotations": { "example.org/note": "seen" } } }));
    let mut writes = crowd.writes_since(start);
    // How many run, which is written a while after it changed.
    writes.remove("patch workspacetemplates/status");
    assert!(writes.values().sum::<usize>() == 0, "nothing was to be done: {writes:?}");
}

fn running(instance: &WorkspaceInstance) -> bool {
    phase_and_step(instance).0 == Some(Phase::Running)
}
