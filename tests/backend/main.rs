//! The real program as a workspace starts it, below a directory of its own: account, shell, files and the end.
//!
//! Needs root, because it becomes the learner.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use workshop::domain::artifact_schema::TABLES;

const PROGRAM: &str = env!("CARGO_BIN_EXE_workshop-backend");
const DEADLINE: Duration = Duration::from_secs(60);
/// What an artifact of another program may look like: the tables, and nothing that marks them as ours.
const ROWS: &str = "
INSERT INTO workshop VALUES ('w', 'W', 'v1', '2026-01-01T00:00:00Z');
INSERT INTO steps VALUES ('one', 'w', 1, 'One', '# One', 'w:one', 'file: {/: {exists: true}}');
INSERT INTO steps VALUES ('two', 'w', 2, 'Two', NULL, 'w:two', NULL);
INSERT INTO navigation VALUES ('one', 'two', NULL, NULL), ('two', NULL, 'one', NULL);
";

/// A running backend; killed when dropped.
struct Backend {
    child: Child,
    client: Client,
    token: String,
    root: TempDir,
}

fn command(root: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    let listen = format!("unix:{}", root.join("backend.sock").display());
    command.env("WORKSHOP_ROOT", root).env("WORKSHOP_LISTEN", listen);
    command
}

async fn wait_for<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < end, "no {what} in {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Backend {
    async fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "becoming the learner needs root: run the tests as root");
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).expect("its owner");
        let artifact = root.path().join("workshop/artifact");
        std::fs::create_dir_all(&artifact).expect("a directory");
        let connection = Connection::open(artifact.join("workshop.db")).expect("a database");
        connection.execute_batch(&format!("{TABLES}{ROWS}")).expect("the tables");
        std::fs::create_dir_all(root.path().join("bin")).expect("a directory");
        std::fs::copy("/bin/sh", root.path().join("bin/sh")).expect("a shell");
        Self::on(root).await
    }

    async fn on(root: TempDir) -> Self {
        let child = command(root.path()).stderr(Stdio::null()).spawn().expect("the backend starts");
        let socket: PathBuf = root.path().join("backend.sock");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().unix_socket(socket).no_proxy().build().expect("a client");
        let mut backend = Self { child, client, token: String::new(), root };
        wait_for("readiness", async || {
            let ready = backend.client.get("http://workspace/readyz").send().await.ok()?;
            (ready.status() == StatusCode::OK).then_some(())
        })
        .await;
        let output = command(backend.root.path()).arg("token").output().expect("the backend starts");
        let address = String::from_utf8(output.stdout).expect("text");
        backend.token = address.trim().split_once("#token=").expect("an address with a token").1.to_owned();
        backend
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Vec<u8>) {
        let url = format!("http://workspace/api/v1/{path}");
        let request = self.client.request(method, url).bearer_auth(&self.token).body(body);
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.bytes().await.expect("a body").to_vec())
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Value {
        let (_, bytes) = self.ask(method, path, body.to_string()).await;
        serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes)))
    }

    fn home(&self, name: &str) -> String {
        self.root.path().join("home/learner").join(name).display().to_string()
    }

    /// Sends SIGTERM and gives what is left and how long it took.
    fn terminate(mut self) -> (TempDir, Duration) {
        let start = Instant::now();
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("an id")).expect("not zero");
        kill_process(pid, Signal::TERM).expect("the backend takes a signal");
        assert!(self.child.wait().expect("a child").success());
        let took = start.elapsed();
        (std::mem::replace(&mut self.root, tempfile::tempdir().expect("a directory")), took)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn files_have_the_learners_rights_and_no_more() {
    use std::os::unix::fs::MetadataExt as _;
    let backend = Backend::start().await;
    let path = format!("files/content?path={}", backend.home("a.txt"));
    assert_eq!(backend.ask(Method::PUT, &path, "hello").await.0, StatusCode::NO_CONTENT);
    assert_eq!(backend.ask(Method::GET, &path, "").await.1, b"hello");
    let written = std::fs::metadata(backend.home("a.txt")).expect("the file");
    assert_eq!((written.uid(), written.gid()), (1000, 1000));

    let root = backend.root.path().display().to_string();
    std::fs::write(backend.root.path().join("secret"), "root's").expect("a file");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(backend.root.path().join("secret"), private).expect("its owner");
    std::os::unix::fs::symlink("../../workshop/state/workshop.db", backend.home("database")).expect("a link");
    std::os::unix::fs::symlink("../../secret", backend.home("secret")).expect("a link");
    for path in [
        format!("{root}/secret"),
        format!("{root}/workshop/state/workshop.db"),
        format!("{root}/workshop/state/token-key.pk8"),
        format!("{root}/workshop/.goss/goss.yaml"),
        backend.home("database"),
        backend.home("secret"),
        "/proc/1/environ".to_owned(),
        "/etc/shadow".to_owned(),
    ] {
        let answer = backend.ask(Method::GET, &format!("files/content?path={path}"), "").await;
        assert_eq!(answer.0, StatusCode::FORBIDDEN, "{path}");
        let answer = backend.ask(Method::PUT, &format!("files/content?path={path}"), "mine").await;
        assert_eq!(answer.0, StatusCode::FORBIDDEN, "{path}");
    }
    let outside = backend.ask(Method::GET, "files/content?path=/home/../etc/passwd", "").await;
    assert_eq!(outside.0, StatusCode::BAD_REQUEST);
    assert_eq!(std::fs::read(backend.root.path().join("secret")).expect("still there"), b"root's");

    let (status, archive) = backend.ask(Method::GET, "files/archive", "").await;
    assert_eq!((status, &archive[..2]), (StatusCode::OK, &[0x1f, 0x8b][..]));
}

#[tokio::test]
async fn a_files_child_that_is_killed_is_replaced() {
    let backend = Backend::start().await;
    assert_eq!(backend.ask(Method::GET, "files", "").await.0, StatusCode::OK);
    let child = wait_for("the child", async || find_process(backend.child.id(), "files")).await;
    kill_process(child, Signal::KILL).expect("it runs");
    assert_eq!(backend.ask(Method::GET, "files", "").await.0, StatusCode::OK);
}

/// A child of `parent` whose arguments hold `word`.
fn find_process(parent: u32, word: &str) -> Option<Pid> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let found: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let has_word = arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes());
        (found == parent && has_word).then(|| Pid::from_raw(pid))?
    })
}

#[tokio::test]
async fn the_learner_can_neither_look_into_the_backend_nor_end_it() {
    let backend = Backend::start().await;
    let pid = backend.child.id();
    let as_learner = |script: String| {
        let output = Command::new("setpriv")
            .args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", &script])
            .output()
            .expect("setpriv of util-linux starts");
        output.status.success()
    };
    assert!(as_learner("true".into()));
    let root = backend.root.path().display();
    for script in [
        format!("kill -0 {pid}"),
        format!("cat /proc/{pid}/environ"),
        format!("cat /proc/{pid}/mem"),
        format!("ls /proc/{pid}/fd"),
        format!("ls {root}/workshop/state"),
        format!("cat {root}/workshop/.goss/goss.yaml"),
    ] {
        assert!(!as_learner(script.clone()), "{script}");
    }
    // The files child is the learner's own process: it may be ended, but not looked into.
    assert_eq!(backend.ask(Method::GET, "files", "").await.0, StatusCode::OK);
    let child = wait_for("the child", async || find_process(pid, "files")).await.as_raw_nonzero();
    assert!(!as_learner(format!("cat /proc/{child}/environ")));
}

#[tokio::test]
async fn progress_outlives_the_program_and_its_end_is_quick() {
    let backend = Backend::start().await;
    assert_eq!(backend.json(Method::POST, "validate", json!({})).await["passed"], true);
    assert_eq!(backend.json(Method::POST, "navigate", json!({ "action": "next" })).await["target"], "two");
    let note = json!({ "value": "mine" }).to_string();
    assert_eq!(backend.ask(Method::PUT, "custom-state/notes", note).await.0, StatusCode::NO_CONTENT);
    let (root, took) = backend.terminate();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let backend = Backend::on(root).await;
    let state = backend.json(Method::GET, "state", Value::Null).await;
    assert_eq!((&state["step"], &state["position"]), (&json!("two"), &json!(2)));
    assert_eq!(backend.json(Method::GET, "progress", Value::Null).await["completed"], 1);
    assert_eq!(backend.json(Method::GET, "custom-state/notes", Value::Null).await["value"], "mine");
}

#[tokio::test]
async fn wrong_arguments_and_a_wrong_environment_are_said() {
    let said = |command: &mut Command| {
        let output = command.output().expect("the backend starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = said(Command::new(PROGRAM).arg("serve"));
    assert_eq!((code, text.lines().next()), (Some(2), Some("error: unknown argument \"serve\"")));
    let (code, text) = said(Command::new(PROGRAM).env("WORKSHOP_BASE_PATH", "x").env("WORKSHOP_STEP", "No"));
    assert_eq!(code, Some(1));
    assert!(text.contains("WORKSHOP_STEP is") && text.contains("; WORKSHOP_BASE_PATH is"), "{text}");
    let key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let (code, text) = said(Command::new(PROGRAM).arg("token").env("WORKSHOP_VERIFY_KEY", key));
    assert_eq!(code, Some(1));
    assert!(text.starts_with("error: WORKSHOP_VERIFY_KEY is set"), "{text}");
}
