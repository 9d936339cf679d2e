//! Who we are at a registry: Docker's configuration of the user, pull secrets given as values, or nobody.
//!
//! Secrets are never printed; helpers are only run where the user's own configuration names them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;
use serde_json::{Value, json};

/// Where credentials come from; the first source that knows a registry wins.
#[derive(Clone, Default)]
pub struct Credentials {
    given: BTreeMap<String, (String, String)>,
    /// Docker configurations reduced to their `auths`.
    secrets: Vec<Vec<u8>>,
    docker: bool,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The pull secret is not what `kubectl create secret docker-registry` makes.
    #[error("the pull secret is no Docker configuration with \"auths\"")]
    PullSecret,
    /// A credential helper or the configuration failed.
    #[error("cannot read the credentials for \"{registry}\" from Docker's configuration: {reason}")]
    Docker {
        /// The registry.
        registry: String,
        /// What went wrong.
        reason: String,
    },
}

impl Credentials {
    /// Nobody, everywhere.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The user's own, from `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
    #[must_use]
    pub fn docker() -> Self {
        Self { docker: true, ..Self::default() }
    }

    /// Adds a Kubernetes pull secret (`.dockerconfigjson`). Helpers that it names are ignored: they would run a program
    /// here at the word of whoever wrote the secret.
    pub fn with_pull_secret(mut self, json: &[u8]) -> Result<Self, CredentialsError> {
        let config: Value = serde_json::from_slice(json).map_err(|_| CredentialsError::PullSecret)?;
        let auths = config.get("auths").filter(|auths| auths.is_object()).ok_or(CredentialsError::PullSecret)?;
        self.secrets.push(json!({ "auths": auths }).to_string().into_bytes());
        Ok(self)
    }

    /// Adds a name and password for one registry.
    #[must_use]
    pub fn with_password(mut self, registry: &str, name: &str, password: &str) -> Self {
        self.given.insert(registry.to_owned(), (name.to_owned(), password.to_owned()));
        self
    }

    /// Who we are at `registry`; may run the user's credential helper, so it blocks.
    pub(super) fn find(&self, registry: &str) -> Result<RegistryAuth, CredentialsError> {
        if let Some((name, password)) = self.given.get(registry) {
            return Ok(RegistryAuth::Basic(name.clone(), password.clone()));
        }
        let error = |error: CredentialRetrievalError| CredentialsError::Docker {
            registry: registry.to_owned(),
            reason: error.to_string(),
        };
        for secret in &self.secrets {
            match docker_credential::get_credential_from_reader(Cursor::new(secret), registry) {
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                found => return found.map(convert).map_err(error),
            }
        }
        if self.docker {
            use CredentialRetrievalError as Error;
            // Docker Hub is under its old address in every configuration, and helpers know only that.
            let server = if registry == "index.docker.io" { "https://index.docker.io/v1/" } else { registry };
            match docker_credential::get_credential(server) {
                Ok(found) => return Ok(convert(found)),
                Err(Error::NoCredentialConfigured | Error::ConfigNotFound) => {}
                Err(Error::ConfigReadError) if !docker_config_exists() => {}
                // A helper says "not found" by failing; anonymous access may do.
                Err(failure @ Error::HelperFailure { .. }) => {
                    tracing::debug!(registry, error = %failure, "the credential helper knows nobody");
                }
                Err(failure) => return Err(error(failure)),
            }
        }
        Ok(RegistryAuth::Anonymous)
    }
}

fn docker_config_exists() -> bool {
    std::env::var_os("DOCKER_CONFIG")
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".docker")))
        .is_some_and(|dir| dir.join("config.json").exists())
}

fn convert(credential: DockerCredential) -> RegistryAuth {
    match credential {
        DockerCredential::UsernamePassword(name, password) => RegistryAuth::Basic(name, password),
        DockerCredential::IdentityToken(token) => RegistryAuth::Bearer(token),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("given", &self.given.keys().collect::<Vec<_>>())
            .field("secrets", &self.secrets.len())
            .field("docker", &self.docker)
            .finish()
    }
}
