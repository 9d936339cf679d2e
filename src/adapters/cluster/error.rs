//! What can go wrong with a Kubernetes API server, told so that somebody can act on it.
//!
//! Turns the client library's errors into ours; what follows from one is decided by the caller.

use kube::core::Status;

/// A request to the API server that did not give what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable way to a cluster: kubeconfig, context or the pod's own account.
    #[error("failed to find a cluster to talk to: {reason}")]
    Configure {
        /// What was looked at and is missing.
        reason: String,
    },
    /// The server could not be reached or did not answer in time.
    #[error("failed to {attempt}: the API server cannot be reached")]
    Unreachable {
        /// What was attempted.
        attempt: String,
        /// What the network said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server is there but cannot answer now (429, 5xx).
    #[error("failed to {attempt}: the API server answered {code}: {message}")]
    Unavailable {
        /// What was attempted.
        attempt: String,
        /// The HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// Others own fields that the apply sets.
    #[error("failed to {attempt}: {} belongs to {}", fields.join(", "), managers.join(", "))]
    Conflict {
        /// What was attempted.
        attempt: String,
        /// The field managers that own the fields.
        managers: Vec<String>,
        /// The fields, as paths.
        fields: Vec<String>,
    },
    /// The object is not the one that was read: it was changed or replaced meanwhile.
    #[error("failed to {attempt}: the object was changed meanwhile")]
    Stale {
        /// What was attempted.
        attempt: String,
    },
    /// The user lacks a right.
    #[error("failed to {attempt}: not allowed: {missing}")]
    Forbidden {
        /// What was attempted.
        attempt: String,
        /// Who lacks which right, in the server's words.
        missing: String,
    },
    /// The user is unknown (401).
    #[error("failed to {attempt}: the API server does not accept the credentials")]
    Unauthenticated {
        /// What was attempted.
        attempt: String,
    },
    /// The kind is unknown to the server.
    #[error(
        "failed to {attempt}: the cluster does not know the kind, install it with `workshop crds | kubectl apply -f -`"
    )]
    NotServed {
        /// What was attempted.
        attempt: String,
    },
    /// A thing that the object needs is not there, e.g. its namespace.
    #[error("failed to {attempt}: {message}")]
    Missing {
        /// What was attempted.
        attempt: String,
        /// What is missing, in the server's words.
        message: String,
    },
    /// The server's rules refuse the object.
    #[error("failed to {attempt}: {}", describe(causes))]
    Invalid {
        /// What was attempted.
        attempt: String,
        /// Every rule that is broken.
        causes: Vec<Cause>,
    },
    /// Anything else the server refused.
    #[error("failed to {attempt}: the API server answered {code}: {message}")]
    Rejected {
        /// What was attempted.
        attempt: String,
        /// The HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The answer is not what this version understands.
    #[error("failed to {attempt}: the answer makes no sense")]
    Answer {
        /// What was attempted.
        attempt: String,
        /// How it is broken.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The field's path; empty for the whole object.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

fn describe(causes: &[Cause]) -> String {
    let texts: Vec<String> =
        causes
            .iter()
            .map(|cause| {
                if cause.field.is_empty() {
                    cause.message.clone()
                } else {
                    format!("{}: {}", cause.field, cause.message)
                }
            })
            .collect();
    texts.join("; ")
}

impl Error {
    /// True when the same request may succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Stale { .. })
    }

    /// Makes sense of what the client library says about `attempt`.
    pub(super) fn from_kube(attempt: &str, error: kube::Error) -> Self {
        let attempt = attempt.to_owned();
        match error {
            kube::Error::Api(status) => from_status(attempt, *status),
            kube::Error::SerdeError(source) => Self::Answer { attempt, source: Box::new(source) },
            kube::Error::FromUtf8(source) => Self::Answer { attempt, source: Box::new(source) },
            kube::Error::Auth(_) => Self::Unauthenticated { attempt },
            error => Self::Unreachable { attempt, source: Box::new(error) },
        }
    }

    /// The request took longer than it may.
    pub(super) fn timed_out(attempt: &str, limit: std::time::Duration) -> Self {
        Self::Unreachable {
            attempt: attempt.to_owned(),
            source: format!("no answer within {} s", limit.as_secs()).into(),
        }
    }
}

fn from_status(attempt: String, status: Status) -> Error {
    let message = status.message.clone();
    let (name, reported) = status.details.map(|details| (details.name, details.causes)).unwrap_or_default();
    match status.code {
        401 => Error::Unauthenticated { attempt },
        403 => Error::Forbidden { attempt, missing: missing_right(&message) },
        404 if name.is_empty() => Error::NotServed { attempt },
        404 => Error::Missing { attempt, message },
        409 => {
            let conflicts: Vec<_> = reported.iter().filter(|cause| cause.reason == "FieldManagerConflict").collect();
            if conflicts.is_empty() {
                return Error::Stale { attempt };
            }
            let mut managers: Vec<String> = conflicts.iter().map(|cause| manager(&cause.message)).collect();
            managers.sort();
            managers.dedup();
            let fields = conflicts.iter().map(|cause| cause.field.trim_start_matches('.').to_owned()).collect();
            Error::Conflict { attempt, managers, fields }
        }
        422 | 400 => {
            let mut causes: Vec<Cause> =
                reported.into_iter().map(|cause| Cause { field: cause.field, message: cause.message }).collect();
            if causes.is_empty() {
                causes.push(Cause { field: String::new(), message });
            }
            Error::Invalid { attempt, causes }
        }
        code @ (429 | 500..) => Error::Unavailable { attempt, code, message },
        code => Error::Rejected { attempt, code, message },
    }
}

/// `User "x" cannot list …` of `things.group is forbidden: User "x" cannot list …`.
fn missing_right(message: &str) -> String {
    message.split_once(" is forbidden: ").map_or(message, |(_, right)| right).to_owned()
}

/// The name in `conflict with "NAME" using …`.
fn manager(message: &str) -> String {
    message.split('"').nth(1).unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: serde_json::Value, expected: &str) {
        let status: Status = serde_json::from_value(status).expect("a status");
        let error = Error::from_kube("apply WorkspaceTemplate \"a\"", kube::Error::Api(Box::new(status)));
        assert_eq!(error.to_string(), format!("failed to apply WorkspaceTemplate \"a\": {expected}"));
    }

    #[test]
    fn each_answer_says_what_to_do_about_it() {
        check(
            json!({"code": 409, "reason": "Conflict", "details": {"name": "a", "causes": [
                {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using workshop.platform/v1alpha1", "field": ".spec.steps"},
                {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using workshop.platform/v1alpha1", "field": ".spec.artifact.size"},
            ]}}),
            "spec.steps, spec.artifact.size belongs to kubectl-edit",
        );
        check(json!({"code": 409, "reason": "Conflict"}), "the object was changed meanwhile");
        check(
            json!({"code": 403, "message": "workspacetemplates.workshop.platform \"a\" is forbidden: User \"x\" cannot patch resource \"workspacetemplates\" in API group \"workshop.platform\" at the cluster scope", "details": {"name": "a"}}),
            "not allowed: User \"x\" cannot patch resource \"workspacetemplates\" in API group \"workshop.platform\" at the cluster scope",
        );
        check(
            json!({"code": 404, "message": "404 page not found"}),
            "the cluster does not know the kind, install it with `workshop crds | kubectl apply -f -`",
        );
        check(
            json!({"code": 404, "message": "namespaces \"b\" not found", "details": {"name": "b", "kind": "namespaces"}}),
            "namespaces \"b\" not found",
        );
        check(
            json!({"code": 422, "message": "is invalid", "details": {"name": "a", "causes": [
                {"reason": "FieldValueInvalid", "message": "Invalid value: two steps have one id", "field": "spec.steps"},
            ]}}),
            "spec.steps: Invalid value: two steps have one id",
        );
        check(json!({"code": 503, "message": "storage is down"}), "the API server answered 503: storage is down");
        check(json!({"code": 401}), "the API server does not accept the credentials");
    }
}
