//! Several viewers of one shell.

use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use workshop::backend::terminal::Size;
use workshop::backend::terminal::v1::FromClient;

use crate::support::{Client, DEADLINE, PROMPT, Said, Server, bash, connect};

#[tokio::test(flavor = "multi_thread")]
async fn two_viewers_see_the_same_and_the_one_used_last_sizes_it() {
    let (small, large) = (Size { columns: 40, rows: 12 }, Size { columns: 120, rows: 40 });
    let server = Server::start(bash()).await;
    let mut first = Client::open(server.address, "/ws", small, None).await;
    assert_eq!((first.hello.viewers, first.hello.size), (1, small));
    first.read_to(PROMPT).await;
    let mut second = Client::open(server.address, "/ws", large, None).await;
    assert_eq!((second.hello.viewers, second.hello.size), (2, large));
    assert_eq!(first.read_to_said().await, Said::Size(large));
    assert_eq!(second.run("stty size").await, "40 120");
    first.read_to(&format!("40 120\r\n{PROMPT}")).await;
    first.type_text("echo fir''st\n").await;
    assert_eq!(second.read_to_said().await, Said::Size(small));
    first.read_to(&format!("first\r\n{PROMPT}")).await;
    second.read_to(&format!("first\r\n{PROMPT}")).await;
    assert_eq!(first.offset, second.offset);
    assert_eq!(first.run("stty size").await, "12 40");
    // The window of one that is not used is its own matter.
    second.read_to(&format!("12 40\r\n{PROMPT}")).await;
    second.send(FromClient::Resize(Size { columns: 100, rows: 30 })).await;
    // Another connection's end may overtake what is still on its way on this one.
    second.settle().await;
    drop(first);
    assert_eq!(second.read_to_said().await, Said::Size(Size { columns: 100, rows: 30 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_and_does_nothing() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    let mut watcher = server.watcher().await;
    assert_eq!(watcher.hello.size, Size::default(), "it does not size the terminal");
    watcher.type_text("echo watcher\n").await;
    watcher.send(FromClient::Resize(Size { columns: 10, rows: 10 })).await;
    assert_eq!(client.run("stty size").await, "24 80");
    watcher.read_to(&format!("24 80\r\n{PROMPT}")).await;
    assert!(!String::from_utf8_lossy(&watcher.output).contains("watcher"));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_mean_nothing_end_their_connection_alone() {
    let server = Server::start(bash()).await;
    let mut client = server.client().await;
    let wrong: [&[u8]; 6] = [b"", b"x", b"0early", b"{", b"1{}", b"4\0\0"];
    for frame in wrong {
        let mut socket = connect(server.address, "/ws", "workshop.tty.v1").await;
        socket.send(Message::binary(frame.to_vec())).await.expect("to send");
        let answer = timeout(DEADLINE, socket.next()).await.expect("in time");
        assert!(
            matches!(answer, Some(Ok(Message::Close(Some(ref close)))) if u16::from(close.code) == 1002),
            "{answer:?}"
        );
    }
    assert_eq!(client.run("echo still here").await, "still here");
}
