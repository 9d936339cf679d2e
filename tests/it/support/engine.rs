//! A Docker daemon of the tests' own: data, sockets and processes in a directory of its own, ended with the value.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::wait::wait_for;

/// A running `dockerd`.
pub struct DockerDaemon {
    directory: tempfile::TempDir,
    child: Child,
    had_bridge: bool,
}

impl DockerDaemon {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let log = std::fs::File::create(path("log")).unwrap();
        let had_bridge = PathBuf::from("/sys/class/net/docker0").exists();
        let child = Command::new("dockerd")
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("--host")
            .arg(format!("unix://{}", path("docker.sock").display()))
            // The machine's own rules are left alone; published ports are carried by the daemon itself.
            .args(["--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("dockerd: {error}: install docker.io (hack/deps test)"));
        let daemon = Self { directory, child, had_bridge };
        wait_for("dockerd to answer", Duration::from_secs(60), || {
            daemon.docker(&["version"]).status.success().then_some(())
        });
        daemon
    }

    /// Its address as `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    /// The docker command against it.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("docker").args(["--host", &self.host()]).args(arguments).output().expect("docker (hack/deps test)")
    }
}

impl Drop for DockerDaemon {
    fn drop(&mut self) {
        let containers = String::from_utf8_lossy(&self.docker(&["ps", "--all", "--quiet"]).stdout).into_owned();
        for container in containers.lines() {
            self.docker(&["rm", "--force", container]);
        }
        self.docker(&["network", "prune", "--force"]);
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if !self.had_bridge {
            let _ = Command::new("ip").args(["link", "delete", "docker0"]).output();
        }
    }
}
