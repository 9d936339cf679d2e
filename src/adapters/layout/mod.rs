//! OCI image layouts on disk: `oci-layout`, `index.json` with full references, `blobs/sha256`.
//!
//! Readers need no lock, for the index is replaced as a whole; writers take turns through a lock file. Blobs are never
//! removed here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use crate::domain::digest::Digest;
use crate::domain::image::{Descriptor, INDEX, canonical_json};

mod archive;
mod blobs;

pub use archive::{ArchiveError, open_archive};
pub use blobs::{Blobs, Incoming};

/// The annotation that names an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The largest index that is read, in bytes: 100,000 images.
const MAX_INDEX: u64 = 64 << 20;

/// Why a layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The directory is no layout.
    #[error("\"{path}\" is no OCI image layout")]
    NoLayout {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read \"{path}\"")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write \"{path}\"")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The index is no JSON of its kind.
    #[error("cannot read the index \"{path}\"")]
    Index {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// A blob is larger than asked for.
    #[error("the blob {digest} is larger than {max} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The limit.
        max: u64,
    },
    /// A blob on disk is not what its name says.
    #[error("the blob {digest} is damaged on disk: remove its file, and it is made or fetched again")]
    Damaged {
        /// The blob.
        digest: Digest,
    },
    /// A blob that arrived is not what was asked for.
    #[error("the blob {expected} has the digest {found}")]
    Mismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
}

/// An image layout.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    blobs: Blobs,
    read: Arc<Mutex<Option<ReadIndex>>>,
}

/// What tells one state of the index file from the next: it is always replaced, never written into.
type Stamp = (u64, u64, i64, i64);
/// The index as it was when it was last read.
type ReadIndex = (Stamp, Arc<Index>);

#[derive(Debug, Default)]
struct Index {
    /// Every entry as it stands in the file.
    entries: Vec<Value>,
    /// The named ones.
    named: BTreeMap<String, Descriptor>,
}

impl Layout {
    /// The layout in `dir`, which need not exist before something is written.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { blobs: Blobs::new(dir.join("blobs")), dir, read: Arc::default() }
    }

    /// The layout in `dir`, which must be one.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let layout = Self::new(dir);
        if !layout.dir.join("oci-layout").is_file() {
            return Err(LayoutError::NoLayout { path: layout.dir });
        }
        Ok(layout)
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its blobs.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The image with this name, if there is one.
    pub fn find(&self, name: &str) -> Result<Option<Descriptor>, LayoutError> {
        Ok(self.index()?.named.get(name).cloned())
    }

    /// All names with what they stand for.
    pub fn list(&self) -> Result<BTreeMap<String, Descriptor>, LayoutError> {
        Ok(self.index()?.named.clone())
    }

    /// The only image of the layout, if there is exactly one.
    pub fn only(&self) -> Result<Option<Descriptor>, LayoutError> {
        let index = self.index()?;
        let mut digests: Vec<Descriptor> = index.entries.iter().filter_map(descriptor).collect();
        digests.dedup_by(|left, right| left.digest == right.digest);
        Ok(if digests.len() == 1 { digests.pop() } else { None })
    }

    /// Gives names to manifests, all at once; a name that exists moves.
    pub fn tag(&self, names: &[(String, Descriptor)]) -> Result<(), LayoutError> {
        if names.is_empty() {
            return Ok(());
        }
        let write = |path: &Path, source| LayoutError::Write { path: path.to_owned(), source };
        fs::create_dir_all(&self.dir).map_err(|source| write(&self.dir, source))?;
        let lock_path = self.dir.join(".lock");
        let lock = File::create(&lock_path).map_err(|source| write(&lock_path, source))?;
        lock.lock().map_err(|source| write(&lock_path, source))?;
        let marker = self.dir.join("oci-layout");
        if !marker.exists() {
            self.replace(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        let index = self.index()?;
        if names.iter().all(|(name, descriptor)| index.named.get(name) == Some(descriptor)) {
            return Ok(());
        }
        let moved: BTreeMap<&str, &Descriptor> = names.iter().map(|(name, to)| (name.as_str(), to)).collect();
        let mut entries: Vec<Value> = index
            .entries
            .iter()
            .filter(|entry| !ref_name(entry).is_some_and(|name| moved.contains_key(name)))
            .cloned()
            .collect();
        for (name, descriptor) in moved {
            let mut descriptor = descriptor.clone();
            descriptor.annotations.insert(REF_NAME.to_owned(), name.to_owned());
            entries.push(serde_json::to_value(descriptor).expect("a descriptor has text keys only"));
        }
        entries.sort_by_cached_key(|entry| ref_name(entry).unwrap_or_default().to_owned());
        let bytes = canonical_json(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }));
        self.replace(&self.dir.join("index.json"), &bytes)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
        let replace = || {
            let mut file = NamedTempFile::new_in(&self.dir)?;
            file.write_all(bytes)?;
            file.as_file().sync_data()?;
            fs::set_permissions(file.path(), blobs::readable())?;
            file.persist(path).map_err(|error| error.error)?;
            File::open(&self.dir)?.sync_all()
        };
        replace().map_err(|source| LayoutError::Write { path: path.to_owned(), source })
    }

    fn index(&self) -> Result<Arc<Index>, LayoutError> {
        let path = self.dir.join("index.json");
        let read = |source| LayoutError::Read { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(read(error)),
        };
        let meta = file.metadata().map_err(read)?;
        let stamp = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        let mut cached = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, index)) = &*cached
            && *known == stamp
        {
            return Ok(Arc::clone(index));
        }
        let mut bytes = Vec::new();
        file.take(MAX_INDEX).read_to_end(&mut bytes).map_err(read)?;
        let mut json: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|source| LayoutError::Index { path: path.clone(), source })?;
        let entries = match json.remove("manifests") {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        let named = entries
            .iter()
            .filter_map(|entry| {
                let mut descriptor = descriptor(entry)?;
                Some((descriptor.annotations.remove(REF_NAME)?, descriptor))
            })
            .collect();
        let index = Arc::new(Index { entries, named });
        *cached = Some((stamp, Arc::clone(&index)));
        Ok(index)
    }
}

fn descriptor(entry: &Value) -> Option<Descriptor> {
    serde_json::from_value(entry.clone()).ok()
}

fn ref_name(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}
