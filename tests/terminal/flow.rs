//! Back-pressure from the screen to the shell, and who may hold it up.

use std::time::{Duration, Instant};

use workshop::backend::terminal::v1::FromClient;

use crate::support::{Client, PROMPT, Said, Server, bash, script, wait_for};

const WINDOW: u64 = 512 << 10;
/// What a terminal and its reader hold beyond the window.
const BESIDE: u64 = 192 << 10;

/// Reads as a busy browser does, for a while.
async fn read_slowly(client: &mut Client, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(matches!(client.next().await, Said::Output(_)));
        // What a screen takes to show a frame.
        tokio::time::sleep(Duration::from_millis(4)).await;
        client.acknowledge().await;
        client.output.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_acts_at_once_on_endless_output_to_a_slow_client() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    client.read_to(PROMPT).await;
    client.type_text("yes\n").await;
    read_slowly(&mut client, Duration::from_secs(3)).await;
    let shown = client.offset;
    let start = Instant::now();
    client.send(FromClient::Input(b"\x03")).await;
    client.read_to(PROMPT).await;
    assert!(client.offset - shown < WINDOW + BESIDE, "{} bytes after control-c", client.offset - shown);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(server.terminal.metrics().bytes_out <= client.offset, "nothing is read that is not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_that_shows_nothing_halts_the_shell_at_the_window() {
    let server = Server::start(script("stty -echo; read -r line; seq 1 700000; echo done; read -r line")).await;
    let mut client = server.client().await;
    client.type_text("\n").await;
    while client.offset < WINDOW {
        assert!(matches!(client.next().await, Said::Output(_)));
    }
    assert_eq!(client.offset, WINDOW);
    assert!(server.terminal.metrics().bytes_out <= WINDOW + BESIDE);
    client.acknowledge().await;
    client.read_to("done\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looking_halts_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("done");
    let server =
        Server::start(script(&format!("seq 1 700000; echo end; touch {}; read -r line", path.display()))).await;
    wait_for("end of the output", || path.exists().then_some(())).await;
    // The newest megabyte is there, from the beginning of a line on.
    let mut client = server.client().await;
    assert!(client.hello.offset > 0);
    client.read_to("end\r\n").await;
    assert!(client.output.len() > 1_000_000, "{}", client.output.len());
    let first = client.output.split(|byte| *byte == b'\n').next().expect("a line");
    let number: usize = std::str::from_utf8(first).expect("text").trim().parse().expect("a whole number");
    assert!(number > 500_000, "{number}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_stalls_stops_no_other_and_is_resynchronised() {
    let server = Server::start(script("stty -echo; read -r line; seq 1 700000; echo done; read -r line")).await;
    let mut stalled = server.client().await;
    let mut watcher = server.watcher().await;
    let mut client = server.client().await;
    client.type_text("\n").await;
    client.read_to("done\r\n").await;
    for behind in [&mut stalled, &mut watcher] {
        let said = loop {
            match behind.next().await {
                // It takes what was sent and only then goes on.
                Said::Output(_) | Said::Size(_) => {
                    if behind.offset >= WINDOW {
                        behind.acknowledge().await;
                    }
                }
                other => break other,
            }
        };
        assert!(matches!(said, Said::Resynchronised(_)), "{said:?}");
        behind.read_to("done\r\n").await;
        assert_eq!(behind.offset, client.offset);
        let first = behind.output.split(|byte| *byte == b'\n').next().expect("a line");
        assert!(std::str::from_utf8(first).expect("text").trim().parse::<usize>().is_ok(), "a whole line");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_paste_arrives_whole() {
    let server = Server::start(script("stty raw -echo; head -c 900000 | sha256sum; read -r line")).await;
    let mut client = server.client().await;
    let bytes: Vec<u8> = (0..900_000_u32).map(|index| b'a' + u8::try_from(index % 23).expect("small")).collect();
    // Raw mode is set when the terminal says so; what comes before would be echoed and cut.
    wait_for("raw mode", || {
        let list = std::process::Command::new("pgrep").args(["-f", "^head -c 900000"]).output().expect("pgrep");
        (!list.stdout.is_empty()).then_some(())
    })
    .await;
    client.send(FromClient::Input(&bytes)).await;
    let digest = {
        use sha2::Digest;
        sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    client.read_to("-\n").await;
    assert_eq!(String::from_utf8_lossy(&client.output).split(' ').next(), Some(digest.as_str()));
}
