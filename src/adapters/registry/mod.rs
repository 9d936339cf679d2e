//! OCI registries: manifests by tag and digest, blobs in both directions, with retries and errors that name things.
//!
//! What an image means is `domain::image`'s matter. Authentication, blobs and pushes are oci-client's; manifests are
//! read here, for the library neither caps their size nor shows `Retry-After`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use oci_client::Reference;
use tokio::sync::OnceCell;

use crate::domain::digest::Digest;

mod credentials;
mod error;
mod host;
mod retry;

pub use credentials::{Credentials, CredentialsError};
use error::Attempt;
pub use error::RegistryError;
use host::Host;
use retry::retry;

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Who we are.
    pub credentials: Credentials,
    /// Registries (`host[:port]`) that may be spoken to over plain HTTP or with a certificate nobody vouches for;
    /// those on loopback always may.
    pub insecure: BTreeSet<String>,
}

impl RegistryOptions {
    /// For work with these registries (`host[:port][/prefix]`), which `is_insecure` is about.
    #[must_use]
    pub fn of<'a>(credentials: Credentials, registries: impl IntoIterator<Item = &'a str>, is_insecure: bool) -> Self {
        let hosts = registries.into_iter().filter(|_| is_insecure).filter_map(|registry| registry.split('/').next());
        Self { credentials, insecure: hosts.map(str::to_owned).collect() }
    }
}

/// A reference in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `REGISTRY/REPOSITORY`.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest, as written.
    pub digest: Option<String>,
}

/// All registries; connections and tokens are kept and shared by clones.
#[derive(Debug, Clone)]
pub struct Registries {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: RegistryOptions,
    hosts: Mutex<BTreeMap<String, Arc<OnceCell<Host>>>>,
    /// Blobs that are known to be in a repository: asked once.
    known: Mutex<BTreeSet<(String, Digest)>>,
}

/// A blob to push.
#[derive(Debug, Clone)]
pub enum BlobSource {
    /// From memory.
    Bytes(Vec<u8>),
    /// From a file, streamed.
    File(std::path::PathBuf),
}

impl Registries {
    /// Registries, spoken to as `options` say.
    #[must_use]
    pub fn new(options: RegistryOptions) -> Self {
        Self { shared: Arc::new(Shared { options, hosts: Mutex::default(), known: Mutex::default() }) }
    }

    /// The registry (`host[:port]`) of a repository or reference.
    pub fn registry_of(repository: &str) -> Result<String, RegistryError> {
        Ok(parse(repository)?.resolve_registry().to_owned())
    }

    /// The parts of a reference.
    pub fn name(reference: &str) -> Result<Named, RegistryError> {
        let parsed = parse(reference)?;
        // The library puts `latest` where nothing is said.
        let is_tagged = reference.rsplit('/').next().is_some_and(|last| last.contains(':'));
        Ok(Named {
            repository: format!("{}/{}", parsed.registry(), parsed.repository()),
            tag: parsed.tag().filter(|_| is_tagged).map(str::to_owned),
            digest: parsed.digest().map(str::to_owned),
        })
    }

    /// The digest of the manifest that a reference stands for; nothing where there is none.
    pub async fn resolve(&self, reference: &str) -> Result<Option<Digest>, RegistryError> {
        let parsed = parse(reference)?;
        let host = self.host(&parsed, reference).await?;
        absent(retry(|| host.head_manifest(&parsed, reference)).await)
    }

    /// A manifest with its digest; nothing where there is none.
    pub async fn read_manifest(&self, reference: &str) -> Result<Option<(Digest, Vec<u8>)>, RegistryError> {
        let parsed = parse(reference)?;
        let host = self.host(&parsed, reference).await?;
        absent(retry(|| host.get_manifest(&parsed, reference)).await)
    }

    /// True when the repository has the blob.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, RegistryError> {
        let key = (repository.to_owned(), *digest);
        if self.known().contains(&key) {
            return Ok(true);
        }
        let reference = parse(repository)?;
        let host = self.host(&reference, repository).await?;
        let digest_text = digest.to_string();
        let attempt = Attempt { registry: host.name(), reference: repository, verb: "read" };
        let has = retry(|| async {
            host.client().blob_exists(&reference, &digest_text).await.map_err(|error| attempt.library(error))
        })
        .await?;
        if has {
            self.known().insert(key);
        }
        Ok(has)
    }

    /// A small blob as bytes, digest checked.
    pub async fn read_blob(&self, repository: &str, digest: &Digest, max: u64) -> Result<Vec<u8>, RegistryError> {
        let reference = parse(repository)?;
        let host = self.host(&reference, repository).await?;
        retry(|| host.pull_to_memory(&reference, digest, max)).await
    }

    /// Streams a blob into `to`, which is replaced as a whole, digest checked.
    pub async fn fetch_blob(
        &self,
        repository: &str,
        digest: &Digest,
        max: u64,
        to: &Path,
    ) -> Result<(), RegistryError> {
        let reference = parse(repository)?;
        let host = self.host(&reference, repository).await?;
        retry(|| host.pull_to_file(&reference, digest, max, to)).await
    }

    /// Pushes a blob unless the repository has it: mounted from another repository of the same registry where it can
    /// be, else uploaded.
    pub async fn push_blob(
        &self,
        repository: &str,
        digest: &Digest,
        source: &BlobSource,
        mount_from: Option<&str>,
    ) -> Result<(), RegistryError> {
        if self.has_blob(repository, digest).await? {
            return Ok(());
        }
        if let Some(from) = mount_from
            && self.mount_blob(repository, digest, from).await?
        {
            return Ok(());
        }
        let reference = parse(repository)?;
        let host = self.host(&reference, repository).await?;
        retry(|| host.upload(&reference, repository, digest, source)).await?;
        self.known().insert((repository.to_owned(), *digest));
        Ok(())
    }

    /// Takes a blob over from another repository of the same registry; false where the registry does not.
    pub async fn mount_blob(&self, repository: &str, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        let (reference, from) = (parse(repository)?, parse(from)?);
        if from.resolve_registry() != reference.resolve_registry() || from.repository() == reference.repository() {
            return Ok(false);
        }
        let host = self.host(&reference, repository).await?;
        match host.client().mount_blob(&reference, &from, &digest.to_string()).await {
            Ok(()) => {
                self.known().insert((repository.to_owned(), *digest));
                Ok(true)
            }
            // Whatever the reason why not: an upload always can, and tells its own.
            Err(error) => {
                tracing::debug!(%digest, repository, %error, "not mounted");
                Ok(false)
            }
        }
    }

    /// Pushes a manifest under its digest and every one of `tags`.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tags: &[String],
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let parsed = parse(repository)?;
        let host = self.host(&parsed, repository).await?;
        let (registry, path) = (parsed.registry().to_owned(), parsed.repository().to_owned());
        let targets = if tags.is_empty() {
            vec![Reference::with_digest(registry, path, digest.to_string())]
        } else {
            tags.iter().map(|tag| Reference::with_tag(registry.clone(), path.clone(), tag.clone())).collect()
        };
        for target in targets {
            retry(|| host.put_manifest(&target, media_type, bytes)).await?;
        }
        Ok(digest)
    }

    async fn host(&self, parsed: &Reference, reference: &str) -> Result<Arc<OpenHost>, RegistryError> {
        let name = parsed.resolve_registry().to_owned();
        let cell = {
            let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(hosts.entry(name.clone()).or_default())
        };
        let options = &self.shared.options;
        let insecure = options.insecure.contains(&name) || options.insecure.contains(parsed.registry());
        cell.get_or_try_init(|| retry(|| Host::open(&name, reference, insecure, &options.credentials))).await?;
        Ok(Arc::new(OpenHost(cell)))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, Digest)>> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cell that is known to be filled.
struct OpenHost(Arc<OnceCell<Host>>);

impl std::ops::Deref for OpenHost {
    type Target = Host;

    fn deref(&self) -> &Host {
        self.0.get().expect("it is made only after the cell was filled")
    }
}

fn parse(text: &str) -> Result<Reference, RegistryError> {
    Reference::try_from(text)
        .map_err(|error| RegistryError::Reference { text: text.to_owned(), reason: error.to_string() })
}

fn absent<T>(result: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
