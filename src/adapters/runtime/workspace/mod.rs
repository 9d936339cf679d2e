//! Workspaces that run for long: one `runc` container each, which lives on when this program ends or is killed.
//!
//! It owns `workspaces/` of the state directory and everything mounted or running there; each workspace has a directory
//! with its record, and a directory without a finished record is a leftover that the next look removes. It knows no
//! images but their unpacked layers, and decides nothing about when a workspace runs.

mod config;
mod egress;
mod identity;
mod network;
mod output;
mod record;
mod seccomp;
mod start;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::bytes::Bytes;

use super::{Runtime, RuntimeError, run_directory};
use crate::domain::container::{Address, Capabilities, Found, FoundState, ManagementReach};
use identity::Identity;
use network::Carrier;
use record::{Place, Record};
pub use start::ImageParts;

/// How long the kernel may take to end a killed process.
const KILLED: Duration = Duration::from_secs(10);
/// How long `runc` may take for anything.
const RUNC_WITHIN: Duration = Duration::from_secs(60);
/// How often outputs are looked at.
const OUTPUT_INTERVAL: Duration = Duration::from_secs(2);

/// Why a workspace was not started, found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Layers, mounts or files.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A container of this instance runs already.
    #[error("the workspace \"{0}\" runs already")]
    AlreadyRuns(String),
    /// There is none of this instance.
    #[error("there is no container of the instance {0}")]
    Unknown(String),
    /// The management socket cannot be shown to a container.
    #[error("the management socket \"{path}\" {reason}")]
    ManagementSocket {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with that.
        reason: &'static str,
    },
    /// `runc` refused.
    #[error("runc could not {doing}: {reason}")]
    Runc {
        /// What it was asked for, as an infinitive.
        doing: &'static str,
        /// Its own words.
        reason: String,
    },
    /// Its first process did not end, even killed.
    #[error("the first process of the workspace {0} cannot be ended by the kernel")]
    Unkillable(String),
    /// Work on the disk did not end.
    #[error("the work on the workspace {0} was interrupted")]
    Interrupted(String),
}

/// The workspaces of one state directory.
pub struct Containers {
    runtime: Runtime,
    root: PathBuf,
    carrier: Option<Carrier>,
    limits_swap: bool,
    /// Who starts or stops a workspace takes its lock; a look passes over it.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Containers {
    /// Opens the workspaces of a state directory, which needs root and `runc`. Blocking, within a runtime of tokio.
    pub fn open(state: &Path) -> Result<Arc<Self>, ContainerError> {
        let runtime = Runtime::open(state)?;
        let root = runtime.state.join("workspaces");
        run_directory::make_private(&root).map_err(RuntimeError::io(format!("create \"{}\"", root.display())))?;
        // Whose parent has ended becomes our child, so that we get the exit codes of containers.
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::debug!(%error, "exit codes of workspaces will not be known");
        }
        let carrier = egress::find_carrier();
        let containers = Arc::new(Self { runtime, root, carrier, limits_swap: limits_swap(), busy: Mutex::default() });
        let weak = Arc::downgrade(&containers);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(OUTPUT_INTERVAL).await;
                let Some(containers) = weak.upgrade() else { break };
                let _ = tokio::task::spawn_blocking(move || containers.rotate_outputs()).await;
            }
        });
        Ok(containers)
    }

    /// The layers of images.
    pub const fn layers(&self) -> &Runtime {
        &self.runtime
    }

    /// What this runtime can do.
    pub fn describe(&self) -> Capabilities {
        let egress_note = match &self.carrier {
            Some(_) => "the internet through slirp4netns; destinations of network.egress are enforced for IPv4, ports \
                        are not"
                .to_owned(),
            None => "no network: install slirp4netns for one (Debian: apt-get install slirp4netns)".to_owned(),
        };
        Capabilities {
            name: "native",
            description: "runc on this machine".to_owned(),
            rootless: false,
            egress: self.carrier.is_some(),
            egress_note,
            egress_rules: self.carrier.is_some(),
            persist: true,
            management: ManagementReach::Socket,
        }
    }

    /// Stops and removes the workspace of this instance: end, files, mounts, sockets. Nothing happens where there is none.
    pub async fn stop(self: &Arc<Self>, uid: &str, grace: Duration) -> Result<(), ContainerError> {
        let place = Place::of(&self.root, uid);
        let lock = self.lock(&place.id);
        let _turn = lock.lock().await;
        self.remove(&place, grace).await
    }

    /// All workspaces or an error, never some of them: who is not named here is taken for gone. What a killed program left half made is removed.
    pub async fn list(self: &Arc<Self>) -> Result<Vec<Found>, ContainerError> {
        let mut found = Vec::new();
        for place in self.places()? {
            let lock = self.lock(&place.id);
            let turn = lock.try_lock();
            let record = self.record(&place)?;
            match record.filter(|record| record.is_started) {
                Some(record) => {
                    let is_alive = record.process.map_or(Ok(false), Identity::is_alive).map_err(unknown(&place))?;
                    found.push(Found {
                        state: match is_alive {
                            true => FoundState::Running,
                            false => FoundState::Exited { code: place.exit_code() },
                        },
                        address: is_alive.then(|| Address::Unix(place.backend_socket())),
                        uid: record.uid,
                        step: record.step,
                        generation_label: record.fingerprint,
                        started_at: record.started_at,
                    });
                }
                // Nobody works on it, and its start is not finished: whoever began it is gone.
                None if turn.is_ok() => self.remove(&place, Duration::ZERO).await?,
                None => {}
            }
        }
        self.remove_strays().await?;
        Ok(found)
    }

    /// What the workspace's first process printed.
    pub fn logs(
        &self,
        uid: &str,
        follow: bool,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, ContainerError> {
        let place = Place::of(&self.root, uid);
        if !place.log().is_file() {
            return Err(ContainerError::Unknown(uid.to_owned()));
        }
        let process = self.record(&place)?.and_then(|record| record.process);
        Ok(output::read(place.log(), follow, move || {
            !process.is_some_and(|process| process.is_alive().unwrap_or(true))
        }))
    }

    fn places(&self) -> Result<Vec<Place>, ContainerError> {
        let names = read_names(&self.root).map_err(RuntimeError::io(format!("read \"{}\"", self.root.display())))?;
        let names = names.iter().filter(|name| *name != CONTAINERS);
        Ok(names.map(|name| Place::named(&self.root, name)).collect())
    }

    fn record(&self, place: &Place) -> Result<Option<Record>, ContainerError> {
        place.read().map_err(unknown(place))
    }

    fn lock(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(busy.entry(id.to_owned()).or_default())
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(&self.runtime.runc);
        command
            .arg("--root")
            .arg(self.root.join(CONTAINERS))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C at the terminal is ours to handle, not the container's.
            .process_group(0);
        command
    }

    /// Ends and removes what there is at this place, whatever state it is in; an error leaves the rest for another time.
    async fn remove(&self, place: &Place, grace: Duration) -> Result<(), ContainerError> {
        let record = self.record(place)?;
        if let Some(process) = record.as_ref().and_then(|record| record.process) {
            if !grace.is_zero() {
                process.signal(Signal::TERM).map_err(unknown(place))?;
                process.ended(grace).await.map_err(unknown(place))?;
            }
            process.signal(Signal::KILL).map_err(unknown(place))?;
            if !process.ended(KILLED).await.map_err(unknown(place))? {
                return Err(ContainerError::Unkillable(place.id.clone()));
            }
        }
        if let Some(egress) = record.as_ref().and_then(|record| record.egress) {
            egress.signal(Signal::KILL).map_err(unknown(place))?;
        }
        if self.root.join(CONTAINERS).join(&place.id).try_exists().map_err(unknown(place))? {
            self.delete(&place.id).await?;
        }
        let place = place.clone();
        let id = place.id.clone();
        let root = self.root.clone();
        let removed = tokio::task::spawn_blocking(move || remove_files(&root, &place)).await;
        removed.map_err(|_| ContainerError::Interrupted(id.clone()))?.map_err(|source| {
            RuntimeError::Io { doing: format!("remove what is left of the workspace {id}"), source }.into()
        })
    }

    /// Deletes containers without a directory: their `runc create` ended after the sweep of its killed caller's files.
    async fn remove_strays(&self) -> Result<(), ContainerError> {
        let directory = self.root.join(CONTAINERS);
        let names = read_names(&directory).map_err(RuntimeError::io(format!("read \"{}\"", directory.display())))?;
        for name in names {
            let lock = self.lock(&name);
            let Ok(_turn) = lock.try_lock() else { continue };
            let place = Place::named(&self.root, &name);
            if !place.path.try_exists().map_err(unknown(&place))? {
                self.delete(&name).await?;
            }
        }
        Ok(())
    }

    /// Has `runc` forget a container; what it says of that is of no use, whether it ran at all is.
    async fn delete(&self, id: &str) -> Result<(), ContainerError> {
        let mut command = self.runc();
        command.args(["delete", "--force", id]);
        wait_for(&mut command, "delete the container").await.map(drop)
    }

    /// Notes the exit code of a container's first process, our child since its maker has ended, when it ends.
    fn watch(&self, place: Place, process: Identity) -> io::Result<()> {
        let mut ends = signal(SignalKind::child())?;
        tokio::spawn(async move {
            while process.is_alive().unwrap_or(true) && ends.recv().await.is_some() {}
            if let Some(code) = process.exit_code() {
                place.write_exit(code);
            }
        });
        Ok(())
    }

    fn rotate_outputs(&self) {
        for place in self.places().unwrap_or_default() {
            if let Err(error) = output::rotate(&place.log()) {
                tracing::warn!(path = %place.log().display(), %error, "cannot keep a workspace's output small");
            }
        }
    }
}

/// The directory in which `runc` keeps the state of the containers, below the workspaces.
const CONTAINERS: &str = "runc";

/// Unmounts and removes the files of a workspace; a directory with the name of a removed one is a leftover too.
fn remove_files(root: &Path, place: &Place) -> io::Result<()> {
    run_directory::unmount_below(&place.path)?;
    if !place.sockets.starts_with(root) {
        ignore_missing(fs::remove_dir_all(&place.sockets))?;
    }
    // The record goes first: from here on it is a leftover, whenever this is interrupted.
    ignore_missing(fs::remove_file(place.join("workspace.json")))?;
    ignore_missing(fs::remove_dir_all(&place.path))
}

/// The names in a directory; none where it is not there.
fn read_names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string()));
    names.filter_map(|name| name.map(Result::ok).transpose()).collect()
}

/// What could not be found out says nothing of the workspace; whoever asked has to ask again.
fn unknown(place: &Place) -> impl FnOnce(io::Error) -> ContainerError + use<> {
    let doing = format!("find out how the workspace {} stands", place.id);
    |source| RuntimeError::Io { doing, source }.into()
}

/// Runs `runc` to its end, and ends it where it hangs.
async fn wait_for(command: &mut Command, doing: &'static str) -> Result<ExitStatus, ContainerError> {
    let mut child = command.spawn().map_err(RuntimeError::io("start runc"))?;
    match tokio::time::timeout(RUNC_WITHIN, child.wait()).await {
        Ok(status) => Ok(status.map_err(RuntimeError::io("wait for runc"))?),
        Err(_) => {
            let _ = child.start_kill();
            Err(ContainerError::Runc { doing, reason: format!("it did not end within {RUNC_WITHIN:?}") })
        }
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether the kernel counts swap, which `runc` must not be asked for elsewhere.
fn limits_swap() -> bool {
    let root = Path::new("/sys/fs/cgroup");
    root.join("memory/memory.memsw.limit_in_bytes").exists() || root.join("cgroup.controllers").exists()
}
