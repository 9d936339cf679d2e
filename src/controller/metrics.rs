//! What the controller counts, in the text format of Prometheus. Labels are words of fixed lists, never names of objects.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::crd::conditions::Reason;

/// Upper bounds of the durations that are told apart, in seconds.
const BOUNDS: [f64; 8] = [0.01, 0.05, 0.1, 0.3, 1.0, 5.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    leading: Gauge,
    ready: AtomicBool,
    repositories: Gauge,
    drifts: Counter,
    syncs: Family<Result, Counter>,
    seconds: Histogram,
}

impl Metrics {
    /// The controller's own, and what `others` registers.
    pub(super) fn new(others: impl FnOnce(&mut Registry)) -> Self {
        let metrics = Self {
            registry: Registry::default(),
            leading: Gauge::default(),
            ready: AtomicBool::default(),
            repositories: Gauge::default(),
            drifts: Counter::default(),
            syncs: Family::default(),
            seconds: Histogram::new(BOUNDS),
        };
        let mut registry = Registry::default();
        registry.register("workshop_leading", "1 while this process is the one that writes", metrics.leading.clone());
        registry.register("workshop_repositories", "Repositories that are followed", metrics.repositories.clone());
        registry.register("workshop_drifts", "Objects that somebody else changed", metrics.drifts.clone());
        registry.register("workshop_syncs", "Syncs by their result", metrics.syncs.clone());
        registry.register("workshop_sync_seconds", "How long syncs took", metrics.seconds.clone());
        others(&mut registry);
        Self { registry, ..metrics }
    }

    pub(super) fn set_leading(&self, leading: bool) {
        self.leading.set(leading.into());
        if !leading {
            self.set_ready(false);
        }
    }

    pub(super) fn is_leading(&self) -> bool {
        self.leading.get() != 0
    }

    /// Ready means: the repositories that exist are known.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(super) fn set_repositories(&self, count: usize) {
        self.repositories.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn count_drift(&self) {
        self.drifts.inc();
    }

    /// Counts a sync that ended with `reason`.
    pub(super) fn count_sync(&self, reason: Reason, took: Duration) {
        self.syncs.get_or_create(&Result { result: reason.as_str() }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Everything as text.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_counted_by_result_and_by_time() {
        let metrics = Metrics::new(|_| ());
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
