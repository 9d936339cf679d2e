//! WorkspaceTemplate: what a workshop became, ready to make workspaces of.
//!
//! The reconciler writes the spec, the operator the status; doc comments are the text of `kubectl explain`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::settings::WorkspaceSettings;

/// What a workshop became: its steps as images, and how its workspaces run.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "workshop.platform",
    version = "v1alpha1",
    kind = "WorkspaceTemplate",
    plural = "workspacetemplates",
    status = "WorkspaceTemplateStatus",
    derive = "PartialEq",
    shortname = "wst",
    category = "workshop",
    doc = "A workshop in the form workspaces are made of: its steps as images, and how its workspaces run.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$') && size(self.metadata.name) <= 40")
        .message("a template is named by its workshop's id: at most 40 of a-z, 0-9 and -, no hyphen at either end"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".status.instances.total"),
    printcolumn(
        name = "Path",
        type_ = "string",
        json_path = ".metadata.annotations.workshop\\.platform/path"
    ),
    printcolumn(
        name = "Repository",
        type_ = "string",
        json_path = ".metadata.labels.workshop\\.platform/repository",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceTemplateSpec {
    /// How workspaces of this workshop run, where an instance does not override it.
    #[serde(default)]
    pub defaults: WorkspaceSettings,

    /// The steps, in order.
    #[schemars(schema_with = "schema::atomic::<TemplateStep>", length(min = 1, max = 200))]
    #[x_kube(
        validation = Rule::new("self.all(step, self.exists_one(other, other.id == step.id))")
            .message("two steps have one id")
    )]
    pub steps: Vec<TemplateStep>,

    /// The Secret with which nodes pull the images; it is in the namespace of the owning repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_secret: Option<ImagePullSecret>,

    /// The distribution artifact.
    pub artifact: Artifact,
}

/// One step as an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateStep {
    /// The step's id.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub id: String,
    /// Its title.
    #[schemars(length(min = 1, max = 1024))]
    pub title: String,
    /// The full image reference with a tag, as nodes pull it.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image_tag: String,
    /// The digest of the image's manifest, where it is known; what runs is then this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub image_digest: Option<String>,
}

/// The Secret with which nodes pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImagePullSecret {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The distribution artifact, the SQLite file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// The sha256 of its bytes.
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
    /// Its size in bytes, at most 32 MiB.
    #[schemars(range(min = 1, max = 33_554_432))]
    pub size: i64,
}

/// What became of the template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceTemplateStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: workspaces can be made of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many instances there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<InstanceCounts>,
}

/// How many instances of a template there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceCounts {
    /// All of them.
    pub total: i64,
    /// Those that run.
    pub running: i64,
    /// Those that are suspended.
    pub suspended: i64,
}
