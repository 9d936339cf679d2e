//! What follows from how a look at an instance ended: the only place that decides reason, condition, event and next try.
//!
//! Pure: failures come in as values, delays and conditions go out.

use std::time::Duration;

use crate::adapters::cluster;
use crate::crd::conditions::Reason;
use crate::domain::chain;

/// Who can end a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It ends by itself, soon, and needs no alarm.
    Waiting,
    /// It may pass by itself, or somebody gives back what is missing: tried again less and less often.
    Outside,
    /// Somebody has to change something; looked at again when it changes, and rarely besides.
    Person,
}

/// A failure of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub class: Class,
    pub reason: Reason,
    pub message: String,
}

impl Problem {
    pub fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::Waiting, reason, message: message.into() }
    }

    pub fn outside(reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::Outside, reason, message: message.into() }
    }

    pub fn person(reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::Person, reason, message: message.into() }
    }

    /// Whether somebody should be told besides by the condition.
    pub fn is_alarming(&self) -> bool {
        self.class != Class::Waiting && self.reason != Reason::ApiUnavailable
    }

    /// What a failing API server means.
    pub fn of_cluster(error: &cluster::Error) -> Self {
        use cluster::Error as At;
        let message = chain::line(error);
        match error {
            At::Forbidden { .. } | At::Unauthenticated { .. } => Self::outside(Reason::Forbidden, message),
            At::NotServed { .. } => Self::outside(Reason::KindsNotServed, message),
            At::Invalid { .. } => Self::person(Reason::InvalidSpec, message),
            // A namespace that goes away between two requests; the next look sees it.
            At::Missing { .. } | At::Stale { .. } => Self::waiting(Reason::Progressing, message),
            _ => Self::outside(Reason::ApiUnavailable, message),
        }
    }
}

/// The first pause after a failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause after one that may pass.
const LONGEST: Duration = Duration::from_secs(30);
/// The pause after one that a person has to mend.
const PERSON: Duration = Duration::from_secs(60);

/// How long to wait after `failures` in a row; `chance` from 0 to 1 spreads many instances.
pub(super) fn pause(class: Class, failures: u32, chance: f64) -> Duration {
    let base = match class {
        Class::Waiting => FIRST.saturating_mul(1 << failures.saturating_sub(1).min(3)),
        Class::Outside => FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST),
        Class::Person => PERSON,
    };
    base.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(class: Class, failures: u32, millis: u128) {
        assert_eq!(pause(class, failures, 0.5).as_millis(), millis, "{class:?} {failures}");
    }

    #[test]
    fn the_class_of_a_failure_decides_the_next_try() {
        check(Class::Waiting, 1, 500);
        check(Class::Waiting, 90, 4_000);
        check(Class::Outside, 1, 500);
        check(Class::Outside, 3, 2_000);
        check(Class::Outside, 90, 30_000);
        check(Class::Person, 1, 60_000);
        assert!(pause(Class::Person, 1, 0.0) < pause(Class::Person, 1, 1.0));
    }

    #[test]
    fn a_right_that_is_missing_is_told_and_a_server_that_is_away_is_not() {
        let forbidden = cluster::Error::Forbidden { attempt: "apply".into(), missing: "x".into() };
        let problem = Problem::of_cluster(&forbidden);
        assert_eq!((problem.class, problem.reason, problem.is_alarming()), (Class::Outside, Reason::Forbidden, true));
        let away = cluster::Error::Unavailable { attempt: "apply".into(), code: 503, message: String::new() };
        assert!(!Problem::of_cluster(&away).is_alarming());
        let invalid = cluster::Error::Invalid { attempt: "apply".into(), causes: Vec::new() };
        assert_eq!(Problem::of_cluster(&invalid).class, Class::Person);
    }
}
