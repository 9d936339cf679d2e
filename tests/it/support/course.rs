//! A small workshop of the tests' own on the node, and seats in it.
//!
//! Makes, changes, asks and waits; what ought to come of it is said by the tests.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::git::Repository;
use super::learner::Learner;
use super::node::{Node, PATIENCE, node};
use super::wait::wait_for;

/// A small workshop of the tests' own, in a repository that the controller follows: steps `one`, `two` and `three`, a
/// check in the first two, files only.
pub struct Course {
    pub id: String,
    pub repository: Repository,
}

impl Course {
    /// Writes it; `workspace` is its workspace.yaml without the version.
    pub fn write(id: &str, workspace: &str) -> Self {
        let course = Self { id: id.to_owned(), repository: node().git.create(id) };
        let steps = ["one", "two", "three"]
            .map(|step| format!("- id: {step}\n  title: {step}\n  files: [{{path: /etc/step, content: {step}}}]\n"));
        course.file(
            "step-spec.yaml",
            &format!(
                "version: v1\nworkshop: {{name: {id}, image: tests/{id}}}\nbase: {{image: '{}/busybox:1.36'}}\n\
                 steps:\n{}",
                node().registry.host(),
                steps.concat()
            ),
        );
        course.file("workspace.yaml", &format!("version: v1\n{workspace}"));
        course.file("export/steps/one/content.md", "# one\n");
        course.file("export/steps/one/goss.yaml", "file:\n  /tmp/answer:\n    exists: true\n");
        course.file("export/steps/two/goss.yaml", "file:\n  /tmp/second:\n    exists: true\n");
        course
    }

    pub fn file(&self, path: &str, text: &str) {
        self.repository.write(path, text);
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.repository.work_tree().join(path)).unwrap()
    }

    /// Commits it and waits until the controller has made it a template; gives that.
    pub fn publish(&self) -> Value {
        self.repository.commit("what there is");
        self.repository.push();
        node().follow(&self.id, &self.repository.head());
        node().cluster.get(&["workspacetemplate", &self.id]).expect("the template is there")
    }
}

/// A WorkspaceInstance and its learner's way to it.
pub struct Seat {
    pub node: &'static Node,
    pub namespace: String,
    pub name: String,
}

impl Seat {
    /// Makes an instance in a namespace of its own; `spec` is added to what it must have.
    pub fn create(template: &str, name: &str, spec: Value) -> Self {
        Self::create_in(&node().cluster.create_namespace("class"), template, name, spec)
    }

    /// Makes one in this namespace.
    pub fn create_in(namespace: &str, template: &str, name: &str, spec: Value) -> Self {
        let node = node();
        let seat = Self { node, namespace: namespace.to_owned(), name: name.to_owned() };
        let mut object = json!({
            "apiVersion": "workshop.platform/v1alpha1",
            "kind": "WorkspaceInstance",
            "metadata": { "name": name, "namespace": seat.namespace },
            "spec": { "templateRef": { "name": template }, "owner": "ada" },
        });
        let spec = spec.as_object().cloned().unwrap_or_default();
        object["spec"].as_object_mut().unwrap().extend(spec);
        node.cluster.apply(&object);
        seat
    }

    /// Makes one and waits until it runs; gives its learner too.
    pub fn running(template: &str, name: &str, spec: Value) -> (Self, Learner) {
        let seat = Self::create(template, name, spec);
        seat.wait("Running", "one");
        let learner = seat.enter();
        (seat, learner)
    }

    /// How the gateway calls it.
    pub fn reference(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    pub fn object(&self) -> Option<Value> {
        self.node.cluster.get(&["workspaceinstance", "-n", &self.namespace, &self.name])
    }

    /// Waits for something to be true of it.
    pub fn wait_for<T>(&self, what: &str, mut condition: impl FnMut(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let object = self.object().unwrap_or_default();
            if let Some(value) = condition(&object) {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "waited for {} to {what}: {object:#}\n--- what is there\n{}\n--- the controller\n{}",
                self.name,
                self.what_is_there(),
                self.node.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    pub fn what_is_there(&self) -> String {
        let namespace = self.home();
        let shown = self.node.cluster.try_kubectl(
            &[
                "get",
                "namespace,deployment,pod,service,resourcequota,networkpolicy,events",
                "-n",
                &namespace,
                "-o",
                "wide",
            ],
            None,
        );
        format!("{}{}", shown.out, shown.err)
    }

    /// Waits until it is in this phase and step.
    pub fn wait(&self, phase: &str, step: &str) -> Value {
        self.wait_for(&format!("be {phase} in {step}"), |object| {
            let status = &object["status"];
            (status["phase"] == phase && status["currentStep"] == step).then(|| object.clone())
        })
    }

    /// The namespace in which it runs; empty where none is known.
    pub fn home(&self) -> String {
        let object = self.object().unwrap_or_default();
        object["status"]["namespace"].as_str().unwrap_or_default().to_owned()
    }

    /// Changes its spec or annotations.
    pub fn patch(&self, patch: &Value) {
        let patch = patch.to_string();
        self.node.cluster.kubectl(&[
            "patch",
            "workspaceinstance",
            "-n",
            &self.namespace,
            &self.name,
            "--type=merge",
            "-p",
            &patch,
        ]);
    }

    /// Its learner, with the address that the command line prints for them.
    pub fn enter(&self) -> Learner {
        self.enter_as(&[])
    }

    /// Somebody whom the flags name.
    pub fn enter_as(&self, flags: &[&str]) -> Learner {
        let open = ["workspace", "open", &self.name, "-n", &self.namespace, "--cluster"];
        let opened = self.node.json(&[open.as_slice(), flags].concat());
        Learner::holder(opened["url"].as_str().expect("an address"))
    }

    /// Names of the pods that run for it now.
    pub fn pods(&self) -> Vec<String> {
        let list = self.node.cluster.get(&["pods", "-n", &self.home()]).unwrap_or_default();
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The id of the one container that runs for it.
    pub fn container(&self) -> String {
        let (home, pod) = (self.home(), self.pods().remove(0));
        let path = "jsonpath={.status.containerStatuses[0].containerID}";
        let id = self.node.cluster.kubectl(&["get", "pod", "-n", &home, &pod, "-o", path]);
        id.trim_start_matches("containerd://").to_owned()
    }

    /// Puts kubectl into the container: an image would bring it, and as a file of a workshop it is too large.
    pub fn bring_kubectl(&self) {
        let id = self.container();
        let state =
            Command::new("runc").args(["--root", "/run/containerd/runc/k8s.io", "state", &id]).output().unwrap();
        let state: Value = serde_json::from_slice(&state.stdout).unwrap();
        std::fs::copy(self.node.cluster.env("KUBECTL"), format!("/proc/{}/root/bin/kubectl", state["pid"])).unwrap();
    }

    /// Waits until instance and namespace are gone.
    pub fn wait_gone(&self, home: &str) {
        wait_for(&format!("{} and its namespace to be gone", self.name), PATIENCE, || {
            let namespace = self.node.cluster.get(&["namespace", home]);
            (self.object().is_none() && namespace.is_none()).then_some(())
        });
    }
}
