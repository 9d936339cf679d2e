//! Debian's docker-registry on loopback, with a configuration of its own, and a registry that only misbehaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cluster::TestCluster;
use super::files::run;
use super::wait::wait_for;

/// The name and password of a registry that wants a login.
pub const LOGIN: (&str, &str) = ("learner", "correct horse");
/// What htpasswd makes of it.
const LOGIN_HASH: &str = "learner:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";

/// A running registry; it ends with its value.
pub struct Registry {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Registry {
    /// Starts an empty registry that anybody may use.
    pub fn start() -> Self {
        Self::run(false, None)
    }

    /// Starts one that ends with a cluster, its value or not.
    pub fn start_in(cluster: &TestCluster) -> Self {
        Self::run(false, Some(cluster))
    }

    /// Starts an empty registry that wants [`LOGIN`].
    pub fn start_with_login() -> Self {
        Self::run(true, None)
    }

    /// Starts one that wants [`LOGIN`] and ends with a cluster.
    pub fn start_with_login_in(cluster: &TestCluster) -> Self {
        Self::run(true, Some(cluster))
    }

    fn run(login: bool, cluster: Option<&TestCluster>) -> Self {
        let directory = match cluster {
            Some(cluster) => tempfile::tempdir_in(cluster.directory()).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: '127.0.0.1:{port}', secret: tests}}\n",
            directory.path().join("data").display()
        );
        if login {
            let passwords = directory.path().join("htpasswd");
            std::fs::write(&passwords, LOGIN_HASH).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", passwords.display()));
        }
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        if let Some(cluster) = cluster {
            cluster.adopt(&mut command);
        }
        let child = command
            .arg("serve")
            .arg(&file)
            .stdout(std::fs::File::create(directory.path().join("access")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry: {error}: run `hack/deps test` (Debian: docker-registry)"));
        let mut registry = Self { child, port, directory };
        wait_for("the registry to answer", Duration::from_secs(60), || {
            if let Some(status) = registry.child.try_wait().unwrap() {
                panic!("docker-registry ended with {status}");
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        registry
    }

    /// Its `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts Debian's static busybox into it as the image `busybox:1.36`, the way an author without internet would.
    pub fn push_busybox(&self) {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        seed_busybox(&state);
        let source = format!("oci:{}:docker.io/library/busybox:1.36", state.join("images").display());
        self.push(&source, &format!("{}/busybox:1.36", self.host()));
    }

    /// Puts the image of an archive, as `docker save` writes one, into it by this name.
    pub fn push_archive(&self, archive: &Path, name: &str) {
        self.push(&format!("docker-archive:{}", archive.display()), name);
    }

    fn push(&self, source: &str, name: &str) {
        let target = format!("docker://{name}");
        run(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", source, &target]));
    }

    /// Where it keeps its data.
    pub fn data(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    /// How often each manifest was written, by its path; a line of the log may come an instant after its answer.
    pub fn manifest_writes(&self) -> BTreeMap<String, usize> {
        let log = std::fs::read_to_string(self.directory.path().join("access")).unwrap();
        let mut writes = BTreeMap::new();
        for path in log.lines().filter_map(|line| line.split_once("\"PUT ")?.1.split(' ').next()) {
            if path.contains("/manifests/") {
                *writes.entry(path.to_owned()).or_default() += 1;
            }
        }
        writes
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts Debian's static busybox into the image store of a state directory, as the base of the examples.
pub fn seed_busybox(state: &Path) {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/seed-busybox"))
        .arg(env!("CARGO_BIN_EXE_workshop"))
        .arg("--state")
        .arg(state)
        .output()
        .expect("hack/seed-busybox starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// One answer of a [`FaultyRegistry`].
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without anything else.
    pub fn status(status: u16) -> Self {
        Self { status, headers: "", body: Vec::new() }
    }
}

/// A registry that answers as a test says, and counts; it ends with the process.
pub struct FaultyRegistry {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl FaultyRegistry {
    /// Starts with `answer`, which is asked with each request's `METHOD /path`.
    pub fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { port, seen }
    }

    /// Its `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Requests so far, as `METHOD /path`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>, answer: &dyn Fn(&str) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let request = line.rsplit_once(' ').map_or(line.as_str(), |(request, _)| request).to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let _ = std::io::copy(&mut reader.take(length), &mut std::io::sink());
    log.lock().unwrap().push(request.clone());
    let Answer { status, headers, body } = answer(&request);
    let head =
        format!("HTTP/1.1 {status} Test\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    if !request.starts_with("HEAD") {
        let _ = stream.write_all(&body);
    }
}
