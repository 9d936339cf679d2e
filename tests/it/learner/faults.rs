//! Whatever dies, the learner is back at the same step with the same progress.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::{enter, machine, next, running, solve_first, statuses};
use crate::support::local::PATIENCE;
use crate::support::wait::wait_for;

/// The host's ids of the backends that run from images below `directory`.
fn backends(directory: &Path) -> Vec<String> {
    // The kernel keeps 15 characters of a program's name.
    let output = Command::new("pgrep").args(["-x", "workshop-backen"]).output().expect("pgrep");
    let directory = directory.to_string_lossy().into_owned();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|pid| {
            let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            mounts.contains(&directory)
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_killed_backend_comes_back_with_step_and_progress() {
    let local = machine();
    let name = "ada";
    let mut learner = running(&local, name);
    solve_first(&mut learner, name);
    let killed = backends(local.directory());
    assert!(!killed.is_empty(), "the backend's process is not found");
    for pid in &killed {
        let status = Command::new("kill").args(["-9", pid]).status().expect("kill");
        assert!(status.success(), "process {pid} was there to be killed");
    }
    wait_for("another backend", PATIENCE, || {
        backends(local.directory()).iter().any(|pid| !killed.contains(pid)).then_some(())
    });
    local.wait_for(name, "Running", "look-around");
    assert_eq!(statuses(&mut learner, name)[0], "completed");
    learner.type_line(name, "echo ba\"\"ck", "back");
}

#[test]
fn a_killed_shell_is_replaced_in_place() {
    let local = machine();
    let name = "ada";
    let mut learner = running(&local, name);
    learner.type_line(name, "touch /tmp/kept; echo tou\"\"ched", "touched");
    learner.type_line(name, "kill -9 $$", "");
    learner.type_line(name, "ls /tmp/kept && echo new-sh\"\"ell", "new-shell");
}

#[test]
fn a_killed_gateway_leaves_the_machine_alone_and_takes_it_up_again() {
    let mut local = machine();
    let name = "ada";
    let mut learner = running(&local, name);
    solve_first(&mut learner, name);
    learner.type_line(name, "MARK=the-very-same; echo s\"\"et", "set");
    local.kill();
    local.up();
    local.wait_for(name, "Running", "look-around");
    let mut learner = enter(&local, name);
    learner.type_line(name, "echo \"$MARK\"", "the-very-same\r\n");
    assert_eq!(statuses(&mut learner, name)[0], "completed");
}

#[test]
fn a_gateway_killed_in_the_middle_of_a_switch_ends_it_when_it_is_back() {
    let mut local = machine();
    let name = "ada";
    let mut learner = running(&local, name);
    solve_first(&mut learner, name);
    next(&mut learner, name);
    local.kill();
    local.up();
    local.wait_for(name, "Running", "tidy-up");
    let mut learner = enter(&local, name);
    assert_eq!(statuses(&mut learner, name)[..2], ["completed", "active"]);
    assert_eq!(learner.api(name, &Method::GET, "state", None)["step"], json!("tidy-up"));
}
