//! Where built images go and are found again: a registry, or a layout on disk. The pair of ends for images.
//!
//! Repositories are full (`127.0.0.1:5000/team/first-steps`) for both, so that what is built for one reads the same in
//! the other.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::adapters::layout::{Layout, LayoutError};
use crate::adapters::registry::{Registries, RegistryError};
use crate::domain::digest::Digest;
use crate::domain::image::{Descriptor, MANIFEST, MAX_MANIFEST};
use crate::domain::layer::Workers;

pub use crate::adapters::registry::BlobSource;

/// Blobs on their way at a time.
const PARALLEL: usize = 4;

/// Where built images go.
#[derive(Debug, Clone)]
pub enum ImageEnd {
    /// Registries, each named by the repository.
    Registry(Registries),
    /// A layout that holds images of all repositories.
    Layout(Layout),
}

/// Why an image end did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ImageEndError {
    /// The registry did not.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout did not.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The blob is not there.
    #[error("\"{repository}\" has no blob {digest}")]
    MissingBlob {
        /// The repository.
        repository: String,
        /// The blob.
        digest: Digest,
    },
    /// Work on the disk did not end.
    #[error("the work on \"{0}\" was interrupted")]
    Interrupted(String),
}

impl ImageEndError {
    /// True where the same may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_transient())
    }
}

/// A blob on its way to a repository.
#[derive(Debug, Clone)]
pub struct BlobPush {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub source: BlobSource,
    /// A repository that may have it already.
    pub mount_from: Option<String>,
}

impl ImageEnd {
    /// The digest that a reference (`REPOSITORY:TAG` or `REPOSITORY@DIGEST`) stands for.
    pub async fn resolve(&self, reference: &str) -> Result<Option<Digest>, ImageEndError> {
        match self {
            Self::Registry(registries) => Ok(registries.resolve(reference).await?),
            Self::Layout(layout) => Ok(find(layout, reference)?),
        }
    }

    /// A manifest by tag or digest, with its digest.
    pub async fn read_manifest(
        &self,
        repository: &str,
        tag_or_digest: &str,
    ) -> Result<Option<(Digest, Vec<u8>)>, ImageEndError> {
        let reference = join(repository, tag_or_digest);
        match self {
            Self::Registry(registries) => Ok(registries.read_manifest(&reference).await?),
            Self::Layout(layout) => {
                let Some(digest) = find(layout, &reference)? else { return Ok(None) };
                Ok(layout.blobs().read(&digest, MAX_MANIFEST)?.map(|bytes| (digest, bytes)))
            }
        }
    }

    /// True when the repository has the blob.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, ImageEndError> {
        match self {
            Self::Registry(registries) => Ok(registries.has_blob(repository, digest).await?),
            Self::Layout(layout) => Ok(layout.blobs().has(digest)),
        }
    }

    /// A small blob (a config) as bytes.
    pub async fn read_blob(&self, repository: &str, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, ImageEndError> {
        match self {
            Self::Registry(registries) => Ok(registries.read_blob(repository, digest, max_bytes).await?),
            Self::Layout(layout) => layout
                .blobs()
                .read(digest, max_bytes)?
                .ok_or_else(|| ImageEndError::MissingBlob { repository: repository.to_owned(), digest: *digest }),
        }
    }

    /// Puts a blob of any size into the file `to`.
    pub async fn fetch_blob(
        &self,
        repository: &str,
        digest: &Digest,
        max_bytes: u64,
        to: &Path,
    ) -> Result<(), ImageEndError> {
        match self {
            Self::Registry(registries) => Ok(registries.fetch_blob(repository, digest, max_bytes, to).await?),
            Self::Layout(layout) => {
                let from = layout.blobs().path(digest);
                let (to, repository, digest) = (to.to_owned(), repository.to_owned(), *digest);
                blocking(&repository, move || {
                    std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop)).map_err(|source| {
                        if source.kind() == std::io::ErrorKind::NotFound {
                            ImageEndError::MissingBlob { repository: from.display().to_string(), digest }
                        } else {
                            LayoutError::Write { path: to, source }.into()
                        }
                    })
                })
                .await
            }
        }
    }

    /// Puts a blob into a repository unless it is there; `mount_from` is another repository that may have it.
    pub async fn push_blob(
        &self,
        repository: &str,
        digest: &Digest,
        source: BlobSource,
        mount_from: Option<&str>,
    ) -> Result<(), ImageEndError> {
        match self {
            Self::Registry(registries) => Ok(registries.push_blob(repository, digest, &source, mount_from).await?),
            Self::Layout(layout) => {
                let (layout, digest) = (layout.clone(), *digest);
                blocking(repository, move || match source {
                    BlobSource::Bytes(bytes) => Ok(layout.blobs().put(&digest, &bytes)?),
                    BlobSource::File(path) => Ok(layout.blobs().put_file(&digest, &path)?),
                })
                .await
            }
        }
    }

    /// Takes a blob over from another repository without a transfer; false where that is not possible.
    pub async fn mount_blob(&self, repository: &str, digest: &Digest, from: &str) -> Result<bool, ImageEndError> {
        match self {
            Self::Registry(registries) => Ok(registries.mount_blob(repository, digest, from).await?),
            Self::Layout(layout) => Ok(layout.blobs().has(digest)),
        }
    }

    /// Puts blobs into a repository, a few at a time.
    pub async fn push_blobs(&self, repository: &str, blobs: Vec<BlobPush>) -> Result<(), ImageEndError> {
        let pushes: Vec<_> = blobs.into_iter().map(|blob| self.push_one(repository, blob)).collect();
        stream::iter(pushes).buffer_unordered(PARALLEL).try_collect().await
    }

    async fn push_one(&self, repository: &str, blob: BlobPush) -> Result<(), ImageEndError> {
        self.push_blob(repository, &blob.digest, blob.source, blob.mount_from.as_deref()).await
    }

    /// Puts a manifest into a repository under `tags`, or under its digest alone where there are none.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tags: &[String],
        bytes: &[u8],
    ) -> Result<Digest, ImageEndError> {
        match self {
            Self::Registry(registries) => Ok(registries.push_manifest(repository, tags, MANIFEST, bytes).await?),
            Self::Layout(layout) => {
                let digest = Digest::of(bytes);
                let (layout, bytes) = (layout.clone(), bytes.to_vec());
                let names: Vec<String> = tags.iter().map(|tag| join(repository, tag)).collect();
                blocking(repository, move || {
                    layout.blobs().put(&digest, &bytes)?;
                    let descriptor = Descriptor {
                        media_type: MANIFEST.to_owned(),
                        digest,
                        size: bytes.len() as u64,
                        annotations: BTreeMap::new(),
                    };
                    let names: Vec<_> = names.into_iter().map(|name| (name, descriptor.clone())).collect();
                    Ok(layout.tag(&names)?)
                })
                .await?;
                Ok(digest)
            }
        }
    }
}

/// Workers for [`crate::domain::layer::LayerWriter`]: one thread for each processor.
#[must_use]
pub fn workers() -> Workers {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if count == 1 {
        return Workers::Here;
    }
    Workers::Spawn { count, spawn: |job| drop(std::thread::spawn(job)) }
}

fn find(layout: &Layout, reference: &str) -> Result<Option<Digest>, LayoutError> {
    if let Some((_, digest)) = reference.split_once('@')
        && let Ok(digest) = digest.parse::<Digest>()
    {
        return Ok(layout.blobs().has(&digest).then_some(digest));
    }
    Ok(layout.find(reference)?.map(|found| found.digest))
}

fn join(repository: &str, tag_or_digest: &str) -> String {
    let separator = if tag_or_digest.contains(':') { '@' } else { ':' };
    format!("{repository}{separator}{tag_or_digest}")
}

async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, ImageEndError> + Send + 'static,
) -> Result<T, ImageEndError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ImageEndError::Interrupted(what.to_owned()))?
}
