//! The common facts in a real Docker daemon, and what it keeps of a stopped workspace.

use std::net::Ipv4Addr;

use workshop::adapters::engine::Surroundings;
use workshop::domain::container::Address;
use workshop::pipeline::runtime_end::{ManagementReach, RuntimeChoice, RuntimeEnd};

use super::conformance;
use super::fixture::{Compiled, GRACE, text, wait_for_backend};
use crate::support::engine::DockerDaemon;

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_in_docker_is_what_every_workspace_is() {
    let daemon = DockerDaemon::start();
    let compiled = Compiled::new();
    let surroundings = Surroundings { docker_host: Some(daemon.host()), ..Surroundings::default() };
    let detect = async || {
        RuntimeEnd::detect_in(Some(RuntimeChoice::Docker), &compiled.workshop.state, &surroundings).await.unwrap()
    };
    let runtime = detect().await;
    assert_eq!(runtime.describe().name, "docker");
    assert!(matches!(runtime.describe().management, ManagementReach::Network { .. }));
    let exec = |uid: &str, arguments: &[&str]| {
        let label = format!("label=workshop.platform/uid={uid}");
        let id = text(&daemon.docker(&["ps", "--all", "--quiet", "--filter", &label]));
        daemon.docker(&[["exec", &id].as_slice(), arguments].concat())
    };
    conformance::check(&compiled, &runtime, &exec).await;
    let left = |arguments: &[&str]| text(&daemon.docker(arguments));
    assert_eq!(left(&["ps", "--all", "--quiet"]), "");
    assert_eq!(left(&["network", "ls", "--quiet", "--filter", "label=workshop.platform/state"]), "");

    // What somebody else left half made is removed, and what runs is found again.
    let spec = compiled.spec("carol");
    let started = runtime.start(&spec, "1").await.unwrap();
    wait_for_backend(&started);
    // Not the gateway's address, whose cookies a browser would send there too.
    let Some(Address::Tcp(published)) = &started.address else { panic!("{started:?}") };
    assert!(published.ip().is_loopback() && published.ip() != Ipv4Addr::LOCALHOST, "{published}");
    drop(runtime);
    let label = text(&daemon.docker(&[
        "inspect",
        "--format",
        "{{index .Config.Labels \"workshop.platform/state\"}}",
        &left(&["ps", "--quiet"]),
    ]));
    let state = format!("workshop.platform/state={label}");
    left(&["network", "create", "--label", &state, "half-made"]);
    let runtime = detect().await;
    assert_eq!(runtime.list().await.unwrap(), [started]);
    assert_eq!(left(&["network", "ls", "--quiet", "--filter", "name=half-made"]), "");
    runtime.stop(&spec.uid, GRACE).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_named_with_its_reason() {
    let state = tempfile::tempdir().unwrap();
    let surroundings = Surroundings { docker_host: Some("unix:///nonexistent.sock".into()), ..Surroundings::default() };
    let found = RuntimeEnd::detect_in(Some(RuntimeChoice::Docker), state.path(), &surroundings).await;
    let error = found.err().expect("there is no such daemon").to_string();
    assert!(error.contains("docker at unix:///nonexistent.sock: there is no such socket"), "{error}");
}
