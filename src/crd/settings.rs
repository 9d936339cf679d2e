//! How workspaces run, in the shape of workspace.yaml: the template's defaults and an instance's overrides.
//!
//! Wire types only: every field may be missing here, `domain::workspace` knows the defaults.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use crate::domain::workspace::{self, Workspace};

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

/// The wire form of a workshop's workspace file, every field set.
impl From<&Workspace> for WorkspaceSettings {
    fn from(workspace: &Workspace) -> Self {
        // Without `..`: a field that is added to the file cannot be forgotten here.
        let Workspace { lifecycle, isolation, network, cluster, resources, access, checks, record } = workspace;
        let workspace::Lifecycle { mode, ttl, idle_suspend, idle_timeout, persist } = lifecycle;
        let lifecycle = Lifecycle {
            mode: Some(match mode {
                workspace::LifecycleMode::Persistent => LifecycleMode::Persistent,
                workspace::LifecycleMode::Ephemeral => LifecycleMode::Ephemeral,
            }),
            ttl: Some(ttl.to_string()),
            idle_suspend: Some(*idle_suspend),
            idle_timeout: Some(idle_timeout.to_string()),
            persist: persist.as_ref().map(ToString::to_string),
        };
        let workspace::Isolation { mode, runtime_class, user } = isolation;
        let isolation = Isolation {
            mode: Some(match mode {
                workspace::IsolationMode::Individual => IsolationMode::Individual,
                workspace::IsolationMode::Team => IsolationMode::Team,
            }),
            runtime_class: runtime_class.clone(),
            user: Some(match user {
                workspace::User::Learner => LearnerUser::Learner,
                workspace::User::Root => LearnerUser::Root,
            }),
        };
        let workspace::Network { egress } = network;
        let network = Network {
            egress: egress.as_ref().map(|rules| {
                rules
                    .iter()
                    .map(|workspace::EgressRule { cidr, ports }| Egress {
                        cidr: cidr.clone(),
                        ports: ports.iter().map(|port| i32::from(*port)).collect(),
                    })
                    .collect()
            }),
        };
        let workspace::Cluster { mode, version } = cluster;
        let cluster = NestedCluster {
            mode: Some(match mode {
                workspace::ClusterMode::None => ClusterMode::None,
                workspace::ClusterMode::PerWorkspace => ClusterMode::PerWorkspace,
                workspace::ClusterMode::Shared => ClusterMode::Shared,
            }),
            version: version.clone(),
        };
        let workspace::Resources { cpu, memory } = resources;
        let resources = Resources { cpu: Some(cpu.to_string()), memory: Some(memory.to_string()) };
        let workspace::Access { web_terminal, editor, files, browser } = access;
        let workspace::WebTerminal { enabled, shell, server } = web_terminal;
        let switch = |switch: &workspace::Switch| Some(Switch { enabled: Some(switch.enabled) });
        let access = Access {
            web_terminal: Some(WebTerminal {
                enabled: Some(*enabled),
                shell: shell.clone(),
                server: Some(match server {
                    workspace::TerminalServer::Builtin => TerminalServer::Builtin,
                    workspace::TerminalServer::Ttyd => TerminalServer::Ttyd,
                }),
            }),
            editor: switch(editor),
            files: switch(files),
            browser: switch(browser),
        };
        let workspace::Checks { engine } = checks;
        let checks = Checks {
            engine: Some(match engine {
                workspace::CheckEngine::Builtin => ChecksEngine::Builtin,
                workspace::CheckEngine::Goss => ChecksEngine::Goss,
            }),
        };
        let workspace::Record { session, commands } = record;
        let record = Record { session: Some(*session), commands: Some(*commands) };
        Self {
            lifecycle: Some(lifecycle),
            isolation: Some(isolation),
            network: Some(network),
            cluster: Some(cluster),
            resources: Some(resources),
            access: Some(access),
            checks: Some(checks),
            record: Some(record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_the_form_of_the_file() {
        let workspace = Workspace {
            network: workspace::Network {
                egress: Some(vec![workspace::EgressRule { cidr: "10.0.0.0/8".into(), ports: vec![443] }]),
            },
            lifecycle: workspace::Lifecycle {
                persist: Some("1Gi".parse().expect("a quantity")),
                ..workspace::Lifecycle::default()
            },
            ..Workspace::default()
        };
        for workspace in [Workspace::default(), workspace] {
            assert_eq!(
                serde_json::to_value(WorkspaceSettings::from(&workspace)).expect("JSON"),
                serde_json::to_value(&workspace).expect("JSON"),
            );
        }
    }
}
