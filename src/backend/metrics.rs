//! What the backend counts, in the text format of Prometheus.
//!
//! The terminal counts its own bytes and viewers; they are read when somebody asks.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::terminal::TerminalMetrics;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    result: &'static str,
}

/// The counters of one backend.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    checks: Family<CheckLabels, Counter>,
    events: Gauge,
    terminal_in: Gauge<u64, AtomicU64>,
    terminal_out: Gauge<u64, AtomicU64>,
    viewers: Gauge,
    restarts: Gauge<u64, AtomicU64>,
    memory: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("workshop_backend");
        let metrics = Self {
            requests: Family::default(),
            checks: Family::default(),
            events: Gauge::default(),
            terminal_in: Gauge::default(),
            terminal_out: Gauge::default(),
            viewers: Gauge::default(),
            restarts: Gauge::default(),
            memory: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests that were answered", metrics.requests.clone());
        registry.register("checks", "Runs of a step's checks", metrics.checks.clone());
        registry.register("event_listeners", "Open event streams", metrics.events.clone());
        registry.register("terminal_input_bytes", "Bytes typed since the start", metrics.terminal_in.clone());
        registry.register("terminal_output_bytes", "Bytes shown since the start", metrics.terminal_out.clone());
        registry.register("terminal_viewers", "Open terminals", metrics.viewers.clone());
        registry.register("terminal_restarts", "Shells started after the first one", metrics.restarts.clone());
        registry.register("resident_memory_bytes", "Memory that the backend itself holds", metrics.memory.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts an answer.
    pub fn count_request(&self, method: &axum::http::Method, status: u16) {
        // Methods are the client's text: only the usual ones become labels.
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE") => known,
            _ => "other",
        };
        self.requests.get_or_create(&RequestLabels { method: method.to_owned(), status }).inc();
    }

    /// Counts a run of checks: `passed`, `failed` or `error`.
    pub fn count_checks(&self, result: &'static str) {
        self.checks.get_or_create(&CheckLabels { result }).inc();
    }

    /// Counts an event stream while the guard lives.
    pub fn listener(&self) -> impl Drop + Send + use<> {
        struct Listening(Gauge);
        impl Drop for Listening {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.events.inc();
        Listening(self.events.clone())
    }

    /// The whole text.
    pub fn encode(&self, terminal: Option<TerminalMetrics>) -> String {
        if let Some(terminal) = terminal {
            self.terminal_in.set(terminal.bytes_in);
            self.terminal_out.set(terminal.bytes_out);
            self.viewers.set(i64::try_from(terminal.viewers).unwrap_or(i64::MAX));
            self.restarts.set(terminal.restarts);
        }
        self.memory.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(resident.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_counted() {
        let metrics = Metrics::default();
        metrics.count_request(&axum::http::Method::GET, 200);
        metrics.count_checks("failed");
        let listening = metrics.listener();
        let terminal = TerminalMetrics { bytes_in: 1, bytes_out: 22, viewers: 3, restarts: 4 };
        let text = metrics.encode(Some(terminal));
        for line in [
            "workshop_backend_requests_total{method=\"GET\",status=\"200\"} 1",
            "workshop_backend_checks_total{result=\"failed\"} 1",
            "workshop_backend_event_listeners 1",
            "workshop_backend_terminal_output_bytes 22",
            "workshop_backend_terminal_viewers 3",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        drop(listening);
        assert!(metrics.encode(None).contains("workshop_backend_event_listeners 0"));
        assert!(resident_bytes().unwrap() > 100_000);
    }
}
