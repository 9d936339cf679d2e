//! A directory as a gzipped tar, written as it is read.
//!
//! What cannot be read is left out; links are stored as links, so nothing outside comes in.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::OFlags;

use super::worker::resolve_name;

/// The most entries of an archive.
const MAX_ENTRIES: usize = 200_000;

/// Writes the archive of the directory at `path`, whose name all entries begin with.
pub fn write(output: impl Write, path: &Path) -> io::Result<()> {
    let text = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let path = resolve_name(text).map_err(|(_, message)| io::Error::other(message))?;
    let root = PathBuf::from(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let mut archive = tar::Builder::new(GzEncoder::new(io::BufWriter::new(output), Compression::fast()));
    archive.follow_symlinks(false);
    let mut waiting = vec![(path, root)];
    let mut count = 0;
    while let Some((from, name)) = waiting.pop() {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(io::Error::other("the directory has too many entries"));
        }
        let Ok(metadata) = std::fs::symlink_metadata(&from) else { continue };
        if metadata.is_dir() {
            let Ok(entries) = std::fs::read_dir(&from) else { continue };
            archive.append_dir(&name, &from)?;
            let mut entries: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
            entries.sort_unstable_by(|a, b| b.cmp(a));
            waiting.extend(entries.into_iter().map(|entry| (from.join(&entry), name.join(&entry))));
        } else if metadata.is_symlink() {
            let Ok(target) = std::fs::read_link(&from) else { continue };
            let mut header = tar::Header::new_gnu();
            header.set_metadata(&metadata);
            header.set_size(0);
            archive.append_link(&mut header, &name, target)?;
        } else if metadata.is_file() {
            let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
            let Ok(file) = File::options().read(true).custom_flags(flags).open(&from) else { continue };
            append(&mut archive, &name, file)?;
        }
    }
    archive.into_inner()?.finish()?.flush()
}

/// A file that grows or shrinks meanwhile has the size that it had at first.
fn append(archive: &mut tar::Builder<impl Write>, name: &Path, file: File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    let content = io::Read::chain(file, io::repeat(0));
    archive.append_data(&mut header, name, io::Read::take(content, metadata.len()))
}
