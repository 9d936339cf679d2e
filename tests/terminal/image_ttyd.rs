//! `server: ttyd`: the image's ttyd is kept running and its WebSockets are passed on.
//!
//! No distribution package of ttyd is on every machine that runs tests. What stands in for it is a program that is
//! started as ttyd is and writes down how, and a server of this test on the socket that it was told.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::ws::{CloseFrame, Message as ServerMessage, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use tokio::net::UnixListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{DEADLINE, Server, bash, connect, wait_for, write_program};
use workshop::backend::terminal::ImageTtyd;

/// A directory with a program that notes its arguments in `started` and stays.
fn stand_in(directory: &Path) -> ImageTtyd {
    let program = directory.join("ttyd");
    let script =
        format!("#!/bin/sh\necho \"$@\" >> {}/started\nexec sleep 1000 > /dev/null 2>&1\n", directory.display());
    write_program(&program, &script);
    ImageTtyd { program, directory: directory.to_owned() }
}

fn starts(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("started")).unwrap_or_default();
    text.lines().map(Into::into).collect()
}

/// Speaks as ttyd does: title, then input comes back as output; `0exit` closes with 1000, `0die` breaks.
async fn speak(mut socket: WebSocket) {
    let Some(Ok(first)) = socket.recv().await else { return };
    let first = String::from_utf8(first.into_data().to_vec()).expect("text");
    socket.send(ServerMessage::Binary(format!("1{first}").into_bytes().into())).await.expect("to send");
    while let Some(Ok(message)) = socket.recv().await {
        match message {
            ServerMessage::Binary(frame) if frame.as_ref() == b"0exit" => {
                let frame = CloseFrame { code: 1000, reason: "".into() };
                let _ = socket.send(ServerMessage::Close(Some(frame))).await;
                return;
            }
            ServerMessage::Binary(frame) if frame.as_ref() == b"0die" => return,
            ServerMessage::Binary(frame) => socket.send(ServerMessage::Binary(frame)).await.expect("to send"),
            _ => {}
        }
    }
}

async fn listen(socket: PathBuf) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let handler = |upgrade: WebSocketUpgrade| async move { upgrade.protocols(["tty"]).on_upgrade(speak) };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/ws", get(handler))).await });
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_pass_both_ways_between_a_client_and_the_images_ttyd() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_ttyd(bash(), stand_in(directory.path())).await;
    wait_for("ttyd", || (!starts(directory.path()).is_empty()).then_some(())).await;
    let socket = directory.path().join("ttyd.sock");
    let expected = format!("-i {} -W -P 5 -- /bin/bash --norc --noprofile --noediting -i", socket.display());
    assert_eq!(starts(directory.path()), [expected]);
    listen(socket).await;

    let open = r#"{"AuthToken":"","columns":80,"rows":24}"#;
    for (last, code) in [("0exit", Some(1000)), ("0die", None)] {
        let mut client = connect(server.address, "/ws", "tty").await;
        client.send(Message::binary(open.as_bytes().to_vec())).await.expect("to send");
        client.send(Message::binary(&b"0ls\r"[..])).await.expect("to send");
        client.send(Message::binary(last.as_bytes().to_vec())).await.expect("to send");
        let mut frames = Vec::new();
        let end = loop {
            match timeout(DEADLINE, client.next()).await.expect("in time") {
                Some(Ok(Message::Binary(frame))) => frames.push(String::from_utf8_lossy(&frame).into_owned()),
                Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break None,
            }
        };
        assert_eq!(frames, [format!("1{open}"), "0ls\r".to_owned()]);
        assert_eq!(end, code);
    }
    assert_eq!(server.terminal.metrics().bytes_in, 3 + 4 + 3 + 3);
    wait_for("the end of both", || (server.terminal.metrics().viewers == 0).then_some(())).await;
    server.terminal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_ttyd_is_started_again_and_ended() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_ttyd(bash(), stand_in(directory.path())).await;
    let count = || starts(directory.path()).len();
    wait_for("ttyd", || (count() == 1).then_some(())).await;
    server.terminal.restart();
    wait_for("another ttyd", || (count() == 2).then_some(())).await;
    let exit = wait_for("its end", || server.exits.lock().expect("no test panicked in it").first().cloned()).await;
    assert_eq!(exit.signal.as_deref(), Some("HUP"));
    server.terminal.end().await;
    assert_eq!(count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_ttyd_says_so_to_the_backend() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ttyd = ImageTtyd { program: directory.path().join("none"), directory: directory.path().into() };
    let server = Server::start_ttyd(bash(), ttyd).await;
    let exit = wait_for("giving up", || {
        let exits = server.exits.lock().expect("no test panicked in it");
        exits.iter().find(|exit| !exit.restarting).cloned()
    })
    .await;
    assert_eq!(exit.code, Some(127));
    let refused = crate::support::try_connect(server.address, "/watch", "tty").await;
    assert_eq!(refused, Err(403));
    let refused = crate::support::try_connect(server.address, "/ws", "workshop.tty.v1").await;
    assert_eq!(refused, Err(400));
}
