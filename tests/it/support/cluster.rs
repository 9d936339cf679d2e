//! One real Kubernetes for the whole test process, with our kinds and the rights of `manifests/`.
//!
//! It ends with the process. Tests share it, so each uses names and namespaces of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// The user who has exactly the rights that `manifests/` gives the controller.
pub const CONTROLLER: &str = "workshop-controller";

/// The controller's own namespace.
pub const SYSTEM: &str = "workshop-system";

/// How long the node of another process is waited for.
const NODE_PATIENCE: Duration = Duration::from_secs(300);

pub struct TestCluster {
    env: BTreeMap<String, String>,
    directory: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// One call of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// When the API server received it.
    pub began: Moment,
    pub verb: String,
    pub resource: String,
    pub subresource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub user_agent: String,
    pub code: u64,
}

/// A moment by the clock of this machine, which the API server shares.
///
/// Calls are told apart by when they began: one that is under way at a moment belongs to what was before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Timestamp);

impl Moment {
    /// Before every call.
    pub const FIRST: Self = Self(Timestamp::MIN);

    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// When the API server received the call of a line of the audit log.
    fn of_call(line: &Value) -> Self {
        let time = line["requestReceivedTimestamp"].as_str().and_then(|text| text.parse().ok());
        Self(time.unwrap_or_else(|| panic!("a line of the audit log without its time: {line}")))
    }
}

impl Call {
    /// True for what the operator asks for the sake of workspaces: it has nothing to do with a repository, and goes on
    /// where no node runs them.
    pub fn is_of_workspaces(&self) -> bool {
        let is_status = self.subresource.as_deref() == Some("status");
        match self.resource.as_str() {
            "namespaces" => true,
            "workspaceinstances" => is_status || self.verb == "get",
            "workspacetemplates" => is_status,
            _ => self.namespace.as_deref().is_some_and(|namespace| namespace.starts_with("ws-")),
        }
    }

    /// True for a call that changes something.
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }
}

/// The condition of a kind.
pub fn condition(object: &Value, kind: &str) -> Option<Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind).cloned()
}

/// The cluster; the first caller starts it.
pub fn cluster() -> &'static TestCluster {
    static CLUSTER: OnceLock<TestCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| TestCluster::start("shared"))
}

impl TestCluster {
    /// Starts a cluster of its own, for a test that runs a controller over all of it.
    pub fn start(name: &str) -> Self {
        Self::start_as(name, &[])
    }

    /// Starts one in which pods run. The machine has one such node: another process's is waited for.
    pub fn start_with_node(name: &str) -> Self {
        Self::start_as(name, &["--node"])
    }

    /// Starts one with simulated nodes: pods on them become Ready at once, and nothing runs in them.
    pub fn start_with_kwok(name: &str, nodes: usize) -> Self {
        Self::start_as(name, &["--kwok", &nodes.to_string()])
    }

    fn start_as(name: &str, flags: &[&str]) -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = std::env::temp_dir().join(format!("wsp-{name}-{}", std::process::id()));
        let control_plane = |verb: &str, flags: &[&str]| {
            Command::new(package.join("hack/control-plane/control-plane"))
                .args([verb, directory.to_str().unwrap()])
                .args(flags)
                .stdin(Stdio::null())
                .output()
                .expect("hack/control-plane/control-plane")
        };
        let process = std::process::id().to_string();
        let start = || control_plane("up", &[&["--until-exit-of", &process], flags].concat());
        let mut up = start();
        let is_taken = |up: &Output| String::from_utf8_lossy(&up.stderr).contains("one node belongs to");
        let began = Instant::now();
        while is_taken(&up) && began.elapsed() < NODE_PATIENCE {
            control_plane("down", &[]);
            std::thread::sleep(Duration::from_secs(1));
            up = start();
        }
        assert!(
            up.status.success(),
            "the test cluster did not start (see hack/README.md):\n{}",
            String::from_utf8_lossy(&up.stderr)
        );
        let text = std::fs::read_to_string(directory.join("env")).expect("the cluster's env file");
        let env = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let cluster = Self { env, directory };
        cluster.kubectl(&["apply", "-k", package.join("manifests").to_str().unwrap()]);
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        // The test's user in the place of the ServiceAccount: the roles are those of the manifests, nothing more.
        let user = format!("--user={CONTROLLER}");
        cluster.kubectl(&["create", "clusterrolebinding", "test", "--clusterrole=workshop-controller", &user]);
        cluster.kubectl(&["create", "rolebinding", "test", "-n", SYSTEM, "--role=workshop-controller", &user]);
        cluster
    }

    /// Where everything of it is; removed with it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Marks what a command starts as a part of this cluster: it ends with it, however this process ends.
    pub fn adopt<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("WORKSHOP_TEST_CLUSTER", &self.directory)
    }

    /// A value of the cluster's env file (hack/README.md).
    pub fn env(&self, key: &str) -> &str {
        self.env.get(key).unwrap_or_else(|| panic!("the cluster's env file lacks {key}"))
    }

    /// The kubeconfig of the administrator.
    pub fn admin(&self) -> PathBuf {
        self.env("KUBECONFIG").into()
    }

    /// The kubeconfig of the user with the controller's rights.
    pub fn controller(&self) -> PathBuf {
        self.env("KUBECONFIG_CONTROLLER").into()
    }

    /// The kubeconfig of a user without any right.
    pub fn nobody(&self) -> PathBuf {
        self.env("KUBECONFIG_NOBODY").into()
    }

    /// Kills one of its processes without warning and starts it anew; returns when the API server answers.
    pub fn restart(&self, process: &str) {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let said = Command::new(package.join("hack/control-plane/control-plane"))
            .args(["restart", self.directory.to_str().unwrap(), process])
            .stdin(Stdio::null())
            .output()
            .expect("hack/control-plane/control-plane");
        assert!(said.status.success(), "{process} did not start anew:\n{}", String::from_utf8_lossy(&said.stderr));
    }

    /// Lets etcd forget everything but what is now, as it does by itself after some minutes.
    pub async fn forget_history(&self) {
        let call = async |path: &str, body: Value| -> Value {
            let url = format!("{}/v3/kv/{path}", self.env("ETCD"));
            let answer = reqwest::Client::new().post(&url).json(&body).send().await.expect("etcd answers");
            assert!(answer.status().is_success(), "etcd refused {path}: {}", answer.status());
            answer.json().await.expect("etcd speaks JSON")
        };
        // "AA==" is the key that lies before all others.
        let revision = call("range", serde_json::json!({ "key": "AA==" })).await["header"]["revision"].clone();
        call("compaction", serde_json::json!({ "revision": revision, "physical": true })).await;
    }

    /// Runs kubectl as administrator; fails the test when it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let said = self.try_kubectl(arguments, None);
        assert!(said.ok, "kubectl {} failed: {}", arguments.join(" "), said.err);
        said.out
    }

    /// Runs kubectl as administrator with `input` on standard input.
    pub fn try_kubectl(&self, arguments: &[&str], input: Option<&str>) -> Said {
        let mut child = Command::new(self.env("KUBECTL"))
            .args(arguments)
            .env("KUBECONFIG", self.env("KUBECONFIG"))
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl");
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes()).expect("kubectl reads its input");
        }
        let output = child.wait_with_output().expect("kubectl");
        Said {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Applies a manifest as administrator; fails the test when it is refused.
    pub fn apply(&self, manifest: &Value) {
        let said = self.try_kubectl(&["apply", "-f", "-"], Some(&manifest.to_string()));
        assert!(said.ok, "the API server refused {manifest}: {}", said.err);
    }

    /// An object as JSON; none when it does not exist.
    pub fn get(&self, arguments: &[&str]) -> Option<Value> {
        let mut all = vec!["get", "-o", "json", "--ignore-not-found"];
        all.extend(arguments);
        let text = self.kubectl(&all);
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("kubectl prints JSON"))
    }

    /// A namespace that no other test uses.
    pub fn create_namespace(&self, prefix: &str) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name]);
        name
    }

    /// The finished calls and the open watches of a user that began at a moment or later. A call's line may come an
    /// instant after its answer.
    pub fn calls_since(&self, start: Moment, user: &str) -> Vec<Call> {
        let log = std::fs::read_to_string(self.env("AUDIT_LOG")).expect("the audit log");
        log.lines()
            // Most lines are of others, and reading one as JSON takes long.
            .filter(|line| line.contains(user))
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["user"]["username"] == user)
            .filter(|line| {
                line["stage"] == if line["verb"] == "watch" { "ResponseStarted" } else { "ResponseComplete" }
            })
            .map(|line| {
                let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                Call {
                    began: Moment::of_call(&line),
                    verb: text("/verb").unwrap_or_default(),
                    resource: text("/objectRef/resource").unwrap_or_default(),
                    subresource: text("/objectRef/subresource"),
                    namespace: text("/objectRef/namespace"),
                    name: text("/objectRef/name"),
                    user_agent: text("/userAgent").unwrap_or_default(),
                    code: line.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
                }
            })
            .filter(|call| call.began >= start)
            .collect()
    }

    /// How many watches of a resource a user has open of those that it began since a moment. A server that was killed
    /// says nothing about the end of those it had.
    pub fn open_watches_since(&self, start: Moment, user: &str, resource: &str) -> usize {
        let log = std::fs::read_to_string(self.env("AUDIT_LOG")).expect("the audit log");
        let mut open = std::collections::BTreeSet::new();
        let lines = log.lines().filter(|line| line.contains(user) && line.contains(r#""verb":"watch""#));
        for line in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let is_meant = line["user"]["username"] == user && line["objectRef"]["resource"] == resource;
            if is_meant && Moment::of_call(&line) >= start {
                let id = line["auditID"].as_str().unwrap_or_default().to_owned();
                if line["stage"] == "ResponseStarted" {
                    open.insert(id)
                } else {
                    open.remove(&id)
                };
            }
        }
        open.len()
    }
}
