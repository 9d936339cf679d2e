//! Reading a layer that someone else wrote: compressed or not, within limits, never trusting a name or a length.
//!
//! Entries come as the writer takes them; nothing is unpacked here.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::{Entry, Kind};

/// What a layer may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the tar form.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Default for Limits {
    /// 32 GiB and two million entries: above every honest image, below what fills a machine.
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 2_000_000 }
    }
}

/// The longest path in a layer, in bytes, as on Linux.
const MAX_PATH: usize = 4096;

/// Why a layer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerReadError {
    /// More than the limits allow.
    #[error("the layer holds more than {limit} {what}")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// What it counts.
        what: &'static str,
    },
    /// An entry's path leads out of the image, or is too long.
    #[error("the layer has an entry \"{0}\", which is no path inside of an image")]
    Path(String),
    /// An entry of a kind that images do not have.
    #[error("the layer's entry \"{path}\" has the unknown type {kind:?}")]
    Kind {
        /// The entry.
        path: String,
        /// Its type byte.
        kind: char,
    },
    /// The bytes are no tar, or could not be read.
    #[error("cannot read the layer")]
    Io(#[from] io::Error),
}

/// The tar form of a layer: undoes gzip (any number of members) or zstd, told by the first bytes.
pub fn decompress<'a>(blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(128 << 10, blob);
    let start = blob.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(MultiGzDecoder::new(blob)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(start) {
        let mut decoder = zstd::Decoder::with_buffer(blob)?;
        // 128 MiB, what the zstd tool itself accepts unasked.
        decoder.window_log_max(27)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(blob))
    }
}

fn is_skippable_frame(start: &[u8]) -> bool {
    matches!(start, [first, 0x2a, 0x4d, 0x18, ..] if (0x50..=0x5f).contains(first))
}

/// Hands every entry of the tar form `tar` to `each`, with the content of files.
pub fn read_entries<E: From<LayerReadError>>(
    tar: impl Read,
    limits: Limits,
    mut each: impl FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let io_error = |error: io::Error| {
        E::from(match error.get_ref() {
            Some(inner) if inner.is::<Full>() => LayerReadError::TooLarge { limit: limits.bytes, what: "bytes" },
            _ => LayerReadError::Io(error),
        })
    };
    let mut archive = Archive::new(Capped { inner: tar, left: limits.bytes });
    let mut count = 0;
    for raw in archive.entries().map_err(io_error)? {
        let mut raw = raw.map_err(io_error)?;
        count += 1;
        if count > limits.entries {
            return Err(LayerReadError::TooLarge { limit: limits.entries, what: "entries" }.into());
        }
        if raw.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        match convert(&mut raw).map_err(io_error)?? {
            Some(entry) => each(&entry, &mut raw)?,
            None => continue,
        }
    }
    Ok(())
}

fn convert(raw: &mut tar::Entry<'_, impl Read>) -> io::Result<Result<Option<Entry>, LayerReadError>> {
    let written = raw.path_bytes().into_owned();
    let Some(path) = normalise(&written) else {
        return Ok(Err(LayerReadError::Path(String::from_utf8_lossy(&written).into_owned())));
    };
    let mut xattrs = BTreeMap::new();
    if let Some(extensions) = raw.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                xattrs.insert(name.to_vec(), extension.value_bytes().to_vec());
            }
        }
    }
    let header = raw.header();
    let kind = header.entry_type();
    let link = |what: &str| {
        raw.link_name_bytes()
            .map(|bytes| bytes.into_owned())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("a {what} without a target")))
    };
    let device =
        || -> io::Result<(u32, u32)> { Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))) };
    let kind = match kind {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if written.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File { size: raw.size() },
        EntryType::Symlink => Kind::Symlink { target: link("symbolic link")? },
        EntryType::Link => {
            let target = link("hard link")?;
            match normalise(&target) {
                Some(target) => Kind::HardLink { target },
                None => return Ok(Err(LayerReadError::Path(String::from_utf8_lossy(&target).into_owned()))),
            }
        }
        EntryType::Char => {
            let (major, minor) = device()?;
            Kind::Character { major, minor }
        }
        EntryType::Block => {
            let (major, minor) = device()?;
            Kind::Block { major, minor }
        }
        EntryType::Fifo => Kind::Fifo,
        other => {
            let path = String::from_utf8_lossy(&written).into_owned();
            return Ok(Err(LayerReadError::Kind { path, kind: char::from(other.as_byte()) }));
        }
    };
    let mut entry = Entry {
        path,
        kind,
        mode: header.mode()? & 0o7777,
        uid: header.uid()?,
        gid: header.gid()?,
        mtime: header.mtime()?,
        xattrs,
    };
    Ok(mark_removal(&mut entry).map(|keep| keep.then_some(entry)))
}

/// Turns the marked names into removals; false for marks that mean nothing (bookkeeping of other tools).
fn mark_removal(entry: &mut Entry) -> Result<bool, LayerReadError> {
    let start = entry.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let Some(rest) = entry.path[start..].strip_prefix(b".wh.") else { return Ok(!entry.path.is_empty()) };
    if rest == b".wh..opq" {
        entry.kind = Kind::Opaque;
        entry.path.truncate(start.saturating_sub(1));
    } else if rest.starts_with(b".wh.") {
        return Ok(false);
    } else if rest.is_empty() || rest == b"." || rest == b".." {
        return Err(LayerReadError::Path(entry.display_path()));
    } else {
        entry.kind = Kind::Whiteout;
        entry.path = [&entry.path[..start], rest].concat();
    }
    Ok(true)
}

/// The path from the root, or nothing where it leaves the root; the root itself is empty.
fn normalise(path: &[u8]) -> Option<Vec<u8>> {
    if path.len() > MAX_PATH || path.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            _ => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Ends with an error, not with a short read, when the limit is reached.
struct Capped<R> {
    inner: R,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the layer is larger than allowed")]
struct Full;

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left.saturating_add(1)).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..wanted])?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Full))?;
        Ok(read)
    }
}
