//! Collects what a benchmark measured and prints it as the rows of docs/benchmarks.md.

use std::time::{Duration, Instant};

/// A table: what, measured, beside it (a peer or a limit, measured in the same run), the figure to reach.
pub struct Report {
    rows: usize,
}

impl Report {
    /// Prints the heading.
    #[expect(clippy::print_stdout, reason = "the table is the result of the program")]
    pub fn new(title: &str) -> Self {
        println!("\n### {title}\n\n| what | measured | beside it | to reach |\n|---|---|---|---|");
        Self { rows: 0 }
    }

    /// Prints a row as soon as it is known.
    #[expect(clippy::print_stdout, reason = "the table is the result of the program")]
    pub fn row(&mut self, what: &str, measured: impl Into<String>, beside: impl Into<String>, reach: &str) {
        self.rows += 1;
        println!("| {what} | {} | {} | {reach} |", measured.into(), beside.into());
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        assert!(self.rows > 0 || std::thread::panicking(), "a benchmark measured nothing");
    }
}

/// Runs `work` and gives how long it took.
pub fn time<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// The share `quantile` (0.5, 0.95) of sorted durations; the nearest rank.
pub fn quantile(durations: &mut [Duration], quantile: f64) -> Duration {
    durations.sort_unstable();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    let rank = (durations.len() as f64 * quantile).ceil() as usize;
    durations[rank.clamp(1, durations.len()) - 1]
}

/// A duration as people write it in a table.
pub fn show(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 10.0 => format!("{seconds:.0} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.2} ms", seconds * 1e3),
    }
}

/// Resident memory of a process in MiB, now and at its highest.
pub fn resident(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let read = |field: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the kernel");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    };
    (read("VmRSS:"), read("VmHWM:"))
}
