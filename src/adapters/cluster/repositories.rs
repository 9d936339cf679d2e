//! WorkshopRepository objects: status, finalizer, and nothing else of them is ever written. Of templates the status.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::objects::Target;
use super::{Cluster, Error};
use crate::crd::{API_VERSION, Kind, WorkshopRepositoryStatus, WorkspaceTemplateStatus, labels};

impl Cluster {
    /// Writes the whole status by server-side apply; the caller has found that it differs.
    pub async fn apply_repository_status(
        &self,
        namespace: &str,
        name: &str,
        status: &WorkshopRepositoryStatus,
    ) -> Result<(), Error> {
        let attempt = format!("write the status of WorkshopRepository/{namespace}/{name}");
        let manifest = json!({
            "apiVersion": API_VERSION,
            "kind": Kind::WorkshopRepository.name(),
            "metadata": { "name": name },
            "status": status,
        });
        let parameters = PatchParams::apply(labels::FIELD_MANAGER).force();
        let target =
            Target { kind: Kind::WorkshopRepository, namespace: Some(namespace), name, subresource: Some("status") };
        self.patch(&attempt, &target, &parameters, &Patch::Apply(&manifest)).await.map(drop)
    }

    /// Sets the finalizers of a repository, if it still is at this resource version.
    pub async fn set_repository_finalizers(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        finalizers: &[String],
    ) -> Result<(), Error> {
        let attempt = format!("set the finalizers of WorkshopRepository/{namespace}/{name}");
        let patch: Value = json!({
            "metadata": { "resourceVersion": resource_version, "finalizers": finalizers },
        });
        let parameters =
            PatchParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let target = Target { kind: Kind::WorkshopRepository, namespace: Some(namespace), name, subresource: None };
        self.patch(&attempt, &target, &parameters, &Patch::Merge(&patch)).await.map(drop)
    }
}

impl Cluster {
    /// Writes the whole status of a template by server-side apply; the caller has found that it differs.
    pub async fn apply_template_status(&self, name: &str, status: &WorkspaceTemplateStatus) -> Result<(), Error> {
        let attempt = format!("write the status of WorkspaceTemplate/{name}");
        let manifest = json!({
            "apiVersion": API_VERSION,
            "kind": Kind::WorkspaceTemplate.name(),
            "metadata": { "name": name },
            "status": status,
        });
        let parameters = PatchParams::apply(labels::OPERATOR_MANAGER).force();
        let target = Target { kind: Kind::WorkspaceTemplate, namespace: None, name, subresource: Some("status") };
        self.patch(&attempt, &target, &parameters, &Patch::Apply(&manifest)).await.map(drop)
    }
}
