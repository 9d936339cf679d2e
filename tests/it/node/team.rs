//! Several people in one workspace.

use reqwest::Method;
use serde_json::json;

use super::{Course, Seat, navigate, statuses};
use crate::support::node::node;

#[test]
fn a_team_works_in_one_machine_and_nobody_else_gets_in() {
    let course = Course::write("team-work", "isolation: {mode: team}\nlifecycle: {idleSuspend: false}\n");
    course.publish();
    let (node, namespace) = (node(), node().cluster.create_namespace("class"));
    let create = ["workspace", "create", "--cluster", "-n", &namespace, "--template", "team-work", "--owner", "ada"];
    let made = node.json(&[create.as_slice(), &["--member", "bob", "--member", "eve"]].concat());
    assert_eq!(made["instances"][0]["members"], json!(["bob", "eve"]), "{made:#}");
    let seat = Seat { node, namespace: namespace.clone(), name: "team-work-ada".to_owned() };
    seat.wait("Running", "one");
    let reference = seat.reference();
    let (mut ada, mut bob) = (seat.enter(), seat.enter_as(&["--member", "bob"]));

    // One machine and one terminal: what one types the other has done.
    ada.type_line(&reference, "TEAM=together; echo s\"\"et", "set");
    bob.type_line(&reference, "echo $TEAM; touch /tmp/answer; echo do\"\"ne", "together\r\n");
    assert_eq!(ada.api(&reference, &Method::POST, "validate", None)["passed"], true);
    // One progress: whoever goes on takes the others along.
    navigate(&mut bob, &reference, "next");
    seat.wait("Running", "two");
    assert_eq!(statuses(&mut ada, &reference)[..2], ["completed", "active"]);
    ada.type_line(&reference, "cat /etc/step; echo sho\"\"wn", "two");

    let open = ["workspace", "open", &seat.name, "-n", &namespace, "--cluster", "--member", "mallory"];
    let refused = node.run(&open);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ada and bob, eve"), "{refused:?}");
    // A workshop for one has no members.
    let alone = Course::write("alone", "");
    alone.publish();
    let create = ["workspace", "create", "--cluster", "-n", &namespace, "--template", "alone", "--member", "bob"];
    let refused = node.run(&create);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("isolation.mode: team"), "{refused:?}");
}
