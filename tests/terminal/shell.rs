//! The life of the shell: its user, its size, its end and the next one.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use workshop::backend::exec::Identity;
use workshop::backend::terminal::v1::FromClient;
use workshop::backend::terminal::{Exit, Size};

use crate::support::{PROMPT, Said, Server, bash, script, shell, wait_for};

fn exit(code: Option<i32>, signal: Option<&str>, restarting: bool) -> Exit {
    Exit { code, signal: signal.map(Into::into), restarting }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_is_the_learners_and_leads_a_terminal_of_its_own() {
    let mut learners = bash();
    learners.user = Identity { uid: 1000, gid: 1000, groups: vec![1000] };
    let server = Server::start(learners).await;
    let mut client = server.client().await;
    assert_eq!(client.run("id -u; id -G; pwd; echo $TERM").await, "1000\r\n1000\r\n/tmp\r\nxterm-256color");
    assert_eq!(client.run("test $(ps -o sid= -p $$) = $$ && stty size").await, "24 80");
    // Opened by name as well, as screen and gpg do.
    assert_eq!(client.run("echo open > $(tty); stat -c %u $(tty)").await, "open\r\n1000");
    // Job control works: the terminal is the controlling one.
    assert_eq!(client.run("set -o | grep -c 'monitor.*on'").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_has_the_size_of_its_viewer() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    assert_eq!(client.run("stty size").await, "24 80");
    let size = Size { columns: 132, rows: 50 };
    client.send(FromClient::Resize(size)).await;
    assert_eq!(client.read_to_said().await, Said::Size(size));
    assert_eq!(client.run("stty size").await, "50 132");
    // The supervisor applies what it is told when it next looks, so programs may see the signal a little later.
    let before = server.activity.load(Ordering::Relaxed);
    client.send(FromClient::Resize(Size { columns: 20, rows: 10 })).await;
    wait_for("activity", || (server.activity.load(Ordering::Relaxed) > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_is_told_behind_its_output_and_a_new_shell_comes() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    client.read_to(PROMPT).await;
    client.type_text("echo la''st; exit 3\n").await;
    let said = client.read_to_said().await;
    assert_eq!(said, Said::Exit(exit(Some(3), None, true)));
    let output = String::from_utf8_lossy(&client.output).into_owned();
    assert!(output.ends_with("last\r\nexit\r\n"), "{output:?}");
    client.output.clear();
    assert_eq!(client.run("echo $?").await, "0");
    client.type_text("kill -KILL $$\n").await;
    assert_eq!(client.read_to_said().await, Said::Exit(exit(None, Some("KILL"), true)));
    client.output.clear();
    client.read_to(PROMPT).await;
    assert_eq!(server.terminal.metrics().restarts, 2);
    let exits = server.exits.lock().expect("no test panicked in it").clone();
    assert_eq!(exits, [exit(Some(3), None, true), exit(None, Some("KILL"), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_dies_at_once_waits_for_a_key() {
    let server = Server::start(script("exit 1")).await;
    let mut client = server.client().await;
    loop {
        match client.read_to_said().await {
            Said::Exit(exit) if exit.restarting => {}
            other => break assert_eq!(other, Said::Exit(exit(Some(1), None, false))),
        }
    }
    let text = String::from_utf8_lossy(&client.output).into_owned();
    assert!(text.contains("press a key to start it again"), "{text}");
    let before = server.terminal.metrics().restarts;
    client.type_text("x").await;
    assert_eq!(client.read_to_said().await, Said::Exit(exit(Some(1), None, true)));
    assert!(server.terminal.metrics().restarts > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_is_not_there_says_so_in_the_terminal() {
    let server = Server::start(shell("/no/such/shell", &[])).await;
    let mut client = server.client().await;
    let ended = loop {
        match client.read_to_said().await {
            Said::Exit(exit) if exit.restarting => {}
            other => break other,
        }
    };
    assert_eq!(ended, Said::Exit(exit(Some(127), None, false)));
    let text = String::from_utf8_lossy(&client.output).into_owned();
    assert!(text.contains("failed to start \"/no/such/shell\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_hangs_can_be_replaced() {
    let server = Server::start(script("trap '' HUP INT; echo hangs; while :; do sleep 1; done")).await;
    let mut client = server.client().await;
    client.read_to("hangs\r\n").await;
    server.terminal.restart();
    assert_eq!(client.read_to_said().await, Said::Exit(exit(None, Some("KILL"), true)));
    client.output.clear();
    client.read_to("hangs\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_hangs_up_jobs_in_the_background() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    let path = directory.path().display();
    client.run("set +H").await;
    client
        .run(&format!("(trap 'echo > {path}/hung; exit' HUP; echo > {path}/ready; while :; do sleep 0.05; done) &"))
        .await;
    wait_for("job", || directory.path().join("ready").exists().then_some(())).await;
    let start = Instant::now();
    server.terminal.end().await;
    assert!(start.elapsed() < Duration::from_secs(10));
    wait_for("hang-up", || directory.path().join("hung").exists().then_some(())).await;
    assert_eq!(client.read_to_said().await, Said::Closed);
    // Over means over.
    server.terminal.restart();
    server.terminal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_alone_is_no_activity() {
    let server = Server::start(script("read -r line; seq 1 20000; echo done; read -r line")).await;
    let mut client = server.client().await;
    client.type_text("\n").await;
    let typed = || server.activity.load(Ordering::Relaxed);
    wait_for("activity", || (typed() == 2).then_some(())).await;
    client.read_to("done\r\n").await;
    assert_eq!(typed(), 2);
    assert!(server.terminal.metrics().bytes_out > 100_000);
    assert_eq!(server.terminal.metrics().bytes_in, 1);
}
