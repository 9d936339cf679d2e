//! The parts of one end-to-end run: repository, registry, cluster and the controller process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{TestCluster, condition};
use crate::support::controller::Controller;
use crate::support::files::copy_tree;
use crate::support::git::{GitServer, Repository};
use crate::support::platform::platform_directory;
use crate::support::registry::Registry;
use crate::support::wait::wait_for;

/// The namespace of the repositories under test.
pub const NAMESPACE: &str = "workshops";

/// How long a convergence may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A repository on a Git server, a registry and a cluster.
pub struct Bench {
    pub cluster: TestCluster,
    pub registry: Registry,
    pub git: GitServer,
    pub repository: Repository,
    pub state: tempfile::TempDir,
}

impl Bench {
    /// Starts everything and commits the examples.
    pub fn start(name: &str) -> Self {
        let cluster = TestCluster::start(name);
        cluster.kubectl(&["create", "namespace", NAMESPACE]);
        let registry = Registry::start();
        let git = GitServer::start();
        let repository = git.create("workshops");
        copy_tree(&examples(), repository.work_tree());
        registry.push_busybox();
        for step_spec in step_specs(repository.work_tree()) {
            let text = std::fs::read_to_string(&step_spec).unwrap();
            let here = text.replace("docker.io/library/busybox:1.36", &format!("{}/busybox:1.36", registry.host()));
            assert_ne!(text, here, "{} names the base that is replaced here", step_spec.display());
            std::fs::write(&step_spec, here).unwrap();
        }
        repository.commit("three workshops");
        repository.push();
        Self { cluster, registry, git, repository, state: tempfile::tempdir().unwrap() }
    }

    /// The manifest of a WorkshopRepository that follows the repository.
    pub fn manifest(&self, name: &str, spec: Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "workshop.platform/v1alpha1",
            "kind": "WorkshopRepository",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "url": self.git.url("workshops"),
                "interval": "1s",
                "compile": { "mode": "Inline", "registry": format!("{}/{name}", self.registry.host()) },
            },
        });
        let spec = spec.as_object().cloned().unwrap_or_default();
        manifest["spec"].as_object_mut().unwrap().extend(spec);
        manifest
    }

    /// Where the controllers keep what they need not keep.
    pub fn controller_state(&self) -> PathBuf {
        self.state.path().join("controller")
    }

    /// Starts the controller as the user with the rights of `manifests/`, ending at a failpoint if one is named.
    pub fn controller(&self, failpoint: Option<&str>) -> Controller {
        Controller::start(&self.cluster, &self.controller_state(), |command| {
            command.arg("--platform").arg(platform_directory());
            command.envs(failpoint.map(|failpoint| ("WORKSHOP_FAILPOINT", failpoint)));
        })
    }

    /// The repository's object.
    pub fn status(&self, name: &str) -> Value {
        self.cluster.get(&["workshoprepository", "-n", NAMESPACE, name]).unwrap_or(Value::Null)
    }

    /// A template.
    pub fn template(&self, name: &str) -> Option<Value> {
        self.cluster.get(&["workspacetemplate", name])
    }

    /// All templates by name.
    pub fn templates(&self) -> BTreeMap<String, Value> {
        let list = self.cluster.get(&["workspacetemplates"]).unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object)).collect()
    }

    /// What a write of the reconciler changes in every template; the operator writes its status.
    pub fn versions(&self) -> BTreeMap<String, Value> {
        self.templates()
            .into_iter()
            .map(|(name, object)| {
                let metadata = &object["metadata"];
                (name, json!([metadata["generation"], metadata["labels"], metadata["annotations"]]))
            })
            .collect()
    }

    /// Waits until the repository is Ready at the work tree's head, or not Ready if so wished.
    pub fn wait_ready(&self, name: &str, ready: &str) -> Value {
        let head = self.repository.head();
        wait_for(&format!("repository {name} has Ready={ready} at {head}"), PATIENCE, || {
            let object = self.status(name);
            let condition = condition(&object, "Ready")?;
            // Work under way shows the attempted revision early; what is applied is told at its end.
            let field = if ready == "True" { "/status/lastAppliedRevision" } else { "/status/lastAttemptedRevision" };
            let revision = object.pointer(field)?.as_str()?;
            (condition["status"] == ready && revision.ends_with(&head)).then_some(object)
        })
    }

    /// The digest of an image, asked of the registry by skopeo.
    pub fn image_digest(&self, reference: &str) -> String {
        let output = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{reference}")])
            .output()
            .expect("skopeo runs");
        assert!(output.status.success(), "skopeo inspect {reference}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workshops")
}

fn step_specs(root: &Path) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("step-spec.yaml"))
        .filter(|path| path.is_file())
        .collect();
    assert_eq!(found.len(), 3, "three examples");
    found
}
