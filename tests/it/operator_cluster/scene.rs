//! A cluster, a controller with the rights of `manifests/`, a template whose artifact it has, and a hand that plays node.

use std::time::Duration;

use serde_json::{Value, json};
use workshop::crd::{API_VERSION, labels};
use workshop::domain::digest::Digest;

use crate::support::cluster::{CONTROLLER, Call, Moment, SYSTEM, TestCluster};
use crate::support::controller::Controller;
use crate::support::wait::wait_for;

pub const PATIENCE: Duration = Duration::from_secs(90);
pub const TEMPLATE: &str = "course";

pub struct Scene {
    pub cluster: TestCluster,
    pub namespace: String,
    _controller: Controller,
    _state: tempfile::TempDir,
}

impl Scene {
    pub fn start() -> Self {
        let cluster = TestCluster::start("operator");
        cluster.kubectl(&["-n", SYSTEM, "scale", "deployment", "workshop-controller", "--replicas=0"]);
        let namespace = cluster.create_namespace("team");
        let state = tempfile::tempdir().unwrap();
        let (artifact, kept) = (Digest::of(ARTIFACT), state.path().join("controller/artifacts"));
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::write(kept.join(format!("{}.db", artifact.hex())), ARTIFACT).unwrap();
        let controller = Controller::start(&cluster, &state.path().join("controller"), |command| {
            command.args(["--gateway-listen", "127.0.0.1:0", "--management-listen", "127.0.0.1:0"]);
        });
        let scene = Self { cluster, namespace, _controller: controller, _state: state };
        scene.publish("a");
        scene
    }

    /// Applies the template; `revision` is in the digests of its images.
    pub fn publish(&self, revision: &str) {
        let step = |id: &str| {
            json!({
                "id": id, "title": id, "imageTag": format!("r.example/course:{id}"), "imageDigest": image(id, revision),
            })
        };
        self.cluster.apply(&json!({
            "apiVersion": API_VERSION, "kind": "WorkspaceTemplate", "metadata": { "name": TEMPLATE },
            "spec": {
                "steps": [step("one"), step("two")],
                "artifact": { "digest": Digest::of(ARTIFACT).to_string(), "size": ARTIFACT.len() },
            },
        }));
    }

    /// Makes an instance.
    pub fn create(&self, name: &str, spec: Value) {
        let mut object = json!({
            "apiVersion": API_VERSION, "kind": "WorkspaceInstance",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": { "templateRef": { "name": TEMPLATE }, "owner": name },
        });
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.cluster.apply(&object);
    }

    /// Makes one and lets its pod become ready.
    pub fn run(&self, name: &str) -> Value {
        self.create(name, json!({}));
        self.make_ready(name);
        self.wait(name, "it runs", |instance| instance["status"]["phase"] == "Running")
    }

    pub fn patch(&self, name: &str, patch: &Value) {
        let patch = patch.to_string();
        let object = ["patch", "workspaceinstance", name, "-n", &self.namespace];
        self.cluster.kubectl(&[object.as_slice(), &["--type=merge", "-p", &patch]].concat());
    }

    pub fn instance(&self, name: &str) -> Option<Value> {
        self.cluster.get(&["workspaceinstance", name, "-n", &self.namespace])
    }

    /// Waits until the instance is so.
    pub fn wait(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("{name}: {what}"), PATIENCE, || self.instance(name).filter(&is_so))
    }

    pub fn wait_gone(&self, name: &str) {
        wait_for(&format!("{name} is gone"), PATIENCE, || self.instance(name).is_none().then_some(()));
        let room = self.room(name);
        assert_eq!(self.cluster.get(&["namespace", &room]), None, "its namespace goes before it does");
    }

    pub fn delete(&self, name: &str) {
        self.cluster.kubectl(&["delete", "workspaceinstance", name, "-n", &self.namespace, "--wait=false"]);
    }

    /// The namespace of the instance's workspace.
    pub fn room(&self, name: &str) -> String {
        labels::workspace_namespace(&self.namespace, name)
    }

    /// An object of the workspace.
    pub fn object(&self, name: &str, kind: &str, object: &str) -> Option<Value> {
        self.cluster.get(&[kind, object, "-n", &self.room(name)])
    }

    /// The pod of the latest start.
    pub fn pod(&self, name: &str) -> Option<Value> {
        let deployment = self.object(name, "deployment", "workspace")?;
        let wanted = &deployment["spec"]["template"]["metadata"]["annotations"];
        let pods = self.cluster.get(&["pods", "-n", &self.room(name)])?;
        let pods = pods["items"].as_array()?.clone();
        let is_latest = |pod: &Value| {
            [labels::FINGERPRINT, labels::START].iter().all(|key| pod["metadata"]["annotations"][key] == wanted[key])
        };
        pods.into_iter().find(|pod| is_latest(pod) && pod["metadata"].get("deletionTimestamp").is_none())
    }

    /// Says of the instance's pod what a node would.
    pub fn play_node(&self, name: &str, status: &Value) {
        wait_for(&format!("{name} has a pod"), PATIENCE, || {
            let pod = self.pod(name)?;
            let patch = json!({ "status": status }).to_string();
            let place = self.room(name);
            let pod = pod["metadata"]["name"].as_str()?;
            let arguments =
                ["patch", "pod", pod, "-n", &place, "--subresource=status", "--type=merge", "-p", patch.as_str()];
            self.cluster.try_kubectl(&arguments, None).ok.then_some(())
        });
    }

    pub fn make_ready(&self, name: &str) {
        let ready = json!({ "type": "Ready", "status": "True" });
        self.play_node(name, &json!({ "phase": "Running", "conditions": [ready] }));
    }

    /// What the controller wrote since then without failing, leases aside.
    pub fn writes_since(&self, moment: Moment) -> Vec<Call> {
        let calls = self.cluster.calls_since(moment, CONTROLLER);
        calls.into_iter().filter(|call| call.is_write() && call.code < 300 && call.resource != "leases").collect()
    }
}

/// Small enough for a ConfigMap; nobody opens it here.
pub const ARTIFACT: &[u8] = b"an artifact";

/// The digest of a step's image in a revision.
pub fn image(step: &str, revision: &str) -> String {
    Digest::of(format!("{step}{revision}").as_bytes()).to_string()
}

/// `status reason` of a condition.
pub fn condition(instance: &Value, kind: &str) -> String {
    let conditions = instance["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |condition| {
        format!(
            "{} {}",
            condition["status"].as_str().unwrap_or_default(),
            condition["reason"].as_str().unwrap_or_default()
        )
    })
}
