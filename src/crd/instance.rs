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
    /// The last start of a backend that claimed the workspace; what an older one sends is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The last snapshot of progress of that backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// What is going on or wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// What of the last change of step or reset did not work out; gone with the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub notice: Option<String>,
    /// The container that was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Starts that failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<Restarts>,
    /// Set while it sleeps by itself; spec.suspended is somebody's wish and stands apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<Asleep>,
    /// When a persistent workspace whose time was over was last woken: its time counts from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub renewed_at: Option<String>,
    /// The value of spec.resetRequest that was last carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub reset_handled: Option<String>,
    /// The value of the annotation workshop.platform/update that was last carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub update_handled: Option<String>,
    /// Ready: it can be used. UpdateAvailable: its template is newer than what it runs. Expiring: its time is over
    /// soon.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The identity of the workshop's content.
    pub unit_key: String,
    /// The digest of the artifact.
    pub artifact_digest: String,
    /// The artifact's size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_size: Option<i64>,
    /// The template's defaults at that revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<WorkspaceSettings>,
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
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
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
    /// True when the learner went on without completing it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// The container that was last asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its step.
    pub step: String,
    /// The identity of everything it is made of; another one means another container.
    pub fingerprint: String,
    /// The digest of the artifact that its backend has.
    pub artifact_digest: String,
    /// When it was asked for.
    #[schemars(schema_with = "schema::moment")]
    pub since: String,
    /// When it first answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub ready_at: Option<String>,
    /// Where the gateway reaches its backend, `ADDRESS:PORT`; only while the phase is Running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub address: Option<String>,
    /// Where its pod answers, `ADDRESS:PORT`: the way for the first moments, before the cluster forwards to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_address: Option<String>,
}

/// Starts that failed in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restarts {
    /// How many.
    pub count: i64,
    /// When the first of them failed.
    #[schemars(schema_with = "schema::moment")]
    pub first: String,
    /// The container they are about.
    pub fingerprint: String,
    /// When the next start is due; absent once it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub due: Option<String>,
    /// Why the last one failed.
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// Since when and why a workspace sleeps by itself; later use wakes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Asleep {
    /// Since when.
    #[schemars(schema_with = "schema::moment")]
    pub since: String,
    /// Nobody used it, or its time was over.
    pub cause: SleepCause,
}

/// Why a workspace sleeps by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum SleepCause {
    Idle,
    Expired,
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
