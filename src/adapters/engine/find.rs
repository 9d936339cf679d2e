//! Where a container engine may listen: what the user says, the docker context, the known places.
//!
//! It only names places and why one is left out; whether anybody answers is asked by the caller.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::domain::container::RuntimeChoice;
use crate::domain::digest::hex;

/// Contexts and configurations are small; larger files are none, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The variables and directories that decide where an engine is.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`, else `.docker` of the home.
    pub docker_config: Option<PathBuf>,
    /// `CONTAINER_HOST`.
    pub container_host: Option<String>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_directory: Option<PathBuf>,
    /// `WORKSHOP_MANAGEMENT_LISTEN`: the address of this machine that containers reach.
    pub listen: Option<IpAddr>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn read() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name| text(name).map(PathBuf::from);
        Self {
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_config: path("DOCKER_CONFIG").or_else(|| path("HOME").map(|home| home.join(".docker"))),
            container_host: text("CONTAINER_HOST"),
            runtime_directory: path("XDG_RUNTIME_DIR"),
            listen: text("WORKSHOP_MANAGEMENT_LISTEN").and_then(|text| text.parse().ok()),
        }
    }

    /// The addresses to try, in order; the first that the user names is the only one.
    #[must_use]
    pub fn addresses(&self, choice: RuntimeChoice) -> Vec<String> {
        let own = |name: &str| self.runtime_directory.as_ref().map(|directory| unix(&directory.join(name)));
        match choice {
            RuntimeChoice::Docker => match self.docker_host.clone().or_else(|| self.context()) {
                Some(named) => vec![named],
                None => {
                    [Some(unix(Path::new("/var/run/docker.sock"))), own("docker.sock")].into_iter().flatten().collect()
                }
            },
            RuntimeChoice::Podman => match self.container_host.clone() {
                Some(named) => vec![named],
                None => [own("podman/podman.sock"), Some(unix(Path::new("/run/podman/podman.sock")))]
                    .into_iter()
                    .flatten()
                    .collect(),
            },
            RuntimeChoice::Native => Vec::new(),
        }
    }

    /// The address of the docker context in use; none for the default one.
    fn context(&self) -> Option<String> {
        let config = self.docker_config.as_deref()?;
        let current = || Some(read_json(&config.join("config.json"))?["currentContext"].as_str()?.to_owned());
        let name = self.docker_context.clone().or_else(current).filter(|name| !name.is_empty() && name != "default")?;
        let directory = hex(&Sha256::digest(name.as_bytes()));
        let meta = read_json(&config.join("contexts/meta").join(directory).join("meta.json"))?;
        Some(meta["Endpoints"]["docker"]["Host"].as_str()?.to_owned())
    }
}

fn unix(path: &Path) -> String {
    format!("unix://{}", path.display())
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    if path.metadata().ok()?.len() > MAX_FILE {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_names_goes_before_the_known_places() {
        let home = tempfile::tempdir().unwrap();
        let meta = home.path().join("contexts/meta").join(hex(&Sha256::digest(b"desk")));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(meta.join("meta.json"), r#"{"Endpoints":{"docker":{"Host":"unix:///desk.sock"}}}"#).unwrap();
        std::fs::write(home.path().join("config.json"), r#"{"currentContext":"desk"}"#).unwrap();
        let plain = Surroundings { runtime_directory: Some("/run/user/7".into()), ..Surroundings::default() };
        let context = Surroundings { docker_config: Some(home.path().to_owned()), ..plain.clone() };
        let default = Surroundings { docker_context: Some("default".into()), ..context.clone() };
        let host = Surroundings { docker_host: Some("tcp://127.0.0.1:2375".into()), ..context.clone() };
        let podman = Surroundings { container_host: Some("unix:///p.sock".into()), ..plain.clone() };
        let known: &[&str] = &["unix:///var/run/docker.sock", "unix:///run/user/7/docker.sock"];
        let rows: [(&Surroundings, RuntimeChoice, &[&str]); 7] = [
            (&plain, RuntimeChoice::Docker, known),
            (&context, RuntimeChoice::Docker, &["unix:///desk.sock"]),
            (&default, RuntimeChoice::Docker, known),
            (&host, RuntimeChoice::Docker, &["tcp://127.0.0.1:2375"]),
            (
                &plain,
                RuntimeChoice::Podman,
                &["unix:///run/user/7/podman/podman.sock", "unix:///run/podman/podman.sock"],
            ),
            (&podman, RuntimeChoice::Podman, &["unix:///p.sock"]),
            (&plain, RuntimeChoice::Native, &[]),
        ];
        for (surroundings, choice, expected) in rows {
            assert_eq!(surroundings.addresses(choice), expected, "{surroundings:?} {choice}");
        }
    }
}
