//! A crowd of workspaces on simulated nodes, kept by the real `workshop controller` with the rights of `manifests/`.
//!
//! Makes, changes, counts and waits; what ought to come of it is said by the tests and by the benchmark.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use workshop::adapters::cluster::{Cluster, Mirror};
use workshop::crd::instance::Phase;
use workshop::crd::{API_VERSION, WorkspaceInstance};

use super::cluster::{CONTROLLER, Moment, TestCluster};
use super::controller::Controller;
use super::git::GitServer;
use super::wait::wait_for;

/// The template of all of them.
pub const WORKSHOP: &str = "crowded";

/// Its steps.
pub const STEPS: [&str; 3] = ["one", "two", "three"];

/// The namespace of the instances.
pub const NAMESPACE: &str = "class";

/// How many requests of the test are under way at once.
pub const CONCURRENCY: usize = 32;

pub struct Crowd {
    pub cluster: TestCluster,
    pub controller: Controller,
    pub client: kube::Client,
    pub mirror: Mirror,
    pub runtime: tokio::runtime::Runtime,
    instances: Api<WorkspaceInstance>,
    _git: GitServer,
    state: tempfile::TempDir,
}

impl Crowd {
    /// A cluster with `nodes` simulated nodes, a controller, and a workshop of three steps from a Git repository.
    pub fn start(name: &str, nodes: usize) -> Self {
        Self::start_with(name, nodes, |_| {})
    }

    /// The same with other flags for the controller.
    pub fn start_with(name: &str, nodes: usize, configure: impl FnOnce(&mut Command)) -> Self {
        let cluster = TestCluster::start_with_kwok(name, nodes);
        cluster.kubectl(&["create", "namespace", NAMESPACE]);
        let git = GitServer::start();
        let repository = git.create(WORKSHOP);
        let steps: String = STEPS.iter().map(|step| format!("- {step}\n")).collect();
        repository
            .write("export/workshop.yaml", &format!("schema: 1\nid: {WORKSHOP}\nname: {WORKSHOP}\nsteps:\n{steps}"));
        for step in STEPS {
            let image = format!("registry.example/team/{WORKSHOP}:{step}");
            repository.write(&format!("export/steps/{step}/step.yaml"), &format!("title: {step}\nimageTag: {image}\n"));
        }
        repository.commit("A workshop");
        repository.push();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (client, mirror) = runtime.block_on(async {
            let admin = Cluster::connect(Some(&cluster.admin()), None, None).await.unwrap();
            let kubeconfig = Kubeconfig::read_from(cluster.admin()).unwrap();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            let mirror = admin.mirror(CancellationToken::new());
            mirror.listed().await;
            (kube::Client::try_from(config).unwrap(), mirror)
        });
        let state = tempfile::tempdir().unwrap();
        let controller = Controller::start(&cluster, &state.path().join("controller"), configure);
        cluster.apply(&json!({
            "apiVersion": API_VERSION, "kind": "WorkshopRepository",
            "metadata": { "name": WORKSHOP, "namespace": "default" },
            "spec": { "url": git.url(WORKSHOP), "interval": "1h" },
        }));
        let instances = Api::namespaced(client.clone(), NAMESPACE);
        let crowd = Self { cluster, controller, client, mirror, runtime, instances, _git: git, state };
        crowd.until("the template", Duration::from_secs(60), || crowd.mirror.template(WORKSHOP).is_some());
        crowd
    }

    /// Starts a controller over the same state directory, with these variables in its environment.
    pub fn start_controller(&self, environment: &[(&str, &str)]) -> Controller {
        Controller::start(&self.cluster, &self.state.path().join("controller"), |command| {
            command.envs(environment.iter().copied());
        })
    }

    /// Makes instances of these names at once, with `spec` over what every one has.
    pub fn create(&self, names: &[String], spec: &Value) {
        let parameters = PostParams::default();
        let made = |name: &String| {
            let mut wanted = json!({ "templateRef": { "name": WORKSHOP }, "owner": name });
            wanted.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
            let instance = WorkspaceInstance::new(name, serde_json::from_value(wanted).unwrap());
            let (instances, parameters) = (&self.instances, &parameters);
            async move { instances.create(parameters, &instance).await.map(drop) }
        };
        self.for_each(names, made);
    }

    /// Merges a patch into each of these instances.
    pub fn patch(&self, names: &[String], patch: &Value) {
        let parameters = PatchParams::default();
        let patched = |name: &String| {
            let (instances, name, parameters) = (&self.instances, name.clone(), &parameters);
            async move { instances.patch(&name, parameters, &Patch::Merge(patch)).await.map(drop) }
        };
        self.for_each(names, patched);
    }

    pub fn go_to(&self, names: &[String], step: &str) {
        self.patch(names, &json!({ "spec": { "currentStep": step } }));
    }

    pub fn delete(&self, names: &[String]) {
        let parameters = DeleteParams::default();
        let deleted = |name: &String| {
            let (instances, name, parameters) = (&self.instances, name.clone(), &parameters);
            async move { instances.delete(&name, parameters).await.map(drop) }
        };
        self.for_each(names, deleted);
    }

    /// Requests for all of them, many at once; one that fails because the server is away is sent again.
    fn for_each<'n, F, R>(&self, names: &'n [String], request: F)
    where
        F: Fn(&'n String) -> R,
        R: Future<Output = Result<(), kube::Error>>,
    {
        let deadline = Instant::now() + Duration::from_secs(60);
        let request = &request;
        let persistent = |name: &'n String| async move {
            let mut tries = 0;
            while let Err(error) = request(name).await {
                tries += 1;
                // What a lost answer leaves behind.
                let done = matches!(&error, kube::Error::Api(status) if tries > 1 && [404, 409].contains(&status.code));
                if done {
                    return;
                }
                let lasting = matches!(&error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429);
                assert!(!lasting && Instant::now() < deadline, "a request about {name} failed: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        self.runtime
            .block_on(stream::iter(names).map(persistent).buffer_unordered(CONCURRENCY).for_each(async |()| {}));
    }

    /// The instances of these names as the watch has them.
    pub fn of(&self, names: &[String]) -> Vec<Arc<WorkspaceInstance>> {
        names.iter().filter_map(|name| self.mirror.instance(NAMESPACE, name)).collect()
    }

    /// Waits until all of these run the step.
    pub fn wait_running(&self, names: &[String], step: &str, patience: Duration) {
        self.until(&format!("{} instances to run \"{step}\"", names.len()), patience, || {
            names.iter().all(|name| self.mirror.instance(NAMESPACE, name).is_some_and(|found| runs(&found, step)))
        });
    }

    pub fn wait_gone(&self, names: &[String], patience: Duration) {
        self.until(&format!("{} instances to be gone", names.len()), patience, || self.of(names).is_empty());
    }

    /// Polls; says how things stand when the time is over.
    pub fn until(&self, what: &str, patience: Duration, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < patience, "waited {patience:?} for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the API server, and starts it anew.
    pub fn restart_api_server(&self) {
        self.cluster.restart("kube-apiserver");
    }

    /// Instances by phase and step, and some that do not run.
    fn describe(&self) -> String {
        let all = self.mirror.instances();
        let mut counts = BTreeMap::new();
        for instance in &all {
            let (phase, step) = phase_and_step(instance);
            *counts.entry(format!("{phase:?} {step}")).or_insert(0) += 1;
        }
        let restless = all.iter().filter(|instance| phase_and_step(instance).0 != Some(Phase::Running)).take(3);
        let restless: String = restless
            .map(|instance| {
                let status = instance.status.clone().unwrap_or_default();
                format!(
                    "{}: {:?} {:?} {:?} {:?}\n",
                    instance.metadata.name.as_deref().unwrap_or_default(),
                    status.message,
                    status.notice,
                    status.run,
                    status.conditions.iter().map(|one| (&one.type_, &one.status, &one.message)).collect::<Vec<_>>()
                )
            })
            .collect();
        format!("{counts:?}\n{restless}")
    }

    /// Namespaces of instances that exist, by name.
    pub fn namespaces(&self) -> Vec<String> {
        let found = self.cluster.get(&["namespaces", "-l", "workshop.platform/instance-uid"]).unwrap();
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
        found["items"].as_array().unwrap().iter().map(name).collect()
    }

    /// What the controller wrote since then that the server took, by verb and resource, without its lease; counted
    /// when nothing more comes.
    pub fn writes_since(&self, start: Moment) -> BTreeMap<String, usize> {
        let count = || {
            let mut counts = BTreeMap::new();
            let calls = self.cluster.calls_since(start, CONTROLLER);
            for call in calls.iter().filter(|call| call.is_write() && call.code < 400 && call.resource != "leases") {
                let subresource = call.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
                *counts.entry(format!("{} {}{subresource}", call.verb, call.resource)).or_insert(0) += 1;
            }
            counts
        };
        let mut last = (Instant::now(), count());
        wait_for("the controller to be calm", Duration::from_secs(60), || {
            std::thread::sleep(Duration::from_millis(250));
            let now = count();
            if now != last.1 {
                last = (Instant::now(), now);
            }
            (last.0.elapsed() > Duration::from_secs(2)).then(|| last.1.clone())
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
        }
    }
}

/// `<prefix>-<number>` so many times.
pub fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

pub fn runs(instance: &WorkspaceInstance, step: &str) -> bool {
    phase_and_step(instance) == (Some(Phase::Running), step)
}

pub fn phase_and_step(instance: &WorkspaceInstance) -> (Option<Phase>, &str) {
    let status = instance.status.as_ref();
    let step = status.and_then(|status| status.current_step.as_deref()).unwrap_or_default();
    (status.and_then(|status| status.phase), step)
}
