//! WorkspaceInstance: one workspace, of a learner or a team.
//!
//! The reconciler writes those a roster wants, all but `currentStep`; doc comments are the text of `kubectl explain`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::settings::WorkspaceSettings;

/// A workspace that somebody wants.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "workshop.platform",
    version = "v1alpha1",
    kind = "WorkspaceInstance",
    plural = "workspaceinstances",
    namespaced,
    status = "WorkspaceInstanceStatus",
    derive = "PartialEq",
    shortname = "wsi",
    category = "workshop",
    doc = "A workspace of one learner or one team, made from a WorkspaceTemplate.",
    selectable = ".spec.templateRef.name",
    printcolumn(name = "Template", type_ = "string", json_path = ".spec.templateRef.name"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.currentStep"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceInstanceSpec {
    /// The template it is made from; it cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed: make a new instance"))]
    pub template_ref: TemplateReference,

    /// Whose workspace it is.
    #[schemars(length(min = 1, max = 253))]
    pub owner: String,

    /// The step the learner is in; the first one where this was never set. Left out of Git, as replicas of a
    /// Deployment with an autoscaler are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub current_step: Option<String>,

    /// Those who share it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub members: Vec<String>,

    /// True puts it to sleep until it is set to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,

    /// True keeps it from ending and from being suspended for want of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<bool>,

    /// When it ends, in place of what its time to live would give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub expires_at: Option<String>,

    /// Any new value starts the current step anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub reset_request: Option<String>,

    /// What differs from the template's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<WorkspaceSettings>,
}

/// The template by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateReference {
    /// The name of the WorkspaceTemplate, which is the workshop's id.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
}

/// What became of the workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceInstanceStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the workspace is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The step that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_step: Option<String>,
    /// The namespace in which it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// When it first ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub started_at: Option<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub expires_at: Option<String>,
    /// When somebody last used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub last_activity_at: Option<String>,
    /// Where it is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub access_endpoints: Vec<AccessEndpoint>,
    /// The revision of the template that it runs, whatever became of the template since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pin>,
    /// How far the learner is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub progress: Vec<StepProgress>,
    /// Ready: it can be used. UpdateAvailable: its template is newer than what it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What a workspace is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum Phase {
    Pending,
    Provisioning,
    Running,
    Transitioning,
    Suspended,
    Failed,
    Terminating,
}

/// One way to reach a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessEndpoint {
    /// What is there, e.g. web.
    pub name: String,
    /// Its address; it holds no token.
    pub url: String,
}

/// A revision of a template, kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The identity of the workshop's content.
    pub unit_key: String,
    /// The digest of the artifact.
    pub artifact_digest: String,
    /// The steps with their images.
    #[schemars(schema_with = "schema::atomic::<PinnedStep>", length(max = 200))]
    pub steps: Vec<PinnedStep>,
}

/// A step's image, kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedStep {
    /// The step's id.
    pub id: String,
    /// The full image reference.
    pub image_tag: String,
    /// The digest of the image's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

/// How far the learner is with one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepProgress {
    /// The step's id.
    pub step: String,
    /// pending, active or completed.
    pub status: ProgressStatus,
    /// When the learner entered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub started_at: Option<String>,
    /// When it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub completed_at: Option<String>,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum ProgressStatus {
    Pending,
    Active,
    Completed,
}
