//! The image's own `ttyd` in place of our terminal: kept running on a Unix socket, its WebSockets passed on.
//!
//! What its frames mean is its business and its client's; only input is told apart, because it is activity.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message as Upstream};

use super::supervisor::{Ends, PAUSE, exit_of, hang_up};
use super::v1::Exit;
use super::{CLOSING, Command, ImageTtyd, LONGEST_MESSAGE, Shared, Shell, see_off, ttyd};
use crate::backend::exec::{self, ControllingTerminal};
use crate::backend::reaper;

/// How long a connection waits for ttyd to listen.
const START: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
const PING: Duration = Duration::from_secs(5);
/// A client that gave no sign of life for so long is hung up.
const SILENCE: Duration = Duration::from_secs(15);

/// Where ttyd listens; it takes names that end so for Unix sockets.
pub fn socket(image: &ImageTtyd) -> PathBuf {
    image.directory.join("ttyd.sock")
}

/// Keeps ttyd running until the terminal is over.
pub async fn supervise(
    shell: &Shell,
    image: &ImageTtyd,
    shared: &Shared,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let mut ends = Ends::default();
    loop {
        shared.starts.fetch_add(1, Ordering::Relaxed);
        let (exit, command) = run(shell, image, &mut commands).await;
        match command {
            Some(Command::End) => break,
            Some(Command::Restart) => {
                ends.forget();
                tell(shared, exit);
                continue;
            }
            None => {}
        }
        let restarting = !ends.too_many(Instant::now());
        tell(shared, Exit { restarting, ..exit });
        let wish = match restarting {
            true => timeout(PAUSE, commands.recv()).await.unwrap_or(Some(Command::Restart)),
            false => commands.recv().await,
        };
        if !matches!(wish, Some(Command::Restart)) {
            break;
        }
    }
    shared.hub().end();
    shared.tell_viewers();
}

fn tell(shared: &Shared, exit: Exit) {
    tracing::warn!(code = exit.code, signal = exit.signal, restarting = exit.restarting, "the image's ttyd ended");
    (shared.on_exit)(exit);
}

/// Runs ttyd once; gives how it ended, and the command if one ended it.
async fn run(
    shell: &Shell,
    image: &ImageTtyd,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) -> (Exit, Option<Command>) {
    // What an earlier one has left would be found instead of the new one.
    let socket = socket(image);
    let _ = std::fs::remove_file(&socket);
    let options = [OsStr::new("-i"), socket.as_os_str(), OsStr::new("-W"), OsStr::new("-P"), OsStr::new("5")];
    let arguments = options
        .into_iter()
        .chain([OsStr::new("--"), shell.program.as_os_str()])
        .chain(shell.arguments.iter().map(AsRef::as_ref));
    let mut command = exec::command(
        &shell.user,
        &shell.home,
        shell.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())),
        image.program.as_os_str(),
        arguments,
        ControllingTerminal::No,
    );
    let mut child = match reaper::spawn(command.stdin(Stdio::null()).kill_on_drop(true)) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(%error, "failed to start the image's ttyd");
            return (Exit { code: Some(127), signal: None, restarting: true }, None);
        }
    };
    tokio::select! {
        status = child.wait() => (exit_of(status, true), None),
        command = commands.recv() => {
            let status = hang_up(&mut child, || None).await;
            (exit_of(status, true), Some(command.unwrap_or(Command::End)))
        }
    }
}

/// Passes a connection on to ttyd until one side ends it.
pub async fn proxy(shared: &Shared, socket: WebSocket, path: &Path) {
    let (mut sink, mut stream) = socket.split();
    let upstream = match connect(path).await {
        Ok(upstream) => upstream,
        Err(error) => {
            tracing::warn!(%error, "failed to reach the image's ttyd");
            let frame = CloseFrame { code: close_code::AGAIN, reason: "the image's ttyd does not answer".into() };
            let _ = timeout(Duration::from_secs(1), sink.send(Message::Close(Some(frame)))).await;
            return;
        }
    };
    shared.proxied.fetch_add(1, Ordering::Relaxed);
    (shared.activity)();
    let (mut up, mut down) = upstream.split();
    let mut back = std::pin::pin!(ttyd_to_client(shared, &mut down, &mut sink));
    tokio::select! {
        end = client_to_ttyd(shared, &mut stream, &mut up) => {
            if end == End::Ttyd {
                // What it said last, and whether it ended well, may still be on its way.
                let _ = timeout(CLOSING, back).await;
            }
        }
        is_closed = &mut back => if is_closed {
            let _ = timeout(CLOSING, see_off(&mut stream)).await;
        }
    }
    shared.proxied.fetch_sub(1, Ordering::Relaxed);
}

async fn connect(path: &Path) -> Result<WebSocketStream<UnixStream>, tungstenite::Error> {
    let mut request = "ws://localhost/ws".into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", axum::http::HeaderValue::from_static(ttyd::PROTOCOL));
    let start = Instant::now();
    let stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() >= START => return Err(error.into()),
            Err(_) => sleep(LOOK).await,
        }
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(LONGEST_MESSAGE)).max_frame_size(Some(LONGEST_MESSAGE));
    let answer = timeout(START, tokio_tungstenite::client_async_with_config(request, stream, Some(config)));
    match answer.await {
        Ok(answer) => answer.map(|(socket, _)| socket),
        Err(elapsed) => Err(std::io::Error::from(elapsed).into()),
    }
}

/// Which side went first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Ttyd,
}

async fn client_to_ttyd(
    shared: &Shared,
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    up: &mut (impl Sink<Upstream> + Unpin),
) -> End {
    // Pings are answered, so a client that is there is never silent for long.
    while let Ok(Some(Ok(message))) = timeout(SILENCE, stream.next()).await {
        let message = match message {
            Message::Binary(bytes) => {
                if let Ok(ttyd::FromClient::Input(typed)) = ttyd::FromClient::parse(&bytes) {
                    shared.bytes_in.fetch_add(typed.len() as u64, Ordering::Relaxed);
                    (shared.activity)();
                }
                Upstream::Binary(bytes)
            }
            Message::Text(text) => Upstream::Text(text.as_str().into()),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => break,
        };
        if up.send(message).await.is_err() {
            return End::Ttyd;
        }
    }
    let _ = timeout(CLOSING, up.send(Upstream::Close(None))).await;
    End::Client
}

/// True where the client was told of the end.
async fn ttyd_to_client(
    shared: &Shared,
    down: &mut (impl Stream<Item = Result<Upstream, tungstenite::Error>> + Unpin),
    sink: &mut (impl Sink<Message> + Unpin),
) -> bool {
    let mut changed = shared.changed.subscribe();
    let mut pings = tokio::time::interval(PING);
    loop {
        let message = tokio::select! {
            message = down.next() => match message {
                Some(Ok(Upstream::Binary(bytes))) => {
                    shared.bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    Message::Binary(bytes)
                }
                Some(Ok(Upstream::Text(text))) => Message::Text(text.as_str().into()),
                Some(Ok(Upstream::Close(Some(frame)))) if u16::from(frame.code) == close_code::NORMAL => {
                    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
                }
                Some(Ok(Upstream::Ping(_) | Upstream::Pong(_) | Upstream::Frame(_))) => continue,
                // Without a code the other side sees 1006, which is what ttyd means by any other end.
                Some(Ok(Upstream::Close(_)) | Err(_)) | None => return false,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
            // Only the end of the terminal changes anything here.
            _ = changed.changed() => Message::Close(Some(CloseFrame { code: close_code::AWAY, reason: "".into() })),
        };
        let last = matches!(message, Message::Close(_));
        if sink.send(message).await.is_err() {
            return false;
        }
        if last {
            return true;
        }
    }
}
