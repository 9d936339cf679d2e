//! What kind of manifest some bytes are, and which image of an index runs on an architecture.

use serde::Deserialize;

use super::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, ImageError, MANIFEST};

/// What a manifest describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    /// One image.
    Image,
    /// Several, one for each platform.
    Index,
    /// Something else, with its media type.
    Other(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    schema_version: Option<u32>,
    manifests: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Tells what a manifest describes; the media type decides, and where it is left out, the fields.
pub fn manifest_kind(bytes: &[u8]) -> Result<ManifestKind, ImageError> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what: "manifest", source })?;
    Ok(match shape.media_type.as_deref() {
        Some(MANIFEST | DOCKER_MANIFEST) => ManifestKind::Image,
        Some(INDEX | DOCKER_LIST) => ManifestKind::Index,
        Some(other) => ManifestKind::Other(other.to_owned()),
        None if shape.manifests.is_some() => ManifestKind::Index,
        None if shape.layers.is_some() => ManifestKind::Image,
        None => ManifestKind::Other(format!("schema version {}", shape.schema_version.unwrap_or(0))),
    })
}

/// Everything that an index names.
pub fn children(index: &[u8]) -> Result<Vec<Descriptor>, ImageError> {
    let index: Index = serde_json::from_slice(index).map_err(|source| ImageError::Json { what: "index", source })?;
    Ok(index.manifests.into_iter().map(|entry| entry.descriptor).collect())
}

/// The manifest in an index that runs on linux and `architecture`: the first that matches.
pub fn select_platform(index: &[u8], architecture: &str) -> Result<Descriptor, ImageError> {
    let index: Index = serde_json::from_slice(index).map_err(|source| ImageError::Json { what: "index", source })?;
    let mut available = Vec::new();
    let mut nameless = Vec::new();
    for entry in index.manifests {
        match entry.platform {
            Some(platform) if platform.os == "linux" && platform.architecture == architecture => {
                return Ok(entry.descriptor);
            }
            Some(platform) if platform.os == "unknown" => {}
            Some(platform) => available.push(format!("{}/{}", platform.os, platform.architecture)),
            None => nameless.push(entry.descriptor),
        }
    }
    // A layout's index often holds one image and does not say for what.
    match <[Descriptor; 1]>::try_from(nameless) {
        Ok([only]) if available.is_empty() => Ok(only),
        _ => Err(ImageError::Platform {
            architecture: architecture.to_owned(),
            available: if available.is_empty() { "nothing named".to_owned() } else { available.join(", ") },
        }),
    }
}
