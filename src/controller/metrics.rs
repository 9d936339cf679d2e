//! What the controller counts, as Prometheus text. Labels are words of fixed lists, never names of objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::crd::conditions::Reason;

/// Upper bounds of the durations that are told apart, in seconds.
const BOUNDS: [f64; 8] = [0.01, 0.05, 0.1, 0.3, 1.0, 5.0, 30.0, 120.0];

#[derive(Debug, Default)]
pub(super) struct Metrics {
    leading: AtomicBool,
    ready: AtomicBool,
    repositories: AtomicU64,
    drifts: AtomicU64,
    syncs: Mutex<Syncs>,
}

#[derive(Debug, Default)]
struct Syncs {
    results: BTreeMap<&'static str, u64>,
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    pub(super) fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::Relaxed);
        if !leading {
            self.set_ready(false);
        }
    }

    pub(super) fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Relaxed)
    }

    /// Ready means: the repositories that exist are known.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(super) fn set_repositories(&self, count: usize) {
        self.repositories.store(count as u64, Ordering::Relaxed);
    }

    pub(super) fn count_drift(&self) {
        self.drifts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a sync that ended with `reason`.
    pub(super) fn count_sync(&self, reason: Reason, took: Duration) {
        // Whole updates only, so a panic elsewhere leaves the numbers sound.
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        *syncs.results.entry(reason.as_str()).or_default() += 1;
        let seconds = took.as_secs_f64();
        for (bucket, bound) in syncs.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        syncs.count += 1;
        syncs.seconds += seconds;
    }

    /// Everything as text.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        row("workshop_leading", "gauge", "1 while this process is the one that writes", u64::from(self.is_leading()));
        let repositories = self.repositories.load(Ordering::Relaxed);
        row("workshop_repositories", "gauge", "repositories that are followed", repositories);
        let drifts = self.drifts.load(Ordering::Relaxed);
        row("workshop_drifts_total", "counter", "objects that somebody else changed", drifts);
        let syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str("# HELP workshop_syncs_total syncs by their result\n# TYPE workshop_syncs_total counter\n");
        for (result, count) in &syncs.results {
            let _ = writeln!(text, "workshop_syncs_total{{result=\"{result}\"}} {count}");
        }
        text.push_str("# HELP workshop_sync_seconds how long syncs took\n# TYPE workshop_sync_seconds histogram\n");
        for (bucket, bound) in syncs.buckets.iter().zip(BOUNDS) {
            let _ = writeln!(text, "workshop_sync_seconds_bucket{{le=\"{bound}\"}} {bucket}");
        }
        let _ = writeln!(text, "workshop_sync_seconds_bucket{{le=\"+Inf\"}} {}", syncs.count);
        let _ = writeln!(text, "workshop_sync_seconds_sum {}", syncs.seconds);
        let _ = writeln!(text, "workshop_sync_seconds_count {}", syncs.count);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_counted_by_result_and_by_time() {
        let metrics = Metrics::default();
        metrics.count_sync(Reason::Succeeded, Duration::from_millis(200));
        metrics.count_sync(Reason::WorkshopsFailed, Duration::from_secs(2));
        let text = metrics.render();
        for line in [
            "workshop_syncs_total{result=\"Succeeded\"} 1",
            "workshop_syncs_total{result=\"WorkshopsFailed\"} 1",
            "workshop_sync_seconds_bucket{le=\"0.1\"} 0",
            "workshop_sync_seconds_bucket{le=\"0.3\"} 1",
            "workshop_sync_seconds_bucket{le=\"+Inf\"} 2",
            "workshop_sync_seconds_count 2",
            "workshop_leading 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }
}
