//! Runs the commands of checks: in a process group of their own, with a bound on time and output.
//!
//! Whatever is still in the group when the time is over or the check is dropped is killed with it. What an author
//! wrote for the shell is in no process's arguments, which everybody can read.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::CommandUser;
use super::fact::{Fact, Missing, failed, reason, unknown, value};
use super::run::Context;
use crate::backend::exec::{self, ControllingTerminal};
use crate::backend::reaper;
use crate::domain::container::DEFAULT_PATH;
use crate::domain::goss::Found;
use crate::domain::goss::subject::Exec;

/// The most that is kept of one output.
const MAX_OUTPUT: usize = 4 << 20;
/// How long output may still come after the command itself has ended: a process that it left behind may hold
/// the pipe for ever.
const LINGER: Duration = Duration::from_millis(500);
/// What the shell's arguments say instead of the line, which it reads from its standard input: the line itself has
/// none. Read with `.`, `$0` and the exit status are those of the shell; 9 is the highest number that all shells take.
const BOOTSTRAP: &str = "exec 9<&0 </dev/null; . /proc/self/fd/9";

/// A command that ended in time.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit status; 128 and the signal's number where one ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: Output,
    /// Its errors.
    pub stderr: Output,
}

/// What a command wrote.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Its beginning, as text.
    pub text: String,
    /// True when there was more.
    pub is_cut: bool,
}

/// The environment for commands: the image's, a path and a home, and nothing of the platform's.
pub fn environment(image: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let ours = |name: &OsStr| name.as_encoded_bytes().starts_with(b"WORKSHOP_");
    let mut variables: Vec<_> = image.iter().filter(|(name, _)| !ours(name)).cloned().collect();
    for (name, usual) in [("PATH", DEFAULT_PATH), ("HOME", "/root")] {
        if !variables.iter().any(|(known, _)| known == name) {
            variables.push((name.into(), usual.into()));
        }
    }
    variables
}

/// Where `program` is in the environment's PATH.
pub fn find(program: &str, environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH)))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(is_program)
}

/// Runs a check's command, as the user of commands or as root.
pub async fn run(exec: &Exec, timeout: Duration, as_root: bool, context: &Context) -> Result<Ended, Missing> {
    let user = context.command_user.as_ref().filter(|_| !as_root);
    let environment = user.map_or(&context.environment, |user| &user.environment);
    let mut input = None;
    let (program, arguments) = match exec {
        Exec::Shell(line) => {
            let shell = PathBuf::from("/bin/sh");
            let shell = if shell.exists() { Some(shell) } else { find("sh", environment) };
            let Some(shell) = shell else { return unknown("the image has no shell to run the command with") };
            match script(line) {
                Ok(script) => input = Some(script),
                Err(error) => return unknown(format!("the command cannot be kept: {}", reason(&error))),
            }
            (shell, vec![OsStr::new("-c"), OsStr::new(BOOTSTRAP)])
        }
        Exec::Program(words) => {
            let Some((program, arguments)) = words.split_first() else { return unknown("there is no command") };
            let found = if program.contains('/') { Some(PathBuf::from(program)) } else { find(program, environment) };
            let Some(found) = found else { return failed(format!("there is no program \"{program}\"")) };
            (found, arguments.iter().map(OsStr::new).collect())
        }
    };
    let root = Path::new("/");
    let Some(user) = user else {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(root);
        prepare(&mut command, environment);
        return run_group(command, input, timeout, MAX_OUTPUT).await;
    };
    let variables = environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    // Leads a session of its own, and with it a process group.
    let command =
        exec::command(&user.identity, root, variables, program.as_os_str(), arguments, ControllingTerminal::No);
    run_group(command, input, timeout, MAX_OUTPUT).await
}

/// `line` as a file without a name. A pipe would not do: only its owner may open one again, and the shell does.
fn script(line: &str) -> std::io::Result<File> {
    // Closed at once, so that nothing of it is left to what the line starts.
    nameless(&format!("exec 9<&-; {line}\n"))
}

fn prepare(command: &mut Command, environment: &[(OsString, OsString)]) {
    command.env_clear().envs(environment.iter().map(|(name, value)| (name, value))).process_group(0);
}

/// Runs `command` with this environment and no input.
pub async fn run_bounded(
    mut command: Command,
    timeout: Duration,
    environment: &[(OsString, OsString)],
    most: usize,
) -> Result<Ended, Missing> {
    prepare(&mut command, environment);
    run_group(command, None, timeout, most).await
}

/// Runs a program as `user`, in `/`; it reads `input`.
pub async fn run_as(
    user: &CommandUser,
    (program, arguments): (&Path, &[&str]),
    input: File,
    timeout: Duration,
    most: usize,
) -> Result<Ended, Missing> {
    let variables = user.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let variables = variables.filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"WORKSHOP_"));
    let arguments = arguments.iter().map(OsStr::new);
    let root = Path::new("/");
    let command =
        exec::command(&user.identity, root, variables, program.as_os_str(), arguments, ControllingTerminal::No);
    run_group(command, Some(input), timeout, most).await
}

/// `text` as a file without a name, to be read from its beginning.
pub fn nameless(text: &str) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("check", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Runs a command that leads a process group; without `input` it has none.
async fn run_group(
    mut command: Command,
    input: Option<File>,
    timeout: Duration,
    most: usize,
) -> Result<Ended, Missing> {
    command
        .stdin(input.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = match reaper::spawn(&mut command) {
        Ok(child) => child,
        Err(error) => return failed(format!("the command could not be started: {}", reason(&error))),
    };
    let mut group = Group { leader: child.pid() };
    let mut stdout = Collector::of(child.stdout.take(), most);
    let mut stderr = Collector::of(child.stderr.take(), most);
    let working = async {
        let reading = async {
            tokio::join!(stdout.read(), stderr.read());
        };
        tokio::pin!(reading);
        tokio::select! {
            status = child.wait() => {
                let _ = tokio::time::timeout(LINGER, reading).await;
                status
            }
            // Both outputs may be closed long before the end.
            () = &mut reading => child.wait().await,
        }
    };
    match tokio::time::timeout(timeout, working).await {
        Ok(Ok(status)) => {
            // What a command deliberately leaves behind, a daemon for example, lives on.
            group.leader = None;
            Ok(Ended { code: code_of(status), stdout: stdout.finish(), stderr: stderr.finish() })
        }
        Ok(Err(error)) => unknown(format!("the command's end is not known: {}", reason(&error))),
        Err(_) => {
            // Where it has not become a group's leader yet, it has started nothing either.
            let _ = child.start_kill();
            drop(group);
            // So that it is no zombie when the answer is given.
            let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
            failed(format!("the command did not end within {} ms", timeout.as_millis()))
        }
    }
}

/// What is found for an attribute of a command that was run.
pub fn fact(ended: Option<&Result<Ended, Missing>>, attribute: &str) -> Fact {
    let ended = match ended {
        Some(Ok(ended)) => ended,
        Some(Err(missing)) => return Err(missing.clone()),
        None => return unknown("the command was not run"),
    };
    match attribute {
        "exit-status" => value(ended.code),
        "stdout" => text(&ended.stdout),
        "stderr" => text(&ended.stderr),
        other => unknown(format!("a command has no attribute \"{other}\"")),
    }
}

fn text(output: &Output) -> Fact {
    if output.is_cut {
        return failed(format!("the command wrote more than the {MAX_OUTPUT} bytes that are compared"));
    }
    Ok(Found::Text(output.text.clone()))
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Kills the group of the process that leads it, unless that is taken out.
struct Group {
    leader: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Reads a pipe to its end, of which it keeps the beginning.
struct Collector<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
    most: usize,
    is_cut: bool,
}

impl<R: AsyncRead + Unpin> Collector<R> {
    const fn of(pipe: Option<R>, most: usize) -> Self {
        Self { pipe, bytes: Vec::new(), most, is_cut: false }
    }

    async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read) = pipe.read(&mut buffer).await {
            if read == 0 {
                break;
            }
            let room = self.most - self.bytes.len();
            self.bytes.extend_from_slice(&buffer[..read.min(room)]);
            self.is_cut |= read > room;
        }
    }

    fn finish(self) -> Output {
        Output { text: String::from_utf8_lossy(&self.bytes).into_owned(), is_cut: self.is_cut }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn shell(line: &str, timeout: Duration) -> Result<Ended, Missing> {
        run(&Exec::Shell(line.to_owned()), timeout, false, &context(&[])).await
    }

    fn context(image: &[(OsString, OsString)]) -> Context {
        Context { environment: environment(image), command_user: None }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_commands_status_and_outputs_are_found() {
        let ended = shell("echo out; echo err >&2; exit 3", LONG).await.unwrap();
        assert_eq!((ended.code, ended.stdout.text.as_str(), ended.stderr.text.as_str()), (3, "out\n", "err\n"));
        assert_eq!(shell("kill -9 $$", LONG).await.unwrap().code, 137);
        let words = Exec::Program(vec!["printf".into(), "%s|".into(), "a b".into(), "$HOME".into()]);
        assert_eq!(run(&words, LONG, false, &context(&[])).await.unwrap().stdout.text, "a b|$HOME|");
        let none = Exec::Program(vec!["no-such-program".into()]);
        assert!(matches!(run(&none, LONG, false, &context(&[])).await, Err(Missing::Failed(_))));
    }

    #[tokio::test]
    async fn what_the_shell_runs_is_in_nobodys_arguments_and_reads_nothing() {
        let line =
            "secret=amber; tr '\\0' ' ' < /proc/$$/cmdline; echo \"| $0 $# $secret\"; cat; ls /proc/$$/fd | grep -x 9";
        let ended = shell(line, LONG).await.unwrap();
        assert_eq!(ended.stdout.text, format!("/bin/sh -c {BOOTSTRAP} | /bin/sh 0 amber\n"));
        assert_eq!((ended.code, ended.stderr.text.as_str()), (1, ""));
        let ended = shell("cat <<end\nof all\nend\nfalse || exit 42", LONG).await.unwrap();
        assert_eq!((ended.code, ended.stdout.text.as_str()), (42, "of all\n"));
        for (line, expected) in [("", 0), ("# nothing", 0), ("false", 1), ("set -e; false; true", 1), ("nosuch", 127)] {
            assert_eq!(shell(line, LONG).await.unwrap().code, expected, "{line}");
        }
        assert_ne!(shell("if", LONG).await.unwrap().code, 0);
    }

    #[tokio::test]
    async fn commands_see_the_images_environment_and_nothing_of_ours() {
        let image = [("WORKSHOP_VERIFY_KEY", "secret"), ("GREETING", "hello"), ("HOME", "/home/x")]
            .map(|(name, value)| (name.into(), value.into()));
        let ended = run(&Exec::Shell("env".into()), LONG, false, &context(&image)).await.unwrap();
        assert!(ended.stdout.text.contains("GREETING=hello") && ended.stdout.text.contains("HOME=/home/x"));
        assert!(!ended.stdout.text.contains("WORKSHOP_") && !ended.stdout.text.contains("CARGO"), "{ended:?}");
    }

    #[tokio::test]
    async fn when_the_time_is_over_the_whole_group_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let line = format!("(sleep 600 & echo $! > {0}; wait) & echo $$ >> {0}.sh; wait", pids.display());
        let start = Instant::now();
        let missing = shell(&line, Duration::from_secs(2)).await.unwrap_err();
        assert!(missing.reason().contains("within 2000 ms"), "{missing:?}");
        assert!(start.elapsed() < Duration::from_secs(60));
        for file in [pids.clone(), directory.path().join("pids.sh")] {
            let pid = std::fs::read_to_string(file).unwrap();
            let deadline = Instant::now() + LONG;
            // The grandchild's zombie is its new parent's to reap.
            while is_alive(pid.trim()) {
                assert!(Instant::now() < deadline, "{pid} lives");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn a_check_that_is_dropped_takes_its_commands_along() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let line = format!("sleep 600 & echo $! > {}; wait", file.display());
        let running = tokio::spawn(async move { shell(&line, LONG).await });
        let deadline = Instant::now() + LONG;
        let pid = loop {
            let pid = std::fs::read_to_string(&file).unwrap_or_default();
            if pid.ends_with('\n') {
                break pid.trim().to_owned();
            }
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(is_alive(&pid));
        running.abort();
        while is_alive(&pid) {
            assert!(Instant::now() < deadline, "{pid} lives");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }

    #[tokio::test]
    async fn output_without_end_is_cut_and_one_that_is_held_open_is_left() {
        let ended = shell("head -c 5000000 /dev/zero; echo >&2", LONG).await.unwrap();
        assert!(ended.stdout.is_cut && ended.stdout.text.len() == MAX_OUTPUT && !ended.stderr.is_cut);
        assert!(text(&ended.stdout).is_err());
        let start = Instant::now();
        let ended = shell("sleep 300 & echo $!", LONG).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(50));
        let pid = ended.stdout.text.trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
}
