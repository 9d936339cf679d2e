//! What the operator counts, as Prometheus text. Labels are words of fixed lists, never names of objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::adapters::cluster::Mirror;
use crate::crd::instance::Phase;

/// Upper bounds of the durations that are told apart, in seconds.
const BOUNDS: [f64; 8] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Counts of one operator.
#[derive(Debug, Default)]
pub struct Metrics {
    looks: Mutex<Looks>,
}

#[derive(Debug, Default)]
struct Looks {
    results: BTreeMap<&'static str, u64>,
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    /// Counts a look that ended with `result`.
    pub(super) fn count(&self, result: &'static str, took: Duration) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        *looks.results.entry(result).or_default() += 1;
        let seconds = took.as_secs_f64();
        for (bucket, bound) in looks.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        looks.count += 1;
        looks.seconds += seconds;
    }

    /// Everything as text.
    #[must_use]
    pub fn render(&self, mirror: &Mirror) -> String {
        let mut phases: BTreeMap<&str, u64> = BTreeMap::new();
        for instance in mirror.instances() {
            let phase = instance.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
            *phases.entry(phase_word(phase)).or_default() += 1;
        }
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        text.push_str("# HELP workshop_instances instances by phase\n# TYPE workshop_instances gauge\n");
        for (phase, count) in phases {
            let _ = writeln!(text, "workshop_instances{{phase=\"{phase}\"}} {count}");
        }
        text.push_str("# HELP workshop_reconciles_total looks at instances by their result\n");
        text.push_str("# TYPE workshop_reconciles_total counter\n");
        for (result, count) in &looks.results {
            let _ = writeln!(text, "workshop_reconciles_total{{result=\"{result}\"}} {count}");
        }
        text.push_str("# HELP workshop_reconcile_seconds how long looks at instances took\n");
        text.push_str("# TYPE workshop_reconcile_seconds histogram\n");
        for (bucket, bound) in looks.buckets.iter().zip(BOUNDS) {
            let _ = writeln!(text, "workshop_reconcile_seconds_bucket{{le=\"{bound}\"}} {bucket}");
        }
        let _ = writeln!(text, "workshop_reconcile_seconds_bucket{{le=\"+Inf\"}} {}", looks.count);
        let _ = writeln!(text, "workshop_reconcile_seconds_sum {}", looks.seconds);
        let _ = writeln!(text, "workshop_reconcile_seconds_count {}", looks.count);
        text
    }
}

const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Provisioning => "Provisioning",
        Phase::Running => "Running",
        Phase::Transitioning => "Transitioning",
        Phase::Suspended => "Suspended",
        Phase::Failed => "Failed",
        Phase::Terminating => "Terminating",
    }
}
