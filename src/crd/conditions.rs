//! Every condition type and every reason, with polarity and meaning; events carry the same reasons.
//!
//! Setting a condition is a function of values: the moment comes in from outside, and nothing changes when only it
//! would.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// True is good: what the spec asks for is so.
pub const READY: &str = "Ready";

/// True is abnormal: work is under way, or was not possible and will be tried again. Absent when nothing is to do.
pub const RECONCILING: &str = "Reconciling";

/// True is abnormal: nothing more happens until a person acts. Absent otherwise.
pub const STALLED: &str = "Stalled";

/// True is information: the template of an instance is newer than what it runs.
pub const UPDATE_AVAILABLE: &str = "UpdateAvailable";

/// True is information: the time of an instance is over soon. Absent otherwise.
pub const EXPIRING: &str = "Expiring";

/// The longest message in a condition or an event, in bytes.
pub const MAX_MESSAGE: usize = 1024;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Why a condition is as it is, why an event was sent, and the label of the metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word in the object.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// Everything the followed revision wants is so.
    Succeeded,
    /// Work is under way.
    Progressing,
    /// `spec.suspend` is true.
    Suspended,
    /// At least one workshop of the revision is not applied; the others are.
    WorkshopsFailed,
    /// The spec contradicts itself or names something that cannot be.
    InvalidSpec,
    /// The spec asks for something that this version or this place cannot do.
    Unsupported,
    /// A Secret that the spec names does not exist or lacks what it must hold.
    SecretUnusable,
    /// The repository could not be reached.
    SourceUnavailable,
    /// The repository refused the credentials.
    AuthenticationFailed,
    /// The repository has no such branch, tag, version or commit.
    RevisionNotFound,
    /// The repository cannot be read: it is empty, too large or broken.
    SourceInvalid,
    /// The registry could not be reached or refused.
    RegistryUnavailable,
    /// The Kubernetes API could not be reached or is overloaded.
    ApiUnavailable,
    /// The Kubernetes API refused for want of a right.
    Forbidden,
    /// The kinds of this product are not installed.
    KindsNotServed,
    /// The work took longer than the spec allows.
    TimedOut,
    /// A template of the same id belongs to another repository.
    OwnedByAnother,
    /// The revision would delete more than the budget allows.
    PruneBudgetExceeded,
    /// The plan waits for its hash in the annotation `workshop.platform/approve`.
    ApprovalRequired,
    /// Somebody else keeps changing an object that belongs to the repository.
    DriftFought,
    /// A followed tag names another commit than before.
    TagMoved,
    /// A workshop's files break a rule.
    InvalidContent,
    /// A command of a recipe failed.
    CommandFailed,
    /// Two workshops of a revision have one id.
    DuplicateWorkshop,
    /// Something outside, or what a step needs, failed for a workshop.
    Failed,
    /// The machine of the controller lacks something, such as space.
    LocalFailure,
    /// The template of an instance is not there, or no workspace can be made of it.
    TemplateUnusable,
    /// An instance sleeps because nobody used it.
    Idle,
    /// The time of an instance is over.
    Expired,
    /// The time of an instance is over soon.
    Expiring,
    /// A step did not start; the instance is back at the one before.
    StepFailed,
    /// A workspace ended by itself and is started again.
    Restarting,
    /// A workspace ended by itself too often: nothing is tried until somebody acts.
    CrashLooping,
    /// The template of an instance is newer than what it runs.
    NewerRevision,
    /// The namespace that an instance needs is there and is not its own.
    NamespaceTaken,
    /// The cluster that an instance's learner is to have does not start, or cannot be used.
    ClusterUnusable,
    /// An object was created.
    Created,
    /// An object was changed.
    Updated,
    /// An object was deleted.
    Deleted,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Cuts a message to what a condition takes, at a character, with a sign that something is missing.
#[must_use]
pub fn cut_message(message: &str) -> String {
    cut(message, MAX_MESSAGE)
}

fn cut(message: &str, most: usize) -> String {
    const MORE: &str = "…";
    if message.len() <= most {
        return message.to_owned();
    }
    let mut end = most - MORE.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", &message[..end])
}

/// Sets the condition `kind`; keeps the moment of the last transition where the status stays the same.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    is_true: bool,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if is_true { "True" } else { "False" };
    // Whole seconds: the API server keeps no more, and a finer value would look like a change.
    let mut since = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    if let Some(old) = get(conditions, kind)
        && old.status == status
    {
        since = old.last_transition_time.clone();
    }
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: cut_message(message),
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// Removes the condition `kind`.
pub fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.type_ != kind);
}

/// The condition `kind`, where it is set.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    #[test]
    fn a_condition_keeps_its_moment_until_its_status_changes() {
        let mut conditions = Vec::new();
        set(&mut conditions, READY, true, Reason::Succeeded, "one", Some(1), at(10));
        set(&mut conditions, READY, true, Reason::Succeeded, "two", Some(1), at(20));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, Time(at(10)));
        assert_eq!(conditions[0].message, "two");
        set(&mut conditions, READY, false, Reason::WorkshopsFailed, "three", Some(1), at(30));
        assert_eq!(conditions[0].last_transition_time, Time(at(30)));
        remove(&mut conditions, READY);
        assert!(get(&conditions, READY).is_none());
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let message = cut_message(&"ä".repeat(2000));
        assert!(message.len() <= MAX_MESSAGE && message.ends_with('…'));
        assert_eq!(cut_message("short"), "short");
    }

    #[test]
    fn reasons_have_the_form_that_conditions_and_events_ask_for() {
        for reason in Reason::ALL {
            let text = reason.as_str();
            assert!(text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        }
    }
}
