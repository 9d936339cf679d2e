//! Writing a layer: tar, both digests and gzip in one pass, with the same bytes for the same entries on any machine
//! and with any number of threads.
//!
//! Nothing is taken from the clock or the file system here; entries come complete, and in order.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, channel};

use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{Entry, Kind, order};
use crate::domain::digest::Digest;

/// Each gzip member holds this many bytes of tar: members do not depend on each other, so that the number of threads
/// that compress them never shows.
const MEMBER: usize = 1 << 20;
/// Changing it changes the digest of every layer: raise [`crate::domain::names::FORMAT_VERSION`] with it.
const LEVEL: u32 = 3;
/// "Unknown" in the gzip header, whatever this runs on.
const OPERATING_SYSTEM: u8 = 255;

/// Why a layer cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Entries must come in [`order`], each path once.
    #[error("\"{path}\" comes twice or after an entry that belongs behind it")]
    Order {
        /// The entry that came too late.
        path: String,
    },
    /// Such a name means a removal in an image.
    #[error("\"{path}\" cannot be in an image: names that begin with \".wh.\" mark removals there")]
    WhiteoutName {
        /// The refused path.
        path: String,
    },
    /// The path is empty, absolute, or has `.`, `..` or empty components.
    #[error("\"{path}\" is no path inside of an image")]
    Path {
        /// The refused path.
        path: String,
    },
    /// The file's content has another length than its entry says.
    #[error("\"{path}\" changed while it was read: {expected} bytes were expected")]
    Size {
        /// The file.
        path: String,
        /// The length that its entry says.
        expected: u64,
    },
    /// The layer could not be written or a file's content could not be read.
    #[error("cannot write the layer")]
    Io(#[from] io::Error),
}

/// What a finished layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the tar form, as in the image's config.
    pub diff_id: Digest,
    /// Digest of the compressed form, as in the manifest.
    pub digest: Digest,
    /// Length of the compressed form, in bytes.
    pub size: u64,
    /// Length of the tar form, in bytes.
    pub tar_size: u64,
}

/// Where members are compressed; it changes the speed, never the bytes.
#[derive(Debug, Clone, Copy)]
pub enum Workers {
    /// Here, one after the other.
    Here,
    /// Up to `count` at a time, each where `spawn` runs it.
    Spawn {
        /// The most members at a time.
        count: usize,
        /// Runs a job beside the caller, such as on a new thread.
        spawn: fn(Box<dyn FnOnce() + Send>),
    },
}

/// Writes entries as a gzip-compressed tar to `W`, hashing both forms.
pub struct LayerWriter<W: Write> {
    members: Compressor<W>,
    epoch: u64,
    last: Option<Entry>,
    entries: u64,
}

impl<W: Write> LayerWriter<W> {
    /// A layer that no time stamp later than `epoch` (seconds since 1970) gets into, compressed where `workers` says.
    pub fn new(out: W, epoch: u64, workers: Workers) -> Self {
        Self { members: Compressor::new(out, workers), epoch, last: None, entries: 0 }
    }

    /// The number of entries so far: an empty layer is left out of an image.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds the next entry; `content` is read to its end for a file and not touched otherwise.
    pub fn append(&mut self, entry: &Entry, mut content: impl Read) -> Result<(), LayerError> {
        check_path(entry)?;
        if self.last.as_ref().is_some_and(|last| order(last, entry).is_ge()) {
            return Err(LayerError::Order { path: entry.display_path() });
        }
        let mut stored = stored_path(entry);
        if matches!(entry.kind, Kind::Directory) {
            stored.push(b'/');
        }
        let link = match &entry.kind {
            Kind::Symlink { target } | Kind::HardLink { target } => target.as_slice(),
            _ => b"",
        };
        let mut header = Header::new_ustar();
        header.set_mode(entry.mode & 0o7777);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime.min(self.epoch));
        let size = if let Kind::File { size } = entry.kind { size } else { 0 };
        header.set_size(size);
        header.set_entry_type(match entry.kind {
            Kind::Directory => EntryType::Directory,
            Kind::File { .. } | Kind::Whiteout | Kind::Opaque => EntryType::Regular,
            Kind::Symlink { .. } => EntryType::Symlink,
            Kind::HardLink { .. } => EntryType::Link,
            Kind::Character { .. } => EntryType::Char,
            Kind::Block { .. } => EntryType::Block,
            Kind::Fifo => EntryType::Fifo,
        });
        if let Kind::Character { major, minor } | Kind::Block { major, minor } = entry.kind {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        let mut extensions = Vec::new();
        if !put_path(&mut header, &stored) {
            extend(&mut extensions, b"path", &stored);
        }
        if !put_link(&mut header, link) {
            extend(&mut extensions, b"linkpath", link);
        }
        for (name, value) in &entry.xattrs {
            extend(&mut extensions, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !extensions.is_empty() {
            self.write_extensions(&extensions)?;
        }
        header.set_cksum();
        self.members.write_all(header.as_bytes())?;
        let copied = io::copy(&mut (&mut content).take(size), &mut self.members)?;
        if copied != size || (size > 0 && content.read(&mut [0])? != 0) {
            return Err(LayerError::Size { path: entry.display_path(), expected: size });
        }
        self.members.pad()?;
        self.last = Some(entry.clone());
        self.entries += 1;
        Ok(())
    }

    /// Ends the layer and gives back what it was written to.
    pub fn finish(mut self) -> Result<(W, LayerBlob), LayerError> {
        self.members.write_all(&[0; 1024])?;
        self.members.finish()
    }

    fn write_extensions(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        put_path(&mut header, b"PaxHeaders/0");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_entry_type(EntryType::XHeader);
        header.set_cksum();
        self.members.write_all(header.as_bytes())?;
        self.members.write_all(records)?;
        self.members.pad()
    }
}

fn check_path(entry: &Entry) -> Result<(), LayerError> {
    let path = || entry.display_path();
    let root_is_fine = matches!(entry.kind, Kind::Opaque) && entry.path.is_empty();
    for component in entry.path.split(|byte| *byte == b'/') {
        if (matches!(component, b"" | b"." | b"..") || component.contains(&0)) && !root_is_fine {
            return Err(LayerError::Path { path: path() });
        }
        if component.starts_with(b".wh.") {
            return Err(LayerError::WhiteoutName { path: path() });
        }
    }
    Ok(())
}

/// The path in the tar: removals are empty files with a marked name.
fn stored_path(entry: &Entry) -> Vec<u8> {
    match entry.kind {
        Kind::Whiteout => {
            let name = entry.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            [&entry.path[..name], b".wh.", &entry.path[name..]].concat()
        }
        Kind::Opaque if entry.path.is_empty() => b".wh..wh..opq".to_vec(),
        Kind::Opaque => [entry.path.as_slice(), b"/.wh..wh..opq"].concat(),
        _ => entry.path.clone(),
    }
}

/// Puts a path into the header's two fields, split at a slash; false when it does not fit.
fn put_path(header: &mut Header, path: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    let (prefix, name): (&[u8], &[u8]) = if path.len() <= ustar.name.len() {
        (b"", path)
    } else {
        let split = (path.len() - ustar.name.len() - 1..path.len().min(ustar.prefix.len() + 1))
            .find(|at| *at > 0 && path[*at] == b'/' && at + 1 < path.len());
        match split {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => {
                // Old readers see the beginning; the extension holds the whole.
                ustar.name.copy_from_slice(&path[..100]);
                return false;
            }
        }
    };
    ustar.name[..name.len()].copy_from_slice(name);
    ustar.prefix[..prefix.len()].copy_from_slice(prefix);
    true
}

fn put_link(header: &mut Header, link: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    let fits = link.len().min(ustar.linkname.len());
    ustar.linkname[..fits].copy_from_slice(&link[..fits]);
    fits == link.len()
}

/// Adds one extension record, `<length> <key>=<value>\n`, where the length counts itself.
fn extend(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The compressed side of a layer: takes the bytes of a tar, writes them as deterministic gzip members, hashes both.
pub struct Compressor<W: Write> {
    out: W,
    diff: Sha256,
    blob: Sha256,
    size: u64,
    tar_size: u64,
    current: Vec<u8>,
    running: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    workers: Workers,
}

impl<W: Write> Compressor<W> {
    /// A compressor that writes to `out`.
    pub fn new(out: W, workers: Workers) -> Self {
        Self {
            out,
            diff: Sha256::new(),
            blob: Sha256::new(),
            size: 0,
            tar_size: 0,
            current: Vec::with_capacity(MEMBER),
            running: VecDeque::new(),
            workers,
        }
    }

    fn pad(&mut self) -> io::Result<()> {
        let over = (self.tar_size % 512) as usize;
        if over == 0 { Ok(()) } else { self.write_all(&[0; 512][over..]) }
    }

    fn start_member(&mut self) -> io::Result<()> {
        let bytes = std::mem::replace(&mut self.current, Vec::with_capacity(MEMBER));
        let Workers::Spawn { count, spawn } = self.workers else {
            return self.put(&compress(&bytes)?);
        };
        if self.running.len() >= count.max(1) {
            self.put_first()?;
        }
        let (sender, receiver) = channel();
        // Nobody listens any more when the layer was given up.
        spawn(Box::new(move || drop(sender.send(compress(&bytes)))));
        self.running.push_back(receiver);
        Ok(())
    }

    fn put_first(&mut self) -> io::Result<()> {
        if let Some(first) = self.running.pop_front() {
            let member = first.recv().map_err(|_| io::Error::other("a worker that compressed the layer died"))??;
            self.put(&member)?;
        }
        Ok(())
    }

    fn put(&mut self, member: &[u8]) -> io::Result<()> {
        self.blob.update(member);
        self.size += member.len() as u64;
        self.out.write_all(member)
    }

    /// Ends the blob and gives back what it was written to.
    pub fn finish(mut self) -> Result<(W, LayerBlob), LayerError> {
        while !self.running.is_empty() {
            self.put_first()?;
        }
        if !self.current.is_empty() {
            let last = compress(&self.current)?;
            self.put(&last)?;
        }
        self.out.flush()?;
        let blob = LayerBlob {
            diff_id: Digest::from_bytes(self.diff.finalize().into()),
            digest: Digest::from_bytes(self.blob.finalize().into()),
            size: self.size,
            tar_size: self.tar_size,
        };
        Ok((self.out, blob))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(MEMBER - self.current.len());
        let bytes = &bytes[..taken];
        self.diff.update(bytes);
        self.tar_size += taken as u64;
        self.current.extend_from_slice(bytes);
        if self.current.len() == MEMBER {
            self.start_member()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(OPERATING_SYSTEM)
        .write(Vec::with_capacity(bytes.len() / 2 + 64), Compression::new(LEVEL));
    encoder.write_all(bytes)?;
    encoder.finish()
}
