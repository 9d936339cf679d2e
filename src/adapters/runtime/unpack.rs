//! A layer's tar into a directory that overlay can use as a lower layer.
//!
//! Every path is resolved inside the directory by the kernel (`openat2`, `RESOLVE_IN_ROOT`), so neither `..` nor links
//! lead out of it. The directory is the caller's, who throws it away when this fails.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{RuntimeError, lower, xattr};
use crate::domain::digest::Digest;
use crate::domain::layer::{self, Entry, Kind, LayerReadError, Limits};

/// Unpacks `blob` (tar, gzip in any number of members, or zstd) into `target` and compares the diff id.
pub fn unpack(blob: impl Read, diff_id: Digest, target: &Path, parents: &[PathBuf]) -> Result<(), RuntimeError> {
    let bad = |reason: String| RuntimeError::BadLayer { layer: diff_id, reason };
    let limits = Limits::default();
    let mut unpacker = Unpacker::new(diff_id, target, parents)?;
    let tar = layer::decompress(blob).map_err(|error| bad(error.to_string()))?;
    let mut tar = Hashing { inner: tar, hash: Sha256::new() };
    layer::read_entries(&mut tar, limits, |entry, content| unpacker.entry(entry, content)).map_err(
        |stop| match stop {
            Stop::Read(LayerReadError::Io(error)) => bad(error.to_string()),
            Stop::Read(error) => bad(error.to_string()),
            Stop::Failed(error) => error,
        },
    )?;
    unpacker.finish()?;
    // The tar may go on behind its end mark, and the digest is of all of it.
    io::copy(&mut (&mut tar).take(limits.bytes), &mut io::sink()).map_err(|error| bad(error.to_string()))?;
    let found = Digest::from_bytes(tar.hash.finalize().into());
    if found != diff_id {
        return Err(bad(format!("its tar has the digest {found}")));
    }
    Ok(())
}

/// Why reading the entries ended early.
enum Stop {
    Read(LayerReadError),
    Failed(RuntimeError),
}

impl From<LayerReadError> for Stop {
    fn from(error: LayerReadError) -> Self {
        Self::Read(error)
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

struct Unpacker<'a> {
    diff_id: Digest,
    root: OwnedFd,
    parents: &'a [PathBuf],
    /// Directories whose modification time is set when nothing is written into them any more.
    times: Vec<(PathBuf, u64)>,
}

impl<'a> Unpacker<'a> {
    fn new(diff_id: Digest, target: &Path, parents: &'a [PathBuf]) -> Result<Self, RuntimeError> {
        let root = rustix::fs::open(target, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
            RuntimeError::Io { doing: format!("open \"{}\"", target.display()), source: error.into() }
        })?;
        let unpacker = Self { diff_id, root, parents, times: Vec::new() };
        // A layer without an entry for the root keeps the root of what it lies on.
        unpacker.inherit(Path::new(""), unpacker.root.as_fd())?;
        Ok(unpacker)
    }

    fn bad(&self, reason: impl Into<String>) -> RuntimeError {
        RuntimeError::BadLayer { layer: self.diff_id, reason: reason.into() }
    }

    fn io(&self, path: &Path, error: impl Into<io::Error>) -> RuntimeError {
        RuntimeError::Io {
            doing: format!("unpack \"/{}\" of layer {}", path.display(), self.diff_id),
            source: error.into(),
        }
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Stop> {
        self.place_entry(entry, content).map_err(Stop::Failed)
    }

    fn place_entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), RuntimeError> {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        if entry.kind == Kind::Opaque {
            let directory = self.directory(path)?;
            return fsetxattr(&directory, xattr::OPAQUE, b"y", XattrFlags::empty())
                .map_err(|error| self.io(path, error));
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let parent = self.directory(above)?;
        if entry.kind == Kind::Whiteout {
            return self.whiteout(path, parent.as_fd(), name);
        }
        let is_directory = entry.kind == Kind::Directory;
        let was_hidden = self.make_way(path, parent.as_fd(), name, is_directory)?;
        self.create(entry, path, parent.as_fd(), name, content)?;
        if is_directory {
            if was_hidden {
                self.set_opaque(path, parent.as_fd(), name)?;
            }
            self.times.push((path.to_owned(), entry.mtime));
        }
        Ok(())
    }

    /// The directory at `path`, links on the way resolved inside the layer; made with all above it where missing.
    fn directory(&self, path: &Path) -> Result<OwnedFd, RuntimeError> {
        match self.existing(path) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(self.io(path, error)),
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(self.io(path, Errno::NOTDIR));
        };
        let parent = self.directory(above)?;
        let was_hidden = self.make_way(path, parent.as_fd(), name, true)?;
        mkdirat(&parent, name, Mode::from_raw_mode(0o755)).map_err(|error| self.io(path, error))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&parent, name, flags, Mode::empty()).map_err(|error| self.io(path, error))?;
        self.inherit(path, directory.as_fd())?;
        if was_hidden {
            self.set_opaque(path, parent.as_fd(), name)?;
        }
        Ok(directory)
    }

    /// The directory at `path` where there is one, links on the way resolved inside the layer.
    fn existing(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Gives a directory that the layer itself does not describe the attributes it has in the layers below.
    fn inherit(&self, path: &Path, directory: BorrowedFd<'_>) -> Result<(), RuntimeError> {
        use std::os::unix::fs::MetadataExt as _;
        let mut entry = Entry::directory("", 0o755);
        if let Some((place, data)) = lower::lookup(self.parents, path).filter(|(_, data)| data.is_dir()) {
            entry.mode = data.mode() & 0o7777;
            entry = entry.owned_by(data.uid(), data.gid());
            entry.xattrs = xattr::read(&place).map_err(|error| self.io(path, error))?;
        }
        self.apply(path, directory, &entry)
    }

    /// Removes what stands at the place of a new entry; true when it hid the layers below.
    fn make_way(
        &self,
        path: &Path,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        keeps_directory: bool,
    ) -> Result<bool, RuntimeError> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(self.io(path, error)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            if keeps_directory {
                return Ok(false);
            }
            std::fs::remove_dir_all(self.place(parent, name)).map_err(|error| self.io(path, error))?;
            return Ok(false);
        }
        unlinkat(parent, name, AtFlags::empty()).map_err(|error| self.io(path, error))?;
        Ok(kind == FileType::CharacterDevice && stat.st_rdev == 0)
    }

    fn create(
        &self,
        entry: &Entry,
        path: &Path,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        content: &mut dyn Read,
    ) -> Result<(), RuntimeError> {
        let io = |error: Errno| self.io(path, error);
        let private = Mode::from_raw_mode(0o600);
        let node = |kind: FileType, device: u64| mknodat(parent, name, kind, private, device).map_err(io);
        match &entry.kind {
            Kind::Directory => {
                match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(io(error)),
                }
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(parent, name, flags, Mode::empty()).map_err(io)?;
                return self.apply(path, directory.as_fd(), entry);
            }
            Kind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(openat(parent, name, flags, private).map_err(io)?);
                io::copy(content, &mut file).map_err(|error| self.io(path, error))?;
                self.apply(path, file.as_fd(), entry)?;
                return set_mtime(parent, name, entry.mtime).map_err(io);
            }
            Kind::HardLink { target } => {
                let target = Path::new(OsStr::from_bytes(target));
                let (Some(above), Some(target_name)) = (target.parent(), target.file_name()) else {
                    return Err(self.bad(format!("\"/{}\" is a hard link to the root", path.display())));
                };
                let source = self.directory(above)?;
                return linkat(&source, target_name, parent, name, AtFlags::empty()).map_err(|error| match error {
                    Errno::NOENT => self.bad(format!(
                        "\"/{}\" is a hard link to \"/{}\", which is not in the layer",
                        path.display(),
                        target.display()
                    )),
                    error => self.io(path, error),
                });
            }
            Kind::Symlink { target } => symlinkat(OsStr::from_bytes(target), parent, name).map_err(io)?,
            Kind::Character { major: 0, minor: 0 } => {
                return Err(self.bad(format!("\"/{}\" is the device 0:0, which would hide a file", path.display())));
            }
            Kind::Character { major, minor } => node(FileType::CharacterDevice, makedev(*major, *minor))?,
            Kind::Block { major, minor } => node(FileType::BlockDevice, makedev(*major, *minor))?,
            Kind::Fifo => node(FileType::Fifo, 0)?,
            Kind::Whiteout | Kind::Opaque => return Ok(()),
        }
        let (uid, gid) = self.owner(entry)?;
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        let place = self.place(parent, name);
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            rustix::fs::chmod(&place, Mode::from_raw_mode(entry.mode)).map_err(io)?;
        }
        for (name, value) in layer_xattrs(entry) {
            xattr::write(&place, name, value).map_err(|error| self.io(path, error))?;
        }
        set_mtime(parent, name, entry.mtime).map_err(io)
    }

    fn owner(&self, entry: &Entry) -> Result<(Uid, Gid), RuntimeError> {
        // The highest number means "leave it" to the system call.
        let number = |id: u64| {
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| self.bad(format!("the owner {id} of \"{}\" is no 32-bit number", entry.display_path())))
        };
        Ok((Uid::from_raw(number(entry.uid)?), Gid::from_raw(number(entry.gid)?)))
    }

    /// Owner, then mode (a change of owner clears set-uid bits), then attributes (it clears capabilities too).
    fn apply(&self, path: &Path, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), RuntimeError> {
        let (uid, gid) = self.owner(entry)?;
        fchown(file, Some(uid), Some(gid))
            .and_then(|()| fchmod(file, Mode::from_raw_mode(entry.mode)))
            .map_err(|error| self.io(path, error))?;
        for (name, value) in layer_xattrs(entry) {
            fsetxattr(file, name, value, XattrFlags::empty()).map_err(|error| self.io(path, error))?;
        }
        Ok(())
    }

    fn whiteout(&self, path: &Path, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), RuntimeError> {
        // It is about the layers below; what this layer itself has stays, and hides them.
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.set_opaque(path, parent, name)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0).map_err(|error| self.io(path, error))
            }
            Err(error) => Err(self.io(path, error)),
        }
    }

    fn set_opaque(&self, path: &Path, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), RuntimeError> {
        xattr::write(&self.place(parent, name), xattr::OPAQUE.as_bytes(), b"y").map_err(|error| self.io(path, error))
    }

    /// A path to an entry of an open directory, for the calls that have no form relative to one.
    fn place(&self, parent: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name)
    }

    fn finish(&mut self) -> Result<(), RuntimeError> {
        while let Some((path, mtime)) = self.times.pop() {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
            match self.existing(above).and_then(|parent| set_mtime(&parent, name, mtime)) {
                // A later entry of the same layer put something else there.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(self.io(&path, error)),
            }
        }
        Ok(())
    }
}

/// The attributes that are set on a disk; what a hostile layer says about the overlay itself is not among them.
fn layer_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| xattr::belongs_into_layer(name))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

fn set_mtime(parent: impl AsFd, name: &OsStr, seconds: u64) -> Result<(), Errno> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    utimensat(parent, name, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)
}
