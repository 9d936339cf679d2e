//! A newer revision touches nobody who works; update and reset move them.

use serde_json::json;

use super::{Course, Seat, condition};
use crate::support::node::PATIENCE;
use crate::support::wait::wait_for;

#[test]
fn a_newer_revision_touches_no_running_workspace_and_update_and_reset_move_to_it() {
    let course = Course::write("revised", "lifecycle: {idleSuspend: false}\n");
    course.publish();
    let (updated, mut ada) = Seat::running("revised", "ada", json!({}));
    let (reset, mut bob) = Seat::running("revised", "bob", json!({}));
    let pods = (updated.pods(), reset.pods());
    ada.type_line(&updated.reference(), "MARK=the-very-same; echo s\"\"et", "set");

    let recipe = course.read("step-spec.yaml");
    course.file("step-spec.yaml", &recipe.replace("content: one}", "content: one-anew}"));
    course.publish();
    for seat in [&updated, &reset] {
        seat.wait_for("say that there is a newer revision", |object| {
            (condition(object, "UpdateAvailable")?["status"] == "True").then_some(())
        });
    }
    ada.type_line(&updated.reference(), "echo \"$MARK\"", "the-very-same\r\n");
    assert_eq!((updated.pods(), reset.pods()), pods);
    assert!(!bob.type_line(&reset.reference(), "cat /etc/step; echo sho\"\"wn", "shown").contains("anew"));

    updated.patch(&json!({ "metadata": { "annotations": { "workshop.platform/update": "now" } } }));
    reset.patch(&json!({ "spec": { "resetRequest": "now" } }));
    for (seat, learner) in [(&updated, &mut ada), (&reset, &mut bob)] {
        seat.wait_for("have nothing newer", |object| {
            let is_newest = condition(object, "UpdateAvailable").is_none_or(|found| found["status"] == "False");
            (is_newest && object["status"]["phase"] == "Running").then_some(())
        });
        wait_for("the newer machine", PATIENCE, || {
            let output = learner.type_line(&seat.reference(), "cat /etc/step; echo sho\"\"wn", "shown");
            output.contains("one-anew").then_some(())
        });
    }
}
