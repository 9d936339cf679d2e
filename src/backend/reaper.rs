//! Reaps the children of this process, its own and those that the kernel hands over.
//!
//! The learner's processes fork, detach and die as they like. As subreaper the backend inherits them instead
//! of process 1, so a container without an init leaves no zombies either.

use std::io;

use rustix::process::{Pid, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Becomes the subreaper and reaps until the program ends.
///
/// Takes the exit status of every child, so nothing else in the program may wait for one by itself.
pub fn start() -> io::Result<()> {
    let mut child_ended = signal(SignalKind::child())?;
    // Any id stands for "yes" here; the kernel looks only at whether the value is zero.
    rustix::process::set_child_subreaper(Some(Pid::INIT))?;
    tokio::spawn(async move {
        loop {
            // Before the first wait too: an exec keeps children that may have ended already.
            reap_ended();
            if child_ended.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// Signals merge, so one of them may stand for many children.
fn reap_ended() {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        tracing::debug!(pid = pid.as_raw_nonzero(), status = status.as_raw(), "reaped a child");
    }
}
