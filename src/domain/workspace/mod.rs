//! `workspace.yaml` as values: how workspaces run, never what their images contain.
//!
//! Every field has its default here and nowhere else. The serde form is the file's (camelCase), so that a template's
//! `spec.defaults` reads like the file. Reading the file is in `parse`.

mod allowed;
mod effective;
mod parse;

pub use allowed::{PRIVATE, Permit, refused_overrides};
pub use effective::{InvalidSettings, effective};
pub use parse::{parse_workspace, read_overrides};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::quantity::Quantity;

/// The file's name in a workshop's directory.
pub const FILE_NAME: &str = "workspace.yaml";

/// How the workspaces of a workshop run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Workspace {
    /// How long a workspace lives and what outlives it.
    pub lifecycle: Lifecycle,
    /// What separates one workspace from another.
    pub isolation: Isolation,
    /// What a workspace may reach.
    pub network: Network,
    /// The Kubernetes cluster that belongs to a workspace.
    pub cluster: Cluster,
    /// The limits of a workspace's container.
    pub resources: Resources,
    /// How learners reach their workspace.
    pub access: Access,
    /// How checks are run.
    pub checks: Checks,
    /// What is recorded for the instructor.
    pub record: Record,
}

/// How long a workspace lives and what outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Lifecycle {
    /// What happens at the end of its time.
    pub mode: LifecycleMode,
    /// Its time, from creation.
    pub ttl: Duration,
    /// Suspend it when nobody uses it.
    pub idle_suspend: bool,
    /// How long nobody uses it before that.
    pub idle_timeout: Duration,
    /// The size of a volume at `/persist`, the only files that outlive a step switch, a suspension and a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<Quantity>,
}

/// What happens to a workspace at the end of its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LifecycleMode {
    /// Suspended, never deleted by time.
    Persistent,
    /// Deleted.
    #[default]
    Ephemeral,
}

/// What separates one workspace from another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Isolation {
    /// Who shares a workspace.
    pub mode: IsolationMode,
    /// The runtime class of its pods, e.g. of Kata or gVisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
    /// The user of the learner's shell.
    pub user: User,
}

/// Who shares a workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationMode {
    /// One learner each.
    #[default]
    Individual,
    /// The members that the roster names.
    Team,
}

/// The user of the learner's shell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum User {
    /// Uid 1000, added to the image's user database at start where it is missing.
    #[default]
    Learner,
    /// Uid 0, where the lesson is about administration.
    Root,
}

/// What a workspace may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Network {
    /// The only destinations; absent: DNS and the internet without private ranges and link-local; empty: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
}

/// One destination that a workspace may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// The network, `ADDRESS/PREFIX`.
    pub cidr: String,
    /// TCP and UDP ports; none named means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// The Kubernetes cluster that belongs to a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Cluster {
    /// Whether there is one, and for whom.
    pub mode: ClusterMode,
    /// Its version; absent: the provisioner's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Whether workspaces have a Kubernetes cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterMode {
    /// They have none.
    #[default]
    None,
    /// Each has its own.
    PerWorkspace,
    /// All share one.
    Shared,
}

/// The limits of a workspace's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Processor time, in processors.
    pub cpu: Quantity,
    /// Memory, in bytes.
    pub memory: Quantity,
}

/// How learners reach their workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Access {
    /// The terminal in the browser.
    pub web_terminal: WebTerminal,
    /// The editor in the browser.
    pub editor: Switch,
    /// Reading, writing and downloading files.
    pub files: Switch,
    /// A streamed browser beside the workspace.
    pub browser: Switch,
}

/// The terminal in the browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WebTerminal {
    /// Offer it.
    pub enabled: bool,
    /// The shell's path; absent: the user's login shell, else bash, else sh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// What serves it.
    pub server: TerminalServer,
}

/// What serves the terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TerminalServer {
    /// The platform's own server.
    #[default]
    Builtin,
    /// The image's `ttyd`.
    Ttyd,
}

/// Something that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Switch {
    /// On.
    pub enabled: bool,
}

/// How checks are run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Checks {
    /// What runs the goss specs.
    pub engine: CheckEngine,
}

/// What runs the goss specs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckEngine {
    /// The platform's own engine.
    #[default]
    Builtin,
    /// The image's `goss`.
    Goss,
}

/// What is recorded for the instructor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// The terminal session.
    pub session: bool,
    /// The commands.
    pub commands: bool,
}

fn default_quantity(text: &str) -> Quantity {
    text.parse().expect("the defaults of this file are quantities, which a test shows")
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            mode: LifecycleMode::default(),
            ttl: Duration::from_seconds(4 * 3600),
            idle_suspend: true,
            idle_timeout: Duration::from_seconds(30 * 60),
            persist: None,
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: default_quantity("500m"), memory: default_quantity("512Mi") }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self {
            web_terminal: WebTerminal::default(),
            editor: Switch { enabled: true },
            files: Switch { enabled: true },
            browser: Switch { enabled: false },
        }
    }
}

impl Default for WebTerminal {
    fn default() -> Self {
        Self { enabled: true, shell: None, server: TerminalServer::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        assert_eq!(
            serde_json::to_value(Workspace::default()).unwrap(),
            serde_json::json!({
                "lifecycle": {"mode": "ephemeral", "ttl": "4h", "idleSuspend": true, "idleTimeout": "30m"},
                "isolation": {"mode": "individual", "user": "learner"},
                "network": {},
                "cluster": {"mode": "none"},
                "resources": {"cpu": "500m", "memory": "512Mi"},
                "access": {
                    "webTerminal": {"enabled": true, "server": "builtin"},
                    "editor": {"enabled": true},
                    "files": {"enabled": true},
                    "browser": {"enabled": false},
                },
                "checks": {"engine": "builtin"},
                "record": {"session": false, "commands": false},
            })
        );
    }

    #[test]
    fn a_part_of_the_fields_reads_with_the_defaults_of_the_rest() {
        let read: Workspace = serde_json::from_str(r#"{"lifecycle": {"ttl": "1h"}}"#).unwrap();
        let mut expected = Workspace::default();
        expected.lifecycle.ttl = Duration::from_seconds(3600);
        assert_eq!(read, expected);
    }
}
