//! A workspace's container in the words that all runtimes share: what it is started from, and what is found of it later.
//!
//! Values only. How a runtime makes it so is the adapters' matter, which runtime it is `pipeline::runtime_end`'s.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::domain::workspace::EgressRule;

/// Where the program, the files and the sockets of the container contract are in every container.
pub mod place {
    /// The distribution artifact, read-only.
    pub const ARTIFACT: &str = "/workshop/artifact/workshop.db";
    /// The workspace's own token.
    pub const TOKEN: &str = "/workshop/secret/token";
    /// Credentials of the learner's own cluster, for the backend to hand over.
    pub const CLUSTER: &str = "/workshop/cluster";
    /// The backend's own files.
    pub const STATE: &str = "/workshop/state";
    /// The directory of the sockets.
    pub const RUN: &str = "/workshop/run";
    /// The directory in which the management socket is, as the machine has it.
    pub const MANAGEMENT: &str = "/workshop/management";
    /// What outlives the container, where that was asked for.
    pub const PERSIST: &str = "/persist";
    /// The port of the backend where it does not listen on a socket.
    pub const PORT: u16 = 7681;
    /// The backend's socket by its file name in [`RUN`].
    pub const BACKEND_SOCKET: &str = "backend.sock";
    /// The management socket by its name in [`RUN`].
    pub const MANAGEMENT_SOCKET: &str = "management.sock";
}

/// The header in which a gateway says whose workspace it means, by the instance's uid: a network may lead to the address
/// of another one for a moment, and that one refuses with 421.
pub const INSTANCE_HEADER: &str = "workshop-instance";

/// The search path of commands where an image names none, as Docker has it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a workspace's container is started from.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkspaceSpec {
    /// The instance's uid; one container for each.
    pub uid: String,
    /// Namespace of the instance.
    pub namespace: String,
    /// Name of the instance.
    pub name: String,
    /// Id of the step whose image it is.
    pub step: String,
    /// The image: a manifest digest, or any reference that ends in `@<digest>` or that the layout knows by name.
    pub image: String,
    /// Variables of the container contract; the runtime adds `WORKSHOP_LISTEN`, and `WORKSHOP_MANAGEMENT_URL` where the
    /// operator does not set it.
    pub environment: Vec<(String, String)>,
    /// The artifact's file on this machine; one that ends in `.zst` keeps that ending in the container.
    pub artifact: PathBuf,
    /// The workspace's own token.
    pub token: String,
    /// A directory of this machine that outlives the container.
    pub persist: Option<PathBuf>,
    /// Processor time, in thousandths of a core; 0 means no limit.
    pub cpu_millis: u64,
    /// Memory of all its processes, in bytes; 0 means no limit.
    pub memory_bytes: u64,
    /// Its host name.
    pub hostname: String,
    /// What it may reach.
    pub egress: Egress,
    /// The management API's Unix socket on this machine, alone in its directory; native only.
    pub management_socket: Option<PathBuf>,
    /// The management API's address as the container reaches it; engines.
    pub management_url: Option<String>,
}

impl fmt::Debug for WorkspaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the token nor the environment, which may hold an author's secrets.
        f.debug_struct("WorkspaceSpec")
            .field("uid", &self.uid)
            .field("name", &self.name)
            .field("step", &self.step)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

/// What a workspace may reach besides itself and the management API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Egress {
    /// Nothing.
    None,
    /// Names and the internet, private ranges and link-local left out.
    #[default]
    Internet,
    /// These destinations only.
    Rules(Vec<EgressRule>),
}

impl Egress {
    /// What `network.egress` of a workshop's settings means.
    #[must_use]
    pub fn of(rules: Option<&[EgressRule]>) -> Self {
        match rules {
            None => Self::Internet,
            Some([]) => Self::None,
            Some(rules) => Self::Rules(rules.to_vec()),
        }
    }
}

/// Where the backend of a running container answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// A TCP address, on loopback.
    Tcp(SocketAddr),
}

/// How a container that is known to the runtime stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundState {
    /// Made, and not started: somebody's start did not come to its end.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process ended.
    Exited {
        /// With this code, 128 and the number where a signal ended it; none where nobody could see it.
        code: Option<i32>,
    },
}

/// A container as the runtime itself tells of it, also after a restart of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The instance's uid.
    pub uid: String,
    /// The step it was started for.
    pub step: String,
    /// The `fingerprint` that it was started with.
    pub generation_label: String,
    /// How it stands.
    pub state: FoundState,
    /// Where its backend answers, while it runs.
    pub address: Option<Address>,
    /// When it was started.
    pub started_at: Option<jiff::Timestamp>,
}

/// What a runtime can do, in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `native`, `docker` or `podman`.
    pub name: &'static str,
    /// Which one exactly, for people.
    pub description: String,
    /// True where no process of it is root on this machine.
    pub rootless: bool,
    /// Whether a workspace can reach the internet at all.
    pub egress: bool,
    /// What of `network.egress` is enforced, or why there is none; one sentence without a full stop.
    pub egress_note: String,
    /// Whether the destinations of `network.egress` are enforced.
    pub egress_rules: bool,
    /// Whether `/persist` can be had.
    pub persist: bool,
    /// How the container reaches the management API.
    pub management: ManagementReach,
}

/// How a container reaches the management API of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagementReach {
    /// By the Unix socket that is mounted into it.
    Socket,
    /// Over the network: the API listens on `listen` and the container calls `host` at that port.
    Network {
        /// An address of this machine that the containers reach.
        listen: std::net::IpAddr,
        /// The name or address by which they do, for a URL.
        host: String,
    },
}

/// A runtime that the user names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// A Docker daemon.
    Docker,
    /// Podman's service.
    Podman,
    /// `runc` on this machine.
    Native,
}

impl RuntimeChoice {
    /// All, in the order in which they are looked for.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Podman, Self::Native];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Native => "native",
        }
    }
}

impl fmt::Display for RuntimeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RuntimeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|choice| choice.as_str() == text)
            .ok_or_else(|| format!("\"{text}\" is no runtime: write docker, podman or native"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_list_means_the_internet_and_an_empty_one_nothing() {
        let rule = EgressRule { cidr: "192.0.2.0/24".into(), ports: vec![] };
        assert_eq!(Egress::of(None), Egress::Internet);
        assert_eq!(Egress::of(Some(&[])), Egress::None);
        assert_eq!(Egress::of(Some(std::slice::from_ref(&rule))), Egress::Rules(vec![rule]));
    }

    #[test]
    fn runtimes_are_read_by_the_words_they_are_shown_by() {
        for choice in RuntimeChoice::ALL {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("Docker".parse::<RuntimeChoice>().unwrap_err().contains("docker, podman or native"));
    }
}
