//! One command by `runc run`: started, watched, its output logged, and all of it gone when it ends or must end.
//!
//! What the command may do is in `bundle`; what its exit means for a step is the caller's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::account::Account;
use super::bundle::{self, CommandSpec, Files};
use super::overlay::Rootfs;
use super::run_directory::RunDirectory;
use super::{RuntimeError, confined};

/// How long the end of a killed container is waited for before its remains are removed by force.
const GRACE: Duration = Duration::from_secs(5);
/// How many of the last lines of output an error shows.
const LAST_LINES: usize = 20;
/// User databases are read up to this size, in bytes.
const MAX_DATABASE: u64 = 4 << 20;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, or by a signal where the code is 128 and the signal's number.
    Code(i32),
    /// Killed after this time.
    TimedOut(Duration),
    /// Killed because it wrote more than this many bytes.
    TooMuchOutput(u64),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code @ 129..=192) => write!(f, "was killed by signal {}", code - 128),
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::TimedOut(after) => write!(f, "was killed after {} s", after.as_secs_f64()),
            Self::TooMuchOutput(bytes) => write!(f, "was killed after more than {bytes} bytes of output"),
        }
    }
}

/// A command that is over.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// The end of its output, at most 20 lines, control characters removed.
    pub last_lines: Vec<String>,
}

/// See [`super::Runtime::run`].
pub async fn run(
    runc: &Path,
    directory: &RunDirectory,
    rootfs: &mut Rootfs,
    command: &CommandSpec<'_>,
    log: &Path,
    cancel: impl Future<Output = ()> + Send,
) -> Result<Ended, RuntimeError> {
    let bundle = Bundle::create(runc, directory, rootfs, command)?;
    let mut output = Output::open(log, command)?;
    let (reader, writer) = io::pipe().map_err(RuntimeError::io("make a pipe"))?;
    let mut reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(RuntimeError::io("make a pipe"))?;
    let mut child = bundle.start(writer)?;

    let mut buffer = vec![0; 1 << 16];
    let mut deadline = pin!(tokio::time::sleep(command.limits.timeout));
    let mut cancel = pin!(cancel);
    let mut open = true;
    let status = loop {
        let killed = tokio::select! {
            read = reader.read(&mut buffer), if open => {
                let length = read.map_err(RuntimeError::io("read a command's output"))?;
                open = length > 0;
                output.add(&buffer[..length])?;
                (output.bytes > command.limits.output).then_some(Ok(Exit::TooMuchOutput(command.limits.output)))
            }
            status = child.wait() => break status.map_err(RuntimeError::io("wait for runc"))?,
            () = &mut deadline => Some(Ok(Exit::TimedOut(command.limits.timeout))),
            () = &mut cancel => Some(Err(RuntimeError::Cancelled)),
        };
        if let Some(end) = killed {
            bundle.kill(&mut child).await;
            drain(&mut reader, &mut buffer, &mut output, command.limits.output).await?;
            return end.map(|exit| Ended { exit, last_lines: output.last_lines() });
        }
    };
    drain(&mut reader, &mut buffer, &mut output, command.limits.output).await?;
    bundle.finished(status)?;
    // A runtime that was itself killed tells so as its child's shell would.
    let code =
        status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
    Ok(Ended { exit: Exit::Code(code), last_lines: output.last_lines() })
}

/// Reads what is still in the pipe; whoever could write to it is gone.
async fn drain(
    reader: &mut pipe::Receiver,
    buffer: &mut [u8],
    output: &mut Output,
    limit: u64,
) -> Result<(), RuntimeError> {
    while output.bytes <= limit {
        match timeout(Duration::from_secs(1), reader.read(buffer)).await {
            Ok(Ok(0)) | Err(_) => break,
            Ok(Ok(length)) => output.add(&buffer[..length])?,
            Ok(Err(source)) => return Err(RuntimeError::Io { doing: "read a command's output".to_owned(), source }),
        }
    }
    Ok(())
}

/// A container: its directory, its id and what is left of it when this is dropped too early.
struct Bundle<'a> {
    runc: &'a Path,
    containers: PathBuf,
    path: PathBuf,
    id: String,
    is_over: AtomicBool,
}

impl<'a> Bundle<'a> {
    fn create(
        runc: &'a Path,
        directory: &RunDirectory,
        rootfs: &mut Rootfs,
        command: &CommandSpec<'_>,
    ) -> Result<Self, RuntimeError> {
        let path = directory.fresh("command")?;
        let id = format!("workshop-{}-{}", std::process::id(), directory.name("c"));
        let bundle = Self { runc, containers: directory.containers(), path, id, is_over: AtomicBool::new(true) };
        let root = rootfs.path();
        let database = |file: &str| {
            let text = confined::read_text(&root, file, MAX_DATABASE);
            text.map(Option::unwrap_or_default).map_err(RuntimeError::io(format!("read the image's \"{file}\"")))
        };
        let account = Account::resolve(command.user, &database("/etc/passwd")?, &database("/etc/group")?)?;
        let place = |path: &str| {
            confined::resolve(&root, path).map_err(RuntimeError::io(format!("find \"{path}\" in the image")))
        };
        let mut made = Vec::new();
        let resolver = match command.limits.network.then(|| fs::read("/etc/resolv.conf")) {
            Some(Ok(text)) => {
                let copy = bundle.path.join("resolv.conf");
                fs::write(&copy, text).map_err(RuntimeError::io(format!("write \"{}\"", copy.display())))?;
                let (real, missing) = place("/etc/resolv.conf")?;
                made.extend(missing);
                Some((copy, format!("/{}", real.display())))
            }
            _ => None,
        };
        for point in bundle::mount_points().chain([command.directory]) {
            made.extend(place(point)?.1);
        }
        rootfs.mount_points.extend(made);
        let files = Files { resolver: resolver.as_ref().map(|(copy, place)| (copy.as_path(), place.as_str())) };
        let cgroup = format!("/workshop/{}", bundle.id);
        let config = bundle::build_config(command, &account, &root, &cgroup, &files)
            .map_err(|error| RuntimeError::Start(error.to_string()))?;
        config.save(bundle.path.join("config.json")).map_err(|error| RuntimeError::Start(error.to_string()))?;
        Ok(bundle)
    }

    fn runtime(&self) -> Command {
        let mut command = Command::new(self.runc);
        command.arg("--root").arg(&self.containers).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn start(&self, output: io::PipeWriter) -> Result<Child, RuntimeError> {
        let failed = RuntimeError::io("start runc");
        let second = match output.try_clone() {
            Ok(second) => second,
            Err(error) => return Err(failed(error)),
        };
        self.is_over.store(false, Ordering::Relaxed);
        self.runtime()
            .arg("--log")
            .arg(self.path.join("runc.log"))
            .args(["--log-format", "json", "run", "--bundle"])
            .arg(&self.path)
            .arg(&self.id)
            .stdout(output)
            .stderr(second)
            // A Ctrl-C at the terminal is ours to handle, not the command's.
            .process_group(0)
            .spawn()
            .map_err(failed)
    }

    /// Kills every process of the container; its first process takes the others with it.
    async fn kill(&self, child: &mut Child) {
        let _ = self.runtime().args(["kill", &self.id, "KILL"]).status().await;
        if timeout(GRACE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        let _ = self.runtime().args(["delete", "--force", &self.id]).status().await;
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Tells a runtime that failed from a command that did.
    fn finished(&self, status: ExitStatus) -> Result<(), RuntimeError> {
        self.is_over.store(true, Ordering::Relaxed);
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(self.path.join("runc.log")).unwrap_or_default();
        let errors: Vec<String> = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|line| line["level"] == "error" || line["level"] == "fatal")
            .filter_map(|line| line["msg"].as_str().map(str::to_owned))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(RuntimeError::Start(errors.join("; "))) }
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        if !self.is_over.load(Ordering::Relaxed) {
            // The task was dropped in the middle; a container must not outlive it.
            let _ = std::process::Command::new(self.runc)
                .arg("--root")
                .arg(&self.containers)
                .args(["delete", "--force", &self.id])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The output so far: in the log as it came, its end in memory.
struct Output {
    log: File,
    path: PathBuf,
    end: Vec<u8>,
    bytes: u64,
}

impl Output {
    fn open(path: &Path, command: &CommandSpec<'_>) -> Result<Self, RuntimeError> {
        let doing = || format!("write the log \"{}\"", path.display());
        let open = || {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut log = OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(log, "$ {}", command.text)?;
            Ok(log)
        };
        let log = open().map_err(RuntimeError::io(doing()))?;
        Ok(Self { log, path: path.to_owned(), end: Vec::new(), bytes: 0 })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), RuntimeError> {
        /// Enough for the last lines, however long they are.
        const KEEP: usize = 32 << 10;
        self.bytes += bytes.len() as u64;
        self.end.extend_from_slice(bytes);
        if self.end.len() > 4 * KEEP {
            self.end.drain(..self.end.len() - KEEP);
        }
        self.log.write_all(bytes).map_err(RuntimeError::io(format!("write the log \"{}\"", self.path.display())))
    }

    fn last_lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.end);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| printable(line)).collect()
    }
}

/// A line without what could move the cursor or colour a terminal; at most 400 characters.
fn printable(line: &str) -> String {
    let visible = line.rsplit_once('\r').map_or(line, |(before, after)| if after.is_empty() { before } else { after });
    visible.chars().filter(|c| !c.is_control() || *c == '\t').take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_shown_without_control_characters() {
        let directory = tempfile::tempdir().unwrap();
        let limits = bundle::Limits { timeout: GRACE, memory: 0, processes: 0, output: 0, network: false };
        let spec = CommandSpec { shell: &[], text: "make", env: &[], directory: "", user: "", limits };
        let log = directory.path().join("a/b.log");
        let mut output = Output::open(&log, &spec).unwrap();
        for line in 0..1000 {
            output.add(format!("line {line}\n").as_bytes()).unwrap();
        }
        output.add(b"10 %\r20 %\n\x1b[31mred\xff").unwrap();
        let lines = output.last_lines();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines[17..], ["line 999", "20 %", "[31mred\u{fffd}"]);
        assert!(fs::read_to_string(&log).is_err() && fs::read(&log).unwrap().starts_with(b"$ make\nline 0\n"));
    }

    #[test]
    fn an_exit_reads_as_the_rest_of_a_sentence() {
        for (exit, text) in [
            (Exit::Code(3), "ended with exit code 3"),
            (Exit::Code(137), "was killed by signal 9"),
            (Exit::Code(255), "ended with exit code 255"),
            (Exit::TimedOut(Duration::from_millis(1500)), "was killed after 1.5 s"),
            (Exit::TooMuchOutput(9), "was killed after more than 9 bytes of output"),
        ] {
            assert_eq!(exit.to_string(), text);
        }
    }
}
