//! A directory of blobs by digest (`sha256/<hex>`), written whole or not at all.
//!
//! It knows nothing of what the blobs are.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::LayoutError;
use crate::domain::digest::Digest;

/// A directory of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// The blobs below `dir`, which is made when something is written.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the blob is, or would be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("sha256").join(digest.hex())
    }

    /// True when the blob is there.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The blob's bytes, if it is there and no longer than `max` bytes.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>, LayoutError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LayoutError::Read { path, source }),
        };
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(|source| LayoutError::Read { path, source })?;
        if bytes.len() as u64 > max {
            return Err(LayoutError::TooLarge { digest: *digest, max });
        }
        if Digest::of(&bytes) != *digest {
            return Err(LayoutError::Damaged { digest: *digest });
        }
        Ok(Some(bytes))
    }

    /// Writes the blob unless it is there.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), LayoutError> {
        if self.has(digest) {
            return Ok(());
        }
        self.put_from(bytes, Some(digest), u64::MAX).map(drop)
    }

    /// Takes over a file whose digest its maker knows: by a second name where the file system can, else copied.
    pub fn put_file(&self, digest: &Digest, file: &Path) -> Result<(), LayoutError> {
        if self.has(digest) {
            return Ok(());
        }
        let path = self.path(digest);
        self.make()?;
        match fs::hard_link(file, &path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(_) => {
                let open = File::open(file).map_err(|source| LayoutError::Read { path: file.into(), source })?;
                self.put_from(open, Some(digest), u64::MAX).map(drop)
            }
        }
    }

    /// Writes what `from` gives, at most `max` bytes, and tells digest and length; another digest than `expected` is an
    /// error and leaves nothing behind.
    pub fn put_from(
        &self,
        mut from: impl Read,
        expected: Option<&Digest>,
        max: u64,
    ) -> Result<(Digest, u64), LayoutError> {
        let mut incoming = self.incoming()?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(LayoutError::Read { path: self.dir.clone(), source }),
            };
            incoming.add(&buffer[..read])?;
            if incoming.size > max {
                let digest = expected.copied().unwrap_or(Digest::of(b""));
                return Err(LayoutError::TooLarge { digest, max });
            }
        }
        incoming.finish(expected)
    }

    /// A blob that arrives in pieces.
    pub fn incoming(&self) -> Result<Incoming, LayoutError> {
        self.make()?;
        let file =
            NamedTempFile::new_in(&self.dir).map_err(|source| LayoutError::Write { path: self.dir.clone(), source })?;
        Ok(Incoming { blobs: self.clone(), file, hash: Sha256::new(), size: 0 })
    }

    fn make(&self) -> Result<(), LayoutError> {
        let path = self.dir.join("sha256");
        fs::create_dir_all(&path).map_err(|source| LayoutError::Write { path, source })
    }
}

/// A blob that is being written; dropped before its end it leaves nothing behind.
pub struct Incoming {
    blobs: Blobs,
    file: NamedTempFile,
    hash: Sha256,
    /// Bytes so far.
    pub size: u64,
}

impl Incoming {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), LayoutError> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| LayoutError::Write { path: self.file.path().to_owned(), source })
    }

    /// Puts the blob into its place.
    pub fn finish(self, expected: Option<&Digest>) -> Result<(Digest, u64), LayoutError> {
        let digest = Digest::from_bytes(self.hash.finalize().into());
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(LayoutError::Mismatch { expected: expected.copied().unwrap_or(digest), found: digest });
        }
        let path = self.blobs.path(&digest);
        // A name without its bytes after a power cut would be taken for the blob.
        self.file.as_file().sync_data().map_err(|source| LayoutError::Write { path: path.clone(), source })?;
        fs::set_permissions(self.file.path(), readable())
            .map_err(|source| LayoutError::Write { path: path.clone(), source })?;
        self.file.persist(&path).map_err(|error| LayoutError::Write { path, source: error.error })?;
        Ok((digest, self.size))
    }
}

/// Blobs are for every reader of the directory, not for their writer alone as temporary files are.
pub(super) fn readable() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o644)
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
