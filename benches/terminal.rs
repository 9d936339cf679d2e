//! The terminal over a WebSocket beside a bare pseudoterminal and the recorded figures of ttyd 1.7.7.
//!
//! Server and client share the machine and the process, as ttyd's figures were taken with both on one machine.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use rustix::pty::OpenptFlags;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use workshop::backend::exec::{self, Identity};
use workshop::backend::terminal::v1::{FromClient, FromServer, Open, Resume};
use workshop::backend::terminal::{Access, Shell, Size, Terminal};

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;

use report::{Report, quantile, show};

/// Bytes that the shell writes; each line's end becomes two bytes on the way.
const BYTES: usize = 200_000_000;
const KEYS: usize = 2000;
const RECONNECTS: usize = 40;
/// How often our client acknowledges, in bytes.
const ACKNOWLEDGE: u64 = 128 << 10;
/// The last line of the file; the file has it nowhere else.
const LAST: &[u8] = b"the last line\r\n";

fn main() {
    exec::use_program(Path::new(env!("CARGO_BIN_EXE_workshop-backend")));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("text");
    write_text(&file);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut report = Report::new("Terminal: 200 MB of text, keys and reconnections over a WebSocket");

    let limit = bare_pseudoterminal(&file);
    let ours = runtime.block_on(throughput(&file, "workshop.tty.v1"));
    let ttyd = runtime.block_on(throughput(&file, "tty"));
    let beside = |rate: f64| {
        format!(
            "a bare pseudoterminal {limit:.0} MB/s: {:.0} %; ttyd 1.7.7, recorded: 44–47 MB/s",
            rate / limit * 100.0
        )
    };
    report.row("throughput, workshop.tty.v1", format!("{ours:.0} MB/s"), beside(ours), "≥ ttyd");
    report.row("throughput, ttyd's protocol", format!("{ttyd:.0} MB/s"), beside(ttyd), "≥ ttyd");

    let mut keys = runtime.block_on(echo());
    let measured = format!("p50 {}, p95 {}", show(quantile(&mut keys, 0.5)), show(quantile(&mut keys, 0.95)));
    report.row("a key's echo", measured, "ttyd 1.7.7, recorded: p50 0.08 ms, p95 0.9 ms", "");

    let mut reconnects = runtime.block_on(reconnect());
    let measured =
        format!("p50 {}, p95 {}", show(quantile(&mut reconnects, 0.5)), show(quantile(&mut reconnects, 0.95)));
    report.row("reconnect with a replay of 896 KiB", measured, "ttyd: a new shell, nothing replayed", "< 250 ms");

    let stopped = runtime.block_on(control_c());
    report.row("control-c on `yes` to the prompt", show(stopped), "", "at once");
}

fn write_text(path: &Path) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut written = 0;
    while written < BYTES {
        let line = format!("{written:012} Lines of a usual length, as programs print them while they work. \n");
        written += line.len();
        file.write_all(line.as_bytes()).expect("to write");
    }
    file.write_all(b"the last line\n").expect("to write");
}

fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    bytes / 1e6 / time.as_secs_f64()
}

/// What a single reader takes from a pseudoterminal, with nothing behind it.
fn bare_pseudoterminal(file: &Path) -> f64 {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let near = rustix::pty::openpt(flags).expect("a pseudoterminal");
    rustix::pty::unlockpt(&near).expect("a pseudoterminal");
    let far = rustix::pty::ioctl_tiocgptpeer(&near, flags).expect("its far side");
    let start = Instant::now();
    let mut child = Command::new("cat").arg(file).stdout(far).spawn().expect("cat");
    let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
    while let Ok(count) = rustix::io::read(&near, &mut buffer) {
        bytes += count as u64;
    }
    let rate = megabytes_per_second(bytes, start.elapsed());
    child.wait().expect("cat");
    rate
}

/// A terminal that runs a script, and its address.
async fn serve(script: &str) -> (Terminal, SocketAddr) {
    let shell = Shell {
        program: "/bin/bash".into(),
        arguments: vec!["-c".into(), script.into()],
        user: Identity::current(),
        home: "/tmp".into(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
    };
    let terminal = Terminal::start(shell, Arc::new(|| {}), Arc::new(|_| {})).expect("a terminal");
    let served = terminal.clone();
    let handler = move |upgrade: WebSocketUpgrade| async move { served.upgrade(upgrade, Access::ReadWrite) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/ws", get(handler))).await });
    (terminal, address)
}

async fn connect(address: SocketAddr, protocol: &str, resume: Option<Resume>) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{address}/ws").into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().expect("a header"));
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a connection");
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("an upgrade");
    let open = FromClient::Open(Open { size: Size::default(), resume }).build();
    socket.send(Message::binary(open)).await.expect("to send");
    socket
}

async fn send(socket: &mut WebSocketStream<TcpStream>, frame: FromClient<'_>) {
    socket.send(Message::binary(frame.build())).await.expect("to send");
}

/// Reads output until it ends with `text`; gives the offset behind it.
async fn read_to(socket: &mut WebSocketStream<TcpStream>, text: &[u8]) -> u64 {
    let (mut tail, mut acknowledged) = (Vec::new(), 0);
    loop {
        let Message::Binary(frame) = socket.next().await.expect("a message").expect("no error") else { continue };
        let FromServer::Output(offset, bytes) = FromServer::parse(&frame).expect("a frame") else { continue };
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(text.len())..]);
        tail.drain(..tail.len().saturating_sub(text.len()));
        let end = offset + bytes.len() as u64;
        if tail.ends_with(text) {
            send(socket, FromClient::Acknowledge(end)).await;
            return end;
        }
        if end - acknowledged >= ACKNOWLEDGE {
            acknowledged = end;
            send(socket, FromClient::Acknowledge(end)).await;
        }
    }
}

/// Megabytes of output per second that reach a client.
async fn throughput(file: &Path, protocol: &str) -> f64 {
    let (terminal, address) = serve(&format!("stty -echo; read -r line; cat {}; read -r line", file.display())).await;
    let mut socket = connect(address, protocol, None).await;
    let start = Instant::now();
    send(&mut socket, FromClient::Input(b"\n")).await;
    let bytes = if protocol == "tty" {
        let (mut bytes, mut ends) = (0, false);
        while !ends {
            let Message::Binary(frame) = socket.next().await.expect("a message").expect("no error") else { continue };
            if frame[0] == b'0' {
                bytes += frame.len() as u64 - 1;
                ends = frame.ends_with(LAST);
            }
        }
        bytes
    } else {
        read_to(&mut socket, LAST).await
    };
    let rate = megabytes_per_second(bytes, start.elapsed());
    assert!(bytes > BYTES as u64, "{bytes} bytes of {BYTES} came");
    terminal.end().await;
    rate
}

/// From sending a key to having its echo.
async fn echo() -> Vec<Duration> {
    let (terminal, address) = serve("echo ready; cat").await;
    let mut socket = connect(address, "workshop.tty.v1", None).await;
    read_to(&mut socket, b"ready\r\n").await;
    let mut times = Vec::new();
    for index in 0..KEYS {
        // Line by line, because a line that is not ended has room for 4 KiB only.
        if index % 64 == 63 {
            send(&mut socket, FromClient::Input(b"\n")).await;
            // The line comes once more, from the program.
            read_to(&mut socket, b"x\r\n").await;
        }
        let start = Instant::now();
        send(&mut socket, FromClient::Input(b"x")).await;
        loop {
            let Message::Binary(frame) = socket.next().await.expect("a message").expect("no error") else { continue };
            if matches!(FromServer::parse(&frame), Ok(FromServer::Output(..))) {
                break;
            }
        }
        times.push(start.elapsed());
    }
    terminal.end().await;
    times
}

/// From beginning to connect to having all output since the break.
async fn reconnect() -> Vec<Duration> {
    const REPLAYED: u64 = 896 << 10;
    let (terminal, address) = serve("seq 1 200000; echo end; read -r line").await;
    let mut socket = connect(address, "workshop.tty.v1", None).await;
    let end = read_to(&mut socket, b"end\r\n").await;
    let Some(session) = session_of(address).await else { panic!("no hello") };
    let mut times = Vec::new();
    for _ in 0..RECONNECTS {
        drop(socket);
        let start = Instant::now();
        let resume = Some(Resume { session: session.clone(), offset: end - REPLAYED });
        socket = connect(address, "workshop.tty.v1", resume).await;
        read_to(&mut socket, b"end\r\n").await;
        times.push(start.elapsed());
    }
    terminal.end().await;
    times
}

async fn session_of(address: SocketAddr) -> Option<String> {
    let mut socket = connect(address, "workshop.tty.v1", None).await;
    while let Some(Ok(message)) = socket.next().await {
        if let Ok(FromServer::Hello(hello)) = FromServer::parse(&message.into_data()) {
            return Some(hello.session);
        }
    }
    None
}

/// From control-c on endless output to the next prompt on the client's side.
async fn control_c() -> Duration {
    let (terminal, address) = serve("PS1='PROMPT> ' exec bash --norc --noprofile --noediting -i").await;
    let mut socket = connect(address, "workshop.tty.v1", None).await;
    read_to(&mut socket, b"PROMPT> ").await;
    send(&mut socket, FromClient::Input(b"yes\n")).await;
    // Past two megabytes nothing is still starting.
    let mut end = 0;
    while end < 2_000_000 {
        let Message::Binary(frame) = socket.next().await.expect("a message").expect("no error") else { continue };
        if let Ok(FromServer::Output(offset, bytes)) = FromServer::parse(&frame) {
            end = offset + bytes.len() as u64;
            send(&mut socket, FromClient::Acknowledge(end)).await;
        }
    }
    let start = Instant::now();
    send(&mut socket, FromClient::Input(b"\x03")).await;
    read_to(&mut socket, b"PROMPT> ").await;
    let time = start.elapsed();
    terminal.end().await;
    time
}
