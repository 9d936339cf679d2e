//! The lab: a second namespace for what a learner does through the Kubernetes API, bounded as the workspace itself is.
//!
//! With `cluster.mode: shared` the learner works in it: the workspace's account may do there what the ClusterRole
//! `workshop-learner` says, and nothing anywhere else. With `per-workspace` a cluster of the learner's own is in it
//! (`own_cluster`), and the learner has no rights in the cluster around it.

use serde_json::{Value, json};

use super::network::{egress, own_name, to_api_servers, to_names};
use super::own_cluster;
use super::{NAME, Object, Subject, Surroundings, build_namespace, labels_of, object};
use crate::adapters::cluster::Part;
use crate::crd::labels;
use crate::domain::container::place;
use crate::domain::lifecycle::Start;
use crate::domain::workspace::ClusterMode;

/// What a learner may do in their lab.
pub const LEARNER_ROLE: &str = "workshop-learner";
/// A lab has so many times the workspace's own processors and memory.
const SHARE: u128 = 4;
/// The bytes of volumes that a learner may ask for.
const LAB_STORAGE: u128 = 4 << 30;
/// How long a token lasts; the kubelet renews it long before.
const TOKEN_SECONDS: u32 = 3600;

/// Whether a lab belongs to what is started.
#[must_use]
pub fn has_lab(start: &Start) -> bool {
    start.settings.cluster.mode != ClusterMode::None
}

/// Whether the learner has a cluster of their own in the lab.
#[must_use]
pub fn has_own_cluster(start: &Start) -> bool {
    start.settings.cluster.mode == ClusterMode::PerWorkspace
}

/// The namespace and all that bounds it, in the order in which it is applied.
#[must_use]
pub fn build_lab(subject: &Subject, around: &Surroundings, start: &Start) -> Vec<Object> {
    let [mut namespace, binding] = build_namespace(subject, around);
    namespace.manifest["metadata"]["name"] = subject.lab().into();
    namespace.manifest["metadata"]["labels"][labels::CLUSTER_MODE] = json!(start.settings.cluster.mode);
    let mut objects = vec![namespace, binding];
    let mut bounds = vec![
        Object { part: Part::ResourceQuota, manifest: quota(start) },
        Object { part: Part::LimitRange, manifest: limits(start) },
        Object { part: Part::NetworkPolicy, manifest: policy(subject, start) },
    ];
    // Last: who is let in finds everything that bounds them.
    if has_own_cluster(start) {
        bounds.push(Object { part: Part::NetworkPolicy, manifest: own_cluster::policy(around) });
        bounds.push(Object { part: Part::RoleBinding, manifest: own_cluster::binding(around) });
    } else {
        bounds.push(Object { part: Part::RoleBinding, manifest: learner(subject) });
    }
    objects.extend(bounds.into_iter().map(|mut object| {
        object.manifest["metadata"]["labels"] = labels_of(subject);
        object
    }));
    objects
}

fn learner(subject: &Subject) -> Value {
    let mut learner = object(Part::RoleBinding, LEARNER_ROLE);
    learner["roleRef"] =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": LEARNER_ROLE });
    learner["subjects"] = json!([{ "kind": "ServiceAccount", "namespace": subject.room(), "name": NAME }]);
    learner
}

fn quota(start: &Start) -> Value {
    let resources = &start.settings.resources;
    let (mut cpu, mut memory) = (resources.cpu.thousandths() * SHARE, resources.memory.units() * SHARE);
    let mut storage = LAB_STORAGE;
    if has_own_cluster(start) {
        cpu += own_cluster::CPU_MILLIS;
        memory += own_cluster::MEMORY;
        storage += start.settings.lifecycle.persist.as_ref().map_or(0, |size| size.units());
    }
    let mut quota = object(Part::ResourceQuota, NAME);
    quota["spec"] = json!({ "hard": {
        "limits.cpu": format!("{cpu}m"),
        "limits.memory": memory.to_string(),
        "pods": "20",
        "services": "10",
        // Neither leaves the lab.
        "services.nodeports": "0",
        "services.loadbalancers": "0",
        "configmaps": "50",
        "secrets": "50",
        "persistentvolumeclaims": "5",
        "requests.storage": storage.to_string(),
    } });
    quota
}

/// What a container has that says nothing: a quota on limits would refuse it.
fn limits(start: &Start) -> Value {
    let resources = &start.settings.resources;
    let (cpu, memory) = (resources.cpu.thousandths(), resources.memory.units());
    let mut limits = object(Part::LimitRange, NAME);
    limits["spec"] = json!({ "limits": [{
        "type": "Container",
        "default": { "cpu": format!("{}m", (cpu / 2).max(1)), "memory": (memory / 2).max(1).to_string() },
        "defaultRequest": { "cpu": format!("{}m", (cpu / 20).max(1)), "memory": (memory / 8).max(1).to_string() },
    }] });
    limits
}

/// In from the lab and its workspace, out to the lab and where the workspace may go.
fn policy(subject: &Subject, start: &Start) -> Value {
    let mut policy = object(Part::NetworkPolicy, NAME);
    let mut out = egress(start);
    out.push(json!({ "to": [{ "podSelector": {} }] }));
    policy["spec"] = json!({
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": [{ "podSelector": {} }, { "namespaceSelector": own_name(&subject.room()) }] }],
        "egress": out,
    });
    policy
}

/// What the workspace's own policy lets out besides: its lab, and what the learner's kubeconfig names: the API server
/// where its address is known, or the Service of their own cluster, whose name has to be found.
#[must_use]
pub fn way_to_lab(subject: &Subject, around: &Surroundings, start: &Start) -> Vec<Value> {
    let mut ways = vec![json!({ "to": [{ "namespaceSelector": own_name(&subject.lab()) }] })];
    if has_own_cluster(start) {
        ways.push(to_names());
    } else {
        ways.extend(to_api_servers(around));
    }
    ways
}

/// The volume, its mount and the variable by which the backend makes the learner's kubeconfig.
#[must_use]
pub fn access(subject: &Subject) -> (Value, Value, Value) {
    let volume = json!({ "name": "cluster", "projected": { "defaultMode": 0o400, "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": TOKEN_SECONDS } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
    ] } });
    let mount = json!({ "name": "cluster", "mountPath": place::CLUSTER, "readOnly": true });
    (volume, mount, json!({ "name": "WORKSHOP_LAB_NAMESPACE", "value": subject.lab() }))
}
