//! What a seat holds in memory, by process: the platform's own beside the learner's.

use std::fs;
use std::path::Path;

/// Proportional and resident memory, in MiB.
#[derive(Debug, Default, Clone, Copy)]
pub struct Memory {
    /// Shared pages divided among those who share them.
    pub proportional: f64,
    /// All pages.
    pub resident: f64,
}

/// One seat.
#[derive(Debug, Default)]
pub struct Seat {
    /// Its first process, in the machine's numbers.
    pub first: u32,
    /// tini and the backend.
    pub own: Memory,
    /// What carries its traffic to the internet.
    pub network: Memory,
    /// What its state directory holds, which is memory too: MiB.
    pub state: f64,
    /// The shell and whatever it started.
    pub learner: Memory,
}

/// All seats of a state directory, as their records name them.
pub fn seats(state: &Path) -> Vec<Seat> {
    let entries = fs::read_dir(state.join("workspaces")).expect("a directory of workspaces");
    entries.flatten().filter_map(|entry| seat(&entry.path().join("workspace.json"))).collect()
}

/// How many workspaces have a directory, whether they run or are on their way out.
pub fn count(state: &Path) -> usize {
    let entries = fs::read_dir(state.join("workspaces")).expect("a directory of workspaces");
    entries.flatten().filter(|entry| entry.file_name() != "runc").count()
}

fn seat(record: &Path) -> Option<Seat> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).ok()?).expect("JSON");
    let first = u32::try_from(record["process"]["pid"].as_u64()?).expect("a process id");
    let mut seat = Seat { first, ..Seat::default() };
    let held = rustix::fs::statvfs(format!("/proc/{first}/root/workshop/state")).expect("its state directory");
    #[expect(clippy::cast_precision_loss, reason = "at most 64 MiB")]
    let held = ((held.f_blocks - held.f_bfree) * held.f_frsize) as f64;
    seat.state = held / 1_048_576.0;
    if let Some(carrier) = record["egress"]["pid"].as_u64() {
        add(&mut seat.network, &carrier.to_string());
    }
    let namespace = fs::read_link(format!("/proc/{first}/ns/pid")).ok()?;
    for process in fs::read_dir("/proc").expect("proc").flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|found| found == namespace) {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let is_own = ["tini", "workshop-backend"].iter().any(|name| program.ends_with(name));
            add(if is_own { &mut seat.own } else { &mut seat.learner }, &pid);
        }
    }
    Some(seat)
}

fn add(memory: &mut Memory, pid: &str) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let read = |field: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    };
    memory.proportional += read("Pss:");
    memory.resident += read("Rss:");
}
