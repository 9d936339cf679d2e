//! An artifact's file as a source: its template in the store, its file in its place, its images in the layout.
//!
//! Images are taken by digest from the layout, the local store or the registry that the artifact names. What runs
//! later is decided elsewhere.

use std::path::Path;

use serde_json::{Value, json};

use super::base::local_store;
use super::platform::host_architecture;
use super::sync::artifact_path;
use crate::adapters::artifact::{self, ArtifactError};
use crate::adapters::layout::{Layout, LayoutError};
use crate::adapters::registry::{Registries, RegistryError};
use crate::adapters::store::{self, Store};
use crate::crd::labels;
use crate::domain::definition::StepRow;
use crate::domain::digest::Digest;
use crate::domain::image::{ImageError, MAX_MANIFEST, Manifest, ManifestKind, manifest_kind, select_platform};
use crate::domain::reference::ImageName;
use crate::domain::workspace::Workspace;

/// The largest layer that is fetched, in bytes.
const MAX_LAYER: u64 = 64 << 30;
/// The largest configuration of an image, in bytes.
const MAX_CONFIG: u64 = 8 << 20;
/// The owner of templates that came from a file.
const OWNER: &str = "artifact-file";

/// Why an artifact's file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The file is no artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The file cannot be copied.
    #[error("failed to take \"{file}\" into the state directory")]
    Copy {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// An image is nowhere to be had.
    #[error("the image \"{0}\" of the artifact is neither on this machine nor in its registry")]
    NoImage(String),
    /// The registry failed.
    #[error("failed to fetch the image \"{image}\"")]
    Registry {
        /// The image.
        image: String,
        /// Why.
        source: RegistryError,
    },
    /// An image cannot be used.
    #[error("the image \"{image}\" cannot be used")]
    Image {
        /// The image.
        image: String,
        /// Why.
        source: ImageError,
    },
    /// The layout cannot be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl PlaceError {
    /// True when another file is needed; false when trying again may help.
    #[must_use]
    pub fn is_content(&self) -> bool {
        match self {
            Self::Artifact(error) => error.is_content(),
            Self::Image { .. } => true,
            _ => false,
        }
    }
}

/// What is placed where.
pub struct Placed<'a> {
    /// The artifact's file.
    pub file: &'a Path,
    /// How its workspaces run.
    pub workspace: &'a Workspace,
    /// The registry to ask in place of the one that the image tags name.
    pub registry: Option<&'a str>,
    /// The state directory.
    pub state: &'a Path,
    /// Where images go.
    pub layout: &'a Layout,
    /// Where images come from.
    pub registries: &'a Registries,
    /// Where the template goes.
    pub store: &'a Store,
}

/// Takes the artifact in; gives the workshop's id. Nothing is written to the store before all images are there.
pub async fn place_artifact(placed: Placed<'_>) -> Result<String, PlaceError> {
    let found = artifact::read(placed.file)?;
    let failed = |source| PlaceError::Copy { file: placed.file.display().to_string(), source };
    let bytes = std::fs::read(placed.file).map_err(failed)?;
    let digest = Digest::of(&bytes);
    let mut steps = Vec::new();
    for step in &found.definition.steps {
        let image = bring_image(&placed, step, found.images.get(step.id.as_str()).copied()).await?;
        let tag = full_tag(step, placed.registry);
        steps.push(json!({ "id": step.id, "title": step.title, "imageTag": tag, "imageDigest": image.to_string() }));
    }
    let path = artifact_path(placed.state, digest);
    if let Some(directory) = path.parent() {
        store::make_private(directory).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        std::io::Write::write_all(&mut file, &bytes).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
    }
    let id = found.definition.id.to_string();
    placed.store.apply_object(&template(&id, placed.workspace, steps, digest, bytes.len()), labels::OWNER)?;
    Ok(id)
}

fn template(id: &str, workspace: &Workspace, steps: Vec<Value>, digest: Digest, size: usize) -> Value {
    json!({
        "apiVersion": crate::crd::API_VERSION,
        "kind": "WorkspaceTemplate",
        "metadata": {
            "name": id,
            "labels": { (labels::OWNER): OWNER, (labels::WORKSHOP): id },
            "annotations": { (labels::UNIT_KEY): digest.to_string() },
        },
        "spec": {
            "defaults": workspace,
            "steps": steps,
            "artifact": { "digest": digest.to_string(), "size": size },
        },
    })
}

/// The step's image with the registry that was named put before it, where it names none itself.
pub(super) fn full_tag(step: &StepRow, registry: Option<&str>) -> String {
    let (name, tag) = match step.image_tag.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (step.image_tag.as_str(), step.id.as_str()),
    };
    match ImageName::parse(name) {
        Ok(parsed) => format!("{}:{tag}", parsed.full(registry)),
        Err(_) => step.image_tag.clone(),
    }
}

/// Sees to it that the image of a step is on this machine; its digest.
async fn bring_image(placed: &Placed<'_>, step: &StepRow, digest: Option<Digest>) -> Result<Digest, PlaceError> {
    let tag = full_tag(step, placed.registry);
    let layouts = [placed.layout.clone(), local_store(placed.state)];
    for layout in &layouts {
        let known = match digest {
            Some(digest) => layout.blobs().has(&digest).then_some(digest),
            None => layout.find(&tag)?.map(|found| found.digest),
        };
        if let Some(known) = known {
            return Ok(known);
        }
    }
    let repository = tag.rsplit_once(':').map_or(tag.as_str(), |(repository, _)| repository);
    let reference = digest.map_or_else(|| tag.clone(), |digest| format!("{repository}@{digest}"));
    pull(placed.registries, placed.layout, repository, &reference).await
}

/// Fetches an image into the layout: blobs first, the manifest that names them last.
async fn pull(
    registries: &Registries,
    layout: &Layout,
    repository: &str,
    reference: &str,
) -> Result<Digest, PlaceError> {
    let failed = |source| PlaceError::Registry { image: reference.to_owned(), source };
    let unusable = |source| PlaceError::Image { image: reference.to_owned(), source };
    let absent = || PlaceError::NoImage(reference.to_owned());
    let (digest, bytes) = registries.read_manifest(reference).await.map_err(failed)?.ok_or_else(absent)?;
    let mut manifests = vec![(digest, bytes)];
    if manifest_kind(&manifests[0].1).map_err(unusable)? == ManifestKind::Index {
        let child = select_platform(&manifests[0].1, host_architecture()).map_err(unusable)?.digest;
        let of_platform = format!("{repository}@{child}");
        manifests.push(registries.read_manifest(&of_platform).await.map_err(failed)?.ok_or_else(absent)?);
    }
    let image = Manifest::parse(&manifests[manifests.len() - 1].1).map_err(unusable)?;
    for (blob, max) in std::iter::once((&image.config, MAX_CONFIG)).chain(image.layers.iter().map(|it| (it, MAX_LAYER)))
    {
        let path = layout.blobs().path(&blob.digest);
        if !path.is_file() {
            registries.fetch_blob(repository, &blob.digest, blob.size.min(max), &path).await.map_err(failed)?;
        }
    }
    for (digest, bytes) in manifests.iter().rev().filter(|(_, bytes)| bytes.len() as u64 <= MAX_MANIFEST) {
        layout.blobs().put(digest, bytes)?;
    }
    Ok(digest)
}
