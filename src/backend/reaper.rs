//! Reaps the children of this process that nobody waits for, above all those that the kernel hands over.
//!
//! The learner's processes fork, detach and die as they like. As subreaper the backend inherits them instead
//! of process 1, so a container without an init leaves no zombies either. A child whose exit status somebody in
//! the program wants is started with [`spawn`]; any other way to start one loses its status to the reaper.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitOptions};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// The children that their owners wait for. Also held while one is started, so that no child ends unknown.
static OWNED: Mutex<Vec<i32>> = Mutex::new(Vec::new());

fn owned() -> MutexGuard<'static, Vec<i32>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Becomes the subreaper and reaps until the program ends.
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

/// Starts a child whose end is its owner's matter: its status is left alone until the handle is dropped.
pub fn spawn(command: &mut Command) -> io::Result<OwnedChild> {
    let mut owned = owned();
    let child = command.spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    owned.extend(pid);
    Ok(OwnedChild { child, pid })
}

/// A child that its owner waits for; used like tokio's.
#[derive(Debug)]
pub struct OwnedChild {
    child: Child,
    pid: Option<i32>,
}

impl OwnedChild {
    /// The id that the child had from its start, also after it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.pid.and_then(Pid::from_raw)
    }
}

impl Deref for OwnedChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for OwnedChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        let mut owned = owned();
        if let Some(index) = owned.iter().position(|&pid| Some(pid) == self.pid) {
            owned.swap_remove(index);
        }
        // If it has ended by now, tokio's handle, which is dropped next, takes the status.
    }
}

/// Signals merge, so one of them may stand for many children.
fn reap_ended() {
    let owned = owned();
    if owned.is_empty() {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            tracing::debug!(pid = pid.as_raw_nonzero(), status = status.as_raw(), "reaped a child");
        }
        return;
    }
    // A wait for any child cannot pass over some of them, so those that have ended are looked for.
    reap_strays(&owned, &ended_children());
}

fn reap_strays(owned: &[i32], ended: &[i32]) {
    for &pid in ended.iter().filter(|pid| !owned.contains(pid)) {
        if let Some(pid) = Pid::from_raw(pid)
            && let Ok(Some((pid, status))) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)
        {
            tracing::debug!(pid = pid.as_raw_nonzero(), status = status.as_raw(), "reaped a child");
        }
    }
}

/// The zombies whose parent is this process.
fn ended_children() -> Vec<i32> {
    let own = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else { return false };
            // The name in parentheses may hold anything, parentheses too.
            let Some(end) = stat.iter().rposition(|&byte| byte == b')') else { return false };
            let mut fields = stat[end + 1..].split(|&byte| byte == b' ').filter(|field| !field.is_empty());
            fields.next() == Some(b"Z") && fields.next() == Some(own.as_bytes())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    // Of the children of the test program only those that the test itself started are touched: other tests wait
    // for theirs.

    #[tokio::test]
    async fn an_owned_childs_status_is_its_owners() {
        for code in 0..20 {
            let mut child = spawn(Command::new("/bin/sh").args(["-c", &format!("exit {code}")])).expect("a shell");
            let pid = child.pid().expect("a running child").as_raw_nonzero().get();
            let deadline = Instant::now() + Duration::from_secs(60);
            while !ended_children().contains(&pid) {
                assert!(Instant::now() < deadline, "child {pid} does not end");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            reap_strays(&owned(), &[pid]);
            assert_eq!(child.wait().await.expect("its status").code(), Some(code));
        }
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "the reaper is what waits here")]
    async fn a_child_that_nobody_owns_is_reaped_beside_an_owned_one() {
        let mut kept = spawn(Command::new("/bin/sleep").arg("600").kill_on_drop(true)).expect("sleep");
        let stray = std::process::Command::new("/bin/true").spawn().expect("true");
        let pid = i32::try_from(stray.id()).expect("a small number");
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::path::Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < deadline, "child {pid} is still there");
            let ended: Vec<i32> = ended_children().into_iter().filter(|&ended| ended == pid).collect();
            reap_strays(&owned(), &ended);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(kept.try_wait().expect("its status").is_none());
        kept.kill().await.expect("to end it");
    }
}
