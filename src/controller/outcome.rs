//! What follows from how a reconciliation ended: the only place that decides conditions, reasons and the next try.
//!
//! Pure: failures come in as values, delays and conditions go out.

use std::time::Duration;

use crate::crd::conditions::Reason;

/// The first delay after a failure that may pass by itself.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest delay after such failures, unless the interval is longer.
const LONGEST_RETRY: Duration = Duration::from_secs(15 * 60);

/// Who can end a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The author of the WorkshopRepository: nothing is tried before it changes.
    Spec,
    /// A person elsewhere, in the repository or at its server: looked at again at each interval.
    Person,
    /// It may pass by itself: tried again soon, then less and less often.
    Outside,
}

/// A failure of a reconciliation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) class: Class,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Problem {
    /// A failure that somebody has to mend in the spec.
    pub(super) fn spec(reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::Spec, reason, message: message.into() }
    }

    /// A failure that somebody has to mend elsewhere.
    pub(super) fn person(reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::Person, reason, message: message.into() }
    }

    /// A failure that may pass.
    pub(super) fn outside(reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::Outside, reason, message: message.into() }
    }
}

/// The three conditions that a reconciliation leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) ready: bool,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// It will be tried again without anybody doing anything.
    pub(super) reconciling: bool,
    /// It waits for a person.
    pub(super) stalled: bool,
}

impl Conditions {
    /// The conditions after success.
    pub(super) fn ready(message: impl Into<String>) -> Self {
        Self { ready: true, reason: Reason::Succeeded, message: message.into(), reconciling: false, stalled: false }
    }

    /// The conditions that a failure leads to.
    pub(super) fn of(problem: &Problem) -> Self {
        let reconciling = problem.class == Class::Outside;
        Self {
            ready: false,
            reason: problem.reason,
            message: problem.message.clone(),
            reconciling,
            stalled: !reconciling,
        }
    }
}

/// The intervals of a repository's spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intervals {
    pub(super) interval: Duration,
    pub(super) retry: Option<Duration>,
}

/// How long to wait before the next look at the repository; none until something wakes us.
///
/// `failures` counts those in a row, this one included; `chance` is from 0 to 1 and spreads the work of many
/// repositories, which would else all be looked at in the same instant after each start.
pub(super) fn next_look(
    class: Option<Class>,
    failures: u32,
    intervals: Intervals,
    is_pinned: bool,
    chance: f64,
) -> Option<Duration> {
    let base = match class {
        Some(Class::Spec) => return None,
        // A commit never changes: once it is brought in there is nothing to ask for.
        None if is_pinned => return None,
        None | Some(Class::Person) => intervals.interval,
        Some(Class::Outside) => match intervals.retry {
            Some(retry) => retry,
            None => {
                let longest = intervals.interval.max(LONGEST_RETRY);
                FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest)
            }
        },
    };
    // Up to a tenth earlier or later, never below the second that the spec allows as the least.
    let factor = 0.9 + 0.2 * chance.clamp(0.0, 1.0);
    Some(base.mul_f64(factor).max(Duration::from_millis(900)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVALS: Intervals = Intervals { interval: Duration::from_secs(60), retry: None };

    fn check(class: Option<Class>, failures: u32, intervals: Intervals, pinned: bool, expected: Option<u64>) {
        let delay = next_look(class, failures, intervals, pinned, 0.5);
        assert_eq!(delay.map(|delay| delay.as_secs_f64().round() as u64), expected, "{class:?} {failures}");
    }

    #[test]
    fn the_class_of_a_failure_decides_the_next_look() {
        check(None, 0, INTERVALS, false, Some(60));
        check(None, 0, INTERVALS, true, None);
        check(Some(Class::Spec), 1, INTERVALS, false, None);
        check(Some(Class::Person), 5, INTERVALS, false, Some(60));
        for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (8, 128), (30, 900)] {
            check(Some(Class::Outside), failures, INTERVALS, true, Some(seconds));
        }
        let fixed = Intervals { retry: Some(Duration::from_secs(7)), ..INTERVALS };
        check(Some(Class::Outside), 9, fixed, false, Some(7));
    }

    #[test]
    fn looks_are_spread_by_a_tenth() {
        let at = |chance| next_look(None, 0, INTERVALS, false, chance).expect("a delay").as_secs_f64();
        assert!((at(0.0) - 54.0).abs() < 0.01 && (at(1.0) - 66.0).abs() < 0.01);
    }

    #[test]
    fn a_failure_is_either_tried_again_or_waits_for_a_person() {
        for class in [Class::Spec, Class::Person, Class::Outside] {
            let conditions = Conditions::of(&Problem { class, reason: Reason::InvalidSpec, message: String::new() });
            assert!(!conditions.ready && conditions.reconciling != conditions.stalled);
        }
    }
}
