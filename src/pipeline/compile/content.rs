//! The image that a step is built on, and what of it is on this machine: layers unpacked, the index of its tree.
//!
//! Blobs come from where they are nearest: this compile's own layers, the base's files, else the target repository.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempPath;

use super::error::{CompileError, Place};
use super::session::Session;
use crate::adapters::runtime::Runtime;
use crate::domain::digest::Digest;
use crate::domain::image::{Image, chain_id};
use crate::domain::layer::{Limits, decompress};
use crate::domain::path_index::PathIndex;
use crate::pipeline::base::ResolvedBase;
use crate::pipeline::image_end::BlobSource;

/// The largest layer that is fetched to be built upon, in bytes.
const MAX_LAYER: u64 = 16 << 30;

/// An image without the platform, and the index of its tree once somebody asked for it.
#[derive(Clone)]
pub struct Content {
    /// Manifest and config.
    pub image: Image,
    /// Its tree.
    pub index: Option<Arc<PathIndex>>,
}

/// The layers that this compile made or fetched, by blob digest.
#[derive(Default)]
pub struct LocalLayers(Mutex<HashMap<Digest, LocalLayer>>);

/// A layer's blob on this machine.
#[derive(Clone)]
pub enum LocalLayer {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file that others keep.
    File(PathBuf),
    /// In a file that goes with the compile.
    Scratch(Arc<TempPath>),
}

impl LocalLayer {
    /// What an image end pushes.
    pub fn source(&self) -> BlobSource {
        match self {
            Self::Bytes(bytes) => BlobSource::Bytes(bytes.to_vec()),
            Self::File(path) => BlobSource::File(path.clone()),
            Self::Scratch(path) => BlobSource::File(path.to_path_buf()),
        }
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
            Self::File(path) => Box::new(File::open(path)?),
            Self::Scratch(path) => Box::new(File::open(path.as_ref())?),
        })
    }
}

impl LocalLayers {
    /// Remembers a layer.
    pub fn insert(&self, digest: Digest, layer: LocalLayer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, layer);
    }

    /// True for a layer that is on this machine.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.get(digest).is_some()
    }

    fn get(&self, digest: &Digest) -> Option<LocalLayer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

impl Session<'_> {
    /// The base as content.
    pub async fn base_content(&self) -> Result<Content, CompileError> {
        let base = self.base().await?;
        Ok(Content { image: base.image.clone(), index: None })
    }

    /// The content that a manifest of the repository describes.
    pub async fn read_content(&self, place: &Place, manifest: &[u8]) -> Result<Content, CompileError> {
        let failed = |source| CompileError::Image { place: place.clone(), source };
        let config = crate::domain::image::Manifest::parse(manifest).map_err(failed)?.config;
        let bytes = self
            .images(
                || format!("read the config of {place}"),
                self.compiler.images.read_blob(&self.repository, &config.digest, crate::domain::image::MAX_MANIFEST),
            )
            .await?;
        Ok(Content { image: Image::parse(manifest, &bytes).map_err(failed)?, index: None })
    }

    /// The index of the content's tree: kept from before, else read from its layers.
    pub async fn index(&self, place: &Place, content: &mut Content) -> Result<Arc<PathIndex>, CompileError> {
        if let Some(index) = &content.index {
            return Ok(Arc::clone(index));
        }
        let diff_ids = &content.image.config.rootfs.diff_ids;
        let kept = (0..=diff_ids.len()).rev().find_map(|layers| {
            let index = match chain_id(&diff_ids[..layers]) {
                Some(chain) => self.compiler.bases.cached_index(&chain)?,
                None => PathIndex::default(),
            };
            Some((layers, index))
        });
        let (mut layers, mut index) = kept.unwrap_or_default();
        if let Some(base) = self.base_of(content) {
            // The base's own way checks what strangers made.
            if layers < base.layers.len() {
                index = self.await_base(self.compiler.bases.path_index(base)).await?;
                layers = base.layers.len();
            }
        }
        let is_new = layers < diff_ids.len();
        for descriptor in &content.image.manifest.layers[layers..] {
            let blob = self.local_layer(place, &descriptor.digest).await?;
            let (digest, repository) = (descriptor.digest, self.repository.clone());
            index = blocking(place, move || {
                let failed =
                    |source| CompileError::ParentLayer { layer: digest, repository: repository.clone(), source };
                let tar = blob.open().and_then(decompress).map_err(|error| failed(error.into()))?;
                index.add_layer(tar, Limits::default()).map_err(failed)?;
                Ok(index)
            })
            .await?;
        }
        let index = Arc::new(index);
        if is_new {
            self.keep_index(content, &index)?;
        }
        content.index = Some(Arc::clone(&index));
        Ok(index)
    }

    /// Keeps the index for the compiles to come.
    pub fn keep_index(&self, content: &Content, index: &PathIndex) -> Result<(), CompileError> {
        let Some(chain) = content.image.chain_id(usize::MAX) else { return Ok(()) };
        self.compiler.bases.keep_index(&chain, index).map_err(|source| self.base_error(source))
    }

    /// The content's layers, bottom first, unpacked for overlay.
    pub async fn unpacked(
        &self,
        place: &Place,
        runtime: &Arc<Runtime>,
        image: &Image,
    ) -> Result<Vec<PathBuf>, CompileError> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for (count, (descriptor, diff_id)) in
            image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids).enumerate()
        {
            let Some(chain) = image.chain_id(count + 1) else { continue };
            let path = match runtime.unpacked(chain) {
                Some(path) => path,
                None => {
                    let blob = self.local_layer(place, &descriptor.digest).await?;
                    let (runtime, parents, diff_id) = (Arc::clone(runtime), paths.clone(), *diff_id);
                    let (error_place, digest) = (place.clone(), descriptor.digest);
                    blocking(place, move || {
                        let blob = blob
                            .open()
                            .map_err(|source| CompileError::Io { doing: format!("read layer {digest}"), source })?;
                        runtime
                            .unpack(chain, diff_id, blob, &parents)
                            .map_err(|source| CompileError::Runtime { place: error_place, source })
                    })
                    .await?
                }
            };
            paths.push(path);
        }
        Ok(paths)
    }

    /// The blob of a layer, fetched where it is not on this machine.
    pub async fn local_layer(&self, place: &Place, digest: &Digest) -> Result<LocalLayer, CompileError> {
        if let Some(layer) = self.layers.get(digest) {
            return Ok(layer);
        }
        let of_base = self.resolved_base().and_then(|base| {
            base.layers.iter().find(|layer| layer.descriptor.digest == *digest).map(|layer| (base, layer))
        });
        let layer = match of_base {
            Some((base, layer)) => LocalLayer::File(self.await_base(self.compiler.bases.blob(base, layer)).await?),
            None => {
                let path = self.compiler.fetched(digest);
                if !path.is_file() {
                    let fetch = self.compiler.images.fetch_blob(&self.repository, digest, MAX_LAYER, &path);
                    self.images(|| format!("fetch layer {digest} of {place}"), fetch).await?;
                }
                LocalLayer::File(path)
            }
        };
        self.layers.insert(*digest, layer.clone());
        Ok(layer)
    }

    /// The resolved base, where the content is built on it.
    fn base_of(&self, content: &Content) -> Option<&ResolvedBase> {
        let base = self.resolved_base()?;
        let diff_ids = &base.image.config.rootfs.diff_ids;
        content.image.config.rootfs.diff_ids.starts_with(diff_ids).then_some(base)
    }
}

/// Runs work that blocks, off the threads that serve the network.
pub async fn blocking<T: Send + 'static>(
    place: &Place,
    work: impl FnOnce() -> Result<T, CompileError> + Send + 'static,
) -> Result<T, CompileError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CompileError::Interrupted(place.clone()))?
}
