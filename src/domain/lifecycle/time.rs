//! When an instance's time is over, when that is told before, and how it can be extended.
//!
//! Spans and limits of the whole life are here and nowhere else.

use std::time::Duration;

use jiff::Timestamp;

/// How long a container may take to answer.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// More failed starts than this within [`RESTART_WINDOW`] are not tried again.
pub const MAX_RESTARTS: u32 = 5;

/// Failures further apart than this do not add up.
pub(super) const RESTART_WINDOW: Duration = Duration::from_secs(600);

/// The least warning before the end.
const LEAST_WARNING: Duration = Duration::from_secs(300);

/// The longest pause before another start.
const LONGEST_BACK_OFF: u64 = 30;

/// What a learner gets at once, at most.
const LEARNERS_SHARE: Duration = Duration::from_secs(3600);

/// So many times its time to live an instance may last by its learner's own extending.
const LEARNERS_LIMIT: u32 = 3;

/// How long before the end it is told: a tenth of its time, at least five minutes.
pub(super) fn warning_span(ttl: Duration) -> Duration {
    (ttl / 10).max(LEAST_WARNING)
}

/// The least time between telling of the end and the end, whatever the clock or somebody's edit says.
pub(super) fn notice_span(ttl: Duration) -> Duration {
    LEAST_WARNING.min(ttl)
}

/// Whether the end is near enough to be told.
#[must_use]
pub fn is_warning(expires_at: Option<Timestamp>, ttl: Duration, hold: bool, now: Timestamp) -> bool {
    !hold && expires_at.is_some_and(|end| later(now, warning_span(ttl)) >= end)
}

/// The pause before the start after `failures` in a row: 0, 1, 2, 4 … 30 s.
#[must_use]
pub fn back_off(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1_u64.checked_shl(more - 2).unwrap_or(u64::MAX).min(LONGEST_BACK_OFF)),
    }
}

/// `moment` and `span` together; the end of time where that is beyond it.
pub(super) fn later(moment: Timestamp, span: Duration) -> Timestamp {
    moment.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// How far an instance can be extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// How much more is asked for; none: the lesser of an hour and its time to live.
    pub by: Option<Duration>,
    /// Asked by its learner, who has a limit: three times its time to live altogether.
    pub is_learner: bool,
}

/// The new end, or nothing where it cannot be extended.
#[must_use]
pub fn extension(
    asked: Extension,
    ttl: Duration,
    started_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let (started_at, expires_at) = (started_at?, expires_at?);
    let share = LEARNERS_SHARE.min(ttl);
    let by = asked.by.unwrap_or(share);
    if !asked.is_learner {
        return Some(later(expires_at.max(now), by));
    }
    let limit = later(started_at, ttl.saturating_mul(LEARNERS_LIMIT));
    // Less than a minute more is none.
    let end = later(expires_at.max(now), by.min(share)).min(limit);
    (end > later(expires_at, Duration::from_secs(59))).then_some(end)
}
