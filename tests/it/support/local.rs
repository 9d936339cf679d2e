//! `workshop up` as a learner's machine runs it: the real program on the native runtime, with a state of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::platform::platform_directory;
use super::registry::seed_busybox;
use super::wait::wait_for;

/// How long anything may take on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A state directory with the examples' base, the sources that `up` follows, and `up` itself while it runs.
pub struct Local {
    directory: tempfile::TempDir,
    up: Option<Child>,
    said: Arc<Mutex<String>>,
}

impl Local {
    /// A machine that follows a copy of these example workshops; `up` runs.
    pub fn start(examples: &[&str]) -> Self {
        let mut local = Self { directory: tempfile::tempdir().unwrap(), up: None, said: Arc::default() };
        for example in examples {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workshops").join(example);
            copy(&from, &local.source().join(example));
        }
        seed_busybox(&local.state());
        local.up();
        local
    }

    /// The directory with the workshops that `up` follows.
    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// The directory that holds both.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Starts `up` and waits until it says where to go.
    pub fn up(&mut self) {
        let mut child = self
            .command(&["up", "--runtime", "native", "--listen", "127.0.0.1:0"])
            .arg(self.source())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        self.said.lock().unwrap().clear();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let said = Arc::clone(&self.said);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap();
                    said.push_str(&line);
                    said.push('\n');
                }
            });
        }
        self.up = Some(child);
        wait_for("up to say where to go", PATIENCE, || {
            if let Some(status) = self.up.as_mut().unwrap().try_wait().unwrap() {
                panic!("up ended with {status}:\n{}", self.said());
            }
            self.said().contains("#key=").then_some(())
        });
    }

    /// All that `up` said so far, on both streams.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The address that `up` printed, with the key in its fragment.
    pub fn address(&self) -> String {
        let said = self.said();
        let word = said.split_whitespace().find(|word| word.contains("#key=")).expect("an address");
        word.to_owned()
    }

    /// The address without the key, without a slash at its end.
    pub fn base(&self) -> String {
        self.address().split('#').next().unwrap().trim_end_matches('/').to_owned()
    }

    /// The program with these arguments on this state.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command
            .arg("--state")
            .arg(self.state())
            .args(arguments)
            .env("WORKSHOP_PLATFORM", platform_directory())
            .env("DOCKER_CONFIG", "/nonexistent")
            .env("NO_COLOR", "1");
        command
    }

    /// What a verb prints with `--output json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", text(&output.stderr), self.said());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }

    /// A verb with `--output json`, however it ends.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).args(["--output", "json"]).output().expect("the program starts")
    }

    /// The instance as `workspace list` shows it.
    pub fn instance(&self, name: &str) -> Option<Value> {
        let list = self.json(&["workspace", "list"]);
        let instances = list["instances"].as_array().expect("instances").clone();
        instances.into_iter().find(|instance| instance["name"] == name)
    }

    /// Waits until the instance is in this phase and step.
    pub fn wait_for(&self, name: &str, phase: &str, step: &str) -> Value {
        let mut last = json!(null);
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            last = self.instance(name).unwrap_or(last);
            if last["phase"] == phase && last["step"] == step {
                return last;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{name} is not {phase} in {step}: {last:#}\n--- up said\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends `up` as Ctrl-C does.
    pub fn end(&mut self) -> Option<i32> {
        let mut child = self.up.take()?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("up runs");
        let status = wait_for("up to end", PATIENCE, || child.try_wait().unwrap());
        status.code()
    }

    /// Kills `up` without a chance to tidy up.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.up.take() {
            child.kill().expect("up runs");
            child.wait().expect("up ends");
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.up.is_none() {
            // Whatever a killed `up` left running is found and ended by the next.
            self.up();
        }
        if self.end() != Some(0) && !std::thread::panicking() {
            panic!("up did not end well:\n{}", self.said());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}
