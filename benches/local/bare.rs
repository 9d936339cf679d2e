//! The limits beside local mode: `runc run` of a workspace's own files, and the backend without a workspace.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{must, platform};

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a backend works on after it was asked nothing.
const IDLE: Duration = Duration::from_secs(2);

/// Bundles of `runc` over one copy of a workspace's files, each with a shell that prints a prompt.
pub struct Bundles {
    directory: tempfile::TempDir,
    made: usize,
}

impl Bundles {
    /// Copies what the process `pid` has as its root.
    pub fn copy(pid: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("rootfs");
        must(Command::new("cp").args(["-ax", &format!("/proc/{pid}/root/.")]).arg(&root));
        Self { directory, made: 0 }
    }

    /// From nothing running to `count` prompts of as many containers that start at once.
    pub fn prompts(&mut self, count: usize) -> Duration {
        let bundles: Vec<(PathBuf, String)> = (0..count).map(|_| self.bundle()).collect();
        let start = Instant::now();
        let containers: Vec<_> =
            bundles.into_iter().map(|bundle| std::thread::spawn(move || prompt(&bundle))).collect();
        let containers: Vec<Child> = containers.into_iter().map(|one| one.join().expect("a prompt")).collect();
        let took = start.elapsed();
        for mut container in containers {
            // Its shell ends with its input.
            drop(container.stdin.take());
            let _ = container.wait();
        }
        took
    }

    fn bundle(&mut self) -> (PathBuf, String) {
        self.made += 1;
        let bundle = self.directory.path().join(format!("bundle-{}", self.made));
        std::fs::create_dir(&bundle).expect("a directory");
        must(Command::new("runc").arg("spec").current_dir(&bundle));
        let config = bundle.join("config.json");
        let text = std::fs::read_to_string(&config).expect("runc wrote it");
        let mut spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/bin/sh", "-i"]);
        spec["process"]["env"] = serde_json::json!(["PATH=/usr/bin:/bin", "PS1=PROMPT "]);
        spec["root"]["path"] = self.directory.path().join("rootfs").to_string_lossy().into();
        std::fs::write(&config, spec.to_string()).expect("written");
        (bundle, format!("workshop-bench-{}-{}", std::process::id(), self.made))
    }
}

fn prompt((bundle, id): &(PathBuf, String)) -> Child {
    let mut child = Command::new("runc")
        .args(["run", id])
        .current_dir(bundle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runc starts");
    let mut said = Vec::new();
    let from = child.stdout.as_mut().expect("it is piped");
    while !said.ends_with(b"PROMPT ") {
        let mut byte = [0];
        let count = from.read(&mut byte).expect("to read");
        assert!(count == 1, "no prompt: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    child
}

/// What the backend costs, without a container.
pub struct Alone {
    /// From exec to the first byte of /healthz.
    pub first_byte: Vec<Duration>,
    /// Resident memory when it has nothing to do, MiB.
    pub idle: Vec<f64>,
}

/// Starts the static backend `count` times with this artifact.
pub fn backend(artifact: &Path, count: usize) -> Alone {
    let program = platform().join("workshop-backend");
    let mut alone = Alone { first_byte: Vec::new(), idle: Vec::new() };
    for run in 0..count {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).expect("its owner");
        let place = root.path().join("workshop/artifact");
        std::fs::create_dir_all(&place).expect("a directory");
        std::fs::copy(artifact, place.join("workshop.db")).expect("a copy");
        let socket = root.path().join("backend.sock");
        let start = Instant::now();
        let mut child = Command::new(&program)
            .env("WORKSHOP_ROOT", root.path())
            .env("WORKSHOP_LISTEN", format!("unix:{}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the backend starts");
        first_byte(&socket);
        alone.first_byte.push(start.elapsed());
        // Memory has settled long before, and one look in three says it as well.
        if run % 3 == 0 {
            std::thread::sleep(IDLE);
            alone.idle.push(crate::report::resident(child.id()).0);
        }
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
        let _ = child.wait();
    }
    alone
}

fn first_byte(socket: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: workspace\r\n\r\n").expect("to send");
            stream.read_exact(&mut [0]).expect("an answer");
            return;
        }
        assert!(Instant::now() < deadline, "the backend does not listen");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// From exec to the end of a static program that does nothing.
pub fn nothing() -> Duration {
    let start = Instant::now();
    must(Command::new("busybox").arg("true"));
    start.elapsed()
}
