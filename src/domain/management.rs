//! What workspace and management API say to each other: `/management/v1/instances/{uid}/…`.
//!
//! Wire types only, one for each body. Who answers them is the operator or the local gateway; the client is the
//! backend's.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::progress::StepProgress;

/// Where the management API begins.
pub const BASE: &str = "/management/v1";
/// The longest wait for a change, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 25;
/// The most entries of custom state.
pub const MAX_CUSTOM_ENTRIES: usize = 64;
/// The longest value of custom state, in bytes.
pub const MAX_CUSTOM_VALUE: usize = 4096;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Phase {
    /// Nothing was done for it yet.
    #[default]
    Pending,
    /// Its workspace is being made.
    Provisioning,
    /// Its workspace answers.
    Running,
    /// It goes to another step, or starts its step anew.
    Transitioning,
    /// It sleeps; access wakes it.
    Suspended,
    /// Its message says why.
    Failed,
    /// It is being taken away.
    Terminating,
}

/// An instance, as its workspace may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its uid: the audience of all tokens.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// The workshop's id.
    pub workshop: String,
    /// Opaque; differs after every change of what is here.
    pub version: String,
    /// The step that it is in, or goes to.
    pub step: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// When its workspace was first started, RFC 3339.
    pub started_at: Option<String>,
    /// When its time is over, RFC 3339.
    pub expires_at: Option<String>,
    /// True shortly before that.
    pub warning: bool,
    /// True when its time can be extended now.
    pub can_extend: bool,
    /// The artifact that it is pinned to.
    pub artifact: PinnedArtifact,
    /// What is wrong or going on, for people.
    pub message: Option<String>,
}

/// An artifact by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinnedArtifact {
    /// `sha256:` of the file's bytes.
    pub digest: String,
    /// The file's size in bytes.
    pub size: u64,
}

/// Progress as it is kept beside the instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// The start of a backend that it comes from.
    pub epoch: u64,
    /// Counts the snapshots of one epoch.
    pub sequence: u64,
    /// One row for each step that was ever entered.
    pub steps: Vec<StepProgress>,
}

/// Entries of custom state, by key.
pub type CustomState = std::collections::BTreeMap<String, String>;

/// What a starting backend is told; older epochs are refused from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The epoch of this backend.
    pub epoch: u64,
    /// The instance.
    pub instance: Instance,
    /// Its progress so far.
    pub progress: Progress,
    /// Answers and notes so far.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub custom_state: CustomState,
}

/// All progress of a workspace; takes the place of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The epoch that the session gave.
    pub epoch: u64,
    /// Counts up with each snapshot of the epoch; a lower one than stored is refused as stale.
    pub sequence: u64,
    /// One row for each step that was ever entered.
    pub steps: Vec<StepProgress>,
    /// Answers and notes.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub custom_state: CustomState,
}

/// Asks for another step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepRequest {
    /// The step to go to.
    pub step: String,
    /// The epoch that the session gave.
    pub epoch: u64,
}

/// Asks for the current step anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResetRequest {
    /// The epoch that the session gave.
    pub epoch: u64,
}

/// Says that the workspace is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Activity {
    /// The last use, RFC 3339.
    pub at: String,
}

/// Asks for more time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExtendRequest {
    /// How much more; absent: as much as the policy gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// The new end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Extended {
    /// RFC 3339.
    pub expires_at: Option<String>,
}

/// The body of every answer that is not a success, of this API and of the workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs, CamelCase, e.g. `StaleEpoch`.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What is still to be done, where checks do not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Vec<String>>,
}

impl ErrorBody {
    /// An error with a code and a message.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { error: ErrorDetail { code: code.to_owned(), message: message.into(), help: None, missing: None } }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.error.help = Some(help.into());
        self
    }
}

/// Whether `key` may name an entry of custom state: `[a-z0-9][a-z0-9._-]{0,62}`.
#[must_use]
pub fn is_custom_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    matches!(key.as_bytes(), [first, rest @ ..] if rest.len() <= 62 && plain(*first)
        && rest.iter().all(|&byte| plain(byte) || b"._-".contains(&byte)))
}

/// Whether `state` is within the limits of custom state.
#[must_use]
pub fn is_within_limits(state: &CustomState) -> bool {
    state.len() <= MAX_CUSTOM_ENTRIES
        && state.iter().all(|(key, value)| is_custom_key(key) && value.len() <= MAX_CUSTOM_VALUE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::progress::Status;

    #[test]
    fn bodies_are_as_they_are_documented() {
        let row = StepProgress {
            step: "one".into(),
            status: Status::Completed,
            started_at: Some("2026-01-01T00:00:00Z".into()),
            completed_at: None,
            skipped: false,
        };
        let snapshot = Snapshot { epoch: 3, sequence: 7, steps: vec![row], custom_state: CustomState::new() };
        let expected = json!({
            "epoch": 3, "sequence": 7, "customState": {},
            "steps": [{
                "step": "one", "status": "completed", "startedAt": "2026-01-01T00:00:00Z", "completedAt": null,
                "skipped": false,
            }],
        });
        assert_eq!(serde_json::to_value(&snapshot).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Snapshot>(expected).unwrap(), snapshot);
        let error = ErrorBody::new("StaleEpoch", "another backend has taken over");
        let expected = json!({"error": {"code": "StaleEpoch", "message": "another backend has taken over"}});
        assert_eq!(serde_json::to_value(error).unwrap(), expected);
    }

    #[test]
    fn keys_of_custom_state_are_plain_names() {
        for key in ["a", "notes", "0", "quiz.1_a-b", &"a".repeat(63)] {
            assert!(is_custom_key(key), "{key}");
        }
        for key in ["", "A", ".a", "-a", "a b", "a:b", "é", &"a".repeat(64)] {
            assert!(!is_custom_key(key), "{key}");
        }
        let of = |value: usize| CustomState::from([("a".to_owned(), "x".repeat(value))]);
        assert!(is_within_limits(&of(MAX_CUSTOM_VALUE)));
        assert!(!is_within_limits(&of(MAX_CUSTOM_VALUE + 1)));
    }
}
