//! What can go wrong with an operation on instances, in words for people, with the class that decides exit codes and
//! HTTP statuses.

use crate::adapters::artifact::ArtifactError;
use crate::adapters::{cluster, store};

/// Why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is called so.
    #[error("there is no {what} \"{name}\"")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// What was asked for cannot be.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// What was asked for may not be now.
    #[error("{message}")]
    Refused {
        /// For programs, CamelCase.
        code: &'static str,
        /// Why not.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// It cannot be done now; the same again may succeed.
    #[error("{message}")]
    Unavailable {
        /// For programs, CamelCase.
        code: &'static str,
        /// Why not.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The cluster refused or did not answer.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// An object is not of the form that this program writes.
    #[error("failed to read the instance \"{name}\"")]
    Unreadable {
        /// The object.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The artifact of an instance cannot be read.
    #[error("failed to read the artifact {digest}")]
    Artifact {
        /// Its digest.
        digest: String,
        /// Why.
        source: std::io::Error,
    },
    /// The artifact of an instance cannot be taken.
    #[error(transparent)]
    Content(#[from] ArtifactError),
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing is called so: exit 1, HTTP 404.
    NotFound,
    /// Wrong input: exit 2, HTTP 400.
    Invalid,
    /// Not now or not by the asker: exit 4, HTTP 409 or 403.
    Refused,
    /// Something outside failed: exit 3, HTTP 500.
    Outside,
    /// Something outside does not answer now, the same again may succeed: exit 3, HTTP 503.
    Unavailable,
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::NotFound,
            Self::Invalid { .. } => Class::Invalid,
            Self::Refused { .. } => Class::Refused,
            Self::Unavailable { .. } => Class::Unavailable,
            Self::Cluster(cluster::Error::Invalid { .. }) => Class::Invalid,
            Self::Cluster(error) if error.is_transient() => Class::Unavailable,
            Self::Cluster(_) => Class::Outside,
            Self::Store(_) | Self::Unreadable { .. } | Self::Artifact { .. } | Self::Content(_) => Class::Outside,
        }
    }

    /// For programs, CamelCase: `NoSuchStep`, `StaleEpoch`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { what: "step", .. } => "NoSuchStep",
            Self::NotFound { what: "workshop", .. } => "NoSuchWorkshop",
            Self::NotFound { what: "artifact", .. } => "NoSuchArtifact",
            Self::NotFound { what: "namespace", .. } => "NoSuchNamespace",
            Self::NotFound { .. } => "NoSuchInstance",
            Self::Invalid { .. } => "Invalid",
            Self::Refused { code, .. } | Self::Unavailable { code, .. } => code,
            Self::Cluster(cluster::Error::Invalid { .. }) => "Invalid",
            Self::Cluster(cluster::Error::Forbidden { .. }) => "NotAllowed",
            Self::Cluster(error) if error.is_transient() => "ClusterUnavailable",
            Self::Cluster(_) => "Failed",
            Self::Store(_) | Self::Unreadable { .. } | Self::Artifact { .. } | Self::Content(_) => "Failed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::NotFound { help, .. }
            | Self::Invalid { help, .. }
            | Self::Refused { help, .. }
            | Self::Unavailable { help, .. } => help.as_deref(),
            Self::Cluster(error) if error.is_transient() => Some("ask again"),
            Self::Cluster(_) | Self::Store(_) | Self::Unreadable { .. } | Self::Artifact { .. } | Self::Content(_) => {
                None
            }
        }
    }

    pub(super) fn no_instance(name: &str) -> Self {
        let help = Some("`workshop workspace list` shows those there are".to_owned());
        Self::NotFound { what: "workspace", name: name.to_owned(), help }
    }

    pub(super) fn no_step(step: &str, known: &[String]) -> Self {
        let help = Some(format!("its steps are: {}", known.join(", ")));
        Self::NotFound { what: "step", name: step.to_owned(), help }
    }

    pub(super) fn refused(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into(), help: Some(help.into()) }
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Unavailable { code, message: message.into(), help: Some(help.into()) }
    }

    pub(super) fn invalid(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), help: Some(help.into()) }
    }
}
