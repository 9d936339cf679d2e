//! A cluster in which pods run, a registry its node pulls from, and `workshop controller` with the rights of
//! `manifests/`: one of each for the whole test process.
//!
//! They end with the process, however it ends. Tests share them, so each uses namespaces and workshops of its own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chart::path_with_helm;
use super::cluster::{SYSTEM, TestCluster};
use super::controller::Controller;
use super::git::GitServer;
use super::platform::platform_directory;
use super::registry::Registry;

/// How long anything may take on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The namespace of the repositories.
pub const REPOSITORIES: &str = "repositories";

pub struct Node {
    pub cluster: TestCluster,
    pub registry: Registry,
    pub git: GitServer,
    /// The gateway's address without a slash at its end.
    pub gateway: String,
    management: u16,
    replicas: Mutex<Vec<Controller>>,
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
        let node = Self { cluster, registry, git: GitServer::start(), gateway, management, replicas: Mutex::default() };
        node.start_replicas();
        node
    }

    /// Two replicas: one that leads, and one that serves the gateway and the management API. Killing the first takes
    /// nobody's connection.
    fn start_replicas(&self) {
        let leader = self.start_replica("leader", false);
        leader.wait_for_log("this process leads");
        let front = self.start_replica("front", true);
        front.wait_for_log("waiting to lead");
        self.hold_replicas().extend([leader, front]);
    }

    fn start_replica(&self, name: &str, is_front: bool) -> Controller {
        let any = "127.0.0.1:0".to_owned();
        let (gateway, management) = if is_front {
            (self.gateway.trim_start_matches("http://").to_owned(), format!("0.0.0.0:{}", self.management))
        } else {
            (any.clone(), any)
        };
        let management_url = format!("http://{}:{}", self.cluster.env("MACHINE_FROM_PODS"), self.management);
        Controller::start(&self.cluster, &self.cluster.directory().join(name), |command| {
            self.cluster
                .adopt(command)
                .arg("--platform")
                .arg(platform_directory())
                .args(["--management-listen", &management, "--management-url", &management_url])
                .args(["--gateway-listen", &gateway, "--gateway-url", &self.gateway])
                .arg("--vcluster-chart")
                .arg(self.chart())
                .env("PATH", path_with_helm());
        })
    }

    /// Lets pods reach the API server, as they do in other clusters.
    pub fn open_api_server(&self) {
        static OPENED: Once = Once::new();
        OPENED.call_once(|| open_api_server(&self.cluster));
    }

    /// The replicas, the one that leads first: as they are while the guard lives, unless its holder ends one.
    pub fn hold_replicas(&self) -> MutexGuard<'_, Vec<Controller>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the chart of learners' clusters is; a test that wants one puts it there.
    pub fn chart(&self) -> PathBuf {
        self.cluster.directory().join("chart")
    }

    /// What the replicas said.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.cluster.directory().join(name)).unwrap_or_default();
        format!("{}--- front\n{}", read("leader.log"), read("front.log"))
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
        let compile = json!({ "mode": "Inline", "registry": format!("{}/{name}", self.registry.host()) });
        self.follow_with(name, revision, &compile);
    }

    /// The same with `spec.compile` as it is given.
    pub fn follow_with(&self, name: &str, revision: &str, compile: &Value) {
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
                "compile": compile,
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

/// A port that nothing listens on now, and that the kernel gives to no connection meanwhile.
fn free_port() -> u16 {
    let first = 12_000 + u16::try_from(std::process::id() % 4_000).unwrap();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Lets pods reach the API server, which listens on loopback, by its Service.
fn open_api_server(cluster: &TestCluster) {
    let server = cluster.env("APISERVER").trim_start_matches("https://").to_owned();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(inner) = TcpStream::connect(&server) else { continue };
            let pairs = [(stream.try_clone(), inner.try_clone()), (Ok(inner), Ok(stream))];
            for (from, to) in pairs {
                let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 << 10];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    cluster.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [cluster.env("MACHINE_FROM_PODS")], "conditions": { "ready": true },
        }],
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    }));
}
