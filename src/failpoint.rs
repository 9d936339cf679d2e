//! Named crash points: with the feature `failpoints`, `WORKSHOP_FAILPOINT=name` ends the process there as `kill -9` does.
//!
//! Without the feature nothing is compiled in. The names are stages of the pipeline, so that a test kills at a stage
//! and never at a time.

/// Ends the process when the environment names this point; `name:N` means the N-th time it is reached.
#[inline]
pub fn reached(name: &str) {
    #[cfg(feature = "failpoints")]
    crash(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

#[cfg(feature = "failpoints")]
fn crash(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("WORKSHOP_FAILPOINT") else { return };
    let (wanted, times) = match wanted.split_once(':') {
        Some((wanted, times)) => (wanted, times.parse().unwrap_or(1)),
        None => (wanted.as_str(), 1),
    };
    if wanted == name && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == times {
        tracing::error!(name, "failpoint reached");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
