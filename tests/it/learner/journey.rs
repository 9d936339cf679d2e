//! The first example to its end, in a real browser.

use std::path::Path;
use std::process::Command;

use super::machine;

#[test]
fn a_learner_does_the_first_example_to_its_end_in_a_browser() {
    let local = machine();
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    assert!(web.join("node_modules/playwright-core").is_dir(), "the browser's driver is missing: run hack/web");
    let mut command = Command::new("node");
    command.current_dir(&web).arg("journey/learner.mjs").arg(local.address());
    // Where somebody wants to look at it.
    command.args(std::env::var_os("WORKSHOP_PICTURES"));
    let output = command.output().expect("node starts");
    assert!(
        output.status.success(),
        "{}\n{}\n--- up said\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        local.said()
    );
    let said = local.said();
    for secret in ["eyJ", "workshop_token", "#token="] {
        assert!(!said.contains(secret), "\"{secret}\" is in what up said:\n{said}");
    }
}
