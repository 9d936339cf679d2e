//! The static backend, started as a workspace starts it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::platform::backend;
use crate::support::wait::wait_for;

const DEADLINE: Duration = Duration::from_secs(60);
const GET_HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: workspace\r\nConnection: close\r\n\r\n";

/// A running backend; killed when dropped.
struct Backend {
    child: Child,
    socket: PathBuf,
    _directory: TempDir,
}

impl Backend {
    /// Starts what `command` makes of a socket's path, and waits until it answers.
    fn start(command: impl FnOnce(&Path) -> Command) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("backend.sock");
        let child = command(&socket).stderr(Stdio::null()).spawn().expect("the backend starts");
        let backend = Self { child, socket, _directory: directory };
        wait_for("an answer of /healthz", DEADLINE, || backend.get("/healthz").ok());
        backend
    }

    fn on_a_socket() -> Self {
        Self::start(|socket| listening(&backend(), socket))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Status line and body of a GET.
    fn get(&self, path: &str) -> io::Result<(String, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(GET_HEALTHZ.replace("/healthz", path).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
    }

    /// Sends SIGTERM and gives the time until the end, which must be a success.
    fn terminate(mut self) -> Duration {
        let start = Instant::now();
        kill_process(pid_of(self.pid()), Signal::TERM).expect("the backend takes a signal");
        let status = wait_for("the end of the backend", DEADLINE, || self.child.try_wait().expect("a child"));
        assert!(status.success(), "ended with {status}");
        start.elapsed()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listening(program: &Path, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("WORKSHOP_LISTEN", format!("unix:{}", socket.display()));
    command
}

fn pid_of(pid: i32) -> Pid {
    Pid::from_raw(pid).expect("a process id is not zero")
}

/// The parent of a process, as the kernel sees it; `None` once it is reaped.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn require_root(for_what: &str) {
    assert!(rustix::process::geteuid().is_root(), "{for_what} needs root: run the tests as root");
}

#[test]
fn the_probes_answer_on_the_socket_that_the_environment_names() {
    let backend = Backend::on_a_socket();
    assert_eq!(backend.get("/healthz").expect("an answer"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    // Nobody gave it a workshop, which it says instead of ending.
    let (status, why) = wait_for("the reason", DEADLINE, || {
        backend.get("/readyz").ok().filter(|(_, why)| why.starts_with("there is no artifact"))
    });
    assert_eq!(
        (status.as_str(), why.as_str()),
        ("HTTP/1.1 503 Service Unavailable", "there is no artifact at \"/workshop/artifact/workshop.db\"\n")
    );
    assert_eq!(backend.get("/api/v1/state").expect("an answer").0, "HTTP/1.1 401 Unauthorized");
}

#[test]
fn the_probes_answer_on_port_7681_where_nothing_is_said() {
    require_root("a network namespace");
    // A namespace of its own: the port may be taken on this machine.
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\""])
        .arg(backend())
        .env_remove("WORKSHOP_LISTEN")
        .stderr(Stdio::null())
        .spawn()
        .expect("unshare of util-linux starts");
    let script = "exec 3<>/dev/tcp/127.0.0.1/7681 && printf '%s' \"$0\" >&3 && cat <&3";
    let answer = wait_for("an answer on port 7681", DEADLINE, || {
        let output = Command::new("nsenter")
            .arg(format!("--target={}", child.id()))
            .args(["--net", "bash", "-c", script, GET_HEALTHZ])
            .output()
            .expect("nsenter of util-linux starts");
        Some(String::from_utf8_lossy(&output.stdout).into_owned()).filter(|answer| answer.ends_with("ok\n"))
    });
    child.kill().expect("the backend is still running");
    child.wait().expect("a child");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn sigterm_ends_it_at_once_when_nobody_is_connected() {
    assert!(Backend::on_a_socket().terminate() < Duration::from_secs(1));
}

#[test]
fn sigterm_ends_it_within_two_seconds_whatever_clients_do() {
    let backend = Backend::on_a_socket();
    let idle = UnixStream::connect(&backend.socket).expect("a connection");
    let mut unfinished = UnixStream::connect(&backend.socket).expect("a connection");
    unfinished.write_all(b"GET /healthz HTTP/1.1\r\nHost:").expect("a half of a request");
    assert_eq!(backend.get("/healthz").expect("an answer").1, "ok\n");
    assert!(backend.terminate() < Duration::from_secs(2));
    drop((idle, unfinished));
}

#[test]
fn children_and_orphans_are_reaped() {
    // The shell becomes the backend, which so has a child that it did not start. That child ends when told,
    // and leaves a process of its own behind.
    let script = r#"
        exec 3<&0 </dev/null
        (read -r _ <&3; sh -c 'echo "$$"; exec sleep 1000' & exit 0) &
        echo "$!"
        exec "$0""#;
    let mut backend = Backend::start(|socket| {
        let mut command = listening(Path::new("sh"), socket);
        command.args(["-c", script]).arg(backend()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    });
    let mut lines = BufReader::new(backend.child.stdout.take().expect("piped")).lines();
    let mut next_pid = || -> i32 { lines.next().expect("a line").expect("text").parse().expect("a process id") };

    let child = next_pid();
    assert_eq!(parent_of(child), Some(backend.pid()));
    let mut tell = backend.child.stdin.take().expect("piped");
    tell.write_all(b"\n").expect("the child reads");
    let orphan = next_pid();
    wait_for("the child to be reaped", DEADLINE, || parent_of(child).is_none().then_some(()));
    wait_for("the orphan to be handed over", DEADLINE, || (parent_of(orphan) == Some(backend.pid())).then_some(()));
    kill_process(pid_of(orphan), Signal::KILL).expect("the orphan is there");
    wait_for("the orphan to be reaped", DEADLINE, || parent_of(orphan).is_none().then_some(()));
    assert_eq!(backend.get("/healthz").expect("an answer").1, "ok\n");
}

#[test]
fn it_runs_in_an_image_that_holds_nothing_else() {
    require_root("chroot");
    let root = tempfile::tempdir().expect("a temporary directory");
    // Copied by another process: a file that this one has open for writing cannot be run while a test forks.
    let copied = Command::new("cp").arg(backend()).arg(root.path().join("backend")).status();
    assert!(copied.expect("cp starts").success());
    let inside = Path::new("/backend.sock");
    let directory = root.path().to_owned();
    let mut backend = Backend::start(move |socket| {
        std::os::unix::fs::symlink(directory.join("backend.sock"), socket).expect("a link to the socket");
        let mut command = listening(Path::new("chroot"), inside);
        command.arg(directory).arg("/backend");
        command
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", backend.pid())).expect("the backend runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kibibytes < 15 * 1024, "an idle backend takes {kibibytes} KiB");
    backend.child.kill().expect("it runs");
}

#[test]
fn it_is_static_and_small() {
    let bytes = std::fs::read(backend()).expect("the backend is built");
    assert!(bytes.len() < 15_000_000, "{} bytes", bytes.len());
    let output = Command::new("readelf").arg("--program-headers").arg(backend()).output().expect("readelf of binutils");
    let headers = String::from_utf8_lossy(&output.stdout);
    assert!(headers.contains("LOAD"), "readelf read no headers: {}", String::from_utf8_lossy(&output.stderr));
    assert!(!headers.contains("INTERP"), "it asks for a dynamic loader");
}

#[test]
fn it_takes_over_the_socket_of_a_backend_that_was_killed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("backend.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    assert!(socket.symlink_metadata().expect("left behind").file_type().is_socket());
    let running = Backend::start(|own| {
        std::os::unix::fs::symlink(&socket, own).expect("a link to the socket");
        listening(&backend(), &socket)
    });
    assert_eq!(running.get("/healthz").expect("an answer").1, "ok\n");
}

#[test]
fn an_address_that_is_not_to_be_had_is_said_and_nothing_is_overwritten() {
    fn check(listen: &str, expected: &str) {
        let output = Command::new(backend()).env("WORKSHOP_LISTEN", listen).output().expect("the backend starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let record: serde_json::Value = serde_json::from_str(said.trim()).expect("one JSON line");
        let message = record["fields"]["message"].as_str().expect("a message");
        assert!(message.starts_with(expected), "{message}");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("notes.txt");
    std::fs::write(&file, "mine").expect("a file");

    check("localhost:80", "WORKSHOP_LISTEN is \"localhost:80\", which is not");
    check(&format!("unix:{}", file.display()), &format!("failed to listen on unix:{}: ", file.display()));
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "mine");
}

#[test]
fn its_dependencies_hold_nothing_of_kubernetes_git_and_registries() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--no-default-features", "--features", "backend", "--prefix", "none"])
        .args(["--edges", "normal,build", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"axum"), "{tree}");
    for family in ["kube", "k8s-openapi", "gix", "oci-client", "oci-spec", "bollard", "notify", "clap"] {
        let found = names.iter().find(|name| **name == family || name.starts_with(&format!("{family}-")));
        assert_eq!(found, None, "the backend's tree holds \"{family}\"");
    }
}
