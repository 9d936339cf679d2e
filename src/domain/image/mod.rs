//! Images as values: manifest and config in OCI's terms, read leniently and written canonically.
//!
//! Docker's older forms are read and become OCI's. What goes into a layer is [`super::layer`]'s matter, where an
//! image is kept an adapter's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::digest::Digest;
use super::layer::{LAYER_GZIP, LayerBlob};

mod build;
mod canonical;
mod select;
#[cfg(test)]
mod tests;

pub use build::{EncodedImage, NewLayer};
pub use canonical::canonical_json;
pub use select::{ManifestKind, children, manifest_kind, select_platform};

/// Media type of the manifests that are written here.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the configs that are written here.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an index of manifests.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's manifest, read as the same.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index, read as the same.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The largest manifest or config that is read, in bytes (registries themselves take 4 MiB).
pub const MAX_MANIFEST: u64 = 4 << 20;

/// The most layers of an image: overlayfs and containerd take no more.
pub const MAX_LAYERS: usize = 120;

/// Why bytes are no image that this program can build on.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The JSON is broken or lacks a field.
    #[error("cannot read the image's {what}")]
    Json {
        /// Manifest, config or index.
        what: &'static str,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest of a kind that is no image.
    #[error("the manifest has the media type \"{0}\", which is no image")]
    MediaType(String),
    /// A layer in a form that cannot be unpacked.
    #[error("the image has a layer of the media type \"{0}\", which cannot be unpacked")]
    LayerType(String),
    /// Manifest and config contradict each other.
    #[error("the image's manifest has {layers} layers but its config names {diff_ids}")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the config.
        diff_ids: usize,
    },
    /// Too many layers to be mounted.
    #[error(
        "the image has {0} layers; container runtimes take at most {MAX_LAYERS}: put several steps' commands together, or flatten the base"
    )]
    TooManyLayers(usize),
    /// No image for the architecture in the index.
    #[error("the image is not available for linux/{architecture} (it is for {available})")]
    Platform {
        /// The wanted architecture.
        architecture: String,
        /// What there is.
        available: String,
    },
    /// An image of another operating system or architecture.
    #[error("the image is for {os}/{found}, not for linux/{architecture}")]
    WrongPlatform {
        /// Its operating system.
        os: String,
        /// Its architecture.
        found: String,
        /// The wanted architecture.
        architecture: String,
    },
}

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length, in bytes.
    pub size: u64,
    /// Free key and value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`MANIFEST`] once parsed here.
    #[serde(default)]
    pub media_type: String,
    /// The image's config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free key and value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image config; fields that are not named here are kept as they came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture in Go's words (`amd64`, `arm64`).
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How a container of it runs.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// The layers' tar digests.
    pub rootfs: RootFs,
    /// How the layers came to be, lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How a container of the image runs; fields that are not named here are kept as they came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `KEY=value` in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or what runs where there is no entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `user[:group]` by name or number.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// The shell of shell commands (Docker's SHELL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The layers' tar digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// How one layer, or one change without a layer, came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// True when it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An image: its manifest and its config, consistent with each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The manifest; its config descriptor is filled in by [`Image::encode`].
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
}

impl Image {
    /// The image without a file.
    #[must_use]
    pub fn scratch(architecture: &str) -> Self {
        let config = Descriptor {
            media_type: CONFIG.to_owned(),
            digest: Digest::of(b""),
            size: 0,
            annotations: BTreeMap::new(),
        };
        Self {
            manifest: Manifest {
                schema_version: 2,
                media_type: MANIFEST.to_owned(),
                config,
                layers: Vec::new(),
                annotations: BTreeMap::new(),
            },
            config: ImageConfig {
                architecture: architecture.to_owned(),
                os: "linux".to_owned(),
                created: None,
                config: RunConfig::default(),
                rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
                history: Vec::new(),
                other: Map::new(),
            },
        }
    }

    /// The image that a manifest and its config describe, in OCI's or Docker's form; comes out in OCI's.
    pub fn parse(manifest: &[u8], config: &[u8]) -> Result<Self, ImageError> {
        let mut manifest = Manifest::parse(manifest)?;
        let mut config: ImageConfig =
            serde_json::from_slice(config).map_err(|source| ImageError::Json { what: "config", source })?;
        if manifest.layers.len() != config.rootfs.diff_ids.len() {
            return Err(ImageError::LayerCount {
                layers: manifest.layers.len(),
                diff_ids: config.rootfs.diff_ids.len(),
            });
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(ImageError::TooManyLayers(manifest.layers.len()));
        }
        manifest.media_type = MANIFEST.to_owned();
        manifest.config.media_type = CONFIG.to_owned();
        for layer in &mut manifest.layers {
            layer.media_type = layer_media_type(&layer.media_type)?;
        }
        // Docker's own bookkeeping, which would say that two equal images differ.
        for field in ["container", "container_config", "docker_version", "id", "parent", "throwaway", "Size"] {
            config.other.remove(field);
        }
        Ok(Self { manifest, config })
    }

    /// Refuses an image of another platform.
    pub fn check_platform(&self, architecture: &str) -> Result<(), ImageError> {
        if self.config.os == "linux" && self.config.architecture == architecture {
            return Ok(());
        }
        Err(ImageError::WrongPlatform {
            os: self.config.os.clone(),
            found: self.config.architecture.clone(),
            architecture: architecture.to_owned(),
        })
    }

    /// Identity of the first `layers` layers laid over each other, as OCI defines it; nothing for none.
    #[must_use]
    pub fn chain_id(&self, layers: usize) -> Option<Digest> {
        chain_id(&self.config.rootfs.diff_ids[..layers.min(self.config.rootfs.diff_ids.len())])
    }

    /// The environment as pairs, in order.
    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.config.config.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

impl Manifest {
    /// Reads an image manifest of OCI's or Docker's form; layers keep their media types.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        match manifest_kind(bytes)? {
            ManifestKind::Image => {}
            ManifestKind::Index => return Err(ImageError::MediaType(INDEX.to_owned())),
            ManifestKind::Other(media_type) => return Err(ImageError::MediaType(media_type)),
        }
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what: "manifest", source })
    }
}

/// OCI's chain id of layers laid over each other, lowest first; nothing for no layer.
#[must_use]
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(*first, |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes())))
}

/// OCI's name for a layer's form.
fn layer_media_type(media_type: &str) -> Result<String, ImageError> {
    Ok(match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => LAYER_GZIP.to_owned(),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar".to_owned(),
        LAYER_GZIP | "application/vnd.oci.image.layer.v1.tar" | "application/vnd.oci.image.layer.v1.tar+zstd" => {
            media_type.to_owned()
        }
        other => return Err(ImageError::LayerType(other.to_owned())),
    })
}

impl From<&LayerBlob> for Descriptor {
    fn from(blob: &LayerBlob) -> Self {
        Self { media_type: LAYER_GZIP.to_owned(), digest: blob.digest, size: blob.size, annotations: BTreeMap::new() }
    }
}
