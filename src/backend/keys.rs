//! The key that verifies tokens: the one that the environment names, or one of the backend's own.
//!
//! A backend that nobody runs signs for its owner, who proves to be it by running the program in the container.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use crate::domain::token::{Claims, Role, SigningKey, TokenError, VerifyKey};

use super::app::seconds;
use super::config::Config;

/// How long a token of the owner is valid, in seconds.
const VALIDITY: i64 = 12 * 3600;
const FILE: &str = "token-key.pk8";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system refused.
    #[error("failed to keep the key of tokens in \"{}\"", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    /// The file is no key.
    #[error("\"{}\" is no key", .0.display())]
    Broken(PathBuf, #[source] TokenError),
    /// Somebody else signs.
    #[error("WORKSHOP_VERIFY_KEY is set: tokens come from whoever runs this workspace, e.g. `workshop workspace open`")]
    Foreign,
    /// A role that there is none of.
    #[error("there is no role \"{0}\"; write `learner` or `instructor`")]
    Role(String),
}

/// The key that verifies tokens; makes one where the environment names none.
pub fn verify_key(config: &Config) -> Result<VerifyKey, KeyError> {
    match config.verify_key {
        Some(key) => Ok(key),
        None => own(config).map(|key| key.verify_key()),
    }
}

fn own(config: &Config) -> Result<SigningKey, KeyError> {
    let path = config.state().join(FILE);
    let io = |error| KeyError::Io(path.clone(), error);
    match std::fs::read(&path) {
        Ok(bytes) => return SigningKey::from_pkcs8(&bytes).map_err(|error| KeyError::Broken(path.clone(), error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(config.state()).map_err(io)?;
    let key = SigningKey::generate();
    // Written whole under another name; the first of two that do so at once wins.
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let written =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
            file.write_all(key.to_pkcs8())?;
            std::fs::hard_link(&new, &path)
        });
    let _ = std::fs::remove_file(&new);
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => own(config),
        Err(error) => Err(io(error)),
        Ok(()) => Ok(key),
    }
}

/// An address that lets its owner in, for who runs the container by hand.
pub fn address(config: &Config, role: Option<&str>) -> Result<String, KeyError> {
    let role = match role {
        None | Some("learner") => Role::Learner,
        Some("instructor") => Role::Instructor,
        Some(other) => return Err(KeyError::Role(other.to_owned())),
    };
    if config.verify_key.is_some() {
        return Err(KeyError::Foreign);
    }
    let now = seconds();
    let claims = Claims {
        aud: config.instance.clone(),
        sub: "owner".to_owned(),
        role,
        generation: config.generation,
        iat: now,
        exp: now + VALIDITY,
    };
    // In the fragment, which browsers send to nobody.
    Ok(format!("http://localhost:7681{}#token={}", config.base_path, own(config)?.sign(&claims)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(root: &std::path::Path, key: Option<&str>) -> Config {
        Config::parse(|name| match name {
            "WORKSHOP_ROOT" => root.to_str().map(str::to_owned),
            "WORKSHOP_VERIFY_KEY" => key.map(str::to_owned),
            _ => None,
        })
        .unwrap()
    }

    #[test]
    fn a_backend_alone_signs_with_a_key_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path(), None);
        let key = verify_key(&config).unwrap();
        assert_eq!(verify_key(&config).unwrap(), key);
        let mode = config.state().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let address = address(&config, Some("instructor")).unwrap();
        let token = address.strip_prefix("http://localhost:7681/#token=").unwrap();
        let claims = key.verify(token, "local", 0, seconds()).unwrap();
        assert_eq!((claims.role, claims.sub.as_str()), (Role::Instructor, "owner"));
        assert!(matches!(super::address(&config, Some("workspace")), Err(KeyError::Role(_))));
    }

    #[test]
    fn a_backend_that_somebody_runs_signs_nothing() {
        let root = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().verify_key();
        let config = config(root.path(), Some(&key.to_string()));
        assert_eq!(verify_key(&config).unwrap(), key);
        assert!(matches!(address(&config, None), Err(KeyError::Foreign)));
        assert!(!config.state().exists());
    }
}
