//! What every runtime must give a workspace, as one table of facts that is held against each of them.

use std::process::Output;

use futures_util::StreamExt as _;
use workshop::pipeline::runtime_end::{FoundState, RuntimeEnd, WorkspaceSpec};

use super::fixture::{Compiled, GRACE, text, wait_for_backend};
use crate::support::wait::wait_for;

/// Runs a command in the workspace of this uid, as root.
pub type Exec<'a> = &'a dyn Fn(&str, &[&str]) -> Output;

/// Facts of every workspace: what, a shell command inside of it, and what that prints.
const FACTS: &[(&str, &str, &str)] = &[
    ("tini is the first process", "cat /proc/1/comm", "tini"),
    ("it sees its own processes only", "ls -d /proc/[0-9]* | wc -l | awk '{ print ($1 < 12) }'", "1"),
    ("it has its own host name", "hostname", "alice"),
    ("it knows itself by name", "grep -c alice /etc/hosts", "1"),
    ("loopback is up", "ip -o link show lo | grep -c 'LOOPBACK,UP'", "1"),
    ("it has the image's files", "cat /etc/step", "one"),
    ("it has the image's environment", "tr '\\0' '\\n' </proc/1/environ | grep LESSON", "LESSON=from-the-image"),
    (
        "it knows its instance",
        "tr '\\0' '\\n' </proc/1/environ | grep WORKSHOP_INSTANCE",
        "WORKSHOP_INSTANCE=uid-alice",
    ),
    ("the token is there", "cat /workshop/secret/token", "token of alice"),
    ("the token is root's alone", "stat -c %a:%u /workshop/secret/token", "400:0"),
    (
        "a learner cannot read the token",
        "setuidgid learner cat /workshop/secret/token 2>/dev/null || echo refused",
        "refused",
    ),
    ("the backend's state is root's alone", "stat -c %a:%u /workshop/state", "700:0"),
    ("a learner cannot list the state", "setuidgid learner ls /workshop/state 2>/dev/null || echo refused", "refused"),
    ("the artifact is a database", "head -c 13 /workshop/artifact/workshop.db", "SQLite format"),
    (
        "a learner cannot read the artifact, where the checks are",
        "setuidgid learner head -c 13 /workshop/artifact/workshop.db 2>/dev/null || echo refused",
        "refused",
    ),
    ("everybody may open a terminal", "stat -c %a /dev/pts/ptmx", "666"),
    (
        "the kernel's settings cannot be written",
        "echo 1 2>/dev/null >/proc/sys/kernel/sysrq || echo refused",
        "refused",
    ),
    (
        "devices of the machine are out of reach",
        "mknod /tmp/disk b 8 0 && cat /tmp/disk 2>/dev/null || echo refused",
        "refused",
    ),
    ("nothing can be mounted", "mount -t tmpfs tmpfs /mnt 2>/dev/null || echo refused", "refused"),
    ("root may change owners", "touch /tmp/a && chown 1000 /tmp/a && stat -c %u /tmp/a", "1000"),
];

/// A workspace from its start to its end.
pub async fn check(compiled: &Compiled, runtime: &RuntimeEnd, exec: Exec<'_>) {
    let spec = compiled.spec("alice");
    assert_eq!(runtime.list().await.unwrap(), []);
    let started = runtime.start(&spec, "fingerprint-1").await.unwrap();
    wait_for_backend(&started);
    assert_eq!((started.uid.as_str(), started.step.as_str()), ("uid-alice", "one"));

    check_facts(&spec.uid, FACTS, exec);
    is_found(runtime, &started).await;
    refuses_a_second_start(runtime, &spec).await;
    memory_is_limited(&spec, exec);

    let logs: Vec<_> = runtime.logs(&spec.uid, false).await.unwrap().collect().await;
    assert!(!logs.is_empty() && logs.iter().all(Result::is_ok), "the backend says when it listens");

    runtime.stop(&spec.uid, GRACE).await.unwrap();
    assert_eq!(runtime.list().await.unwrap(), []);
    runtime.stop(&spec.uid, GRACE).await.unwrap();
    assert!(runtime.logs(&spec.uid, false).await.is_err());
    switches_steps(compiled, runtime, exec).await;
    tells_how_it_ended(compiled, runtime, exec).await;
}

/// Holds facts against a workspace.
pub fn check_facts(uid: &str, facts: &[(&str, &str, &str)], exec: Exec<'_>) {
    for (what, command, expected) in facts {
        assert_eq!(text(&exec(uid, &["sh", "-c", command])), *expected, "{what}: {command}");
    }
}

async fn is_found(runtime: &RuntimeEnd, started: &workshop::pipeline::runtime_end::Found) {
    let found = runtime.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].uid, &found[0].state), (&started.uid, &FoundState::Running));
    assert_eq!((&found[0].address, &found[0].generation_label), (&started.address, &"fingerprint-1".to_owned()));
    assert!(found[0].started_at.is_some());
}

async fn refuses_a_second_start(runtime: &RuntimeEnd, spec: &WorkspaceSpec) {
    let error = runtime.start(spec, "again").await.unwrap_err().to_string();
    assert!(error.contains("runs already"), "{error}");
}

/// A process that takes more than its share is killed, and the backend lives on.
fn memory_is_limited(spec: &WorkspaceSpec, exec: Exec<'_>) {
    let hog = exec(&spec.uid, &["sh", "-c", "head -c 200000000 /dev/zero | tail >/dev/null"]);
    assert_ne!(hog.status.code(), Some(0), "200 MB fit into 64 MiB");
    assert_eq!(text(&exec(&spec.uid, &["cat", "/proc/1/comm"])), "tini");
}

/// The machine under the learner is replaced; nothing of the old one is left.
async fn switches_steps(compiled: &Compiled, runtime: &RuntimeEnd, exec: Exec<'_>) {
    let mut spec = compiled.spec("alice");
    runtime.start(&spec, "1").await.unwrap();
    text(&exec(&spec.uid, &["touch", "/root/leftover"]));
    runtime.stop(&spec.uid, GRACE).await.unwrap();
    (spec.step, spec.image) = ("two".to_owned(), compiled.images[1].clone());
    let started = runtime.start(&spec, "2").await.unwrap();
    wait_for_backend(&started);
    assert_eq!(text(&exec(&spec.uid, &["sh", "-c", "cat /etc/step; ls /root"])), "two");
    assert_eq!(runtime.list().await.unwrap()[0].step, "two");
    runtime.stop(&spec.uid, GRACE).await.unwrap();
}

/// A workspace whose first process ends stays known until it is removed.
async fn tells_how_it_ended(compiled: &Compiled, runtime: &RuntimeEnd, exec: Exec<'_>) {
    let spec = compiled.spec("bob");
    let started = runtime.start(&spec, "1").await.unwrap();
    wait_for_backend(&started);
    let follow = runtime.logs(&spec.uid, true).await.unwrap();
    exec(&spec.uid, &["sh", "-c", "kill -KILL $(ps -o pid,comm | awk '/workshop-b/ { print $1 }')"]);
    // Following ends with the container.
    tokio::time::timeout(GRACE * 2, follow.count()).await.unwrap();
    let deadline = tokio::time::Instant::now() + GRACE;
    loop {
        let found = runtime.list().await.unwrap();
        if found[0].state == (FoundState::Exited { code: Some(137) }) {
            assert_eq!(found[0].address, None);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{found:?}");
        tokio::task::yield_now().await;
    }
    // An ended one makes way for the next.
    let again = runtime.start(&spec, "2").await.unwrap();
    wait_for_backend(&again);
    runtime.stop(&spec.uid, GRACE).await.unwrap();
    let address = again.address.unwrap();
    wait_for("silence", GRACE, || super::fixture::get(&address, "/healthz").is_err().then_some(()));
}
