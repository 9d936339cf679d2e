//! The install bundle as it stands: the controller as a pod, from an image that `make image` packs, with the account, the
//! rights and the limits of `manifests/`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Course, Seat};
use crate::support::cluster::SYSTEM;
use crate::support::files::run;
use crate::support::node::{Node, PATIENCE, node};
use crate::support::wait::wait_for;

#[test]
fn the_bundle_runs_as_a_pod_and_serves_learners_beside_the_one_that_leads() {
    let node = node();
    let course = Course::write("bundle", "lifecycle: {idleSuspend: false}\n");
    course.publish();
    let seat = Seat::create("bundle", "ada", json!({}));
    seat.wait("Running", "one");
    let work = tempfile::tempdir().unwrap();
    let (archive, image) = (work.path().join("image.tar"), format!("{}/workshop:1", node.registry.host()));
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/image");
    run(Command::new(pack).arg(env!("CARGO_BIN_EXE_workshop")).arg(&archive).arg("workshop:1"));
    node.registry.push_archive(&archive, &image);
    node.open_api_server();

    // Another test kills the one that leads; this one is to be a replica that waits.
    let _replicas = node.hold_replicas();
    let _installed = Installed(node);
    let cluster = &node.cluster;
    cluster.kubectl(&["-n", SYSTEM, "set", "image", "deployment/workshop-controller", &format!("controller={image}")]);
    cluster.kubectl(&["-n", SYSTEM, "scale", "deployment/workshop-controller", "--replicas=1"]);
    let deployment = || cluster.get(&["deployment", "-n", SYSTEM, "workshop-controller"]).unwrap_or_default();
    let log = || cluster.try_kubectl(&["-n", SYSTEM, "logs", "deployment/workshop-controller", "--tail=50"], None);
    let began = std::time::Instant::now();
    while deployment()["status"]["readyReplicas"] != 1 {
        let shown = cluster.try_kubectl(&["-n", SYSTEM, "get", "pods,events"], None);
        assert!(began.elapsed() < PATIENCE, "the controller's pod is not ready: {}\n{}", shown.out, log().out);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    wait_for("it to wait for the lease", PATIENCE, || log().out.contains("waiting to lead").then_some(()));

    let service = cluster.get(&["service", "-n", SYSTEM, "workshop-controller"]).expect("its Service");
    let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let ask = |port: u16, path: &str, token: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "-H", "Host: localhost:8082"]);
        // The node's forwarding follows the pod's readiness a moment later.
        curl.args(["--retry", "30", "--retry-connrefused", "--retry-delay", "1"]);
        curl.args(["-H", &format!("Authorization: Bearer {token}"), &format!("http://{address}:{port}{path}")]);
        run(&mut curl)
    };
    assert!(ask(8080, "/metrics", "").contains("workshop_leading 0"));
    assert_eq!(ask(8082, "/healthz", ""), "ok\n");
    // The way of a learner: an address of this cluster's key, served by a replica that did not sign it.
    let opened = node.json(&["workspace", "open", "ada", "-n", &seat.namespace, "--cluster"]);
    let token = opened["url"].as_str().and_then(|url| url.split_once("#token=")).expect("a token").1.to_owned();
    let state = ask(8082, &format!("/w/{}/api/v1/state", seat.reference()), &token);
    let state: Value = serde_json::from_str(&state).unwrap_or_else(|error| panic!("{error}: {state}"));
    assert_eq!(state["step"], "one", "{state:#}");
    assert!(!ask(8082, &format!("/w/{}/api/v1/state", seat.reference()), "nobody").contains("\"step\""));
}

/// Takes the pod away again, however the test ends: one that led would disturb the others.
struct Installed(&'static Node);

impl Drop for Installed {
    fn drop(&mut self) {
        let cluster = &self.0.cluster;
        let down = ["-n", SYSTEM, "scale", "deployment/workshop-controller", "--replicas=0"];
        cluster.try_kubectl(&down, None);
        cluster.try_kubectl(&["-n", SYSTEM, "wait", "--for=delete", "pod", "--all", "--timeout=60s"], None);
    }
}
