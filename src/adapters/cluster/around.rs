//! Objects of Kubernetes itself that workspaces are made of, as JSON: applied, read, scaled and deleted one by one.
//!
//! Which objects there should be is the operator's matter. Nothing is listed or watched but the pods of one namespace
//! and the namespaces of workspaces by their metadata.

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, Request};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};

use super::watch::Again;
use super::{Cluster, Error};
use crate::crd::labels;

/// A kind of object that a workspace is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are Kubernetes' own names")]
pub enum Part {
    Namespace,
    RoleBinding,
    ResourceQuota,
    LimitRange,
    ServiceAccount,
    NetworkPolicy,
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    Service,
    Deployment,
    Role,
    PodDisruptionBudget,
    StatefulSet,
}

/// A Deployment or a StatefulSet, and how many of its pods are ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSet {
    /// Which of both.
    pub part: Part,
    /// Its name.
    pub name: String,
    /// How many pods are wanted.
    pub wanted: i32,
    /// How many are ready.
    pub ready: i32,
}

impl Part {
    /// Its name in `kind`, its group and version, and its name in URLs.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Namespace => ("Namespace", "v1", "namespaces"),
            Self::RoleBinding => ("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings"),
            Self::ResourceQuota => ("ResourceQuota", "v1", "resourcequotas"),
            Self::LimitRange => ("LimitRange", "v1", "limitranges"),
            Self::ServiceAccount => ("ServiceAccount", "v1", "serviceaccounts"),
            Self::NetworkPolicy => ("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
            Self::Secret => ("Secret", "v1", "secrets"),
            Self::ConfigMap => ("ConfigMap", "v1", "configmaps"),
            Self::PersistentVolumeClaim => ("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
            Self::Service => ("Service", "v1", "services"),
            Self::Deployment => ("Deployment", "apps/v1", "deployments"),
            Self::Role => ("Role", "rbac.authorization.k8s.io/v1", "roles"),
            Self::PodDisruptionBudget => ("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
            Self::StatefulSet => ("StatefulSet", "apps/v1", "statefulsets"),
        }
    }

    /// Everything that a workspace may be made of.
    const ALL: [Self; 14] = [
        Self::Namespace,
        Self::RoleBinding,
        Self::ResourceQuota,
        Self::LimitRange,
        Self::ServiceAccount,
        Self::NetworkPolicy,
        Self::Secret,
        Self::ConfigMap,
        Self::PersistentVolumeClaim,
        Self::Service,
        Self::Deployment,
        Self::Role,
        Self::PodDisruptionBudget,
        Self::StatefulSet,
    ];

    /// The one that a manifest is of, if it is one of these.
    #[must_use]
    pub fn of(manifest: &Value) -> Option<Self> {
        let text = |field: &str| manifest.get(field).and_then(Value::as_str);
        let is_named =
            |part: &Self| text("kind") == Some(part.kind()) && text("apiVersion") == Some(part.api_version());
        Self::ALL.into_iter().find(is_named)
    }

    /// The name in `kind`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        self.words().0
    }

    /// The value of `apiVersion`.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        self.words().1
    }

    fn path(self, namespace: &str) -> String {
        let (_, version, plural) = self.words();
        let group = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        match self {
            Self::Namespace => format!("{group}/{plural}"),
            _ => format!("{group}/namespaces/{namespace}/{plural}"),
        }
    }
}

/// Something about the namespaces of workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceEvent {
    /// The one of the instance with this uid is there, changed or gone.
    Changed(String),
    /// The watch cannot run now; it is tried again.
    Interrupted(String),
}

impl Cluster {
    /// Server-side apply as the operator, taking fields from other managers: only for what is the operator's own.
    pub async fn apply_part(&self, part: Part, namespace: &str, manifest: &Value) -> Result<Value, Error> {
        let name = manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let attempt = format!("apply {} {}", part.kind(), place(part, namespace, name));
        let request = Request::new(part.path(namespace))
            .patch(name, &PatchParams::apply(labels::OPERATOR_MANAGER).force(), &Patch::Apply(manifest))
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        self.call(&attempt, self.client.request(request)).await
    }

    /// Creates an object; false, and it stays as it is, where one is there already.
    pub async fn create_part(&self, part: Part, namespace: &str, manifest: &Value) -> Result<bool, Error> {
        let name = manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let attempt = format!("create {} {}", part.kind(), place(part, namespace, name));
        let parameters =
            PostParams { field_manager: Some(labels::OPERATOR_MANAGER.to_owned()), ..PostParams::default() };
        let request = Request::new(part.path(namespace))
            .create(&parameters, serde_json::to_vec(manifest).expect("a JSON value is written as JSON"))
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        match self.call(&attempt, self.client.request::<Value>(request)).await {
            Ok(_) => Ok(true),
            Err(Error::Stale { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An object as it is.
    pub async fn read_part(&self, part: Part, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
        let attempt = format!("read {} {}", part.kind(), place(part, namespace, name));
        let request = Request::new(part.path(namespace))
            .get(name, &GetParams::default())
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        found(self.call(&attempt, self.client.request(request)).await)
    }

    /// Whether an object is there; its content is not transferred.
    pub async fn has_part(&self, part: Part, namespace: &str, name: &str) -> Result<bool, Error> {
        let attempt = format!("look for {} {}", part.kind(), place(part, namespace, name));
        let request = Request::new(part.path(namespace))
            .get_metadata(name, &GetParams::default())
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        Ok(found(self.call(&attempt, self.client.request::<Value>(request)).await)?.is_some())
    }

    /// Deletes an object, if it still is the one with this uid where one is given; one that is gone already is fine.
    pub async fn delete_part(&self, part: Part, namespace: &str, name: &str, uid: Option<&str>) -> Result<(), Error> {
        let attempt = format!("delete {} {}", part.kind(), place(part, namespace, name));
        let preconditions = uid.map(|uid| Preconditions { resource_version: None, uid: Some(uid.to_owned()) });
        let parameters = DeleteParams { preconditions, ..DeleteParams::background() };
        let request = Request::new(part.path(namespace))
            .delete(name, &parameters)
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        found(self.call(&attempt, self.client.request::<Value>(request)).await).map(drop)
    }

    /// Sets how many pods a Deployment or a StatefulSet has; one that is not there has none.
    pub async fn scale(&self, part: Part, namespace: &str, name: &str, replicas: u32) -> Result<(), Error> {
        let attempt = format!("scale {} {}", part.kind(), place(part, namespace, name));
        let parameters =
            PatchParams { field_manager: Some(labels::OPERATOR_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = json!({ "spec": { "replicas": replicas } });
        let request = Request::new(part.path(namespace))
            .patch(name, &parameters, &Patch::Merge(&patch))
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        found(self.call(&attempt, self.client.request::<Value>(request)).await).map(drop)
    }

    /// A namespace with its status.
    pub async fn read_namespace(&self, name: &str) -> Result<Option<Namespace>, Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        self.call(&format!("read Namespace {name}"), namespaces.get_opt(name)).await
    }

    /// A Deployment.
    pub async fn read_deployment(&self, namespace: &str, name: &str) -> Result<Option<Deployment>, Error> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        self.call(&format!("read Deployment {namespace}/{name}"), deployments.get_opt(name)).await
    }

    /// The Deployments and StatefulSets of a namespace.
    pub async fn list_pod_sets(&self, namespace: &str) -> Result<Vec<PodSet>, Error> {
        let attempt = format!("list what runs in {namespace}");
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
        let all = ListParams::default();
        let mut found = Vec::new();
        for one in self.call(&attempt, deployments.list(&all)).await?.items {
            let ready = one.status.and_then(|status| status.ready_replicas).unwrap_or(0);
            let (name, wanted) = (one.metadata.name.unwrap_or_default(), one.spec.replicas.unwrap_or(1));
            found.push(PodSet { part: Part::Deployment, name, wanted, ready });
        }
        for one in self.call(&attempt, sets.list(&all)).await?.items {
            let ready = one.status.and_then(|status| status.ready_replicas).unwrap_or(0);
            let wanted = one.spec.replicas.unwrap_or(1);
            found.push(PodSet { part: Part::StatefulSet, name: one.metadata.name.unwrap_or_default(), wanted, ready });
        }
        Ok(found)
    }

    /// All pods of a namespace.
    pub async fn list_all_pods(&self, namespace: &str) -> Result<Vec<Pod>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(self.call(&format!("list the pods of {namespace}"), pods.list(&ListParams::default())).await?.items)
    }

    /// Deletes all pods of a namespace.
    pub async fn delete_pods(&self, namespace: &str) -> Result<(), Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let (how, which) = (DeleteParams::background(), ListParams::default());
        self.call(&format!("delete the pods of {namespace}"), pods.delete_collection(&how, &which)).await.map(drop)
    }

    /// The version of Kubernetes that the API server is of, such as `v1.36.3`.
    pub async fn read_version(&self) -> Result<String, Error> {
        Ok(self.call("ask for the API server's version", self.client.apiserver_version()).await?.git_version)
    }

    /// The pods of a workspace.
    pub async fn list_pods(&self, namespace: &str, name: &str) -> Result<Vec<Pod>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let selector = ListParams::default().labels(&format!("{}={name}", labels::APP));
        Ok(self.call(&format!("list the pods of {namespace}"), pods.list(&selector)).await?.items)
    }

    /// Tells each time something happens to the pods of a workspace, with the pod as it is then if it is there.
    pub fn watch_pods(&self, namespace: &str, name: &str) -> impl Stream<Item = Option<Pod>> + Send + use<> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let config = watcher::Config::default().labels(&format!("{}={name}", labels::APP));
        let events = watcher::watcher(pods, config).backoff(Again);
        events.filter_map(|event| {
            std::future::ready(match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => Some(Some(pod)),
                Ok(Event::Delete(_) | Event::InitDone) => Some(None),
                Ok(Event::Init) | Err(_) => None,
            })
        })
    }

    /// Tells each time something happens to the namespace of a workspace, from now on for ever.
    pub fn watch_workspace_namespaces(&self) -> impl Stream<Item = NamespaceEvent> + Send + use<> {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        let config = watcher::Config::default().labels(labels::INSTANCE_UID);
        watcher::watcher(namespaces, config).backoff(Again).filter_map(|event| {
            let uid = |namespace: PartialObjectMeta<Namespace>| {
                let labels = namespace.metadata.labels?;
                labels.get(labels::INSTANCE_UID).cloned().map(NamespaceEvent::Changed)
            };
            std::future::ready(match event {
                Ok(Event::Apply(namespace) | Event::Delete(namespace) | Event::InitApply(namespace)) => uid(namespace),
                Ok(Event::Init | Event::InitDone) => None,
                Err(error) => Some(NamespaceEvent::Interrupted(error.to_string())),
            })
        })
    }

    /// Who this program is to the API server.
    pub async fn read_own_name(&self) -> Result<String, Error> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let attempt = "ask who this is";
        let (parameters, review) = (PostParams::default(), SelfSubjectReview::default());
        let answer = self.call(attempt, reviews.create(&parameters, &review)).await?;
        let name = answer.status.and_then(|status| status.user_info?.username);
        name.ok_or_else(|| Error::Answer { attempt: attempt.to_owned(), source: "there is no name in it".into() })
    }
}

fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn place(part: Part, namespace: &str, name: &str) -> String {
    if part == Part::Namespace { format!("\"{name}\"") } else { format!("\"{namespace}/{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_known_by_its_kind_and_version() {
        for part in Part::ALL {
            assert_eq!(Part::of(&json!({ "apiVersion": part.api_version(), "kind": part.kind() })), Some(part));
        }
        for other in [json!({}), json!({ "apiVersion": "v1", "kind": "Deployment" }), json!({ "kind": "Secret" })] {
            assert_eq!(Part::of(&other), None, "{other}");
        }
    }
}
