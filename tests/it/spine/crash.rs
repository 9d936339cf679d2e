//! The controller is killed at every stage by a named failpoint: the restart converges, builds nothing twice and
//! leaves nothing behind; losing the state directory costs no write to any object.

use serde_json::json;

use super::bench::{Bench, PATIENCE};
use crate::support::wait::wait_for;

/// Every stage of the loop; a new failpoint of the pipeline belongs here.
const STAGES: &[&str] = &[
    "after-resolve",
    "after-fetch",
    "after-step",
    "after-compile",
    "after-workshop",
    "after-import",
    "after-plan",
    // Odd rounds remove a workshop, so pruning has an odd place in this list.
    "mid-prune",
    "mid-apply",
    "after-apply",
    "after-remember",
    "before-status",
];

#[test]
fn a_controller_killed_at_any_stage_converges_after_its_restart() {
    let bench = Bench::start("crash");
    let mut controller = bench.controller(None);
    bench.cluster.apply(&bench.manifest("main", json!({})));
    bench.wait_ready("main", "True");
    let names: Vec<String> = bench.templates().into_keys().collect();

    for (round, stage) in STAGES.iter().enumerate() {
        controller.terminate();
        // A change for every stage to work on: one file of the first example, and a workshop that comes or goes.
        bench.touch(round);
        bench.toggle_extra(round);
        let doomed = bench.controller(Some(stage));
        doomed.wait_killed();
        controller = bench.controller(None);
        bench.wait_ready("main", "True");
        let expected = names.len() + usize::from(round.is_multiple_of(2));
        wait_for(&format!("{expected} templates after {stage}"), PATIENCE, || {
            (bench.templates().len() == expected).then_some(())
        });
        for (path, times) in bench.registry.manifest_writes() {
            // A key tag names one content for ever: written twice means that a step was built twice.
            if path.contains("/manifests/key-") {
                assert_eq!(times, 1, "{path} was pushed {times} times around {stage}");
            }
        }
    }

    // The state directory is a cache: without it everything converges again and no object is written.
    controller.terminate();
    let before = bench.versions();
    let pushes = bench.registry.manifest_writes();
    std::fs::remove_dir_all(bench.controller_state()).unwrap();
    let controller = bench.controller(None);
    wait_for("the mirror is there again", PATIENCE, || {
        let artifacts = std::fs::read_dir(bench.controller_state().join("artifacts")).ok()?.count();
        (artifacts >= before.len()).then_some(())
    });
    bench.wait_ready("main", "True");
    assert_eq!(bench.versions(), before, "no write to any object");
    assert_eq!(bench.registry.manifest_writes(), pushes, "nothing is pushed again");
    controller.terminate();
}

impl Bench {
    /// Changes what the first example's second step is made of.
    fn touch(&self, round: usize) {
        let path = self.repository.work_tree().join("first-steps-in-the-shell/step-spec.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().filter(|line| !line.contains("ROUND:")).map(str::to_owned).collect();
        if !lines.iter().any(|line| line == "finish:") {
            lines.push("finish:".into());
        }
        let at = lines.iter().position(|line| line == "finish:").unwrap();
        let env = lines[at..].iter().position(|line| line == "  env:").map(|offset| at + offset);
        let at = env.unwrap_or_else(|| {
            lines.insert(at + 1, "  env:".into());
            at + 1
        });
        lines.insert(at + 1, format!("    ROUND: \"{round}\""));
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        self.repository.commit(&format!("round {round}"));
        self.repository.push();
    }

    /// Adds a fourth workshop in even rounds and removes it in odd ones.
    fn toggle_extra(&self, round: usize) {
        let extra = self.repository.work_tree().join("extra");
        if round.is_multiple_of(2) {
            let recipe = format!(
                "version: v1\nworkshop:\n  name: extra\n  image: extra\nbase:\n  image: {}/busybox:1.36\nsteps:\n  - id: one\n    title: One\n    files:\n      - path: /root/round\n        content: \"{round}\"\n    commands:\n      - echo built > /root/built\n",
                self.registry.host()
            );
            std::fs::create_dir_all(&extra).unwrap();
            std::fs::write(extra.join("step-spec.yaml"), recipe).unwrap();
        } else {
            std::fs::remove_dir_all(&extra).unwrap();
        }
        self.repository.commit(&format!("extra in round {round}"));
        self.repository.push();
    }
}
