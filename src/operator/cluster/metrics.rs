//! What the operator counts, for Prometheus. Labels are words of fixed lists, never names of objects.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::adapters::cluster::Mirror;
use crate::crd::instance::Phase;

/// Upper bounds of the durations that are told apart, in seconds.
const BOUNDS: [f64; 8] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    phase: &'static str,
}

/// Counts of one operator.
#[derive(Debug)]
pub struct Metrics {
    looks: Family<Result, Counter>,
    seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { looks: Family::default(), seconds: Histogram::new(BOUNDS) }
    }
}

impl Metrics {
    /// Adds what is counted here to a registry, and the instances of `mirror` by their phase.
    pub fn register(&self, registry: &mut Registry, mirror: Mirror) {
        registry.register("workshop_reconciles", "Looks at instances by their result", self.looks.clone());
        registry.register("workshop_reconcile_seconds", "How long looks at instances took", self.seconds.clone());
        registry.register_collector(Box::new(Instances(mirror)));
    }

    /// Counts a look that ended with `result`.
    pub(super) fn count(&self, result: &'static str, took: Duration) {
        self.looks.get_or_create(&Result { result }).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

/// Counts instances when somebody asks.
#[derive(Debug)]
struct Instances(Mirror);

impl Collector for Instances {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let mut phases: BTreeMap<&'static str, u64> = BTreeMap::new();
        for instance in self.0.instances() {
            let phase = instance.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
            *phases.entry(phase_word(phase)).or_default() += 1;
        }
        let mut family =
            encoder.encode_descriptor("workshop_instances", "Instances by phase", None, MetricType::Gauge)?;
        for (phase, count) in phases {
            family.encode_family(&Of { phase })?.encode_gauge(&count)?;
        }
        Ok(())
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
