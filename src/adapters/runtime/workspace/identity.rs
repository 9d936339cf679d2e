//! A process of the machine that is recognised after the program itself has restarted: its number and when it began.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
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
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        Ok(read_stat(pid)?.map(|(_, start)| Self { pid, start }))
    }

    /// True until it has ended, also where nobody has asked for its exit code yet; an error where that cannot be told.
    pub fn is_alive(self) -> io::Result<bool> {
        let stat = read_stat(self.pid)?;
        Ok(stat.is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X')))
    }

    /// A handle that stays with this process whatever happens to its number.
    fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        // The number may have been given to another one before it was opened.
        Ok(read_stat(self.pid)?.is_some_and(|(_, start)| start == self.start).then_some(fd))
    }

    /// Sends a signal; nothing happens where it has ended.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(fd) = self.open()? else { return Ok(()) };
        match pidfd_send_signal(fd, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Waits for its end, at most so long; true when it is over.
    pub async fn ended(self, within: Duration) -> io::Result<bool> {
        let deadline = tokio::time::Instant::now() + within;
        while self.is_alive()? {
            if tokio::time::Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(true)
    }

    /// The exit code of an ended process whose parent this program is; none where it is not, or was asked before.
    pub fn exit_code(self) -> Option<i32> {
        let id = WaitId::Pid(Pid::from_raw(self.pid)?);
        let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
    }
}

/// State and start of a process: `/proc/<pid>/stat` after the name, which may hold anything. Nothing where it is gone;
/// whatever else keeps it from being read, such as too many open files, says nothing of the process.
fn read_stat(pid: i32) -> io::Result<Option<(char, u64)>> {
    let path = format!("/proc/{pid}/stat");
    let stat = match fs::read(&path) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, format!("\"{path}\" has an unknown form"));
    parse_stat(&String::from_utf8_lossy(&stat)).map(Some).ok_or_else(unknown)
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
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap().unwrap();
        let before = Identity { start: me.start + 1, ..me };
        assert!(me.is_alive().unwrap() && !before.is_alive().unwrap());
        assert!(before.ended(Duration::from_secs(1)).await.unwrap());
        before.signal(Signal::KILL).unwrap();
        assert_eq!(Identity::of(i32::MAX).unwrap(), None);
    }
}
