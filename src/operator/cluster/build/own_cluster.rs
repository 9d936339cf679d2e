//! A cluster of the learner's own in their lab: what its chart is told, what lets it work there, and what the workspace
//! is given of it. The chart is vcluster's, or one that keeps to the same: values, names and labels are vcluster's.
//!
//! Pure; rendering is the provisioner's, applying the operator's.

use serde_json::{Value, json};

use super::network::{to_api_servers, to_names};
use super::room::operator_subject;
use super::{Object, Subject, Surroundings, labels_of, object, secret};
use crate::adapters::cluster::Part;
use crate::domain::container::place;
use crate::domain::lifecycle::Start;

/// The release's name, and with it that of the Service by which the cluster is reached.
pub const RELEASE: &str = "cluster";
/// The Secret in the lab in which the cluster says how it is reached.
pub const EXPORTED: &str = "vc-cluster";
/// The label by which the chart's own pods are told from the learner's.
pub const RELEASE_LABEL: &str = "release";
/// The entry of both Secrets.
pub const CONFIG: &str = "config";
/// The copy of it beside the workspace's pod.
pub const KUBECONFIG: &str = "workspace-kubeconfig";
/// What the operator may do besides in a lab that has a cluster.
pub const CLUSTER_ROLE: &str = "workshop-cluster-manager";

/// What the cluster itself may take, over the learner's share: processors in thousandths, and bytes of memory.
pub const CPU_MILLIS: u128 = 2_000;
/// See [`CPU_MILLIS`].
pub const MEMORY: u128 = 4 << 30;

/// The most bytes of a kubeconfig.
const MAX_KUBECONFIG: usize = 256 << 10;

/// What the chart is told: defaults of ours, over them the administrator's, over them what has to be so.
#[must_use]
pub fn values(subject: &Subject, start: &Start, administrators: &Value) -> Value {
    // The image that needs no licence, and limits within what the lab has for it: its containers would else be given
    // those that are meant for the learner's.
    let mut values = json!({ "controlPlane": { "statefulSet": {
        "image": { "repository": "loft-sh/vcluster-oss" },
        "resources": { "limits": { "cpu": "1", "memory": "2Gi" } },
    } } });
    merge(&mut values, administrators);
    let host = format!("{RELEASE}.{}.svc", subject.lab());
    let persist = start.settings.lifecycle.persist.as_ref();
    let mut claim = json!({ "enabled": persist.is_some() });
    if let Some(size) = persist {
        claim["size"] = size.as_str().into();
    }
    let mut must = json!({
        "exportKubeConfig": { "server": format!("https://{host}:443") },
        "controlPlane": {
            "proxy": { "extraSANs": [host] },
            "statefulSet": { "persistence": { "volumeClaim": claim } },
        },
    });
    if let Some(version) = &start.settings.cluster.version {
        let tag = if version.starts_with(|first: char| first.is_ascii_digit()) { "v" } else { "" };
        must["controlPlane"]["distro"] =
            json!({ "k8s": { "enabled": true, "image": { "tag": format!("{tag}{version}") } } });
    }
    merge(&mut values, &must);
    values
}

/// Puts `over` over `under`, mapping by mapping.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, over) in over {
                merge(under.entry(name.clone()).or_insert(Value::Null), over);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Lets what runs the cluster, and nothing else in the lab, reach the cluster around it.
#[must_use]
pub fn policy(around: &Surroundings) -> Value {
    let mut policy = object(Part::NetworkPolicy, RELEASE);
    let mut egress = vec![to_names()];
    egress.extend(to_api_servers(around));
    policy["spec"] = json!({
        "podSelector": { "matchLabels": { RELEASE_LABEL: RELEASE } },
        "policyTypes": ["Egress"],
        "egress": egress,
    });
    policy
}

/// Lets the operator make in the lab what a chart consists of, and grant what the chart's own account needs there.
#[must_use]
pub fn binding(around: &Surroundings) -> Value {
    let mut binding = object(Part::RoleBinding, CLUSTER_ROLE);
    binding["roleRef"] =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": CLUSTER_ROLE });
    binding["subjects"] = json!([operator_subject(around)]);
    binding
}

/// The Secret from which the workspace's backend hands the learner their kubeconfig.
#[must_use]
pub fn build_kubeconfig(subject: &Subject, kubeconfig: &[u8]) -> Object {
    let mut object = secret(KUBECONFIG, "Opaque", &[(CONFIG, kubeconfig)]);
    object.manifest["metadata"]["labels"] = labels_of(subject);
    object
}

/// The volume with the kubeconfig, and its mount.
#[must_use]
pub fn access() -> (Value, Value) {
    let volume = json!({ "name": RELEASE, "secret": { "secretName": KUBECONFIG, "defaultMode": 0o400 } });
    (volume, json!({ "name": RELEASE, "mountPath": place::CLUSTER, "readOnly": true }))
}

/// Why a kubeconfig does not lead from the workspace's pod to the cluster, if it does not.
#[must_use]
pub fn problem_of_kubeconfig(bytes: &[u8]) -> Option<String> {
    if bytes.len() > MAX_KUBECONFIG {
        return Some(format!("its kubeconfig is larger than {} KiB", MAX_KUBECONFIG >> 10));
    }
    let read = std::str::from_utf8(bytes).ok().and_then(|text| serde_yaml::from_str::<Value>(text).ok());
    let Some(config) = read else { return Some("its kubeconfig is no YAML".to_owned()) };
    let clusters = config["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if clusters.is_empty() {
        return Some("its kubeconfig names no cluster".to_owned());
    }
    clusters.iter().map(|cluster| cluster["cluster"]["server"].as_str().unwrap_or_default()).find_map(|server| {
        let why = match url::Url::parse(server).ok().as_ref().and_then(reaches) {
            Some(true) => return None,
            Some(false) => "which is the learner's own pod: the chart has to take exportKubeConfig.server",
            None => "which is no https address",
        };
        Some(format!("its kubeconfig names \"{server}\", {why}"))
    })
}

/// Whether an address is another one than the pod's own; none where it is no https address.
fn reaches(server: &url::Url) -> Option<bool> {
    if server.scheme() != "https" {
        return None;
    }
    Some(match server.host()? {
        url::Host::Domain(name) => name != "localhost",
        url::Host::Ipv4(ip) => !ip.is_loopback() && !ip.is_unspecified(),
        url::Host::Ipv6(ip) => !ip.is_loopback() && !ip.is_unspecified(),
    })
}
