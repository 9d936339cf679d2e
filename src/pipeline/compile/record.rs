//! What was published before, remembered in the state directory: it saves reading manifests, nothing else.
//!
//! A record is believed only together with what the repository itself says now.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::domain::digest::{Digest, FramedHasher};
use crate::domain::names::FORMAT_VERSION;

/// The digests that a step's content and published image got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The image without the platform.
    pub content: Digest,
    /// The image under the step's id.
    pub published: Digest,
}

/// Everything that a published image depends on, besides the way in which images are written.
pub struct RecordKey<'a> {
    /// The full image repository.
    pub repository: &'a str,
    /// The step's key.
    pub key: Digest,
    /// The platform's digest.
    pub platform: Digest,
    /// The digest of the assets.
    pub assets: Digest,
}

impl RecordKey<'_> {
    fn path(&self, state: &Path) -> PathBuf {
        let mut hasher = FramedHasher::new("workshop.published");
        hasher.number(FORMAT_VERSION).part(self.repository).part(self.key.to_string());
        hasher.part(self.platform.to_string()).part(self.assets.to_string());
        state.join("published").join(hasher.finish().hex())
    }

    /// The record; a damaged one counts as absent.
    pub fn read(&self, state: &Path) -> Option<Record> {
        let text = std::fs::read_to_string(self.path(state)).ok()?;
        let (content, published) = text.trim_end().split_once(' ')?;
        Some(Record { content: content.parse().ok()?, published: published.parse().ok()? })
    }

    /// Remembers a record.
    pub fn write(&self, state: &Path, record: Record) -> std::io::Result<()> {
        write_whole(&self.path(state), &format!("{} {}\n", record.content, record.published))
    }
}

/// The base's digest that a recipe was last compiled on: it is looked up again only when the recipe changes.
pub struct BaseRecord(PathBuf);

impl BaseRecord {
    /// The record of a recipe's text, compiled to `repository`.
    #[must_use]
    pub fn new(state: &Path, repository: &str, recipe: &[u8]) -> Self {
        let mut hasher = FramedHasher::new("workshop.base");
        hasher.part(repository).part(recipe);
        Self(state.join("bases").join(hasher.finish().hex()))
    }

    /// The recorded digest; a damaged record counts as absent.
    #[must_use]
    pub fn read(&self) -> Option<Digest> {
        std::fs::read_to_string(&self.0).ok()?.trim_end().parse().ok()
    }

    /// Records a digest.
    pub fn write(&self, digest: Digest) -> std::io::Result<()> {
        if self.read() == Some(digest) {
            return Ok(());
        }
        write_whole(&self.0, &format!("{digest}\n"))
    }
}

/// Writes a small file whole or not at all, with the directory it is in.
pub fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_for_its_own_key_only() {
        let state = tempfile::tempdir().unwrap();
        let digest = |text: &str| Digest::of(text.as_bytes());
        let key = RecordKey { repository: "r", key: digest("k"), platform: digest("p"), assets: digest("a") };
        assert_eq!(key.read(state.path()), None);
        let record = Record { content: digest("c"), published: digest("d") };
        key.write(state.path(), record).unwrap();
        assert_eq!(key.read(state.path()), Some(record));
        assert_eq!(RecordKey { platform: digest("q"), ..key }.read(state.path()), None);
        std::fs::write(key.path(state.path()), "torn").unwrap();
        assert_eq!(key.read(state.path()), None);
    }
}
