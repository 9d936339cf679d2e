//! Starts programs as another user, without a shell and without code between fork and exec.
//!
//! The program runs itself in a hidden `exec` mode, which is one thread: it drops privileges for good, takes the
//! controlling terminal and becomes the wanted program. What is run, and as whom, comes from outside.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use rustix::process::{Gid, Uid};
use tokio::process::Command;

/// The first argument that asks the program for this mode.
const MODE: &str = "exec";
/// The running program; also where its file has been replaced or is below no visible directory.
const OURSELVES: &str = "/proc/self/exe";
/// What a shell answers for a program that it could not start.
const NOT_STARTED: u8 = 127;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Why the helper mode did not become the program.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The arguments are not those that [`command`] builds.
    #[error("\"exec\" is for the program itself: {0} is missing or wrong")]
    Arguments(&'static str),
    /// A step before the program failed; nothing was started.
    #[error("failed to {0}")]
    Prepare(&'static str, #[source] io::Error),
    /// The kernel would let the program become root again.
    #[error("privileges could be regained after dropping them")]
    Regained,
    /// The program itself cannot be started.
    #[error("failed to start \"{0}\"")]
    Program(String, #[source] io::Error),
}

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved user.
    pub uid: u32,
    /// Real, effective and saved group.
    pub gid: u32,
    /// All supplementary groups; the program has no other.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Who this program runs as.
    pub fn current() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        }
    }
}

/// Whether standard input, a terminal, becomes the controlling terminal of the program's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllingTerminal {
    /// It does.
    Yes,
    /// The session has none.
    No,
}

/// Names the program that knows the `exec` mode, where the running one does not (tests, benchmarks).
pub fn use_program(program: &Path) {
    PROGRAM.get_or_init(|| program.to_owned());
}

/// The program that knows the helper modes.
pub(super) fn program() -> &'static Path {
    PROGRAM.get().map_or(Path::new(OURSELVES), PathBuf::as_path)
}

/// A command that runs `program` as `identity`, as the leader of a session and process group of its own.
///
/// Its environment is exactly `environment`; where `directory` cannot be entered by that user it starts in `/`.
/// Start it with `reaper::spawn`. A program that cannot be started ends with 127 and says why on standard error.
pub fn command<'a>(
    identity: &Identity,
    directory: &Path,
    environment: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
    program: &OsStr,
    arguments: impl IntoIterator<Item = &'a OsStr>,
    terminal: ControllingTerminal,
) -> Command {
    let groups: Vec<String> = identity.groups.iter().map(u32::to_string).collect();
    let mut command = Command::new(PROGRAM.get().map_or(Path::new(OURSELVES), PathBuf::as_path));
    command
        .arg(MODE)
        .arg(identity.uid.to_string())
        .arg(identity.gid.to_string())
        .arg(groups.join(","))
        .arg(if terminal == ControllingTerminal::Yes { "terminal" } else { "none" })
        .arg(directory)
        .arg(program)
        .args(arguments)
        .env_clear()
        .envs(environment);
    command
}

/// Runs the helper mode if the arguments ask for it; `None` otherwise.
///
/// To be called before any thread, handler or runtime exists. On success it does not return.
#[expect(clippy::print_stderr, reason = "standard error is the terminal or the log of who asked")]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(MODE)) {
        return None;
    }
    let Err(error) = become_program(arguments);
    match std::error::Error::source(&error) {
        Some(source) => eprintln!("{error}: {source}"),
        None => eprintln!("{error}"),
    }
    Some(ExitCode::from(NOT_STARTED))
}

/// A signal that whoever started the backend ignores, as a shell does for what it puts into the background, would be
/// ignored by the learner's programs too: Ctrl-C would do nothing. A handler takes its place, and ends with the exec.
fn stop_ignoring_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let _entered = runtime.enter();
    for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()] {
        let _ = signal(kind);
    }
}

fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible, ExecError> {
    let mut next = |name| arguments.next().ok_or(ExecError::Arguments(name));
    let uid = parse_id(&next("the user")?, "the user")?;
    let gid = parse_id(&next("the group")?, "the group")?;
    let groups = parse_groups(&next("the list of groups")?)?;
    let terminal = next("the terminal")?;
    let directory = next("the directory")?;
    let program = next("the program")?;

    if terminal == "terminal" {
        rustix::process::setsid().map_err(|errno| ExecError::Prepare("begin a session", errno.into()))?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
            .map_err(|errno| ExecError::Prepare("take the terminal", errno.into()))?;
    } else {
        // Fails only for the leader of a process group, which is what it is for.
        let _ = rustix::process::setsid();
    }
    stop_ignoring_signals();
    drop_privileges(&Identity { uid, gid, groups })?;
    // After dropping, so that the directory's permissions are those of the user.
    if std::env::set_current_dir(&directory).is_err() {
        std::env::set_current_dir("/").map_err(|error| ExecError::Prepare("enter \"/\"", error))?;
    }
    // Also empties the signal mask and gives SIGPIPE its default action back; handlers end with the exec.
    let error = std::process::Command::new(&program).args(arguments).exec();
    Err(ExecError::Program(program.to_string_lossy().into_owned(), error))
}

/// Takes an identity for good. The thread is the only one, so what the kernel does to it holds for the process.
fn drop_privileges(identity: &Identity) -> Result<(), ExecError> {
    let root = rustix::process::geteuid().is_root();
    // Without privileges there is nothing to drop, and the kernel refuses even what is already so.
    if !root {
        let current = Identity::current();
        if (current.uid, current.gid) == (identity.uid, identity.gid) {
            return Ok(());
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_groups(&groups).map_err(|errno| ExecError::Prepare("set the groups", errno.into()))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(|errno| ExecError::Prepare("set the group", errno.into()))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(|errno| ExecError::Prepare("set the user", errno.into()))?;
    if !uid.is_root() && rustix::thread::set_thread_uid(Uid::ROOT).is_ok() {
        return Err(ExecError::Regained);
    }
    Ok(())
}

/// An id; the highest number means "leave it as it is" to the kernel and is refused.
fn parse_id(text: &OsStr, name: &'static str) -> Result<u32, ExecError> {
    let id: Option<u32> = text.to_str().and_then(|text| text.parse().ok());
    id.filter(|id| *id != u32::MAX).ok_or(ExecError::Arguments(name))
}

fn parse_groups(text: &OsStr) -> Result<Vec<u32>, ExecError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.to_str().ok_or(ExecError::Arguments("the list of groups"))?;
    text.split(',').map(|group| parse_id(OsStr::new(group), "the list of groups")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_groups(text: &str, expected: Option<&[u32]>) {
        assert_eq!(parse_groups(OsStr::new(text)).ok().as_deref(), expected, "{text:?}");
    }

    #[test]
    fn groups_are_numbers_between_commas() {
        check_groups("", Some(&[]));
        check_groups("1000", Some(&[1000]));
        check_groups("27,1000", Some(&[27, 1000]));
        check_groups("27,", None);
        check_groups("wheel", None);
        check_groups("-1", None);
        check_groups("4294967295", None);
    }

    #[test]
    fn incomplete_arguments_are_refused_before_anything_is_changed() {
        for count in 0..6 {
            let arguments = ["0", "0", "", "none", "/", "true"].into_iter().take(count).map(OsString::from);
            assert!(matches!(become_program(arguments), Err(ExecError::Arguments(_))), "{count}");
        }
    }
}
