//! Instances that are kept in a cluster: read from the mirror where there is one, changed on what the API server has.
//!
//! Nothing is kept here between two requests, so that any replica serves; what is decided is the operations' matter.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;

use super::Error;
use super::end::{Held, identity, read_value, same};
use crate::adapters::cluster::{self, Cluster, ConfigMap, InstancePart, Mirror, difference};
use crate::crd::instance::Phase;
use crate::crd::{Kind, WorkspaceInstance, WorkspaceInstanceStatus, WorkspaceTemplate, labels};
use crate::domain::container::Address;
use crate::domain::digest::Digest;
use crate::domain::object::{Kind as OwnedKind, ObjectKey};

/// How often a change is tried on an object that others change at the same time.
const TRIES: u32 = 10;
/// The longest pause between two tries, in milliseconds; it grows up to that.
const LONGEST_PAUSE: u64 = 100;
/// How long a cluster may take to forward what is sent to a Service to a pod that became ready.
const FORWARDED_WITHIN: SignedDuration = SignedDuration::from_secs(10);
/// The ConfigMap with an instance's custom state, in the namespace of its workspace.
pub const CUSTOM_STATE: &str = "custom-state";
/// The annotation of that ConfigMap with the epoch of the backend that wrote it.
const EPOCH: &str = "workshop.platform/epoch";
/// The annotation with the number of the snapshot that it is from.
const SEQUENCE: &str = "workshop.platform/sequence";
/// The artifact in its ConfigMap.
pub const ARTIFACT_FILE: &str = "workshop.db.zst";
/// The largest artifact, in bytes.
const MAX_ARTIFACT: u64 = 32 << 20;
/// In so many other workspaces an artifact is looked for.
const MAX_NEIGHBOURS: usize = 3;

/// The ConfigMap with the artifact of this digest, in the namespaces of workspaces that run it.
#[must_use]
pub fn artifact_config_map(digest: &Digest) -> String {
    format!("artifact-{}", &digest.hex()[..16])
}

/// A cluster as the place of instances.
pub(super) struct ClusterEnd {
    pub cluster: Cluster,
    /// Absent for a single command, which asks the server each time.
    pub mirror: Option<Mirror>,
    /// Counts nothing: without a mirror no change is seen.
    pub still: watch::Sender<u64>,
}

impl ClusterEnd {
    /// `<namespace>.<name>`: a namespace has no dots. A name alone is one of the default namespace.
    pub fn key(&self, reference: &str) -> ObjectKey {
        let (namespace, name) = reference.split_once('.').unwrap_or((self.cluster.namespace(), reference));
        ObjectKey { kind: OwnedKind::WorkspaceInstance, namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }

    pub async fn instance(&self, reference: &str) -> Result<Option<Held>, Error> {
        let key = self.key(reference);
        if let Some(mirror) = &self.mirror {
            let known = mirror.instance(key.namespace.as_deref().unwrap_or_default(), &key.name);
            if known.is_some() || mirror.is_listed() {
                return Ok(known);
            }
        }
        self.read(&key).await
    }

    pub fn instance_by_uid(&self, uid: &str) -> Result<Option<Held>, Error> {
        let known = self.mirror.as_ref().and_then(|mirror| mirror.instance_by_uid(uid));
        if known.is_none() && !self.mirror.as_ref().is_some_and(Mirror::is_listed) {
            return Err(not_listed());
        }
        Ok(known)
    }

    /// Where the backend of a running instance answers, as the operator wrote it down.
    pub fn addresses(&self, uid: &str, now: Timestamp) -> Vec<Address> {
        let instance = self.mirror.as_ref().and_then(|mirror| mirror.instance_by_uid(uid));
        let status = instance.as_ref().and_then(|instance| instance.status.as_ref());
        status.map(|status| ways_to(status, now)).unwrap_or_default()
    }

    /// The start that is wished to run, as the operator wrote it down; none while nothing is.
    pub fn run(&self, uid: &str) -> Option<String> {
        let instance = self.mirror.as_ref()?.instance_by_uid(uid)?;
        instance.status.as_ref()?.run.as_ref().map(|run| run.since.clone())
    }

    /// The instance as the server has it now.
    pub async fn again(&self, held: &WorkspaceInstance) -> Result<Option<Held>, Error> {
        let (key, uid) = identity(held);
        let found = self.read(&key).await?;
        Ok(found.filter(|found| found.metadata.uid.as_deref() == Some(&uid)))
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<Held>, Error> {
        let Some(object) = self.object(key).await? else { return Ok(None) };
        Ok(Some(self.learn(object, &key.name)?))
    }

    /// The object as the server has it now, readable or not.
    pub async fn object(&self, key: &ObjectKey) -> Result<Option<Value>, Error> {
        Ok(self.cluster.get_of(Kind::WorkspaceInstance, key.namespace.as_deref(), &key.name).await?)
    }

    pub async fn instances(&self, namespace: Option<&str>) -> Result<Vec<Held>, Error> {
        if let Some(mirror) = &self.mirror {
            if !mirror.is_listed() {
                return Err(not_listed());
            }
            let mut instances = mirror.instances();
            instances.retain(|held| namespace.is_none() || held.metadata.namespace.as_deref() == namespace);
            return Ok(instances);
        }
        let objects = self.cluster.list(Kind::WorkspaceInstance, namespace, None).await?;
        objects.into_iter().map(|object| read_value(object, "").map(Arc::new)).collect()
    }

    pub async fn template(&self, name: &str) -> Result<Option<Arc<WorkspaceTemplate>>, Error> {
        if let Some(mirror) = &self.mirror {
            let known = mirror.template(name);
            if known.is_some() || mirror.is_listed() {
                return Ok(known);
            }
        }
        let found = self.cluster.get_of(Kind::WorkspaceTemplate, None, name).await?;
        found.map(|object| read_template(object, name)).transpose()
    }

    pub async fn templates(&self) -> Result<Vec<Arc<WorkspaceTemplate>>, Error> {
        if let Some(mirror) = &self.mirror {
            return if mirror.is_listed() { Ok(mirror.templates()) } else { Err(not_listed()) };
        }
        let objects = self.cluster.list(Kind::WorkspaceTemplate, None, None).await?;
        objects.into_iter().map(|object| read_template(object, "")).collect()
    }

    /// Makes an instance; none where one of its name is there.
    pub async fn create(&self, manifest: &Value) -> Result<Option<Held>, Error> {
        let made = self.cluster.create_instance(manifest, labels::WORKSPACE_MANAGER).await;
        match made {
            Ok(Some(object)) => Ok(Some(self.learn(object, "")?)),
            Ok(None) => Ok(None),
            Err(cluster::Error::Missing { .. }) => Err(Error::NotFound {
                what: "namespace",
                name: manifest.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default().to_owned(),
                help: Some("make it first, or name another one".to_owned()),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads, decides and writes what differs, at the version that was read; again when somebody wrote meanwhile.
    pub async fn change<T, F>(&self, held: &WorkspaceInstance, change: F) -> Result<(T, Held), Error>
    where
        F: Fn(&WorkspaceInstance, &mut Value) -> Result<T, Error> + Sync,
    {
        let (key, uid) = identity(held);
        for tried in 0..TRIES {
            pause(tried).await;
            let before = self.object(&key).await?.ok_or_else(|| Error::no_instance(&key.name))?;
            let mut after = before.clone();
            let given = change(&same(&before, &key, &uid)?, &mut after)?;
            match self.write(&key, before, &after).await {
                Ok(object) => return Ok((given, self.learn(object, &key.name)?)),
                Err(cluster::Error::Stale { .. }) => {}
                Err(cluster::Error::Missing { .. }) => return Err(Error::no_instance(&key.name)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy(&key.name))
    }

    async fn write(&self, key: &ObjectKey, before: Value, after: &Value) -> Result<Value, cluster::Error> {
        let patches = [InstancePart::Wish, InstancePart::Status]
            .map(|part| difference(&before, after, part).map(|patch| (part, patch)));
        let mut object = before;
        for (part, patch) in patches.into_iter().flatten() {
            let namespace = key.namespace.as_deref().unwrap_or_default();
            let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
            let manager = labels::WORKSPACE_MANAGER;
            object = self.cluster.patch_instance(namespace, &key.name, version, part, &patch, manager).await?;
        }
        Ok(object)
    }

    /// Takes what the server gave into the mirror, so that the next question is answered with it.
    fn learn(&self, object: Value, name: &str) -> Result<Held, Error> {
        let instance = read_value(object, name)?;
        if let Some(mirror) = &self.mirror {
            mirror.learn(instance.clone());
        }
        Ok(Arc::new(instance))
    }

    /// The custom state of an instance; empty where none was kept.
    pub async fn custom_state(&self, instance: &WorkspaceInstance) -> Result<BTreeMap<String, String>, Error> {
        let Some(namespace) = workspace_namespace(instance) else { return Ok(BTreeMap::new()) };
        let found = self.cluster.read_config_map(namespace, CUSTOM_STATE).await?;
        Ok(found.map(|found| found.data).unwrap_or_default())
    }

    /// Keeps custom state as of a snapshot; false where the instance has to be looked at again first, because
    /// somebody else wrote.
    ///
    /// The writer's epoch is kept beside it: an older backend whose request was let in just before a newer one claimed
    /// finds the newer one's mark, or fails because of the version.
    pub async fn write_custom_state(
        &self,
        instance: &WorkspaceInstance,
        (epoch, sequence): (u64, u64),
        state: &BTreeMap<String, String>,
    ) -> Result<bool, Error> {
        let Some(namespace) = workspace_namespace(instance) else {
            let message = "the workspace's namespace is not there yet";
            return if state.is_empty() { Ok(true) } else { Err(Error::unavailable("NotReady", message, "ask again")) };
        };
        let before = self.cluster.read_config_map(namespace, CUSTOM_STATE).await?;
        if before.as_ref().map_or(state.is_empty(), |before| before.data == *state) {
            return Ok(true);
        }
        let mark = |name: &str| {
            let annotation = before.as_ref().and_then(|before| before.annotations.get(name));
            annotation.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
        };
        if (mark(EPOCH), mark(SEQUENCE)) > (epoch, sequence) {
            let message = "a newer snapshot is kept already: another backend took over";
            return Err(Error::refused("StaleEpoch", message, "claim a new epoch by POST sessions"));
        }
        let mut after = before.clone().unwrap_or_else(|| ConfigMap {
            labels: BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "workshop".to_owned())]),
            ..ConfigMap::default()
        });
        after.data.clone_from(state);
        after.annotations.insert(EPOCH.to_owned(), epoch.to_string());
        after.annotations.insert(SEQUENCE.to_owned(), sequence.to_string());
        let manager = labels::WORKSPACE_MANAGER;
        match self.cluster.write_config_map(namespace, CUSTOM_STATE, before.as_ref(), &after, manager).await {
            Ok(()) => Ok(true),
            Err(cluster::Error::Stale { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The artifact out of a ConfigMap: of this instance's namespace, else of another instance's that runs the same.
    pub async fn artifact(&self, instance: &WorkspaceInstance, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let mut held = vec![Arc::new(instance.clone())];
        if let Some(mirror) = &self.mirror {
            let text = digest.to_string();
            let runs_it = |other: &&Held| {
                let pin = other.status.as_ref().and_then(|status| status.pinned.as_ref());
                pin.is_some_and(|pin| pin.artifact_digest == text) && other.metadata.uid != instance.metadata.uid
            };
            held.extend(mirror.instances().iter().filter(runs_it).take(MAX_NEIGHBOURS).cloned());
        }
        let name = artifact_config_map(digest);
        for instance in &held {
            let Some(namespace) = workspace_namespace(instance) else { continue };
            let found = match self.cluster.read_config_map(namespace, &name).await {
                Ok(found) => found,
                // A namespace that is going away lets nobody in.
                Err(cluster::Error::Forbidden { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let packed = found.and_then(|mut found| found.binary_data.remove(ARTIFACT_FILE));
            if let Some(bytes) = packed.and_then(|packed| unpack(&packed)).filter(|bytes| Digest::of(bytes) == *digest)
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// The namespace of an instance's workspace, once the operator made it.
fn workspace_namespace(instance: &WorkspaceInstance) -> Option<&str> {
    instance.status.as_ref()?.namespace.as_deref()
}

/// The ways to what runs: its Service, and before that its pod while the cluster may not yet forward to it. Later the
/// pod's address may be another workspace's.
fn ways_to(status: &WorkspaceInstanceStatus, now: Timestamp) -> Vec<Address> {
    let Some(run) = status.run.as_ref().filter(|_| status.phase == Some(Phase::Running)) else { return Vec::new() };
    let ready_at = run.ready_at.as_deref().and_then(|moment| moment.parse::<Timestamp>().ok());
    let is_new = ready_at.is_some_and(|ready_at| now.duration_since(ready_at).abs() < FORWARDED_WITHIN);
    let pod = run.pod_address.as_deref().filter(|_| is_new);
    let addresses = pod.into_iter().chain(run.address.as_deref()).filter_map(|address| address.parse().ok());
    addresses.filter(|address: &SocketAddr| is_of_a_cluster(address.ip())).map(Address::Tcp).collect()
}

/// Whether a Service or a pod can have this address. Who may write a status is not thereby let to what only this machine reaches,
/// such as a cloud's metadata.
fn is_of_a_cluster(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !is_link_local && !ip.is_unspecified() && !ip.is_multicast()
}

/// What `packed` holds, if that is not more than an artifact may have.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(packed).ok()?;
    decoder.take(MAX_ARTIFACT + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_ARTIFACT).then_some(bytes)
}

fn read_template(object: Value, name: &str) -> Result<Arc<WorkspaceTemplate>, Error> {
    let read = serde_json::from_value(object).map(Arc::new);
    read.map_err(|source| Error::Unreadable { name: name.to_owned(), source })
}

fn not_listed() -> Error {
    Error::unavailable("NotListed", "the instances of the cluster are not known yet", "ask again")
}

/// Says that others changed an object each time that it was tried.
pub(super) fn busy(name: &str) -> Error {
    let message = format!("\"{name}\" is being changed by others without a pause");
    Error::unavailable("Busy", message, "ask again")
}

/// Waits before another try, each one longer and none as long as another program's.
pub(super) async fn pause(tried: u32) {
    if tried > 0 {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let most = (4_u64 << tried.min(6)).min(LONGEST_PAUSE);
        tokio::time::sleep(Duration::from_millis(1 + random % most)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Value, seconds_later: i64, expected: &[&str]) {
        let mut status = status;
        status["run"]["step"] = "one".into();
        status["run"]["fingerprint"] = "f".into();
        status["run"]["artifactDigest"] = "d".into();
        status["run"]["since"] = "2027-01-01T00:00:00Z".into();
        let read: WorkspaceInstanceStatus = serde_json::from_value(status.clone()).unwrap();
        let ready_at: Timestamp = "2027-01-01T00:00:01Z".parse().unwrap();
        let ways = ways_to(&read, ready_at + SignedDuration::from_secs(seconds_later));
        let expected: Vec<Address> = expected.iter().map(|way| Address::Tcp(way.parse().unwrap())).collect();
        assert_eq!(ways, expected, "{status} after {seconds_later} s");
    }

    #[test]
    fn a_pod_is_gone_to_directly_only_while_the_cluster_may_not_know_it() {
        let run = |phase: &str, pod: &str| {
            serde_json::json!({ "phase": phase, "run": {
                "readyAt": "2027-01-01T00:00:01Z", "address": "10.96.0.7:7681", "podAddress": pod,
            } })
        };
        let (service, pod) = ("10.96.0.7:7681", "10.244.1.9:7681");
        check(run("Running", pod), 0, &[pod, service]);
        check(run("Running", pod), 9, &[pod, service]);
        check(run("Running", pod), -3, &[pod, service]);
        check(run("Running", pod), 10, &[service]);
        check(run("Running", pod), -10, &[service]);
        check(run("Running", "169.254.169.254:80"), 0, &[service]);
        check(run("Running", "nonsense"), 0, &[service]);
        check(run("Transitioning", pod), 0, &[]);
        check(serde_json::json!({ "phase": "Running", "run": { "address": service } }), 0, &[service]);
        check(serde_json::json!({ "phase": "Running", "run": {} }), 0, &[]);
    }

    #[test]
    fn what_unpacks_to_more_than_an_artifact_may_have_is_none() {
        let pack = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        assert_eq!(unpack(&pack(b"texts")).as_deref(), Some(&b"texts"[..]));
        assert_eq!(unpack(b"texts"), None);
        let most = usize::try_from(MAX_ARTIFACT).unwrap();
        assert_eq!(unpack(&pack(&vec![0; most])).map(|bytes| bytes.len()), Some(most));
        assert_eq!(unpack(&pack(&vec![0; most + 1])), None);
    }
}
