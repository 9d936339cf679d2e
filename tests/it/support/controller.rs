//! The process of `workshop controller`, as the user who has exactly the rights of `manifests/`.
//!
//! It starts, halts and ends the process and reads its log; what ought to come of it is said by the tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::cluster::{SYSTEM, TestCluster};
use super::wait::wait_for;

/// How long it may take to say something, or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running controller; killed when dropped.
pub struct Controller {
    child: Mutex<Child>,
    log: PathBuf,
    /// Where its own part of the log begins: one that takes another's place writes on.
    begin: usize,
}

impl Controller {
    /// Starts one over a state directory, whose log is beside it; `configure` adds flags and environment.
    pub fn start(cluster: &TestCluster, state: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        let log = state.with_extension("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let begin = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command
            .args(["-v", "controller", "--namespace", SYSTEM, "--listen", "127.0.0.1:0", "--state"])
            .arg(state)
            .arg("--kubeconfig")
            .arg(cluster.controller())
            .env_remove("WORKSHOP_FAILPOINT")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        configure(&mut command);
        Self { child: Mutex::new(command.spawn().expect("the controller starts")), log, begin }
    }

    #[allow(dead_code, reason = "the benchmarks measure its memory")]
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// What it said.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.begin..).unwrap_or_default()).into_owned()
    }

    /// Waits until its log says so.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("the controller to say \"{text}\""), PATIENCE, || {
            if let Some(status) = self.ended() {
                panic!("the controller ended with {status} before it said \"{text}\":\n{}", self.log());
            }
            self.log().contains(text).then_some(())
        });
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.lock().unwrap()), signal).unwrap();
    }

    /// Halts it as a machine without time for it does; whoever waits for it finds its connections open.
    pub fn halt(&self) {
        self.send(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.send(Signal::CONT);
    }

    /// Ends it as a pod is ended.
    pub fn terminate(&self) {
        self.send(Signal::TERM);
        let status = wait_for("SIGTERM ends the controller", PATIENCE, || self.ended());
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Waits until it killed itself, as a failpoint makes it.
    pub fn wait_killed(&self) {
        use std::os::unix::process::ExitStatusExt as _;
        let status = wait_for("the controller to reach its failpoint", PATIENCE, || self.ended());
        assert_eq!(status.signal(), Some(9), "ended by itself: {status}\n{}", self.log());
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(100)..];
            eprintln!("--- the end of what the controller said\n{}", end.join("\n"));
        }
    }
}
