//! Runs the shell in a pseudoterminal: starts it, carries its bytes, starts it again when it ends.
//!
//! Who looks at the output, and how much of it may be read, is decided in `hub`.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use rustix::process::{Pid, Signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};

use super::hub::{FRAME, TAIL};
use super::pty::{Pty, Read};
use super::size::Size;
use super::v1::Exit;
use super::{Command, Shared, Shell};
use crate::backend::exec::{self, ControllingTerminal};
use crate::backend::reaper::{self, OwnedChild};

/// A program that ends so often ...
const QUICK_ENDS: usize = 5;
/// ... within this time is not started again by itself.
const QUICK: Duration = Duration::from_secs(10);
/// Before a new one starts by itself.
pub const PAUSE: Duration = Duration::from_millis(100);
/// How long a shell may take to end after SIGHUP before it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// How long output is waited for that a shell has left behind while others keep its terminal open.
const LAST_OUTPUT: Duration = Duration::from_millis(50);
/// How long after its far side was closed a terminal is looked at again.
const REOPENED: Duration = Duration::from_millis(100);

/// Runs one terminal's shells, one after the other.
pub struct Supervisor {
    shell: Shell,
    shared: Arc<Shared>,
    input: mpsc::UnboundedReceiver<Bytes>,
    commands: mpsc::UnboundedReceiver<Command>,
    ends: Ends,
}

/// When programs ended lately.
#[derive(Debug, Default)]
pub struct Ends(VecDeque<Instant>);

impl Ends {
    /// Notes an end; `true` if there were too many, which are forgotten then.
    pub fn too_many(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        self.0.retain(|end| now.duration_since(*end) < QUICK);
        let too_many = self.0.len() >= QUICK_ENDS;
        if too_many {
            self.0.clear();
        }
        too_many
    }

    /// What was does not count: somebody asked for a new one.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// A shell and the near side of its terminal.
struct Running {
    pty: Pty,
    /// The shell's process, which leads its session.
    child: OwnedChild,
    size: Size,
}

/// Why a shell is no longer carried.
enum Outcome {
    /// It ended by itself.
    Exited(Exit),
    /// Somebody wants a new one.
    Replaced(Exit),
    /// The terminal is over.
    Over,
}

impl Supervisor {
    /// Nothing runs before [`Supervisor::run`].
    pub fn new(
        shell: Shell,
        shared: Arc<Shared>,
        input: mpsc::UnboundedReceiver<Bytes>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self { shell, shared, input, commands, ends: Ends::default() }
    }

    /// Runs shells until the terminal is over.
    pub async fn run(mut self) {
        loop {
            self.shared.starts.fetch_add(1, Ordering::Relaxed);
            let outcome = match self.start() {
                Ok(running) => self.carry(running).await,
                Err(error) => {
                    self.say(&format!("the shell cannot be started: {error}"));
                    Outcome::Exited(Exit { code: Some(127), signal: None, restarting: true })
                }
            };
            let again = match outcome {
                Outcome::Over => break,
                Outcome::Replaced(exit) => {
                    self.ends.forget();
                    self.tell(exit);
                    true
                }
                Outcome::Exited(exit) => self.after_exit(exit).await,
            };
            if !again {
                break;
            }
        }
        self.shared.hub().end();
        self.shared.tell_viewers();
    }

    fn start(&self) -> io::Result<Running> {
        let size = self.shared.hub().size();
        let (pty, far) = Pty::open(self.shell.user.uid, size)?;
        let environment = self.shell.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        let environment =
            environment.filter(|(name, _)| *name != "TERM").chain([(OsStr::new("TERM"), OsStr::new("xterm-256color"))]);
        let mut command = exec::command(
            &self.shell.user,
            &self.shell.home,
            environment,
            self.shell.program.as_os_str(),
            self.shell.arguments.iter().map(AsRef::as_ref),
            ControllingTerminal::Yes,
        );
        command.stdin(far.try_clone()?).stdout(far.try_clone()?).stderr(far).kill_on_drop(true);
        let child = reaper::spawn(&mut command)?;
        tracing::info!(pid = child.id(), "started the shell");
        Ok(Running { pty, child, size })
    }

    /// Carries bytes both ways until the shell ends or must.
    async fn carry(&mut self, mut running: Running) -> Outcome {
        let mut buffer = vec![0; FRAME];
        let mut pending = Bytes::new();
        let mut closed = false;
        let outcome = loop {
            let (room, size) = {
                let hub = self.shared.hub();
                (hub.room(Instant::now()), hub.size())
            };
            if size != running.size {
                running.size = size;
                if let Err(error) = running.pty.resize(size) {
                    tracing::warn!(%error, "failed to size the terminal");
                }
            }
            let bytes = room.bytes;
            let until = room.until.unwrap_or_else(Instant::now);
            tokio::select! {
                status = running.child.wait() => {
                    self.read_last(&running.pty, &mut buffer).await;
                    break Outcome::Exited(exit_of(status, true));
                }
                command = self.commands.recv() => {
                    let status = hang_up(&mut running.child, || running.pty.foreground()).await;
                    self.read_last(&running.pty, &mut buffer).await;
                    break match command {
                        Some(Command::Restart) => Outcome::Replaced(exit_of(status, true)),
                        Some(Command::End) | None => Outcome::Over,
                    };
                }
                () = self.shared.nudge.notified() => {}
                () = sleep_until(until.into()), if bytes == 0 => {}
                () = sleep(REOPENED), if closed => closed = false,
                read = running.pty.read(&mut buffer[..bytes]), if bytes > 0 && !closed => match read {
                    Ok(Read::Bytes(count)) => self.take(&buffer[..count]),
                    Ok(Read::Closed) => closed = true,
                    Err(error) => {
                        tracing::warn!(%error, "failed to read the terminal");
                        closed = true;
                    }
                },
                written = running.pty.write(&pending), if !pending.is_empty() => {
                    let count = written.unwrap_or_else(|error| {
                        tracing::warn!(%error, "failed to write to the terminal");
                        pending.len()
                    });
                    drop(pending.split_to(count));
                    self.shared.input_waiting.fetch_sub(count, Ordering::Relaxed);
                }
                input = self.input.recv(), if pending.is_empty() => pending = input.unwrap_or_default(),
            }
        };
        self.shared.input_waiting.fetch_sub(pending.len(), Ordering::Relaxed);
        outcome
    }

    /// Adds output for the viewers.
    fn take(&self, bytes: &[u8]) {
        self.shared.bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.shared.hub().push(bytes);
        self.shared.tell_viewers();
    }

    /// What the terminal still holds after its shell's end. Others may go on writing to it, so there is a limit.
    async fn read_last(&self, pty: &Pty, buffer: &mut [u8]) {
        let mut left = TAIL;
        while left > 0 {
            let most = left.min(buffer.len());
            match timeout(LAST_OUTPUT, pty.read(&mut buffer[..most])).await {
                Ok(Ok(Read::Bytes(count))) => {
                    self.take(&buffer[..count]);
                    left -= count;
                }
                Ok(Ok(Read::Closed) | Err(_)) | Err(_) => return,
            }
        }
    }

    /// Lets the next shell start: after a moment, or, when they end too quickly, when somebody asks for it.
    /// Gives `false` when the terminal is over.
    async fn after_exit(&mut self, exit: Exit) -> bool {
        if !self.ends.too_many(Instant::now()) {
            self.tell(exit);
            return match timeout(PAUSE, self.commands.recv()).await {
                Ok(command) => matches!(command, Some(Command::Restart)),
                Err(_) => true,
            };
        }
        self.say(&format!("the shell ended {QUICK_ENDS} times at once; press a key to start it again"));
        // What was typed before nobody typed to start it.
        while let Ok(bytes) = self.input.try_recv() {
            self.shared.input_waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        self.tell(Exit { restarting: false, ..exit });
        tokio::select! {
            command = self.commands.recv() => matches!(command, Some(Command::Restart)),
            key = self.input.recv() => {
                self.shared.input_waiting.fetch_sub(key.map_or(0, |key| key.len()), Ordering::Relaxed);
                true
            }
        }
    }

    fn tell(&self, exit: Exit) {
        tracing::info!(code = exit.code, signal = exit.signal, restarting = exit.restarting, "the shell ended");
        (self.shared.on_exit)(exit.clone());
        self.shared.hub().exit(exit);
        self.shared.tell_viewers();
    }

    /// A sentence of ours among the output, for whoever reads the terminal.
    fn say(&self, sentence: &dyn Display) {
        self.take(format!("\r\n[{sentence}]\r\n").as_bytes());
    }
}

/// Ends a program: SIGHUP to all of its session, SIGKILL to it and the foreground of its terminal if it stays.
pub async fn hang_up(child: &mut OwnedChild, foreground: impl FnOnce() -> Option<Pid>) -> io::Result<ExitStatus> {
    if let Some(leader) = child.pid() {
        signal_session(leader, Signal::HUP);
        // A stopped job takes its signal when it goes on.
        signal_session(leader, Signal::CONT);
    }
    if let Ok(status) = timeout(GRACE, child.wait()).await {
        return status;
    }
    if let Some(foreground) = foreground() {
        let _ = rustix::process::kill_process_group(foreground, Signal::KILL);
    }
    child.start_kill()?;
    child.wait().await
}

/// Signals every process of a session, also those that the shell has put into groups of their own.
fn signal_session(leader: Pid, signal: Signal) {
    let wanted = leader.as_raw_nonzero().get();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let session = std::fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| session_of(&stat));
        // It may have ended since.
        if session == Some(wanted) || pid == leader {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// The session in a line of /proc/PID/stat; the name before it may contain anything.
fn session_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

/// How a program ended, as viewers are told.
pub fn exit_of(status: io::Result<ExitStatus>, restarting: bool) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => Exit { code: status.code(), signal: status.signal().map(name_of), restarting },
        Err(error) => {
            tracing::warn!(%error, "failed to learn how the shell ended");
            Exit { code: None, signal: None, restarting }
        }
    }
}

/// A signal's name without `SIG`, or its number.
fn name_of(number: i32) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_behind_any_name() {
        for (stat, expected) in [
            ("12 (bash) S 1 12 34 34816 12 0", Some(34)),
            ("12 (a) b ) (c) S 1 12 35 34816 12 0", Some(35)),
            ("12 (bash", None),
            ("", None),
        ] {
            assert_eq!(session_of(stat), expected, "{stat:?}");
        }
    }
}
