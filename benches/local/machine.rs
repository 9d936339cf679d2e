//! `workshop up` on a state of its own, and a person at its gateway: the control socket, the API and the terminals.
//!
//! It drives and waits; it measures nothing.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a client rests before it asks again.
const REST: Duration = Duration::from_millis(10);

/// An open terminal.
pub type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A running `workshop up`.
pub struct Machine {
    directory: tempfile::TempDir,
    up: Child,
    control: reqwest::Client,
    browser: reqwest::Client,
    base: String,
    cookie: String,
}

impl Machine {
    /// Starts `up` on a copy of an example; the seconds until it printed its address are given too.
    pub async fn start(example: &str) -> (Self, Duration) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (source, state) = (directory.path().join("source"), directory.path().join("state"));
        std::fs::create_dir_all(&source).expect("a directory");
        must(Command::new("cp").arg("-a").arg(root.join("examples/workshops").join(example)).arg(&source));
        must(
            Command::new(root.join("hack/seed-busybox")).arg(env!("CARGO_BIN_EXE_workshop")).arg("--state").arg(&state),
        );
        let start = Instant::now();
        let mut up = Command::new(env!("CARGO_BIN_EXE_workshop"))
            .arg("--state")
            .arg(&state)
            .args(["up", "--runtime", "native", "--listen", "127.0.0.1:0"])
            .arg(&source)
            .env("WORKSHOP_PLATFORM", platform())
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let address = address(&mut up).expect("up says where to go");
        let took = start.elapsed();
        let (base, key) = address.split_once("#key=").expect("an address with a key");
        let base = base.trim_end_matches('/').to_owned();
        // Another part of the process may have installed it already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let control = reqwest::Client::builder().unix_socket(state.join("control.sock")).no_proxy().build();
        let browser = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = browser.post(format!("{base}/session")).json(&json!({ "key": key })).send().await;
        let answer = answer.expect("an answer");
        let cookie = answer.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a cookie");
        let cookie = cookie.to_owned();
        (Self { directory, up, control: control.expect("a client"), browser, base, cookie }, took)
    }

    /// The directory with the workshops.
    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.up.id()
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Asks the control socket.
    pub async fn ask(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let request = self.control.request(method, format!("http://workshop/control/v1/{path}"));
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The text of a step as the page of the workspace shows it; empty while there is none.
    pub async fn step_html(&self, instance: &str, step: &str) -> String {
        let url = format!("{}/w/{instance}/api/v1/steps/{step}", self.base);
        let Ok(answer) = self.browser.get(url).header("cookie", &self.cookie).send().await else {
            return String::new();
        };
        let value: Value = answer.json().await.unwrap_or_default();
        value["html"].as_str().unwrap_or_default().to_owned()
    }

    /// Opens the terminal and types a line until its answer is `expected`; the answer of another machine, a refusal
    /// and a cut mean: again. Gives the open terminal.
    pub async fn answer(&self, instance: &str, line: &str, expected: &str) -> Socket {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut socket) = self.open(instance).await
                && typed(&mut socket, line, expected).await
            {
                return socket;
            }
            assert!(Instant::now() < deadline, "the terminal of {instance} never answered \"{expected}\"");
            tokio::time::sleep(REST).await;
        }
    }

    async fn open(&self, instance: &str) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let mut request = format!("{}/w/{instance}/ws", self.base.replacen("http", "ws", 1)).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("cookie", self.cookie.parse().expect("a header"));
        headers.insert("origin", self.base.parse().expect("a header"));
        headers.insert("sec-websocket-protocol", "tty".parse().expect("a header"));
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
        let hello = json!({ "AuthToken": "", "columns": 120, "rows": 30 }).to_string();
        socket.send(Message::binary(hello.into_bytes())).await?;
        Ok(socket)
    }
}

/// Types a line after the prompt and says whether its answer begins with `expected`.
async fn typed(socket: &mut Socket, line: &str, expected: &str) -> bool {
    let (mut output, mut is_typed) = (String::new(), false);
    let answer = format!("\n{expected}\r");
    loop {
        let Ok(Some(Ok(message))) = tokio::time::timeout(PATIENCE, socket.next()).await else { return false };
        let data = message.into_data();
        if data.first() != Some(&b'0') {
            continue;
        }
        output.push_str(&String::from_utf8_lossy(&data[1..]));
        if !is_typed && (output.contains("$ ") || output.contains("# ")) {
            is_typed = true;
            output.clear();
            if socket.send(Message::binary(format!("0{line}\r").into_bytes())).await.is_err() {
                return false;
            }
        } else if output.contains(&answer) {
            return true;
        } else if output.contains("\nstale\r") {
            return false;
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.up), rustix::process::Signal::INT);
        let _ = self.up.wait();
    }
}

/// The directory with the static backend and tini: of `WORKSHOP_PLATFORM`, else what `hack/platform` made.
pub fn platform() -> PathBuf {
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let beside = || Path::new(env!("CARGO_BIN_EXE_workshop")).with_file_name("platform").join(architecture);
    let directory = std::env::var_os("WORKSHOP_PLATFORM").map_or_else(beside, PathBuf::from);
    assert!(directory.join("workshop-backend").is_file(), "no backend in {}: run `make backend`", directory.display());
    directory
}

/// Runs a command that must succeed.
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The address that `up` prints; what it says afterwards is read and forgotten.
fn address(up: &mut Child) -> Option<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let out = up.stdout.take().expect("it is piped");
    let err = up.stderr.take().expect("it is piped");
    let streams: [Box<dyn std::io::Read + Send>; 2] = [Box::new(out), Box::new(err)];
    for stream in streams {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    drop(sender);
    let deadline = Instant::now() + PATIENCE;
    while let Ok(line) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(address) = line.split_whitespace().find(|word| word.contains("#key=")) {
            return Some(address.to_owned());
        }
    }
    None
}
