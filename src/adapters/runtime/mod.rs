//! Running the commands of a step: layers unpacked for overlay, one `runc run` per command, the upper directory read back.
//!
//! It owns `layers/` and `run/` of the state directory and everything it mounts or starts there; what a previous
//! process left behind is cleaned up when the next one opens it. It knows no recipe, no key and no registry.
//! Root is needed: overlay lowers hold foreign owners, device nodes and `trusted.*` attributes.

mod account;
mod bundle;
mod capture;
mod confined;
mod lower;
mod overlay;
mod process;
mod run_directory;
mod unpack;
pub mod workspace;
mod xattr;

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::domain::digest::Digest;

pub use account::Account;
pub use bundle::{CommandSpec, Limits};
pub use capture::{Change, read_root};
pub use overlay::Rootfs;
pub use process::{Ended, Exit};
use run_directory::RunDirectory;

/// Why a layer was not unpacked or a command not run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Not root, so neither overlay nor foreign owners are possible.
    #[error(
        "containers need root here: they run over an overlay mount whose files belong to several users; run this as \
         root, or use Docker or Podman (a recipe of files and env only is compiled without a container)"
    )]
    NotRoot,
    /// The OCI runtime's program is missing.
    #[error("the container runtime \"runc\" was not found in PATH; install it (Debian: apt-get install runc)")]
    RuncMissing,
    /// The state directory's file system cannot be an overlay's upper layer.
    #[error(
        "the state directory \"{path}\" cannot hold the changes of a command: {reason}; choose another one by --state"
    )]
    NoUpper {
        /// The state directory.
        path: String,
        /// What was tried and what happened.
        reason: String,
    },
    /// The layer's tar is not one that can be unpacked safely.
    #[error("layer {layer} cannot be unpacked: {reason}")]
    BadLayer {
        /// The layer's diff id.
        layer: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The container could not be started; the command never ran.
    #[error("the container could not be started: {0}")]
    Start(String),
    /// The image's user does not exist in its user database.
    #[error("the image runs as user \"{0}\", whom its /etc/passwd and /etc/group do not know")]
    UnknownUser(String),
    /// The work was called off.
    #[error("cancelled")]
    Cancelled,
    /// The system refused something.
    #[error("cannot {doing}{}", if source.kind() == io::ErrorKind::StorageFull { ": the disk is full" } else { "" })]
    Io {
        /// What was attempted, as an infinitive.
        doing: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl RuntimeError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// The runtime of one state directory, opened once per process.
pub struct Runtime {
    state: PathBuf,
    directory: RunDirectory,
    runc: PathBuf,
    /// One lock per layer, so that two compiles unpack it once.
    unpacking: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl Runtime {
    /// Opens the runtime of the state directory: checks rights, `runc` and the file system, and removes what a killed
    /// process left mounted, running or half written. Blocking.
    pub fn open(state: &Path) -> Result<Self, RuntimeError> {
        if !rustix::process::geteuid().is_root() {
            return Err(RuntimeError::NotRoot);
        }
        let runc = find_program("runc").ok_or(RuntimeError::RuncMissing)?;
        let state = std::path::absolute(state).map_err(RuntimeError::io("find the state directory"))?;
        let layers = state.join("layers");
        run_directory::make_private(&layers).map_err(RuntimeError::io(format!("create \"{}\"", layers.display())))?;
        run_directory::clean_leftovers(&state, &runc)?;
        let directory = RunDirectory::create(&state)?;
        overlay::check_upper(&state, &directory)?;
        Ok(Self { state, directory, runc, unpacking: Mutex::default() })
    }

    /// Where the layer of this chain id is, when it is unpacked.
    #[must_use]
    pub fn unpacked(&self, chain: Digest) -> Option<PathBuf> {
        let path = self.layer_path(chain);
        path.is_dir().then_some(path)
    }

    /// Unpacks a layer (tar, gzip or zstd of it) on top of `parents` (bottom first) and gives its directory.
    ///
    /// Directories are kept by chain id, not by diff id: a layer may leave out the entry of a directory that its
    /// parents have, and the directory then takes their mode and owner. Done once, however many ask. Blocking.
    pub fn unpack(
        &self,
        chain: Digest,
        diff_id: Digest,
        blob: impl Read,
        parents: &[PathBuf],
    ) -> Result<PathBuf, RuntimeError> {
        let lock = {
            let mut locks = self.unpacking.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(locks.entry(chain).or_default())
        };
        let _once = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let target = self.layer_path(chain);
        if target.is_dir() {
            return Ok(target);
        }
        let partial = self.directory.fresh("unpack")?;
        if let Err(error) = unpack::unpack(blob, diff_id, &partial, parents) {
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error);
        }
        match std::fs::rename(&partial, &target) {
            Ok(()) => Ok(target),
            // Another process was faster; its bytes are the same.
            Err(_) if target.is_dir() => {
                let _ = std::fs::remove_dir_all(&partial);
                Ok(target)
            }
            Err(source) => {
                Err(RuntimeError::Io { doing: format!("move the layer to \"{}\"", target.display()), source })
            }
        }
    }

    /// A path for a new file that is gone with this process at the latest.
    #[must_use]
    pub fn scratch_file(&self) -> PathBuf {
        self.directory.file("layer")
    }

    /// Mounts the layers (bottom first) with an empty upper directory; unmounted and removed when dropped. Blocking.
    pub fn mount(&self, layers: &[PathBuf]) -> Result<Rootfs, RuntimeError> {
        Rootfs::mount(&self.directory, layers)
    }

    /// Runs one command in the mounted root, its output appended to `log`, until it ends, a limit is passed or `cancel`
    /// resolves; then nothing of it is left running.
    pub async fn run(
        &self,
        rootfs: &mut Rootfs,
        command: &CommandSpec<'_>,
        log: &Path,
        cancel: impl Future<Output = ()> + Send,
    ) -> Result<Ended, RuntimeError> {
        process::run(&self.runc, &self.directory, rootfs, command, log, cancel).await
    }

    fn layer_path(&self, chain: Digest) -> PathBuf {
        self.state.join("layers").join(chain.hex())
    }
}

/// The first executable of this name in PATH, and in the system's places where PATH has none.
fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin"].map(PathBuf::from))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests;
