//! The real program in the foreground: what it notices between two commits, and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::git::{Fault, GitServer, Repository};
use crate::support::platform::platform_directory;
use crate::support::wait::wait_for;

const DEADLINE: Duration = Duration::from_secs(60);

/// The program in the foreground; ended when dropped.
struct Program {
    child: Child,
    state: PathBuf,
    log: tempfile::NamedTempFile,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the program\n{}", self.log());
        }
    }
}

impl Program {
    fn start(state: &Path, arguments: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_workshop"))
            .arg("--state")
            .arg(state)
            .args(arguments)
            .env("WORKSHOP_PLATFORM", platform_directory())
            .env("DOCKER_CONFIG", "/nonexistent")
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .expect("the program starts");
        Self { child, state: state.to_owned(), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Waits for something that it does; fails at once when it has ended.
    fn wait_for(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        wait_for(what, DEADLINE, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the program has ended before {what}: {status}");
            }
            condition().then_some(())
        });
    }

    fn wait_for_title(&mut self, name: &str, expected: &str) {
        let state = self.state.clone();
        self.wait_for(&format!("{name} to say {expected}"), || title(&state, name).as_deref() == Some(expected));
    }

    /// Sends SIGTERM; gives the exit code.
    fn end(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the program runs");
        wait_for("the program to end", DEADLINE, || self.child.try_wait().unwrap()).code()
    }
}

fn recipe(id: &str, content: &str) -> String {
    format!(
        "version: v1\nworkshop:\n  name: {id}\n  image: {id}\nbase:\n  image: scratch\nsteps:\n  - id: one\n    title: \"{content}\"\n"
    )
}

fn push(repository: &Repository, files: &[(&str, String)]) {
    for (path, text) in files {
        repository.write(path, text);
    }
    repository.commit("a change");
    repository.push();
}

/// The title of the template's first step; none when there is no such template.
fn title(state: &Path, name: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_workshop"))
        .arg("--state")
        .arg(state)
        .args(["get", "templates", "-o", "json"])
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).expect("a list of templates");
    let object = list["items"].as_array()?.iter().find(|object| object["metadata"]["name"] == name)?;
    Some(object["spec"]["steps"][0]["title"].as_str()?.to_owned())
}

#[test]
fn a_program_that_waits_for_a_silent_server_ends_when_told() {
    let git = GitServer::start();
    let repository = git.create("r");
    push(&repository, &[("alpha/step-spec.yaml", recipe("alpha", "1"))]);
    let state = tempfile::tempdir().unwrap();
    let mut program = Program::start(state.path(), &["sync", &git.url("r"), "--interval", "1s"]);
    program.wait_for_title("alpha", "1");
    git.set_fault(Some(Fault::Hang));
    let before = git.requests().gets;
    program.wait_for("the next look", || git.requests().gets > before);
    assert_eq!(program.end(), Some(0));
}

#[test]
fn a_double_that_leaves_gives_the_other_its_due() {
    let git = GitServer::start();
    let repository = git.create("r");
    push(&repository, &[("alpha/step-spec.yaml", recipe("alpha", "1"))]);
    let state = tempfile::tempdir().unwrap();
    let mut program = Program::start(state.path(), &["sync", &git.url("r"), "--interval", "1s"]);
    program.wait_for_title("alpha", "1");

    // The change of alpha is refused beside its double; gamma shows that the commit was brought in.
    push(
        &repository,
        &[
            ("alpha/step-spec.yaml", recipe("alpha", "2")),
            ("beta/step-spec.yaml", recipe("alpha", "3")),
            ("gamma/step-spec.yaml", recipe("gamma", "1")),
        ],
    );
    program.wait_for_title("gamma", "1");
    assert_eq!(title(state.path(), "alpha").as_deref(), Some("1"));
    std::fs::remove_dir_all(repository.work_tree().join("beta")).unwrap();
    push(&repository, &[]);
    program.wait_for_title("alpha", "2");
    assert_eq!(program.end(), Some(0));
}

#[test]
fn what_waits_for_approval_waits_beyond_a_commit_that_has_nothing_to_do_with_it() {
    let git = GitServer::start();
    let repository = git.create("r");
    let state = tempfile::tempdir().unwrap();
    let files = ["alpha", "beta", "gamma"].map(|id| (format!("{id}/step-spec.yaml"), recipe(id, "1")));
    push(&repository, &files.each_ref().map(|(path, text)| (path.as_str(), text.clone())));
    let mut program = Program::start(state.path(), &["sync", &git.url("r"), "--interval", "1s"]);
    program.wait_for_title("gamma", "1");
    for id in ["alpha", "beta"] {
        std::fs::remove_dir_all(repository.work_tree().join(id)).unwrap();
    }
    push(&repository, &[("gamma/step-spec.yaml", recipe("gamma", "2"))]);
    program.wait_for_title("gamma", "2");
    push(&repository, &[("gamma/step-spec.yaml", recipe("gamma", "3"))]);
    program.wait_for_title("gamma", "3");
    assert_eq!((title(state.path(), "alpha").is_some(), title(state.path(), "beta").is_some()), (true, true));
    // A directory that comes back brings what waits within the budget: nothing may have forgotten it.
    push(&repository, &[("alpha/step-spec.yaml", recipe("alpha", "1"))]);
    program.wait_for("beta to be pruned", || title(state.path(), "beta").is_none());
    assert_eq!(program.end(), Some(0));
}
