//! Reading a layer that someone else wrote: compressed or not, within limits, never trusting a name or a length.
//!
//! Entries come as the writer takes them; nothing is unpacked here.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType, Header};

use super::{Entry, Kind};

/// What a layer may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the tar form.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of their paths, with those of all the directories on the way: what an index of them may take.
    pub names: u64,
}

impl Default for Limits {
    /// 32 GiB, two million entries and 1 GiB of names: above every honest image, below what fills a machine.
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 2_000_000, names: 1 << 30 }
    }
}

/// The longest path in a layer, in bytes, as on Linux.
const MAX_PATH: usize = 4096;
/// The most that one entry's extension records hold, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

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
    Io(#[source] io::Error),
}

impl From<io::Error> for LayerReadError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Full>()) {
            Some(Full { limit }) => Self::TooLarge { limit: *limit, what: "bytes" },
            None => Self::Io(error),
        }
    }
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
    let io_error = |error: io::Error| E::from(error.into());
    let mut archive = Archive::new(Capped { inner: tar, left: limits.bytes, limit: limits.bytes });
    let (mut count, mut names) = (0, 0);
    let mut extensions = Extensions::default();
    // Raw: the library splits extension records at line ends, which a binary attribute may hold.
    for raw in archive.entries().map_err(io_error)?.raw(true) {
        let mut raw = raw.map_err(io_error)?;
        count += 1;
        if count > limits.entries {
            return Err(LayerReadError::TooLarge { limit: limits.entries, what: "entries" }.into());
        }
        if extensions.take(&mut raw)? {
            continue;
        }
        if let Some(entry) = convert(raw.header(), std::mem::take(&mut extensions))? {
            names += name_bytes(&entry.path);
            if names > limits.names {
                return Err(LayerReadError::TooLarge { limit: limits.names, what: "bytes of names" }.into());
            }
            each(&entry, &mut raw)?;
        }
    }
    Ok(())
}

/// The length of a path and about that of every directory on the way to it.
fn name_bytes(path: &[u8]) -> u64 {
    let above = path.iter().filter(|byte| **byte == b'/').count();
    (path.len() + path.len() * above / 2) as u64
}

fn convert(header: &Header, extensions: Extensions) -> Result<Option<Entry>, LayerReadError> {
    let written = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = normalise(&written).ok_or_else(|| LayerReadError::Path(text(&written)))?;
    let link = extensions.link.or_else(|| header.link_name_bytes().map(|bytes| bytes.into_owned()));
    let link = || link.ok_or_else(|| invalid("a link without a target"));
    let device =
        || -> io::Result<(u32, u32)> { Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))) };
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous if written.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File { size: header.entry_size()? },
        EntryType::Symlink => Kind::Symlink { target: link()? },
        EntryType::Link => {
            let target = link()?;
            Kind::HardLink { target: normalise(&target).ok_or_else(|| LayerReadError::Path(text(&target)))? }
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
        other => return Err(LayerReadError::Kind { path: text(&written), kind: char::from(other.as_byte()) }),
    };
    let fields = header.as_old();
    let mut entry = Entry {
        path,
        kind,
        mode: number(&fields.mode, || header.mode().map(u64::from))? as u32 & 0o7777,
        uid: extensions.uid.map_or_else(|| number(&fields.uid, || header.uid()), Ok)?,
        gid: extensions.gid.map_or_else(|| number(&fields.gid, || header.gid()), Ok)?,
        mtime: extensions.mtime.map_or_else(|| number(&fields.mtime, || header.mtime()), Ok)?,
        xattrs: extensions.xattrs,
    };
    Ok(mark_removal(&mut entry)?.then_some(entry))
}

/// A number of the header; a field that was left blank is zero.
fn number(field: &[u8], read: impl FnOnce() -> io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { read() }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// What came before an entry and is about it: long names and further attributes.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extensions {
    /// Takes an entry that is about the next one; false for an entry of its own.
    fn take(&mut self, raw: &mut tar::Entry<'_, impl Read>) -> Result<bool, LayerReadError> {
        let kind = raw.header().entry_type();
        if !matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            return Ok(false);
        }
        if raw.size() > MAX_EXTENSION {
            return Err(LayerReadError::TooLarge { limit: MAX_EXTENSION, what: "bytes of attributes in one entry" });
        }
        let mut body = Vec::new();
        raw.read_to_end(&mut body)?;
        let name = || body.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            EntryType::GNULongName => self.path = Some(name()),
            EntryType::GNULongLink => self.link = Some(name()),
            EntryType::XHeader => self.take_records(&body)?,
            _ => {}
        }
        Ok(true)
    }

    fn take_records(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let malformed = || invalid("a malformed extension record");
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length: usize =
                std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(malformed());
            }
            let record = &rest[space + 1..length - 1];
            rest = &rest[length..];
            // An attribute's own name may hold an equals sign only where no other tool could tell either.
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || std::str::from_utf8(value).ok()?.split('.').next()?.parse().ok();
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"uid" => self.uid = Some(number().ok_or_else(malformed)?),
                b"gid" => self.gid = Some(number().ok_or_else(malformed)?),
                // Times before 1970 are none of an image.
                b"mtime" => self.mtime = Some(number().unwrap_or(0)),
                b"size" => return Err(invalid("a file of more than 8 GiB")),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }
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
    limit: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the layer is larger than allowed")]
struct Full {
    limit: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left.saturating_add(1)).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..wanted])?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Full { limit: self.limit }))?;
        Ok(read)
    }
}
