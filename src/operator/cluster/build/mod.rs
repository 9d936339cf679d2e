//! What a workspace consists of in a cluster, as objects. Pure: values in, JSON out; nothing is asked and nothing applied.

mod artifact;
mod lab;
mod network;
pub mod own_cluster;
mod room;
mod workload;

use std::net::SocketAddr;

use serde_json::{Value, json};

pub use artifact::{Carried, MAX_CARRIED, artifact_name, build_artifact};
pub use lab::{build_lab, has_lab, has_own_cluster};
pub use network::build_network_policy;
pub use room::{build_namespace, build_room};
pub use workload::{ROLLOUT_WITHIN, Workload, build_deployment};

use crate::adapters::cluster::Part;
use crate::crd::labels;
use crate::domain::container::place;
use crate::domain::digest::Digest;
use crate::domain::lifecycle::Start;

/// The name of everything of a workspace that needs no other.
pub const NAME: &str = "workspace";
/// The Secret with the workspace's own token, and its key.
pub const TOKEN: (&str, &str) = ("workspace-token", "token");
/// The copy of the Secret with which nodes pull.
pub const PULL: &str = "workspace-pull";
/// The volume that outlives pods.
pub const PERSIST: &str = "persist";
/// The ClusterRole that the operator binds for itself in each namespace it makes.
pub const MANAGER_ROLE: &str = "workshop-instance-manager";

/// Whose workspace it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The instance's uid.
    pub uid: String,
    /// The instance's namespace.
    pub namespace: String,
    /// The instance's name.
    pub name: String,
    /// The workshop's id.
    pub workshop: String,
}

impl Subject {
    /// The namespace of the workspace.
    #[must_use]
    pub fn room(&self) -> String {
        labels::workspace_namespace(&self.namespace, &self.name)
    }

    /// The namespace that its learner may use through the API, where there is one.
    #[must_use]
    pub fn lab(&self) -> String {
        format!("{}-lab", self.room())
    }

    /// What all pages of the workspace begin with.
    #[must_use]
    pub fn base_path(&self) -> String {
        format!("/w/{}/", labels::instance_reference(&self.namespace, &self.name))
    }
}

/// What is the same for all workspaces of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The management API as pods reach it.
    pub management_url: Option<String>,
    /// The key that verifies tokens.
    pub verify_key: String,
    /// The namespace of the controller and the gateway.
    pub system: String,
    /// Who the operator is to the API server.
    pub operator: String,
    /// Pods get user namespaces of their own.
    pub user_namespaces: bool,
    /// Where the API server is behind its Service; none where that could not be found out.
    pub api_servers: Vec<SocketAddr>,
    /// The identity of the chart that learners' own clusters are made of; none where there is no chart.
    pub chart: Option<String>,
}

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub part: Part,
    /// All of it that is ours.
    pub manifest: Value,
}

/// The secret parts of a workspace; not part of any identity.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The workspace's own token.
    pub token: String,
    /// What nodes pull with, as it stands in the Secret.
    pub pull: Option<std::collections::BTreeMap<String, Vec<u8>>>,
}

/// Everything inside the namespace but the Deployment and the artifact, in the order in which it is applied.
#[must_use]
pub fn build_surroundings(subject: &Subject, around: &Surroundings, start: &Start, secrets: &Secrets) -> Vec<Object> {
    let mut objects = build_room(start);
    objects.push(Object { part: Part::NetworkPolicy, manifest: build_network_policy(subject, around, start) });
    objects.push(secret(TOKEN.0, "Opaque", &[(TOKEN.1, secrets.token.as_bytes())]));
    if let Some(pull) = &secrets.pull {
        let entries: Vec<(&str, &[u8])> = pull.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        let kind =
            if pull.contains_key(".dockercfg") { "kubernetes.io/dockercfg" } else { "kubernetes.io/dockerconfigjson" };
        objects.push(secret(PULL, kind, &entries));
    }
    objects.push(Object { part: Part::Service, manifest: build_service() });
    for object in &mut objects {
        object.manifest["metadata"]["labels"] = labels_of(subject);
    }
    objects
}

/// The identity of what [`build_surroundings`] gives, without secrets.
#[must_use]
pub fn surroundings_digest(subject: &Subject, around: &Surroundings, start: &Start, has_pull: bool) -> String {
    let pull = has_pull.then(std::collections::BTreeMap::new);
    let objects = build_surroundings(subject, around, start, &Secrets { token: String::new(), pull });
    let mut text = around.verify_key.clone();
    let lab = if has_lab(start) { build_lab(subject, around, start) } else { Vec::new() };
    if has_own_cluster(start) {
        text.push_str(around.chart.as_deref().unwrap_or_default());
        text.push_str(start.settings.cluster.version.as_deref().unwrap_or_default());
    }
    for object in objects.iter().chain(&lab) {
        text.push_str(&object.manifest.to_string());
    }
    Digest::of(text.as_bytes()).hex()[..16].to_owned()
}

fn labels_of(subject: &Subject) -> Value {
    json!({ labels::PART_OF: labels::PART_OF_VALUE, labels::INSTANCE_UID: subject.uid })
}

fn object(part: Part, name: &str) -> Value {
    json!({ "apiVersion": part.api_version(), "kind": part.kind(), "metadata": { "name": name } })
}

fn secret(name: &str, kind: &str, entries: &[(&str, &[u8])]) -> Object {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let mut manifest = object(Part::Secret, name);
    manifest["type"] = kind.into();
    manifest["data"] =
        entries.iter().map(|(key, value)| ((*key).to_owned(), Value::from(engine.encode(value)))).collect();
    Object { part: Part::Secret, manifest }
}

fn build_service() -> Value {
    let mut service = object(Part::Service, NAME);
    service["spec"] = json!({
        "type": "ClusterIP",
        "selector": { labels::APP: NAME },
        "ports": [{ "name": "http", "port": place::PORT, "targetPort": place::PORT, "protocol": "TCP" }],
    });
    service
}

#[cfg(test)]
mod tests;
