//! What a registry's refusal means, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use oci_client::errors::{OciDistributionError, OciErrorCode};

use super::credentials::CredentialsError;
use crate::domain::digest::Digest;

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No reference.
    #[error("\"{text}\" is no image reference: {reason}")]
    Reference {
        /// The refused text.
        text: String,
        /// Why.
        reason: String,
    },
    /// Credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The client cannot be set up.
    #[error("cannot set up the client for the registry \"{registry}\"")]
    Client {
        /// The registry.
        registry: String,
        /// The reason.
        source: Box<OciDistributionError>,
    },
    /// No connection.
    #[error(
        "cannot reach the registry \"{registry}\" for \"{reference}\"; check the name, the network and, for a registry without TLS, `--insecure`"
    )]
    Unreachable {
        /// The registry.
        registry: String,
        /// What was wanted.
        reference: String,
        /// The reason.
        source: reqwest::Error,
    },
    /// 401.
    #[error(
        "the registry \"{registry}\" wants a login for \"{reference}\" (401): run `docker login {registry}`, or name a pull secret that has it"
    )]
    Unauthorized {
        /// The registry.
        registry: String,
        /// What was wanted.
        reference: String,
    },
    /// 403.
    #[error(
        "the registry \"{registry}\" does not allow this login to {attempt} \"{reference}\" (403): use one that may"
    )]
    Forbidden {
        /// The registry.
        registry: String,
        /// What was wanted.
        reference: String,
        /// Read or push.
        attempt: &'static str,
    },
    /// 404.
    #[error("\"{reference}\" does not exist in its registry (404): check name and tag")]
    NotFound {
        /// What was wanted.
        reference: String,
    },
    /// 413.
    #[error(
        "the registry \"{registry}\" refuses \"{reference}\" as too large (413): raise the body limit of the registry or of the proxy before it"
    )]
    TooLarge {
        /// The registry.
        registry: String,
        /// What was pushed.
        reference: String,
    },
    /// 429.
    #[error(
        "the registry \"{registry}\" limits requests and refused \"{reference}\" (429): log in for a higher limit, or try again later"
    )]
    TooManyRequests {
        /// The registry.
        registry: String,
        /// What was wanted.
        reference: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// 5xx.
    #[error(
        "the registry \"{registry}\" failed to {attempt} \"{reference}\" ({status}): its own log says why; try again later"
    )]
    Server {
        /// The registry.
        registry: String,
        /// What was wanted.
        reference: String,
        /// Read or push.
        attempt: &'static str,
        /// The status.
        status: u16,
    },
    /// Any other refusal.
    #[error("the registry \"{registry}\" refused to {attempt} \"{reference}\" ({status}): {message}")]
    Refused {
        /// The registry.
        registry: String,
        /// What was wanted.
        reference: String,
        /// Read or push.
        attempt: &'static str,
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// What came is not what was asked for.
    #[error("the registry \"{registry}\" sent something else than \"{reference}\": {reason}")]
    Content {
        /// The registry.
        registry: String,
        /// What was wanted.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// More than the limit came.
    #[error("\"{reference}\" is larger than {max} bytes")]
    Oversized {
        /// What was wanted.
        reference: String,
        /// The limit.
        max: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot use the file \"{path}\" for the blob {digest}")]
    File {
        /// The file.
        path: PathBuf,
        /// The blob.
        digest: Digest,
        /// The reason.
        source: std::io::Error,
    },
}

/// What was attempted, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub registry: &'a str,
    pub reference: &'a str,
    pub verb: &'static str,
}

impl Attempt<'_> {
    /// The error for a status that is no success.
    pub(super) fn status(self, status: u16, message: &str, retry_after: Option<Duration>) -> RegistryError {
        let (registry, reference, attempt) = (self.registry.to_owned(), self.reference.to_owned(), self.verb);
        match status {
            401 => RegistryError::Unauthorized { registry, reference },
            403 => RegistryError::Forbidden { registry, reference, attempt },
            404 => RegistryError::NotFound { reference },
            413 => RegistryError::TooLarge { registry, reference },
            429 => RegistryError::TooManyRequests { registry, reference, retry_after },
            500.. => RegistryError::Server { registry, reference, attempt, status },
            _ => {
                let message = message.chars().take(300).collect();
                RegistryError::Refused { registry, reference, attempt, status, message }
            }
        }
    }

    pub(super) fn content(self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Content {
            registry: self.registry.to_owned(),
            reference: self.reference.to_owned(),
            reason: reason.into(),
        }
    }

    /// The error of a body that broke off.
    pub(super) fn stream(self, error: std::io::Error) -> RegistryError {
        match error.downcast::<reqwest::Error>() {
            Ok(error) => self.transport(error),
            Err(error) => self.content(error.to_string()),
        }
    }

    pub(super) fn transport(self, source: reqwest::Error) -> RegistryError {
        match source.status() {
            Some(status) => self.status(status.as_u16(), "", None),
            None => RegistryError::Unreachable {
                registry: self.registry.to_owned(),
                reference: self.reference.to_owned(),
                source,
            },
        }
    }

    /// The error that one of the client library means.
    pub(super) fn library(self, error: OciDistributionError) -> RegistryError {
        use OciDistributionError as Error;
        match error {
            Error::RequestError(source) => self.transport(source),
            Error::UnauthorizedError { .. } | Error::AuthenticationFailure(_) => self.status(401, "", None),
            Error::ServerError { code, message, .. } => self.status(code, &message, None),
            Error::RegistryError { envelope, .. } => {
                let first = envelope.errors.first();
                let status = match first.map(|error| &error.code) {
                    Some(OciErrorCode::Unauthorized) => 401,
                    Some(OciErrorCode::Denied) => 403,
                    Some(
                        OciErrorCode::BlobUnknown
                        | OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound,
                    ) => 404,
                    Some(OciErrorCode::Toomanyrequests) => 429,
                    _ => 400,
                };
                self.status(status, first.map_or("", |error| error.message.as_str()), None)
            }
            other => self.content(other.to_string()),
        }
    }
}

impl RegistryError {
    /// True where the same request may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TooManyRequests { .. } | Self::Server { .. })
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
