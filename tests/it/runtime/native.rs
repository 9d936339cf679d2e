//! The native runtime: the common facts, what it leaves behind, and what a kill in the middle leaves behind.

use std::path::Path;
use std::process::{Command, Output};

use workshop::pipeline::runtime_end::{Egress, FoundState, RuntimeChoice, RuntimeEnd};

use super::conformance;
use super::fixture::{Compiled, GRACE, get, text, wait_for_backend};

/// What is so besides the facts of every workspace, in the same form.
const FACTS: &[(&str, &str, &str)] = &[
    ("the artifact cannot be written", "echo x 2>/dev/null >/workshop/artifact/workshop.db || echo refused", "refused"),
    ("nobody makes a user namespace", "setuidgid learner unshare -U true 2>/dev/null || echo refused", "refused"),
];

/// Runs a command in the native workspace of this uid.
fn exec(state: &Path, uid: &str, arguments: &[&str]) -> Output {
    let id = workshop::domain::digest::Digest::of(uid.as_bytes()).hex()[..8].to_owned();
    Command::new("runc")
        .arg("--root")
        .arg(state.join("workspaces/runc"))
        .args(["exec", &id])
        .args(arguments)
        .output()
        .expect("runc (hack/deps run)")
}

/// What the machine has of workspaces of this state directory: mounts, cgroups and processes.
fn traces(state: &Path) -> Vec<String> {
    let state = state.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut traces: Vec<String> = mounts.lines().filter(|line| line.contains(&state)).map(str::to_owned).collect();
    let root = format!("{state}/workspaces");
    let cgroup = format!("w{}-", &workshop::domain::digest::Digest::of(root.as_bytes()).hex()[..8]);
    let found = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("{cgroup}*")]).output();
    traces.extend(String::from_utf8_lossy(&found.unwrap().stdout).lines().map(str::to_owned));
    traces
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_workspace_is_what_every_workspace_is() {
    let compiled = Compiled::new();
    let state = compiled.workshop.state.clone();
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    conformance::check(&compiled, &runtime, &|uid, arguments| exec(&state, uid, arguments)).await;
    assert_eq!(compiled.places(), Vec::<std::path::PathBuf>::new());
    assert_eq!(traces(&state), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_workspace_sees_nothing_of_the_machine() {
    let compiled = Compiled::new();
    let state = compiled.workshop.state.clone();
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    let spec = compiled.spec("alice");
    let started = runtime.start(&spec, "1").await.unwrap();
    wait_for_backend(&started);
    conformance::check_facts(&spec.uid, FACTS, &|uid, arguments| exec(&state, uid, arguments));
    let run = |command: &str| text(&exec(&state, &spec.uid, &["sh", "-c", command]));
    assert_eq!(run("ls /sys/class/net"), "lo");
    assert_eq!(run("ip route | wc -l"), "0");
    assert_eq!(run("find / -xdev -name artifact.db | wc -l"), "0");
    assert_eq!(
        run("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"),
        "67108864"
    );
    assert_eq!(run("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true"), "1024");
    // Its own files may be changed, also those that engines mount.
    assert_eq!(
        run("echo 10.0.0.9 db >>/etc/hosts && sed -i s/10.0.0.9/10.0.0.8/ /etc/hosts && tail -1 /etc/hosts"),
        "10.0.0.8 db"
    );
    runtime.stop(&spec.uid, GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_program_finds_the_workspaces_of_the_one_before() {
    let compiled = Compiled::new();
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    let spec = compiled.spec("alice");
    let started = runtime.start(&spec, "1").await.unwrap();
    wait_for_backend(&started);
    drop(runtime);
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    let found = runtime.list().await.unwrap();
    assert_eq!((found.len(), &found[0]), (1, &started));
    assert!(get(found[0].address.as_ref().unwrap(), "/healthz").is_ok());
    assert_eq!(found[0].state, FoundState::Running);
    runtime.stop(&spec.uid, GRACE).await.unwrap();
    assert_eq!(traces(&compiled.workshop.state), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_workspaces_start_at_once() {
    let compiled = Compiled::new();
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    runtime.prepare(&compiled.images[0]).await.unwrap();
    let begin = std::time::Instant::now();
    let starts: Vec<_> = (0..10)
        .map(|number| {
            let (runtime, spec) = (runtime.clone(), compiled.spec(&format!("seat-{number}")));
            tokio::spawn(async move { runtime.start(&spec, "1").await.unwrap() })
        })
        .collect();
    for start in starts {
        wait_for_backend(&start.await.unwrap());
    }
    eprintln!("ten workspaces answer after {:?}", begin.elapsed());
    assert_eq!(runtime.list().await.unwrap().len(), 10);
    let begin = std::time::Instant::now();
    let stops: Vec<_> = (0..10)
        .map(|number| {
            let runtime = runtime.clone();
            tokio::spawn(async move { runtime.stop(&format!("uid-seat-{number}"), GRACE).await.unwrap() })
        })
        .collect();
    for stop in stops {
        stop.await.unwrap();
    }
    eprintln!("ten workspaces are gone after {:?}", begin.elapsed());
    assert_eq!(traces(&compiled.workshop.state), Vec::<String>::new());
}

/// Where a start can be cut off, in order.
const STAGES: [&str; 4] = ["workspace-mounted", "workspace-created", "workspace-connected", "workspace-running"];

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_killed_in_the_middle_leaves_nothing() {
    let compiled = Compiled::new();
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    runtime.prepare(&compiled.images[0]).await.unwrap();
    for stage in STAGES {
        let killed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runtime::native::a_start_of_another_program", "--ignored"])
            .env("WORKSHOP_FAILPOINT", stage)
            .env("TEST_STATE", &compiled.workshop.state)
            .env("TEST_IMAGE", &compiled.images[0])
            .output()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&killed.status);
        assert_eq!(
            signal,
            Some(9),
            "{stage}: {} (needs the feature failpoints)",
            String::from_utf8_lossy(&killed.stdout)
        );
        assert_ne!(traces(&compiled.workshop.state), Vec::<String>::new(), "{stage}");
        assert_eq!(runtime.list().await.unwrap(), [], "{stage}");
        assert_eq!(traces(&compiled.workshop.state), Vec::<String>::new(), "{stage}");
        assert_eq!(compiled.places(), Vec::<std::path::PathBuf>::new(), "{stage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "what the test above starts and kills"]
async fn a_start_of_another_program() {
    let state = std::path::PathBuf::from(std::env::var_os("TEST_STATE").unwrap());
    let runtime = RuntimeEnd::detect(Some(RuntimeChoice::Native), &state).await.unwrap();
    let spec = super::fixture::spec(&state, &std::env::var("TEST_IMAGE").unwrap(), "alice");
    runtime.start(&spec, "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_with_a_way_out_cannot_take_it_to_private_networks() {
    let compiled = Compiled::new();
    let state = compiled.workshop.state.clone();
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    assert!(runtime.describe().egress, "install slirp4netns (hack/deps test)");
    let mut spec = compiled.spec("alice");
    spec.egress = Egress::Internet;
    let started = runtime.start(&spec, "1").await.unwrap();
    wait_for_backend(&started);
    let run = |command: &str| text(&exec(&state, &spec.uid, &["sh", "-c", command]));
    assert_eq!(run("ls /sys/class/net"), "lo\ntap0");
    assert_eq!(run("ip route get 203.0.113.9 | grep -c 'via 10.0.2.2 dev tap0'"), "1");
    assert_eq!(run("cat /etc/resolv.conf"), "nameserver 10.0.2.3");
    for address in ["10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"] {
        assert_eq!(run(&format!("ip route get {address} 2>/dev/null || echo refused")), "refused", "{address}");
    }
    runtime.stop(&spec.uid, GRACE).await.unwrap();
    assert_eq!(traces(&state), Vec::<String>::new());
}
