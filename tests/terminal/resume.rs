//! Connections that break: the shell and its output outlive them.

use std::time::Instant;

use workshop::backend::terminal::Size;
use workshop::backend::terminal::v1::Resume;

use crate::support::{Client, DEADLINE, PROMPT, Said, Server, bash, script, wait_for};

/// Numbers that look random and are the same each time.
fn numbers(mut seed: u64) -> impl Iterator<Item = u64> {
    std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_cuts_lose_and_double_no_byte() {
    const LINES: usize = 700_000;
    const CUTS: usize = 20;
    let server =
        Server::start(script(&format!("stty -echo; read -r line; seq 1 {LINES}; echo done; read -r line"))).await;
    let mut expected: String = (1..=LINES).map(|line| format!("{line}\r\n")).collect();
    expected.push_str("done\r\n");
    let each = u64::try_from(expected.len() / CUTS).expect("a number");
    let mut numbers = numbers(7);
    let mut client = server.client().await;
    client.type_text("go\n").await;
    let mut cuts = 0;
    let start = Instant::now();
    while !client.output.ends_with(b"done\r\n") {
        assert!(start.elapsed() < 3 * DEADLINE);
        // Somewhere in the next part; sometimes after bytes that were never acknowledged.
        let until = client.offset + numbers.next().expect("endless") % each;
        while client.offset < until && !client.output.ends_with(b"done\r\n") {
            assert!(matches!(client.next().await, Said::Output(_) | Said::Size(_)));
            if numbers.next().expect("endless").is_multiple_of(3) {
                client.acknowledge().await;
            }
        }
        if cuts < CUTS {
            cuts += 1;
            let (resume, output) = (client.resume(), std::mem::take(&mut client.output));
            // Without a goodbye, with bytes on their way.
            drop(client);
            client = Client::open(server.address, "/ws", Size::default(), resume).await;
            assert!(!client.hello.reset, "cut {cuts}");
            client.output = output;
        }
    }
    assert_eq!(cuts, CUTS);
    assert_eq!(client.output.len(), expected.len());
    assert!(client.output == expected.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_outlives_the_connection() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    client.run("answer=42").await;
    let resume = client.resume();
    drop(client);
    wait_for("end of the viewer", || (server.terminal.metrics().viewers == 0).then_some(())).await;
    // It goes on behind the prompt that it has.
    let mut client = Client::open(server.address, "/ws", Size::default(), resume).await;
    assert!(!client.hello.reset);
    client.type_text("echo $answer\n").await;
    client.read_to(&format!("42\r\n{PROMPT}")).await;
    assert_eq!(client.output, format!("echo $answer\r\n42\r\n{PROMPT}").as_bytes());
    // Another one sees what was there before.
    let mut other = server.client().await;
    assert!(other.hello.reset);
    assert_eq!(other.hello.offset, 0);
    other.read_to(&format!("42\r\n{PROMPT}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_there_begins_anew() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    client.run("echo text").await;
    let session = client.hello.session.clone();
    for resume in [
        Resume { session: session.clone(), offset: client.offset + 1 },
        Resume { session, offset: u64::MAX },
        Resume { session: "another".into(), offset: 1 },
    ] {
        let again = Client::open(server.address, "/ws", Size::default(), Some(resume)).await;
        assert!(again.hello.reset);
        assert_eq!(again.hello.offset, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_the_shell_during_a_break_is_told_afterwards() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    client.read_to(PROMPT).await;
    let resume = client.resume();
    client.type_text("exit 5\n").await;
    drop(client);
    wait_for("end of the shell", || (server.terminal.metrics().restarts == 1).then_some(())).await;
    let mut client = Client::open(server.address, "/ws", Size::default(), resume).await;
    let Said::Exit(exit) = client.read_to_said().await else { panic!("no exit") };
    assert_eq!(exit.code, Some(5));
    client.output.clear();
    client.read_to(PROMPT).await;
}
