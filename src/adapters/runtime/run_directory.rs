//! One directory below `run/` per process, with a lock that lives as long as the process does.
//!
//! A directory whose lock is free belongs to a process that is gone: its containers are deleted, its mounts taken
//! down and its files removed. It must not touch anything outside `run/`.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mount::{UnmountFlags, unmount};

use super::RuntimeError;

/// The own directory of this process; removed when dropped.
pub struct RunDirectory {
    path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl RunDirectory {
    /// Makes and locks a new one.
    pub fn create(state: &Path) -> Result<Self, RuntimeError> {
        let doing = || format!("make a run directory in \"{}\"", state.join("run").display());
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let runs = state.join("run");
        make_private(&runs).map_err(RuntimeError::io(doing()))?;
        loop {
            let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = runs.join(&name);
            // Locked before it gets its name, else another start could take it for a leftover.
            let hidden = runs.join(format!(".new-{name}"));
            match fs::create_dir(&hidden) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(RuntimeError::io(doing()))?,
            }
            let lock = File::create_new(hidden.join("lock")).map_err(RuntimeError::io(doing()))?;
            lock.lock().map_err(RuntimeError::io(doing()))?;
            match fs::rename(&hidden, &path) {
                Ok(()) => return Ok(Self { path, next: AtomicU64::new(0), _lock: lock }),
                Err(_) if path.exists() => {
                    let _ = fs::remove_dir_all(&hidden);
                }
                Err(source) => return Err(RuntimeError::Io { doing: doing(), source }),
            }
        }
    }

    /// The directory in which `runc` keeps the state of our containers.
    pub fn containers(&self) -> PathBuf {
        self.path.join("runc")
    }

    /// A name that nobody has used in this process, beginning with `kind`.
    pub fn name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A path that nobody has used in this process.
    pub fn file(&self, kind: &str) -> PathBuf {
        self.path.join(self.name(kind))
    }

    /// A new empty directory, mode 0755 whatever the umask is.
    pub fn fresh(&self, kind: &str) -> Result<PathBuf, RuntimeError> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path.join(self.name(kind));
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .map_err(RuntimeError::io(format!("create \"{}\"", path.display())))?;
        Ok(path)
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // What may still be mounted there is not ours to empty.
        if unmount_below(&self.path).is_ok() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A directory that no other user of the machine gets into: images bring set-user-id programs and device nodes.
pub fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Removes the run directories of processes that are gone, with what they left mounted and running.
pub fn clean_leftovers(state: &Path, runc: &Path) -> Result<(), RuntimeError> {
    let runs = state.join("run");
    let entries = match fs::read_dir(&runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(RuntimeError::Io { doing: format!("read \"{}\"", runs.display()), source }),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        // Between the making of a directory and its lock it looks like a leftover.
        let being_made = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".new-"))
            && path
                .metadata()
                .and_then(|data| data.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < std::time::Duration::from_secs(60)));
        // A lock that cannot be opened, for too many open files, may be held as well.
        let is_held = match File::open(path.join("lock")) {
            Ok(lock) => lock.try_lock().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if being_made || is_held {
            continue;
        }
        tracing::debug!(path = %path.display(), "removing what an earlier process left behind");
        for container in fs::read_dir(path.join("runc")).into_iter().flatten().flatten() {
            let _ = Command::new(runc)
                .arg("--root")
                .arg(path.join("runc"))
                .args(["delete", "--force"])
                .arg(container.file_name())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        if let Err(error) = unmount_below(&path).and_then(|()| fs::remove_dir_all(&path)) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what an earlier process left behind");
        }
    }
    Ok(())
}

/// Takes down every mount below `path`, the latest first.
pub fn unmount_below(path: &Path) -> io::Result<()> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .filter(|point| point.starts_with(path) && point != path)
        .collect();
    while let Some(point) = points.pop() {
        if let Err(error) = unmount(&point, UnmountFlags::DETACH) {
            tracing::warn!(point = %point.display(), %error, "cannot unmount");
        }
    }
    Ok(())
}

/// The kernel writes space, tab, newline and backslash of a path as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let Some(digits) = octal {
            bytes.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_mount_table_are_undone() {
        for (field, path) in [("/a/b", "/a/b"), ("/a\\040b", "/a b"), ("/a\\134", "/a\\"), ("/a\\04", "/a\\04")] {
            assert_eq!(unescape(field.as_bytes()), path.as_bytes(), "{field}");
        }
    }

    #[test]
    fn a_leftover_goes_and_a_living_one_stays() {
        let state = tempfile::tempdir().unwrap();
        let living = RunDirectory::create(state.path()).unwrap();
        let dead = state.path().join("run/1-7");
        fs::create_dir_all(dead.join("unpack-0/etc")).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        clean_leftovers(state.path(), Path::new("/nonexistent")).unwrap();
        assert!(!dead.exists());
        assert!(living.path.exists());
        let path = living.path.clone();
        drop(living);
        assert!(!path.exists());
    }
}
