//! A cluster in which pods run, a registry its node pulls from, and `workshop controller` with the rights of
//! `manifests/`: one of each for the whole test process.
//!
//! They end with the process, however it ends. Tests share them, so each uses namespaces and workshops of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::{SYSTEM, TestCluster};
use super::git::GitServer;
use super::platform::platform_directory;
use super::registry::Registry;
use super::wait::wait_for;

/// How long anything may take on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The namespace of the repositories.
const REPOSITORIES: &str = "repositories";

pub struct Node {
    pub cluster: TestCluster,
    pub registry: Registry,
    pub git: GitServer,
    /// The gateway's address without a slash at its end.
    pub gateway: String,
    management: u16,
    controller: Mutex<Option<Child>>,
}

/// The one of this process; the first caller starts it.
pub fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(Node::start)
}

impl Node {
    fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "a node needs root: run these tests as root");
        let cluster = TestCluster::start_with_node("node");
        // The installed one has no image here; the one under test runs beside the cluster.
        cluster.kubectl(&["-n", SYSTEM, "scale", "deployment", "workshop-controller", "--replicas=0"]);
        let registry = Registry::start_in(&cluster);
        registry.push_busybox();
        cluster.kubectl(&["create", "namespace", REPOSITORIES]);
        let (gateway, management) = (free_port(), free_port());
        let gateway = format!("http://127.0.0.1:{gateway}");
        let node =
            Self { cluster, registry, git: GitServer::start(), gateway, management, controller: Mutex::default() };
        node.start_controller();
        node
    }

    /// Starts the controller and waits until it leads; its gateway and management API are where they were before.
    pub fn start_controller(&self) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let written = log.metadata().unwrap().len();
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        self.cluster.adopt(&mut command);
        command
            .args(["-v", "controller", "--namespace", SYSTEM, "--state"])
            .arg(self.cluster.directory().join("controller-state"))
            .arg("--kubeconfig")
            .arg(self.cluster.controller())
            .arg("--platform")
            .arg(platform_directory())
            .args(["--listen", "127.0.0.1:0", "--management-listen", &format!("0.0.0.0:{}", self.management)])
            .args([
                "--management-url",
                &format!("http://{}:{}", self.cluster.env("MACHINE_FROM_PODS"), self.management),
            ])
            .args(["--gateway-listen", self.gateway.trim_start_matches("http://"), "--gateway-url", &self.gateway])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        *self.controller.lock().unwrap() = Some(command.spawn().expect("the controller starts"));
        wait_for("the controller to lead", PATIENCE, || {
            let mut controller = self.controller.lock().unwrap();
            if let Some(status) = controller.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("the controller ended with {status}:\n{}", self.log());
            }
            let log = std::fs::read(self.log_file()).unwrap();
            let new = String::from_utf8_lossy(&log[usize::try_from(written).unwrap()..]).into_owned();
            new.contains("this process leads").then_some(())
        });
    }

    fn log_file(&self) -> PathBuf {
        self.cluster.directory().join("controller.log")
    }

    /// What the controller said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The program as an author or an administrator starts it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command
            .arg("--state")
            .arg(self.cluster.directory().join("author"))
            .arg("--kubeconfig")
            .arg(self.cluster.admin())
            .args(arguments)
            .env("WORKSHOP_PLATFORM", platform_directory())
            .env("DOCKER_CONFIG", "/nonexistent")
            .env("NO_COLOR", "1");
        command
    }

    /// A verb with `--output json`, however it ends.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).args(["--output", "json"]).output().expect("the program starts")
    }

    /// What a verb that must succeed prints with `--output json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }

    /// Lets the controller follow the repository of this name, and waits until it has brought in `revision`.
    pub fn follow(&self, name: &str, revision: &str) {
        self.cluster.apply(&json!({
            "apiVersion": "workshop.platform/v1alpha1",
            "kind": "WorkshopRepository",
            "metadata": {
                "name": name,
                "namespace": REPOSITORIES,
                "annotations": { "reconcile.workshop.platform/requestedAt": revision },
            },
            "spec": {
                "url": self.git.url(name),
                "interval": "1h",
                "compile": { "mode": "Inline", "registry": format!("{}/{name}", self.registry.host()) },
            },
        }));
        let mut last = Value::Null;
        let began = Instant::now();
        loop {
            last = self.cluster.get(&["workshoprepository", "-n", REPOSITORIES, name]).unwrap_or(last);
            let applied = last["status"]["lastAppliedRevision"].as_str().unwrap_or_default();
            let is_ready = last["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            if is_ready && applied.ends_with(revision) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{name} is not at {revision}: {last:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A port that nothing listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
