//! The container contract: what the environment tells the backend, and where its files are.
//!
//! Reads every variable once and reports all that is wrong with them together. Nothing of it reaches the learner's
//! shell.

use std::path::{Path, PathBuf};

use crate::domain::token::VerifyKey;
use crate::domain::workspace::Workspace;

use super::listen::Listen;

/// What the names of our variables begin with; no program of the learner sees them.
pub const PREFIX: &str = "WORKSHOP_";
/// The instance of a container that nobody gave one.
pub const ALONE: &str = "local";

/// What is wrong with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

/// Where the management API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagementAddress {
    /// A URL without a slash at its end.
    Url(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What stands before all paths of the contract: `/` but for tests.
    pub root: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// The instance's uid.
    pub instance: String,
    /// The step whose image this is; absent: the one that was last active, else the first.
    pub step: Option<String>,
    /// Who is asked for another step; absent: nobody.
    pub management: Option<ManagementAddress>,
    /// What verifies tokens; absent: a key of the backend's own.
    pub verify_key: Option<VerifyKey>,
    /// Older tokens are refused.
    pub generation: i64,
    /// What the paths of all routes begin with; slashes at both ends.
    pub base_path: String,
    /// How the workspace runs.
    pub settings: Workspace,
}

impl Config {
    /// Reads the environment of the process.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::parse(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads what `variable` gives for each name; empty values count as absent.
    pub fn parse(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut problems = Vec::new();
        let mut value = |name: &str, expected: &str, valid: &dyn Fn(&str) -> bool| {
            let value = variable(name)?;
            if valid(&value) {
                return Some(value);
            }
            problems.push(format!("{name} is \"{value}\", which is not {expected}"));
            None
        };
        let is_absolute = |text: &str| Path::new(text).is_absolute();
        let root = value("WORKSHOP_ROOT", "an absolute path", &is_absolute);
        let is_name = |text: &str| text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_graphic());
        let instance = value("WORKSHOP_INSTANCE", "a uid", &is_name);
        let step =
            value("WORKSHOP_STEP", "the id of a step", &|text| crate::domain::names::StepId::parse(text).is_ok());
        let management = value(
            "WORKSHOP_MANAGEMENT_URL",
            "\"http://…\", \"https://…\" or \"unix:\" and an absolute path",
            &|text| parse_management(text).is_some(),
        );
        let verify_key = value("WORKSHOP_VERIFY_KEY", "the base64url of an Ed25519 public key", &|text| {
            text.parse::<VerifyKey>().is_ok()
        });
        let generation = value("WORKSHOP_TOKEN_GENERATION", "a number from 0", &|text| text.parse::<u32>().is_ok());
        let base_path = value("WORKSHOP_BASE_PATH", "a path with slashes at both ends", &is_base_path);
        let settings = match variable("WORKSHOP_SETTINGS").map(|text| serde_json::from_str(&text)) {
            None => Workspace::default(),
            Some(Ok(settings)) => settings,
            Some(Err(error)) => {
                problems.push(format!("WORKSHOP_SETTINGS cannot be read: {error}"));
                Workspace::default()
            }
        };
        let listen = match Listen::parse(&variable("WORKSHOP_LISTEN").unwrap_or_default()) {
            Ok(listen) => Some(listen),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        let (Some(listen), true) = (listen, problems.is_empty()) else { return Err(ConfigError(problems)) };
        Ok(Self {
            root: root.map_or_else(|| "/".into(), Into::into),
            listen,
            instance: instance.unwrap_or_else(|| ALONE.to_owned()),
            step,
            management: management.as_deref().and_then(parse_management),
            verify_key: verify_key.and_then(|text| text.parse().ok()),
            generation: generation.and_then(|text| text.parse().ok()).unwrap_or(0),
            base_path: base_path.unwrap_or_else(|| "/".to_owned()),
            settings,
        })
    }

    /// A path of the contract, e.g. `/workshop/state`.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The working copy and the key, for the backend's user alone.
    pub fn state(&self) -> PathBuf {
        self.path("/workshop/state")
    }
}

fn parse_management(text: &str) -> Option<ManagementAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Path::new(path).is_absolute().then(|| ManagementAddress::Unix(path.into()));
    }
    let url = url::Url::parse(text).ok()?;
    let is_plain = ["http", "https"].contains(&url.scheme()) && url.has_host() && url.query().is_none();
    is_plain.then(|| ManagementAddress::Url(text.trim_end_matches('/').to_owned()))
}

fn is_base_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text == "/"
        || text.strip_prefix('/').and_then(|text| text.strip_suffix('/')).is_some_and(|inner| {
            inner.split('/').all(|part| ![".", "..", ""].contains(&part) && part.bytes().all(plain))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::parse(|name| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn an_empty_environment_is_a_workspace_alone() {
        let config = parse(&[("WORKSHOP_STEP", "")]).unwrap();
        assert_eq!((config.instance.as_str(), config.base_path.as_str()), ("local", "/"));
        assert_eq!((config.step, config.management, config.generation), (None, None, 0));
        assert_eq!(config.settings, Workspace::default());
        assert_eq!(config.root, Path::new("/"));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let error = parse(&[
            ("WORKSHOP_LISTEN", "x"),
            ("WORKSHOP_STEP", "Not An Id"),
            ("WORKSHOP_MANAGEMENT_URL", "ftp://host"),
            ("WORKSHOP_VERIFY_KEY", "abc"),
            ("WORKSHOP_TOKEN_GENERATION", "-1"),
            ("WORKSHOP_BASE_PATH", "/w"),
            ("WORKSHOP_SETTINGS", "{"),
        ])
        .unwrap_err();
        let names: Vec<&str> = error.0.iter().filter_map(|problem| problem.split(' ').next()).collect();
        assert_eq!(
            names,
            [
                "WORKSHOP_STEP",
                "WORKSHOP_MANAGEMENT_URL",
                "WORKSHOP_VERIFY_KEY",
                "WORKSHOP_TOKEN_GENERATION",
                "WORKSHOP_BASE_PATH",
                "WORKSHOP_SETTINGS",
                "WORKSHOP_LISTEN",
            ]
        );
    }

    #[test]
    fn the_management_api_is_a_url_or_a_socket() {
        let check =
            |text: &str, expected: Option<ManagementAddress>| assert_eq!(parse_management(text), expected, "{text}");
        check("unix:/run/a.sock", Some(ManagementAddress::Unix("/run/a.sock".into())));
        check("http://gateway:8080/", Some(ManagementAddress::Url("http://gateway:8080".into())));
        check("unix:a.sock", None);
        check("http://a/?b", None);
        check("gateway", None);
    }

    #[test]
    fn a_base_path_has_slashes_at_both_ends() {
        for (text, expected) in [
            ("/", true),
            ("/w/alice/", true),
            ("/w", false),
            ("w/", false),
            ("//", false),
            ("/../", false),
            ("/a b/", false),
        ] {
            assert_eq!(is_base_path(text), expected, "{text}");
        }
    }
}
