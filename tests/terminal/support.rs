//! What the tests of the terminal share: the program, a server, and a client of our protocol.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use workshop::backend::exec::Identity;
use workshop::backend::terminal::v1::{FromClient, FromServer, Hello, Open, Resume};
use workshop::backend::terminal::{Access, Exit, ImageTtyd, Shell, Size, Terminal, TerminalError};

/// Nothing here takes long; machines that run tests may.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The prompt of [`bash`].
pub const PROMPT: &str = "PROMPT> ";

/// The test program knows no helper mode; the backend does.
pub fn use_the_backend() {
    workshop::backend::exec::use_program(Path::new(env!("CARGO_BIN_EXE_workshop-backend")));
}

/// A shell with nothing of this machine's in it, run as whoever runs the tests.
pub fn shell(program: &str, arguments: &[&str]) -> Shell {
    Shell {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        user: Identity::current(),
        home: "/tmp".into(),
        environment: [("PATH", "/usr/bin:/bin"), ("PS1", PROMPT), ("HOME", "/tmp"), ("LC_ALL", "C.UTF-8")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
    }
}

/// An interactive bash.
pub fn bash() -> Shell {
    // Without readline, which would draw the line that one types again and again.
    shell("/bin/bash", &["--norc", "--noprofile", "--noediting", "-i"])
}

/// A script in bash.
pub fn script(text: &str) -> Shell {
    shell("/bin/bash", &["-c", text])
}

/// A terminal behind a server on a free port.
pub struct Server {
    pub terminal: Terminal,
    pub address: SocketAddr,
    pub activity: Arc<AtomicUsize>,
    pub exits: Arc<Mutex<Vec<Exit>>>,
}

impl Server {
    pub async fn start(shell: Shell) -> Self {
        Self::serve(|activity, on_exit| Terminal::start(shell, activity, on_exit)).await
    }

    /// With the image's ttyd instead.
    pub async fn start_ttyd(shell: Shell, ttyd: ImageTtyd) -> Self {
        Self::serve(|activity, on_exit| Terminal::start_ttyd(shell, ttyd, activity, on_exit)).await
    }

    async fn serve(
        start: impl FnOnce(Arc<dyn Fn() + Send + Sync>, Arc<dyn Fn(Exit) + Send + Sync>) -> Result<Terminal, TerminalError>,
    ) -> Self {
        use_the_backend();
        let activity = Arc::new(AtomicUsize::new(0));
        let exits = Arc::new(Mutex::new(Vec::new()));
        let (count, ends) = (Arc::clone(&activity), Arc::clone(&exits));
        let terminal = start(
            Arc::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
            Arc::new(move |exit| ends.lock().expect("no test panicked in it").push(exit)),
        )
        .expect("a terminal");
        let route = |access| {
            let terminal = terminal.clone();
            get(move |upgrade: WebSocketUpgrade| async move { terminal.upgrade(upgrade, access) })
        };
        let routes = Router::new().route("/ws", route(Access::ReadWrite)).route("/watch", route(Access::ReadOnly));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { terminal, address, activity, exits }
    }

    pub async fn client(&self) -> Client {
        Client::open(self.address, "/ws", Size::default(), None).await
    }

    pub async fn watcher(&self) -> Client {
        Client::open(self.address, "/watch", Size { columns: 10, rows: 10 }, None).await
    }
}

/// A WebSocket with one subprotocol.
pub async fn connect(address: SocketAddr, path: &str, protocol: &str) -> WebSocketStream<TcpStream> {
    open_socket(address, path, protocol).await.expect("an upgrade")
}

/// Whether a WebSocket is granted, or the status of the refusal.
pub async fn try_connect(address: SocketAddr, path: &str, protocol: &str) -> Result<(), u16> {
    match open_socket(address, path, protocol).await {
        Ok(_) => Ok(()),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn open_socket(address: SocketAddr, path: &str, protocol: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().expect("a header"));
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], protocol);
    Ok(socket)
}

/// Writes a script that can be run.
pub fn write_program(path: &Path, script: &str) {
    std::fs::write(path, script).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a program");
}

/// Something that the server said, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Output(usize),
    Exit(Exit),
    Resynchronised(u64),
    Size(Size),
    Closed,
}

/// A client of our protocol that checks each offset.
pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
    pub hello: Hello,
    /// The offset behind the last byte it has.
    pub offset: u64,
    /// All output since it was opened or resynchronised.
    pub output: Vec<u8>,
}

impl Client {
    pub async fn open(address: SocketAddr, path: &str, size: Size, resume: Option<Resume>) -> Self {
        let mut socket = connect(address, path, "workshop.tty.v1").await;
        let open = FromClient::Open(Open { size, resume }).build();
        socket.send(Message::binary(open)).await.expect("to send");
        let message = timeout(DEADLINE, socket.next()).await.expect("in time").expect("a message").expect("no error");
        let Ok(FromServer::Hello(hello)) = FromServer::parse(&message.into_data()).map(own) else {
            panic!("the first frame is no hello");
        };
        Self { socket, offset: hello.offset, hello, output: Vec::new() }
    }

    /// What a new connection says to go on where this one is.
    pub fn resume(&self) -> Option<Resume> {
        Some(Resume { session: self.hello.session.clone(), offset: self.offset })
    }

    pub async fn send(&mut self, frame: FromClient<'_>) {
        self.socket.send(Message::binary(frame.build())).await.expect("to send");
    }

    /// Waits until the server has taken in everything sent before; what it says meanwhile must be nothing.
    pub async fn settle(&mut self) {
        self.socket.send(Message::Ping(Vec::new().into())).await.expect("to send");
        let answer = timeout(DEADLINE, self.socket.next()).await.expect("in time");
        assert!(matches!(answer, Some(Ok(Message::Pong(_)))), "{answer:?}");
    }

    pub async fn type_text(&mut self, text: &str) {
        self.send(FromClient::Input(text.as_bytes())).await;
    }

    pub async fn acknowledge(&mut self) {
        self.send(FromClient::Acknowledge(self.offset)).await;
    }

    /// The next thing said, without acknowledging.
    pub async fn next(&mut self) -> Said {
        loop {
            let Ok(message) = timeout(DEADLINE, self.socket.next()).await else {
                panic!("silence after {:?}", String::from_utf8_lossy(last(&self.output)));
            };
            let frame = match message {
                Some(Ok(Message::Binary(frame))) => frame,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Said::Closed,
                Some(Ok(other)) => panic!("{other:?}"),
            };
            return match FromServer::parse(&frame).expect("a frame") {
                FromServer::Output(offset, bytes) => {
                    assert_eq!(offset, self.offset, "output goes on where it was");
                    self.offset += bytes.len() as u64;
                    self.output.extend_from_slice(bytes);
                    Said::Output(bytes.len())
                }
                FromServer::Title(_) => continue,
                FromServer::Exit(exit) => Said::Exit(exit),
                FromServer::Resynchronised(offset) => {
                    assert!(offset > self.offset, "only what is lost is passed over");
                    self.offset = offset;
                    self.output.clear();
                    Said::Resynchronised(offset)
                }
                FromServer::Size(size) => Said::Size(size),
                FromServer::Hello(_) => panic!("a second hello"),
            };
        }
    }

    /// Reads and acknowledges until the output ends with a text.
    pub async fn read_to(&mut self, text: &str) {
        while !self.output.ends_with(text.as_bytes()) {
            match self.next().await {
                Said::Output(_) => self.acknowledge().await,
                Said::Size(_) => {}
                other => panic!("{other:?} before {text:?}: {:?}", String::from_utf8_lossy(last(&self.output))),
            }
        }
    }

    /// Reads past output until something else is said.
    pub async fn read_to_said(&mut self) -> Said {
        loop {
            match self.next().await {
                Said::Output(_) => self.acknowledge().await,
                other => return other,
            }
        }
    }

    /// Types a command at a prompt and gives its output.
    pub async fn run(&mut self, command: &str) -> String {
        self.read_to(PROMPT).await;
        self.output.clear();
        self.type_text(&format!("{command}\n")).await;
        self.read_to(PROMPT).await;
        let text = String::from_utf8(self.output.clone()).expect("text");
        let echo = format!("{command}\r\n");
        let answer = text.strip_prefix(&echo).unwrap_or_else(|| panic!("no echo of {command:?} in {text:?}"));
        answer.trim_end_matches(PROMPT).trim_end().to_owned()
    }
}

/// The server's frames borrow; only those that do not are needed for longer.
fn own(frame: FromServer<'_>) -> FromServer<'static> {
    match frame {
        FromServer::Hello(hello) => FromServer::Hello(hello),
        other => panic!("{other:?}"),
    }
}

fn last(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len().saturating_sub(200)..]
}

/// Waits until something is there.
pub async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "no {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
