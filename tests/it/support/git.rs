//! A Git server on loopback: `git http-backend` behind a few lines of HTTP, and repositories made by commands.
//!
//! Git runs hermetic: no configuration of the machine, fixed names and dates.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// Requests since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    pub gets: usize,
    pub posts: usize,
}

/// What the server does instead of serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers every request with this status.
    Status(u16),
    /// Accepts and never answers.
    Hang,
    /// Asks for this user and password.
    Login { user: String, password: String },
}

#[derive(Debug, Default)]
struct Shared {
    requests: Requests,
    fault: Option<Fault>,
}

/// The server; it ends with the process.
pub struct GitServer {
    root: tempfile::TempDir,
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl GitServer {
    /// Starts to serve an empty directory of repositories.
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (directory, state) = (root.path().to_owned(), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (directory, state) = (directory.clone(), Arc::clone(&state));
                std::thread::spawn(move || serve(stream, &directory, &state));
            }
        });
        Self { root, address, shared }
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.address)
    }

    /// Requests since the start.
    pub fn requests(&self) -> Requests {
        self.shared.lock().unwrap().requests
    }

    /// Lets the server misbehave, or serve again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.lock().unwrap().fault = fault;
    }

    /// Makes an empty bare repository and a work tree that pushes to it.
    pub fn create(&self, name: &str) -> Repository {
        let bare = self.root.path().join(format!("{name}.git"));
        git(self.root.path(), &["init", "--quiet", "--bare", "--initial-branch=main", bare.to_str().unwrap()]);
        Repository::for_remote(bare)
    }
}

/// A bare repository and a work tree that pushes into it.
pub struct Repository {
    bare: PathBuf,
    work: tempfile::TempDir,
}

impl Repository {
    fn for_remote(bare: PathBuf) -> Self {
        let work = tempfile::tempdir().unwrap();
        git(work.path(), &["init", "--quiet", "--initial-branch=main"]);
        git(work.path(), &["remote", "add", "origin", bare.to_str().unwrap()]);
        Self { bare, work }
    }

    /// The work tree.
    pub fn work_tree(&self) -> &Path {
        self.work.path()
    }

    /// The bare repository.
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// Writes a file of the work tree with its directories.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.work.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits everything in the work tree and gives the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.head()
    }

    /// Tags the head.
    pub fn tag(&self, name: &str) {
        self.git(&["tag", "--force", "--annotate", "--message", name, name]);
    }

    /// Pushes all branches and tags, forced.
    pub fn push(&self) {
        self.git(&["push", "--quiet", "--force", "origin", "--all"]);
        self.git(&["push", "--quiet", "--force", "origin", "--tags"]);
    }

    /// The id of the work tree's head.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs Git in the work tree and gives its output.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(self.work.path(), arguments)
    }
}

/// Runs Git, hermetic.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = hermetic(directory).args(arguments).output().expect("git is installed: hack/deps test installs it");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn hermetic(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "Author"),
        ("GIT_AUTHOR_EMAIL", "author@example.com"),
        ("GIT_COMMITTER_NAME", "Author"),
        ("GIT_COMMITTER_EMAIL", "author@example.com"),
        ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"),
        ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z"),
    ] {
        command.env(name, value);
    }
    command
}

/// One request per connection: enough for Git, and every request is counted.
fn serve(stream: TcpStream, root: &Path, shared: &Mutex<Shared>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or("/").to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) <= 2 {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let fault = {
        let mut shared = shared.lock().unwrap();
        if method == "POST" {
            shared.requests.posts += 1
        } else {
            shared.requests.gets += 1
        }
        shared.fault.clone()
    };
    let body = read_body(&mut reader, &headers);
    match fault {
        Some(Fault::Hang) => {
            // Until the client gives up.
            let _ = reader.read(&mut [0]);
        }
        Some(Fault::Status(status)) => respond(stream, status, &[("Retry-After", "1")], b"the test's fault"),
        Some(Fault::Login { user, password }) if headers.get("authorization") != Some(&basic(&user, &password)) => {
            respond(stream, 401, &[("WWW-Authenticate", "Basic realm=\"test\"")], b"who are you?");
        }
        _ => backend(stream, root, &method, &target, &headers, &body),
    }
}

fn basic(user: &str, password: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for chunk in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let six = (bits >> (18 - 6 * index) & 63) as usize;
            text.push(if index <= chunk.len() { ALPHABET[six] as char } else { '=' });
        }
    }
    text
}

fn read_body(reader: &mut impl BufRead, headers: &HashMap<String, String>) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length").and_then(|length| length.parse::<u64>().ok()) {
        let _ = reader.take(length).read_to_end(&mut body);
    } else if headers.get("transfer-encoding").is_some_and(|encoding| encoding.contains("chunked")) {
        loop {
            let mut size = String::new();
            let _ = reader.read_line(&mut size);
            let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
            let _ = reader.take(size).read_to_end(&mut body);
            let _ = reader.read_line(&mut String::new());
            if size == 0 {
                break;
            }
        }
    }
    body
}

/// The common gateway interface of `git http-backend`.
fn backend(stream: TcpStream, root: &Path, method: &str, target: &str, headers: &HashMap<String, String>, body: &[u8]) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    let mut child = hermetic(root)
        .args(["-c", "uploadpack.allowAnySHA1InWant=true", "http-backend"])
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git http-backend starts");
    let mut stdin = child.stdin.take().unwrap();
    let body = body.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&body);
    });
    let mut output = Vec::new();
    let _ = child.stdout.take().unwrap().read_to_end(&mut output);
    let _ = (writer.join(), child.wait());
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let text = String::from_utf8_lossy(&output[..split]).into_owned();
    let mut status = 200;
    let mut fields = Vec::new();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("Status", value)) => status = value.trim()[..3].parse().unwrap_or(500),
            Some((name, value)) => fields.push((name, value.trim())),
            None => {}
        }
    }
    respond(stream, status, &fields, output.get(split + 4..).unwrap_or_default());
}

fn respond(mut stream: TcpStream, status: u16, fields: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}
