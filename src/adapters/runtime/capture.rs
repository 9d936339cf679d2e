//! The upper directory of an overlay as entries of a layer: what the commands of a step changed, and nothing else.
//!
//! Left out is what no image should know: places that were made only to mount something there, files that were copied
//! up but are as they were, and the kernel's own attributes. Writing the layer is the caller's.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::overlay::Rootfs;
use super::{RuntimeError, lower, xattr};
use crate::domain::layer::{Entry, Kind, order};

/// One entry of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The entry.
    pub entry: Entry,
    /// Where the content of a file is; valid as long as the root is mounted.
    pub content: Option<PathBuf>,
}

impl Rootfs {
    /// What changed since the root was mounted, in the order in which a layer is written. Blocking; nothing may run in
    /// the root meanwhile.
    pub fn changes(&self) -> Result<Vec<Change>, RuntimeError> {
        capture(&self.upper(), self.layers(), &self.mount_points.iter().cloned().collect())
    }
}

/// Everything in a directory, as the entries of one layer. Blocking.
pub fn read_root(directory: &Path) -> Result<Vec<Change>, RuntimeError> {
    capture(directory, &[], &BTreeSet::new())
}

pub(super) fn capture(
    upper: &Path,
    layers: &[PathBuf],
    mount_points: &BTreeSet<PathBuf>,
) -> Result<Vec<Change>, RuntimeError> {
    let mut capture = Capture { upper, layers, mount_points, inodes: HashMap::new() };
    let mut changes =
        capture.directory(Path::new(""), false).map_err(RuntimeError::io("read what the commands changed"))?;
    changes.sort_by(|left, right| order(&left.entry, &right.entry));
    capture.join_hard_links(&mut changes);
    Ok(changes)
}

struct Capture<'a> {
    upper: &'a Path,
    layers: &'a [PathBuf],
    mount_points: &'a BTreeSet<PathBuf>,
    /// The inode of every path whose file has more than one name.
    inodes: HashMap<Vec<u8>, (u64, u64)>,
}

impl Capture<'_> {
    /// The changes inside of `path`; `hides` when a directory above is opaque, so that nothing of the layers below
    /// shows through.
    fn directory(&mut self, path: &Path, hides: bool) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut present = BTreeSet::new();
        for item in fs::read_dir(self.upper.join(path))? {
            let item = item?;
            let child = path.join(item.file_name());
            let data = fs::symlink_metadata(item.path())?;
            if lower::is_whiteout(&data) {
                if !hides && lower::lookup(self.layers, &child).is_some() {
                    changes.push(removal(&child));
                }
                continue;
            }
            present.insert(item.file_name());
            if data.is_dir() {
                self.child_directory(&child, &data, hides, &mut changes)?;
            } else {
                self.child_file(&child, &data, &mut changes)?;
            }
        }
        if hides || xattr::is_opaque(&self.upper.join(path)) {
            let hidden = lower::names(self.layers, path);
            changes.extend(hidden.iter().filter(|name| !present.contains(*name)).map(|name| removal(&path.join(name))));
        }
        Ok(changes)
    }

    fn child_directory(
        &mut self,
        path: &Path,
        data: &Metadata,
        hides: bool,
        changes: &mut Vec<Change>,
    ) -> io::Result<()> {
        let place = self.upper.join(path);
        let inside = self.directory(path, hides || xattr::is_opaque(&place))?;
        let entry = described(path, data, Kind::Directory, &place)?;
        if inside.is_empty() && (self.mount_points.contains(path) || self.is_as_before(path, &entry, None)?) {
            return Ok(());
        }
        changes.push(Change { entry, content: None });
        changes.extend(inside);
        Ok(())
    }

    fn child_file(&mut self, path: &Path, data: &Metadata, changes: &mut Vec<Change>) -> io::Result<()> {
        let place = self.upper.join(path);
        let kind = data.file_type();
        let device = || (rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
        let kind = if kind.is_file() {
            if data.len() == 0 && self.mount_points.contains(path) {
                return Ok(());
            }
            Kind::File { size: data.len() }
        } else if kind.is_symlink() {
            Kind::Symlink { target: fs::read_link(&place)?.as_os_str().as_bytes().to_vec() }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_char_device() {
            let (major, minor) = device();
            Kind::Character { major, minor }
        } else if kind.is_block_device() {
            let (major, minor) = device();
            Kind::Block { major, minor }
        } else {
            // A socket has no meaning without the process that listens on it, and no form in a layer.
            if lower::lookup(self.layers, path).is_some() {
                changes.push(removal(path));
            }
            return Ok(());
        };
        let is_file = matches!(kind, Kind::File { .. });
        let entry = described(path, data, kind, &place)?;
        let content = is_file.then_some(place);
        if data.nlink() > 1 && is_file {
            self.inodes.insert(entry.path.clone(), (data.dev(), data.ino()));
        } else if self.is_as_before(path, &entry, content.as_deref())? {
            return Ok(());
        }
        changes.push(Change { entry, content });
        Ok(())
    }

    /// True when the layers below show the same at this path; a modification time alone is no change.
    fn is_as_before(&self, path: &Path, entry: &Entry, content: Option<&Path>) -> io::Result<bool> {
        let Some((place, data)) = lower::lookup(self.layers, path) else { return Ok(false) };
        let kind = match &entry.kind {
            Kind::Directory if data.is_dir() => Kind::Directory,
            Kind::File { .. } if data.is_file() => Kind::File { size: data.len() },
            Kind::Symlink { .. } if data.is_symlink() => {
                Kind::Symlink { target: fs::read_link(&place)?.as_os_str().as_bytes().to_vec() }
            }
            _ => return Ok(false),
        };
        let before = described(path, &data, kind, &place)?;
        if (Entry { mtime: entry.mtime, ..before }) != *entry {
            return Ok(false);
        }
        content.map_or(Ok(true), |content| same_content(content, &place))
    }

    /// The first name of a file in the layer's order carries its content, the others link to it.
    fn join_hard_links(&self, changes: &mut [Change]) {
        let mut first = HashMap::new();
        for change in changes {
            let Some(inode) = self.inodes.get(&change.entry.path) else { continue };
            match first.get(inode) {
                None => {
                    first.insert(*inode, change.entry.path.clone());
                }
                Some(target) => {
                    change.entry.kind = Kind::HardLink { target: target.clone() };
                    change.entry.xattrs.clear();
                    change.content = None;
                }
            }
        }
    }
}

fn removal(path: &Path) -> Change {
    let mut entry = Entry::whiteout("");
    entry.path = path.as_os_str().as_bytes().to_vec();
    Change { entry, content: None }
}

fn described(path: &Path, data: &Metadata, kind: Kind, place: &Path) -> io::Result<Entry> {
    Ok(Entry {
        path: path.as_os_str().as_bytes().to_vec(),
        mode: if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { data.mode() & 0o7777 },
        kind,
        uid: u64::from(data.uid()),
        gid: u64::from(data.gid()),
        mtime: u64::try_from(data.mtime()).unwrap_or(0),
        xattrs: xattr::read(place)?,
    })
}

fn same_content(left: &Path, right: &Path) -> io::Result<bool> {
    let mut left = BufReader::with_capacity(1 << 16, File::open(left)?);
    let mut right = BufReader::with_capacity(1 << 16, File::open(right)?);
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = left.read(&mut one)?;
        if length == 0 {
            return Ok(right.read(&mut other)? == 0);
        }
        match right.read_exact(&mut other[..length]) {
            Ok(()) if one[..length] == other[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
