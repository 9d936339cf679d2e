//! A compiled workshop in a state directory, and what its workspaces are started from.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use workshop::pipeline::runtime_end::{Address, Egress, Found, RuntimeChoice, RuntimeEnd, WorkspaceSpec};

use crate::compile::fixture::{BASE, Workshop};
use crate::support::wait::wait_for;

/// Long enough for the backend to end by itself.
pub const GRACE: Duration = Duration::from_secs(5);

/// A workshop of two steps in the layout of a state directory.
pub struct Compiled {
    pub workshop: Workshop,
    /// The manifests of its steps.
    pub images: Vec<String>,
}

impl Compiled {
    pub fn new() -> Self {
        let workshop = Workshop::on_busybox(&format!(
            "version: v1\nworkshop: {{name: w, image: team/w}}\nbase: {{image: '{BASE}'}}\nsteps:\n\
             - id: one\n  title: One\n  files: [{{path: /etc/step, content: one}}]\n  env: {{LESSON: from-the-image}}\n\
             - id: two\n  title: Two\n  files: [{{path: /etc/step, content: two}}]\n"
        ));
        let output = workshop
            .command(&["build", "compile", "--output", "json", "--platform"])
            .arg(&workshop.platform)
            .arg("-o")
            .arg(workshop.state.join("artifact.db"))
            .arg(workshop.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let steps = document["steps"].as_array().unwrap().iter();
        let images = steps.map(|step| step["digest"].as_str().unwrap().to_owned()).collect();
        Self { workshop, images }
    }

    /// What a workspace of the first step is started from.
    pub fn spec(&self, name: &str) -> WorkspaceSpec {
        spec(&self.workshop.state, &self.images[0], name)
    }

    pub async fn runtime(&self, choice: RuntimeChoice) -> RuntimeEnd {
        RuntimeEnd::detect(Some(choice), &self.workshop.state).await.unwrap()
    }

    /// The directories of the native workspaces.
    pub fn places(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.workshop.state.join("workspaces")).unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("runc")).collect()
    }
}

/// What a workspace of this image is started from, its artifact in the state directory.
pub fn spec(state: &Path, image: &str, name: &str) -> WorkspaceSpec {
    WorkspaceSpec {
        uid: format!("uid-{name}"),
        namespace: "default".into(),
        name: name.into(),
        step: "one".into(),
        image: image.into(),
        environment: vec![("WORKSHOP_INSTANCE".into(), format!("uid-{name}")), ("WORKSHOP_STEP".into(), "one".into())],
        artifact: state.join("artifact.db"),
        token: format!("token of {name}"),
        persist: None,
        cpu_millis: 500,
        memory_bytes: 64 << 20,
        hostname: name.into(),
        egress: Egress::None,
        management_socket: None,
        management_url: None,
    }
}

impl Drop for Compiled {
    /// A test that failed in the middle leaves no container and no mount behind.
    fn drop(&mut self) {
        let root = self.workshop.state.join("workspaces");
        for container in std::fs::read_dir(root.join("runc")).into_iter().flatten().flatten() {
            let mut delete = Command::new("runc");
            delete.arg("--root").arg(root.join("runc")).args(["delete", "--force"]).arg(container.file_name());
            let _ = delete.output();
        }
        for place in std::fs::read_dir(&root).into_iter().flatten().flatten() {
            let _ = Command::new("umount").arg("--lazy").arg(place.path().join("merged")).output();
        }
    }
}

/// The status line of the backend's answer.
pub fn get(address: &Address, path: &str) -> std::io::Result<String> {
    fn ask(mut stream: impl std::io::Read + std::io::Write, path: &str) -> std::io::Result<String> {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
    }
    match address {
        Address::Unix(path_of_socket) => ask(UnixStream::connect(path_of_socket)?, path),
        Address::Tcp(address) => ask(TcpStream::connect(address)?, path),
    }
}

/// Waits until the backend of a started workspace answers its probe.
pub fn wait_for_backend(found: &Found) {
    let address = found.address.as_ref().expect("a running workspace has an address");
    let answers = || get(address, "/healthz").is_ok_and(|status| status.contains(" 200 ")).then_some(());
    wait_for("the backend to answer", Duration::from_secs(20), answers);
}

/// The standard output of a command that must succeed.
pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
