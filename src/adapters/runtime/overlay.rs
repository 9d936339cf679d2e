//! The mounted root of a step: its parent's layers below, an empty upper directory on top.
//!
//! Lower directories are named through open file descriptors, so that a hundred layers fit into the page of options
//! that `mount(2)` takes, and no character of a path is special.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::run_directory::RunDirectory;
use super::{RuntimeError, lower, xattr};

/// More lower layers than any kernel's overlay takes with certainty.
pub const MAX_LAYERS: usize = 120;

/// A mounted root; unmounted and removed when dropped.
pub struct Rootfs {
    directory: PathBuf,
    layers: Vec<PathBuf>,
    /// Paths that mounting into the container made, relative to the root; they are no change of a command.
    pub(super) mount_points: Vec<PathBuf>,
}

impl Rootfs {
    pub(super) fn mount(run: &RunDirectory, layers: &[PathBuf]) -> Result<Self, RuntimeError> {
        let directory = run.fresh("root")?;
        let rootfs = Self { directory, layers: layers.to_vec(), mount_points: Vec::new() };
        for part in ["upper", "work", "merged"] {
            make_directory(&rootfs.directory.join(part))?;
        }
        mount_layers(&rootfs.directory, layers, "")?;
        Ok(rootfs)
    }

    /// The merged root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join("merged")
    }

    /// The directory that receives all changes.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// The layers below, bottom first.
    #[must_use]
    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.path(), UnmountFlags::DETACH) {
            // The mount itself may have been what failed.
            tracing::debug!(path = %self.path().display(), %error, "cannot unmount");
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(path = %self.directory.display(), %error, "cannot remove a step's root");
        }
    }
}

/// Mounts the layers (bottom first) below `directory` at its `merged`, with its `upper` and `work`, all of which exist;
/// `more` are further options, each after a comma.
pub(super) fn mount_layers(directory: &Path, layers: &[PathBuf], more: &str) -> Result<(), RuntimeError> {
    if layers.len() > MAX_LAYERS {
        return Err(RuntimeError::Start(format!(
            "the image has {} layers, and an overlay takes {MAX_LAYERS}",
            layers.len()
        )));
    }
    let mut lowers: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    if lowers.is_empty() {
        let empty = directory.join("empty");
        make_directory(&empty)?;
        lowers.push(empty);
    }
    let upper = directory.join("upper");
    // The root directory itself shows the attributes of the upper one.
    if let Some(top) = layers.last() {
        copy_attributes(top, &upper)?;
    }
    let failed = |source| RuntimeError::Io { doing: format!("mount {} layers as overlay", layers.len()), source };
    let open = |path: &Path| File::open(path).map_err(failed);
    let lowers = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let (upper, work) = (open(&upper)?, open(&directory.join("work"))?);
    let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let options = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=nofollow,metacopy=off,index=off,xino=off{more}",
        lowers.iter().map(name).collect::<Vec<_>>().join(":"),
        name(&upper),
        name(&work),
    );
    let options = CString::new(options).map_err(|error| failed(error.into()))?;
    mount("overlay", directory.join("merged"), "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .map_err(|error| failed(error.into()))
}

pub(super) fn make_directory(path: &Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(RuntimeError::io(format!("create \"{}\"", path.display())))
}

fn copy_attributes(from: &Path, to: &Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let copy = || {
        let data = fs::metadata(from)?;
        chown(to, Some(data.uid()), Some(data.gid()))?;
        fs::set_permissions(to, data.permissions())?;
        xattr::read(from)?.iter().try_for_each(|(name, value)| xattr::write(to, name, value))
    };
    copy().map_err(RuntimeError::io("copy the attributes of the root directory"))
}

/// Tries on the state directory what a command may do to an upper layer: remove a file, replace a directory.
pub fn check_upper(state: &Path, run: &RunDirectory) -> Result<(), RuntimeError> {
    let probe = run.fresh("probe")?;
    let below = probe.join("lower");
    let prepared = fs::create_dir_all(below.join("directory")).and_then(|()| fs::write(below.join("file"), "x"));
    prepared.map_err(RuntimeError::io(format!("write to \"{}\"", state.display())))?;
    let refused = |reason: String| RuntimeError::NoUpper { path: state.display().to_string(), reason };
    let rootfs = Rootfs::mount(run, &[below]).map_err(|error| match error {
        RuntimeError::Io { source, .. } => {
            refused(format!("mounting an overlay on its {} file system failed: {source}", file_system(state)))
        }
        other => other,
    })?;
    let merged = rootfs.path();
    let changed = fs::remove_file(merged.join("file"))
        .and_then(|()| fs::remove_dir(merged.join("directory")))
        .and_then(|()| fs::create_dir(merged.join("directory")));
    let upper = rootfs.upper();
    let faithful = changed.is_ok()
        && fs::symlink_metadata(upper.join("file")).is_ok_and(|data| lower::is_whiteout(&data))
        && xattr::is_opaque(&upper.join("directory"));
    drop(rootfs);
    let _ = fs::remove_dir_all(&probe);
    match changed {
        Ok(()) if faithful => Ok(()),
        Ok(()) => {
            Err(refused(format!("its {} file system keeps no whiteouts or trusted attributes", file_system(state))))
        }
        Err(error) => Err(refused(format!(
            "a change through an overlay on its {} file system failed: {error}",
            file_system(state)
        ))),
    }
}

/// The file system's name where it is one of those that people try, else its number.
fn file_system(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(path) else { return "unknown".to_owned() };
    let name = match stat.f_type {
        0x794c_7630 => "overlay",
        0x6969 => "NFS",
        0x6573_5546 => "FUSE",
        0x4d44 => "FAT",
        0xef53 => "ext4",
        0x5846_5342 => "XFS",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x0102_1997 => "9p",
        other => return format!("0x{other:x}"),
    };
    name.to_owned()
}
