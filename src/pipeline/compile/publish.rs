//! Putting images into the repository: content by its key as soon as it is built, and with the platform on top under the
//! step's id once the whole workshop is.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::content::{Content, LocalLayer};
use super::error::{CompileError, Place};
use super::files::place_files;
use super::plan::PlannedStep;
use super::session::{Phase, Session};
use crate::domain::digest::{Digest, FramedHasher};
use crate::domain::image::{EncodedImage, NewLayer};
use crate::domain::key::key_tag;
use crate::domain::layer::{Entry, LayerBlob};
use crate::domain::names::FORMAT_VERSION;
use crate::pipeline::image_end::{BlobPush, BlobSource, workers};

/// The annotation of a published image that says which key its content has.
pub const KEY_ANNOTATION: &str = "platform.workshop.key";
/// Look-ups under way at a time.
const PARALLEL: usize = 8;

impl Session<'_> {
    /// Pushes a step's content and names it by its key.
    pub async fn push_content(&self, step: &PlannedStep<'_>, content: &Content) -> Result<Digest, CompileError> {
        self.tell(step, Phase::Push);
        let place = self.place(step);
        let encoded = content.image.encode();
        self.push_layers(&place, content.image.manifest.layers.iter().map(|layer| layer.digest).collect()).await?;
        let tag = key_tag(step.key);
        self.push_image(&place, &encoded, std::slice::from_ref(&tag)).await?;
        Ok(encoded.digest)
    }

    /// Pushes config and manifest; the layers are there.
    pub async fn push_image(&self, place: &Place, image: &EncodedImage, tags: &[String]) -> Result<(), CompileError> {
        let images = &self.compiler.images;
        if !self.is_present(&image.config_digest) {
            let config = BlobSource::Bytes(image.config.clone());
            let push = images.push_blob(&self.repository, &image.config_digest, config, None);
            self.images(|| format!("push the config of {place} to \"{}\"", self.repository), push).await?;
            self.are_present([image.config_digest]);
        }
        let push = images.push_manifest(&self.repository, tags, &image.manifest);
        self.images(|| format!("push the image of {place} to \"{}\"", self.repository), push).await?;
        Ok(())
    }

    /// Pushes the layers that the repository does not have.
    async fn push_layers(&self, place: &Place, layers: Vec<Digest>) -> Result<(), CompileError> {
        let unknown: Vec<Digest> = layers.iter().filter(|layer| !self.is_present(layer)).copied().collect();
        let missing: Vec<Digest> = stream::iter(unknown)
            .map(|layer| async move {
                // What was just made is hardly there; the push itself looks once more.
                if self.layers.contains(&layer) {
                    return Ok(Some(layer));
                }
                let look = self.compiler.images.has_blob(&self.repository, &layer);
                let there = self.images(|| format!("look for layer {layer} in \"{}\"", self.repository), look).await?;
                Ok::<_, CompileError>((!there).then_some(layer))
            })
            .buffer_unordered(PARALLEL)
            .try_filter_map(|layer| async move { Ok(layer) })
            .try_collect()
            .await?;
        let mut pushes = Vec::new();
        for digest in missing {
            let of_base = self
                .resolved_base()
                .and_then(|base| base.layers.iter().find(|layer| layer.descriptor.digest == digest));
            let mount_from = of_base.and_then(|layer| self.compiler.bases.mount_from(layer, &self.repository));
            let source = self.local_layer(place, &digest).await?.source();
            pushes.push(BlobPush { digest, source, mount_from: mount_from.map(str::to_owned) });
        }
        let push = self.compiler.images.push_blobs(&self.repository, pushes);
        self.images(|| format!("push layers of {place} to \"{}\"", self.repository), push).await?;
        self.are_present(layers);
        Ok(())
    }

    /// The content as it is published: the assets and the platform on top, nothing run.
    pub async fn dress(&self, step: &PlannedStep<'_>, content: &mut Content) -> Result<EncodedImage, CompileError> {
        let place = self.place(step);
        let position = |source| CompileError::Position { place: place.clone(), source };
        let mut index = self.index(&place, content).await?;
        let mut assets = None;
        if !self.input.assets.is_empty() {
            let placed = place_files(&self.input.assets, &index).map_err(position)?;
            let entries: Vec<Entry> = placed.iter().map(|(entry, _)| entry.clone()).collect();
            let mut after = (*index).clone();
            after.add_entries(&entries);
            index = after.into();
            assets = Some(self.write_files(&place, placed, "workshop: assets".to_owned()).await?);
        }
        let placements = self.input.platform.placements(&index).map_err(position)?;
        let platform = self.platform_layer(&place, placements).await?;
        let layers = assets.iter().chain([&platform]).map(|layer| layer.descriptor.digest).collect();
        self.push_layers(&place, layers).await?;
        let image = content
            .image
            .with_platform(&platform, assets.as_ref(), self.compiler.epoch)
            .map_err(|source| CompileError::Image { place: place.clone(), source })?;
        Ok(image.with_annotations([(KEY_ANNOTATION.to_owned(), step.key.to_string())]).encode())
    }

    /// The platform's layer for these placements, made once and kept in the state directory.
    async fn platform_layer(&self, place: &Place, placements: Vec<Entry>) -> Result<NewLayer, CompileError> {
        let platform = self.input.platform;
        let mut hasher = FramedHasher::new("workshop.platform-layer");
        hasher.number(FORMAT_VERSION).number(self.compiler.epoch).part(platform.digest().to_string());
        for entry in &placements {
            hasher.part(&entry.path);
        }
        let known = self.compiler.state.join("platform").join(hasher.finish().hex());
        let created_by = "workshop: platform";
        let blobs = &self.compiler.blobs;
        if let Some(blob) = read_layer_blob(&known).filter(|blob| blobs.has(&blob.digest)) {
            self.layers.insert(blob.digest, LocalLayer::File(blobs.path(&blob.digest)));
            return Ok(NewLayer::written(&blob, created_by));
        }
        let (platform, blobs, epoch, error_place) =
            (platform.clone(), blobs.clone(), self.compiler.epoch, place.clone());
        let blob = super::content::blocking(place, move || {
            let (bytes, blob) = platform
                .write_layer(&placements, Vec::new(), epoch, workers())
                .map_err(|source| CompileError::Layer { place: error_place, source })?;
            let keep = || {
                blobs.put(&blob.digest, &bytes).map_err(std::io::Error::other)?;
                write_layer_blob(&known, &blob)
            };
            keep().map_err(|source| CompileError::Io { doing: format!("write \"{}\"", known.display()), source })?;
            Ok(blob)
        })
        .await?;
        self.layers.insert(blob.digest, LocalLayer::File(self.compiler.blobs.path(&blob.digest)));
        Ok(NewLayer::written(&blob, created_by))
    }
}

/// A line `DIFF-ID DIGEST SIZE TAR-SIZE`; anything else counts as absent.
fn read_layer_blob(path: &std::path::Path) -> Option<LayerBlob> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut fields = text.split_whitespace();
    Some(LayerBlob {
        diff_id: fields.next()?.parse().ok()?,
        digest: fields.next()?.parse().ok()?,
        size: fields.next()?.parse().ok()?,
        tar_size: fields.next()?.parse().ok()?,
    })
}

fn write_layer_blob(path: &std::path::Path, blob: &LayerBlob) -> std::io::Result<()> {
    super::record::write_whole(path, &format!("{} {} {} {}\n", blob.diff_id, blob.digest, blob.size, blob.tar_size))
}
