//! What the first step is built on: a reference becomes a manifest digest, and its blobs come to this machine only
//! when somebody asks for them.
//!
//! Bases are found in the local image store first where there is one, then in their registry. Whatever they hold was
//! made by strangers: digests are checked, sizes capped.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::adapters::layout::{Blobs, Layout, LayoutError, open_archive};
use crate::adapters::registry::Registries;
use crate::domain::digest::Digest;
use crate::domain::image::{Descriptor, Image, MAX_MANIFEST, ManifestKind, manifest_kind, select_platform};
use crate::domain::reference::BaseImage;

use super::image_end::{BlobSource, ImageEnd, workers};

mod error;
mod index;

pub use error::BaseError;

/// The largest layer of a base that is fetched, in bytes.
const MAX_LAYER: u64 = 16 << 30;
/// Layers on their way at a time.
const PARALLEL: usize = 4;

/// Where bases come from.
#[derive(Debug, Clone)]
pub struct Bases {
    local: Option<Layout>,
    registries: Registries,
    blobs: Blobs,
    state: PathBuf,
    directory: Option<PathBuf>,
    architecture: String,
}

/// A base that was found.
#[derive(Debug, Clone)]
pub struct ResolvedBase {
    /// The base as the recipe names it.
    pub base: BaseImage,
    /// The digest of the manifest for this architecture; what is recorded. Of `scratch`, that of the empty image.
    pub digest: Digest,
    /// Manifest and config, in OCI's form.
    pub image: Image,
    /// Its layers, lowest first.
    pub layers: Vec<BaseLayer>,
}

/// A layer of a base.
#[derive(Debug, Clone)]
pub struct BaseLayer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// Digest of its tar form.
    pub diff_id: Digest,
    from: LayerSource,
}

#[derive(Debug, Clone)]
enum LayerSource {
    Repository(String),
    File(PathBuf),
}

impl Bases {
    /// Bases for `architecture` (in Go's words), cached in the state directory.
    #[must_use]
    pub fn new(state: &Path, registries: Registries, architecture: &str) -> Self {
        Self {
            local: None,
            registries,
            blobs: Blobs::new(state.join("blobs")),
            state: state.to_owned(),
            directory: None,
            architecture: architecture.to_owned(),
        }
    }

    /// The same, looking into the local image store (`images/` of the state directory) before any registry.
    #[must_use]
    pub fn with_local_store(mut self) -> Self {
        self.local = Some(local_store(&self.state));
        self
    }

    /// The same, for a workshop in `directory`: bases may be files, relative to it.
    #[must_use]
    pub fn with_directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// The CPU architecture that bases are chosen for.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Finds a base: at `recorded` where that is given, else wherever its reference points now.
    pub async fn resolve(&self, base: &BaseImage, recorded: Option<Digest>) -> Result<ResolvedBase, BaseError> {
        match base {
            BaseImage::Scratch => {
                let image = Image::scratch(&self.architecture);
                Ok(ResolvedBase { base: base.clone(), digest: image.encode().digest, image, layers: Vec::new() })
            }
            BaseImage::Registry(reference) => {
                if let Some(local) = &self.local
                    && let Some(found) = self.find_local(local, base, reference, recorded)?
                {
                    return Ok(found);
                }
                self.find_remote(base, reference, recorded).await
            }
            BaseImage::OciLayout { dir, tag } => {
                let layout = Layout::open(self.beside(base, dir)?)?;
                let named = named(&layout, tag.as_deref())?;
                self.take_layout(base, &layout, &named, recorded)
            }
            BaseImage::OciArchive { file, tag } => self.take_archive(base, file, tag.clone(), recorded).await,
            BaseImage::DockerArchive { file } => self.take_archive(base, file, None, recorded).await,
        }
    }

    /// The file of a layer's blob, fetched now where it is not here yet.
    pub async fn blob(&self, base: &ResolvedBase, layer: &BaseLayer) -> Result<PathBuf, BaseError> {
        match &layer.from {
            LayerSource::File(path) => Ok(path.clone()),
            LayerSource::Repository(repository) => {
                let digest = &layer.descriptor.digest;
                let path = self.blobs.path(digest);
                if !path.is_file() {
                    let max = layer.descriptor.size.min(MAX_LAYER);
                    self.registries
                        .fetch_blob(repository, digest, max, &path)
                        .await
                        .map_err(|source| BaseError::Registry { base: base.base.to_string(), source })?;
                }
                Ok(path)
            }
        }
    }

    /// Sees to it that the base's layers are in `repository`: there already, mounted from the base's own repository, or
    /// fetched and pushed; only the last needs the blob here.
    pub async fn push_layers(&self, base: &ResolvedBase, end: &ImageEnd, repository: &str) -> Result<(), BaseError> {
        let pushes: Vec<_> = base.layers.iter().map(|layer| self.push_layer(base, layer, end, repository)).collect();
        stream::iter(pushes).buffer_unordered(PARALLEL).try_collect().await
    }

    async fn push_layer(
        &self,
        base: &ResolvedBase,
        layer: &BaseLayer,
        end: &ImageEnd,
        repository: &str,
    ) -> Result<(), BaseError> {
        let failed =
            |source| BaseError::Push { base: base.base.to_string(), repository: repository.to_owned(), source };
        let digest = &layer.descriptor.digest;
        if end.has_blob(repository, digest).await.map_err(failed)? {
            return Ok(());
        }
        if let (ImageEnd::Registry(_), Some(from)) = (end, self.mount_from(layer, repository))
            && end.mount_blob(repository, digest, from).await.map_err(failed)?
        {
            return Ok(());
        }
        let source = BlobSource::File(self.blob(base, layer).await?);
        end.push_blob(repository, digest, source, None).await.map_err(failed)
    }

    /// The repository that a layer may be mounted from, where it is in the same registry as `repository`.
    #[must_use]
    pub fn mount_from<'a>(&self, layer: &'a BaseLayer, repository: &str) -> Option<&'a str> {
        let LayerSource::Repository(from) = &layer.from else { return None };
        let same = Registries::registry_of(from).ok()? == Registries::registry_of(repository).ok()?;
        same.then_some(from.as_str())
    }

    fn find_local(
        &self,
        local: &Layout,
        base: &BaseImage,
        reference: &str,
        recorded: Option<Digest>,
    ) -> Result<Option<ResolvedBase>, BaseError> {
        let by_digest = reference.split_once('@').and_then(|(_, digest)| digest.parse::<Digest>().ok());
        let digest = match recorded.or(by_digest) {
            Some(digest) => local.blobs().has(&digest).then_some(digest),
            None => local.find(reference)?.map(|found| found.digest),
        };
        digest.map(|digest| self.take_layout(base, local, &digest, recorded)).transpose()
    }

    async fn find_remote(
        &self,
        base: &BaseImage,
        reference: &str,
        recorded: Option<Digest>,
    ) -> Result<ResolvedBase, BaseError> {
        let name = base.to_string();
        let failed = |source| BaseError::Registry { base: name.clone(), source };
        let unusable = |source| BaseError::Image { base: name.clone(), source };
        let missing = || BaseError::NotFound {
            base: name.clone(),
            local: if self.local.is_some() {
                ", or put it into the local store with `workshop image load`"
            } else {
                ""
            },
        };
        let repository = repository(reference);
        let first = match recorded {
            Some(digest) => format!("{repository}@{digest}"),
            None => reference.to_owned(),
        };
        let (mut digest, mut manifest) = match self.cached_manifest(&first)? {
            Some(found) => found,
            None => self.registries.read_manifest(&first).await.map_err(failed)?.ok_or_else(missing)?,
        };
        if manifest_kind(&manifest).map_err(unusable)? == ManifestKind::Index {
            let chosen = select_platform(&manifest, &self.architecture).map_err(unusable)?;
            let by_digest = format!("{repository}@{}", chosen.digest);
            (digest, manifest) =
                self.registries.read_manifest(&by_digest).await.map_err(failed)?.ok_or_else(missing)?;
        }
        let config_digest = crate::domain::image::Manifest::parse(&manifest).map_err(unusable)?.config.digest;
        let config = match self.blobs.read(&config_digest, MAX_MANIFEST)? {
            Some(config) => config,
            None => self.registries.read_blob(repository, &config_digest, MAX_MANIFEST).await.map_err(failed)?,
        };
        let resolved =
            self.assemble(base, digest, &manifest, &config, |_| LayerSource::Repository(repository.to_owned()))?;
        // By digest they never change: the next compile of the recorded base asks nobody.
        self.blobs.put(&digest, &manifest)?;
        self.blobs.put(&config_digest, &config)?;
        Ok(resolved)
    }

    /// A manifest by digest that was read before.
    fn cached_manifest(&self, reference: &str) -> Result<Option<(Digest, Vec<u8>)>, BaseError> {
        let Some(digest) = reference.split_once('@').and_then(|(_, digest)| digest.parse::<Digest>().ok()) else {
            return Ok(None);
        };
        Ok(self.blobs.read(&digest, MAX_MANIFEST)?.map(|bytes| (digest, bytes)))
    }

    fn take_layout(
        &self,
        base: &BaseImage,
        layout: &Layout,
        named: &Digest,
        recorded: Option<Digest>,
    ) -> Result<ResolvedBase, BaseError> {
        let name = base.to_string();
        let unusable = |source| BaseError::Image { base: name.clone(), source };
        let read = |digest: &Digest| {
            layout
                .blobs()
                .read(digest, MAX_MANIFEST)?
                .ok_or(LayoutError::Read { path: layout.blobs().path(digest), source: io::ErrorKind::NotFound.into() })
        };
        let mut digest = *named;
        let mut manifest = read(&digest)?;
        // Layouts nest their indexes: an image for several platforms is one entry.
        for _ in 0..2 {
            if manifest_kind(&manifest).map_err(unusable)? == ManifestKind::Index {
                digest = select_platform(&manifest, &self.architecture).map_err(unusable)?.digest;
                manifest = read(&digest)?;
            }
        }
        if let Some(recorded) = recorded.filter(|recorded| *recorded != digest && recorded != named) {
            return Err(BaseError::Changed { base: name, digest: recorded });
        }
        let config_digest = crate::domain::image::Manifest::parse(&manifest).map_err(unusable)?.config.digest;
        let config = read(&config_digest)?;
        self.assemble(base, digest, &manifest, &config, |layer| LayerSource::File(layout.blobs().path(layer)))
    }

    async fn take_archive(
        &self,
        base: &BaseImage,
        file: &str,
        tag: Option<String>,
        recorded: Option<Digest>,
    ) -> Result<ResolvedBase, BaseError> {
        let file = self.beside(base, file)?;
        let (this, base_owned) = (self.clone(), base.clone());
        tokio::task::spawn_blocking(move || {
            let (layout, _unpacked) = open_archive(&file, &this.state.join("unpacked"), workers())?;
            let named = named(&layout, tag.as_deref())?;
            let mut resolved = this.take_layout(&base_owned, &layout, &named, recorded)?;
            for layer in &mut resolved.layers {
                let digest = layer.descriptor.digest;
                this.blobs.put_file(&digest, &layout.blobs().path(&digest))?;
                layer.from = LayerSource::File(this.blobs.path(&digest));
            }
            Ok(resolved)
        })
        .await
        .map_err(|_| BaseError::Interrupted(base.to_string()))?
    }

    fn assemble(
        &self,
        base: &BaseImage,
        digest: Digest,
        manifest: &[u8],
        config: &[u8],
        from: impl Fn(&Digest) -> LayerSource,
    ) -> Result<ResolvedBase, BaseError> {
        let unusable = |source| BaseError::Image { base: base.to_string(), source };
        let image = Image::parse(manifest, config).map_err(unusable)?;
        image.check_platform(&self.architecture).map_err(unusable)?;
        let layers = image
            .manifest
            .layers
            .iter()
            .zip(&image.config.rootfs.diff_ids)
            .map(|(descriptor, diff_id)| BaseLayer {
                descriptor: descriptor.clone(),
                diff_id: *diff_id,
                from: from(&descriptor.digest),
            })
            .collect();
        Ok(ResolvedBase { base: base.clone(), digest, image, layers })
    }

    fn beside(&self, base: &BaseImage, path: &str) -> Result<PathBuf, BaseError> {
        let directory = self.directory.as_ref().ok_or_else(|| BaseError::NoDirectory(base.to_string()))?;
        Ok(directory.join(path))
    }
}

/// The local image store of a state directory.
#[must_use]
pub fn local_store(state: &Path) -> Layout {
    Layout::new(state.join("images"))
}

/// The reference without tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    let path = name.rfind('/').map_or(0, |slash| slash + 1);
    name[path..].find(':').map_or(name, |colon| &name[..path + colon])
}

fn named(layout: &Layout, tag: Option<&str>) -> Result<Digest, BaseError> {
    let path = || layout.dir().to_owned();
    let found = match tag {
        Some(tag) => layout.find(tag)?.ok_or_else(|| BaseError::NoTag { path: path(), tag: tag.to_owned() })?,
        None => layout.only()?.ok_or_else(|| BaseError::SeveralImages(path()))?,
    };
    Ok(found.digest)
}
