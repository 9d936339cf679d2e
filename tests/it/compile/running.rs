//! containerd pulls step images and starts them: it resolves no links where umoci does, so this is the proof.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::fixture::{BASE, Workshop};
use crate::support::registry::Registry;
use crate::support::wait::wait_for;

/// containerd alone, from `hack/control-plane`; ends with the value.
struct Containerd {
    directory: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Containerd {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("containerd");
        let output =
            control_plane(&["containerd", path.to_str().unwrap(), "--until-exit-of", &std::process::id().to_string()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let env = fs::read_to_string(path.join("env")).unwrap();
        let env =
            env.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self { env: env.collect(), directory }
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.env["CTR"]);
        command.envs(&self.env).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.ctr(arguments).output().unwrap();
        assert!(output.status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let path = self.directory.path().join("containerd");
        let _ = control_plane(&["down", path.to_str().unwrap()]);
    }
}

fn control_plane(arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/control-plane/control-plane");
    Command::new(program).args(arguments).output().unwrap()
}

/// A task in the foreground of `ctr`; killed when dropped.
struct Task<'a> {
    containerd: &'a Containerd,
    name: &'a str,
    child: Child,
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        let _ = self.containerd.ctr(&["task", "kill", "--signal", "KILL", self.name]).output();
        let _ = self.child.wait();
        let _ = self.containerd.ctr(&["container", "delete", self.name]).output();
    }
}

fn get(path: &str, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn step_images_start_with_tini_and_answer_their_probe() {
    let recipe = format!(
        "version: v1\nworkshop: {{name: runs, image: team/NAME}}\nbase: {{image: '{BASE}'}}\nsteps:\n\
         - {{id: one, title: One, files: [{{path: /sbin/added, mode: '0755', content: x}}], commands: [\"echo 1 > /one\"]}}\n"
    );
    let registry = Registry::start();
    let containerd = Containerd::start();
    for (name, debian) in [("on-busybox", false), ("on-debian", true)] {
        let recipe = recipe.replace("NAME", name);
        let workshop = if debian { Workshop::on_debian(&recipe) } else { Workshop::on_busybox(&recipe) };
        workshop.compiled(&registry.host());
        let image = format!("{}/team/{name}:one", registry.host());
        containerd.run(&["images", "pull", "--plain-http", &image]);
        // The host's network, so that the port can be asked for from here: nobody else may have it.
        drop(std::net::TcpListener::bind(("127.0.0.1", 7681)).expect("port 7681 is needed by this test"));
        let child = containerd
            .ctr(&["run", "--rm", "--net-host", &image, name])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut task = Task { containerd: &containerd, name, child };
        let answer = wait_for("the backend to answer", Duration::from_secs(60), || {
            if let Some(status) = task.child.try_wait().unwrap() {
                let mut errors = String::new();
                task.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
                panic!("{image} ended with {status}: {errors}");
            }
            get("/healthz", 7681)
        });
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let tasks = containerd.run(&["task", "list"]);
        let line = tasks.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{tasks}"));
        let first = line.split_whitespace().nth(1).unwrap();
        let arguments = fs::read(format!("/proc/{first}/cmdline")).unwrap();
        assert_eq!(arguments, b"/sbin/tini\0--\0/usr/local/bin/workshop-backend\0", "{name}");
        let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
        let inside = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
        assert_eq!(inside.split_whitespace().last(), Some("1"), "{inside}");
        let added =
            containerd.run(&["task", "exec", "--exec-id", "look", name, "/bin/sh", "-c", "cat /sbin/added /one"]);
        assert_eq!(added, "x1\n");
    }
}
