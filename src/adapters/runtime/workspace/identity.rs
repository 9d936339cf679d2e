//! A process of the machine that is recognised after the program itself has restarted: its number and when it began.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};

/// How often the end of a process is looked for.
const INTERVAL: Duration = Duration::from_millis(2);

/// A process, numbers of which the kernel gives out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// When it began, in the kernel's ticks since boot.
    pub start: u64,
}

impl Identity {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: read_stat(pid)?.1 })
    }

    /// True until it has ended, also where nobody has asked for its exit code yet.
    pub fn is_alive(self) -> bool {
        read_stat(self.pid).is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'))
    }

    /// A handle that stays with this process whatever happens to its number.
    fn open(self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // The number may have been given to another one before it was opened.
        read_stat(self.pid).is_some_and(|(_, start)| start == self.start).then_some(fd)
    }

    /// Sends a signal; nothing happens where it has ended.
    pub fn signal(self, signal: Signal) {
        if let Some(fd) = self.open() {
            let _ = pidfd_send_signal(fd, signal);
        }
    }

    /// Waits for its end, at most so long; true when it is over.
    pub async fn ended(self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        while self.is_alive() {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        true
    }

    /// The exit code of an ended process whose parent this program is; none where it is not, or was asked before.
    pub fn exit_code(self) -> Option<i32> {
        let id = WaitId::Pid(Pid::from_raw(self.pid)?);
        let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
    }
}

/// State and start of a process: `/proc/<pid>/stat` after the name, which may hold anything.
fn read_stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "7 (a) R 1) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        assert_eq!(parse_stat(stat), Some(('S', 12345)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[tokio::test]
    async fn another_process_of_the_same_number_is_not_it() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let before = Identity { start: me.start + 1, ..me };
        assert!(me.is_alive() && !before.is_alive());
        assert!(before.ended(Duration::from_secs(1)).await);
        before.signal(Signal::KILL);
    }
}
