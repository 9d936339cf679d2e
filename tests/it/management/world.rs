//! Two replicas over one real cluster, and instances that run without anything that runs.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use workshop::adapters::cluster::{Cluster, InstancePart};
use workshop::crd::{API_VERSION, WorkspaceInstance, labels};
use workshop::domain::container::Address;
use workshop::domain::digest::Digest;
use workshop::domain::token::SigningKey;
use workshop::gateway::management::routes;
use workshop::pipeline::workspace::{ARTIFACT_FILE, CreateRequest, Workspaces, artifact_config_map};

use crate::support::cluster::{CONTROLLER, Call, Moment, cluster};
use crate::support::wait::wait_for;

pub const ARTIFACT: &[u8] = b"SQLite format 3\0, as far as this suite looks, in a cluster";
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Two replicas over one cluster, each with a mirror and a state directory of its own, and two instances that run.
pub struct World {
    pub namespace: String,
    pub client: Cluster,
    pub replicas: [Workspaces; 2],
    pub key: SigningKey,
    pub uids: Vec<String>,
    pub stop: CancellationToken,
    _states: [tempfile::TempDir; 2],
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn template(name: &str) -> Value {
    let step = |id: &str| json!({"id": id, "title": id, "imageTag": format!("registry.example/first:{id}")});
    json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceTemplate", "metadata": {"name": name},
        "spec": {
            "defaults": {"lifecycle": {"ttl": "1h"}},
            "steps": [step("one"), step("two")],
            "artifact": {"digest": Digest::of(ARTIFACT).to_string(), "size": ARTIFACT.len()},
        },
    })
}

pub async fn connect(kubeconfig: &Path, namespace: &str) -> Cluster {
    Cluster::connect(Some(kubeconfig), None, Some(namespace)).await.unwrap()
}

impl World {
    /// `name` is the namespace's and the template's.
    pub async fn start(name: &str) -> Self {
        let namespace = cluster().create_namespace(name);
        let stop = CancellationToken::new();
        let key = SigningKey::generate();
        let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut replicas = Vec::new();
        for state in &states {
            let client = connect(&cluster().controller(), &namespace).await;
            let mirror = client.mirror(stop.clone());
            mirror.listed().await;
            let key = SigningKey::from_pkcs8(key.to_pkcs8()).unwrap();
            replicas.push(Workspaces::open_cluster(client, Some(mirror), Some(key), state.path()));
        }
        let client = connect(&cluster().controller(), &namespace).await;
        client.apply(&template(&namespace), labels::FIELD_MANAGER, false).await.unwrap();
        let replicas: [Workspaces; 2] = replicas.try_into().unwrap();
        let mut world = Self { namespace, client, replicas, key, uids: Vec::new(), stop, _states: states };
        world.until("the template", async |one| one.template(&world.namespace).await.unwrap().is_some()).await;
        for owner in ["ada", "bob"] {
            let uid = world.run(owner).await;
            world.uids.push(uid);
        }
        world
    }

    /// Waits until each replica is so.
    pub async fn until(&self, what: &str, holds: impl AsyncFn(&Workspaces) -> bool) {
        for replica in &self.replicas {
            let mut changes = replica.changes();
            let waited = tokio::time::timeout(PATIENCE, async {
                while !holds(replica).await {
                    changes.changed().await.unwrap();
                }
            });
            waited.await.unwrap_or_else(|_| panic!("a replica never had {what}"));
        }
    }

    /// An instance that runs, without anything that runs, with the namespace of a workspace.
    async fn run(&self, owner: &str) -> String {
        let request =
            CreateRequest { template: self.namespace.clone(), owner: owner.into(), ..CreateRequest::default() };
        let made = self.replicas[0].create(&request).await.unwrap().remove(0);
        let space = format!("ws-{}-{owner}", self.namespace);
        cluster().kubectl(&["create", "namespace", &space]);
        let user = format!("--user={CONTROLLER}");
        let role = "--clusterrole=workshop-instance-manager";
        cluster().kubectl(&["create", "rolebinding", "w", "-n", &space, role, &user]);
        // A binding counts an instant after it was made.
        let start = Instant::now();
        while self.client.read_config_map(&space, "any").await.is_err() {
            assert!(start.elapsed() < PATIENCE);
        }
        let now = jiff::Timestamp::now();
        let minutes = |minutes: i64| (now + jiff::SignedDuration::from_mins(minutes)).to_string();
        let step = |id: &str| json!({"id": id, "imageTag": format!("registry.example/first:{id}")});
        let status = json!({
            "phase": "Running", "currentStep": "one", "startedAt": minutes(-57), "expiresAt": minutes(3),
            "namespace": space,
            "pinned": {
                "unitKey": "u", "artifactDigest": Digest::of(ARTIFACT).to_string(), "artifactSize": ARTIFACT.len(),
                "defaults": {"lifecycle": {"ttl": "1h"}}, "steps": [step("one"), step("two")],
            },
        });
        self.patch(&made.name, InstancePart::Status, json!({"status": status})).await;
        let uid = made.uid.clone();
        self.until("the status", async |one| {
            one.by_uid(&uid).await.unwrap().is_some_and(|view| view.started_at.is_some())
        })
        .await;
        made.uid
    }

    pub fn name(&self, owner: &str) -> String {
        format!("{}-{owner}", self.namespace)
    }

    pub async fn object(&self, name: &str) -> WorkspaceInstance {
        self.client.read_instance(&self.namespace, name).await.unwrap().unwrap()
    }

    /// Writes as somebody else would, once.
    pub async fn patch(&self, name: &str, part: InstancePart, patch: Value) {
        let version = self.object(name).await.metadata.resource_version.unwrap();
        self.client.patch_instance(&self.namespace, name, &version, part, &patch, "test").await.unwrap();
    }

    /// Puts the artifact where the operator would.
    pub fn put_artifact(&self, owner: &str) {
        let packed = zstd::encode_all(ARTIFACT, 3).unwrap();
        cluster().apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "immutable": true,
            "metadata": {
                "name": artifact_config_map(&Digest::of(ARTIFACT)),
                "namespace": format!("ws-{}-{owner}", self.namespace),
            },
            "binaryData": {(ARTIFACT_FILE): base64::engine::general_purpose::STANDARD.encode(packed)},
        }));
    }

    /// What was asked of the API server about this world's instances and custom state, until now.
    pub async fn calls(&self, since: Moment) -> Vec<Call> {
        // The log is in order: once this call is in it, all before it are.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("mark-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        assert!(self.client.read_instance(&self.namespace, &mark).await.unwrap().is_none());
        let mut calls = wait_for("the audit line", PATIENCE, || {
            let calls = cluster().calls_since(since, CONTROLLER);
            calls.iter().any(|call| call.name.as_ref() == Some(&mark)).then_some(calls)
        });
        let of_world = |call: &Call| {
            let namespace = call.namespace.as_deref().unwrap_or_default();
            namespace == self.namespace || namespace.starts_with(&format!("ws-{}-", self.namespace))
        };
        calls.retain(|call| of_world(call) && call.name.as_ref() != Some(&mark) && call.verb != "watch");
        calls
    }
}

/// Serves both replicas at one address, connection by connection in turn.
pub async fn serve_in_turn(world: &World) -> Address {
    let mut addresses = Vec::new();
    for replica in &world.replicas {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let router = routes(replica.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    }
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        for turn in 0.. {
            let (mut near, _) = front.accept().await.unwrap();
            let target = addresses[turn % 2];
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    Address::Tcp(address)
}
