//! How workspaces run, in the shape of workspace.yaml: the template's defaults and an instance's overrides.
//!
//! Wire types only: every field may be missing here, `domain::workspace` knows the defaults.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// How a workspace runs; the fields of workspace.yaml.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceSettings {
    /// When a workspace ends, sleeps, and what outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Who shares a workspace and how it is walled off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What a workspace may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The nested Kubernetes cluster, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<NestedCluster>,
    /// The container's limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How a learner gets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// What runs the checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
    /// What is recorded for the instructor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
}

/// When a workspace ends, sleeps, and what outlives it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// ephemeral is deleted at its end, persistent is suspended and never deleted by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LifecycleMode>,
    /// How long it lives, e.g. 4h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub ttl: Option<String>,
    /// Whether it is suspended when nobody uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_suspend: Option<bool>,
    /// How long nobody must have used it for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub idle_timeout: Option<String>,
    /// The size of the volume at /persist; no volume where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub persist: Option<String>,
}

/// What happens at the end of a workspace's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum LifecycleMode {
    Persistent,
    Ephemeral,
}

/// Who shares a workspace and how it is walled off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// individual has one learner, team is shared by the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<IsolationMode>,
    /// The RuntimeClass of the pods, e.g. one of Kata or gVisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class: Option<String>,
    /// Who the learner is inside: learner (uid 1000) or root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<LearnerUser>,
}

/// Who shares a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum IsolationMode {
    Individual,
    Team,
}

/// Who the learner is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum LearnerUser {
    Learner,
    Root,
}

/// What a workspace may reach.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// Where connections may go. Left out: DNS and the internet without private ranges and link-local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub egress: Option<Vec<Egress>>,
}

/// A range of addresses that a workspace may reach.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Egress {
    /// The range, e.g. 10.1.0.0/16.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("isCIDR(self)").message("must be a range of addresses such as 10.1.0.0/16"))]
    pub cidr: String,
    /// The ports; all where this is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<i32>,
}

/// The nested Kubernetes cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NestedCluster {
    /// none, one of its own per-workspace, or one shared by all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClusterMode>,
    /// Its Kubernetes version; the provisioner's default where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub version: Option<String>,
}

/// Whose nested cluster it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum ClusterMode {
    None,
    PerWorkspace,
    Shared,
}

/// The container's limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Processors, e.g. 500m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub cpu: Option<String>,
    /// Memory, e.g. 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub memory: Option<String>,
}

/// How a learner gets in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The terminal in the browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_terminal: Option<WebTerminal>,
    /// The editor in the browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub editor: Option<Switch>,
    /// The files in the browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Switch>,
    /// A streamed browser beside the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<Switch>,
}

/// The terminal in the browser.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebTerminal {
    /// Whether it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The shell's path; the image user's login shell where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub shell: Option<String>,
    /// builtin, or a ttyd of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<TerminalServer>,
}

/// What serves the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum TerminalServer {
    Builtin,
    Ttyd,
}

/// Something that is there or not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Switch {
    /// Whether it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What runs the checks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checks {
    /// builtin, or a goss of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<ChecksEngine>,
}

/// What runs the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum ChecksEngine {
    Builtin,
    Goss,
}

/// What is recorded for the instructor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// The terminal, as asciicast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<bool>,
    /// The commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<bool>,
}
