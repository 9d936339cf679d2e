//! Why a base cannot be used, in words that name it.

use std::io;
use std::path::PathBuf;

use crate::adapters::layout::{ArchiveError, LayoutError};
use crate::adapters::registry::RegistryError;
use crate::domain::digest::Digest;
use crate::domain::image::ImageError;
use crate::domain::layer::LayerReadError;
use crate::pipeline::image_end::ImageEndError;

/// Why a base cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Nobody has it.
    #[error("the base image \"{base}\" does not exist: check name and tag{local}")]
    NotFound {
        /// The base.
        base: String,
        /// What else could be done.
        local: &'static str,
    },
    /// A base that is a file, for a workshop that is none.
    #[error(
        "the base image \"{0}\" is a file beside the workshop, which needs the workshop in a directory of this machine"
    )]
    NoDirectory(String),
    /// A layout without that name.
    #[error("\"{path}\" holds no image \"{tag}\"")]
    NoTag {
        /// Layout or archive.
        path: PathBuf,
        /// The name.
        tag: String,
    },
    /// A layout with several images, and none named.
    #[error("\"{0}\" holds several images: name one of them")]
    SeveralImages(PathBuf),
    /// A recorded digest that the file no longer holds.
    #[error(
        "the base image \"{base}\" no longer holds {digest}, which the earlier steps were built on: compile with `--refresh-base`"
    )]
    Changed {
        /// The base.
        base: String,
        /// The recorded digest.
        digest: Digest,
    },
    /// A layer's content is not what the config promises.
    #[error("a layer of the base image \"{base}\" has the content {found}, but its config promises {expected}")]
    DiffId {
        /// The base.
        base: String,
        /// Promised.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// It is no image that can be built on.
    #[error("the base image \"{base}\" cannot be used")]
    Image {
        /// The base.
        base: String,
        /// The reason.
        source: ImageError,
    },
    /// Its layer cannot be read.
    #[error("a layer of the base image \"{base}\" cannot be read")]
    Layer {
        /// The base.
        base: String,
        /// The reason.
        source: LayerReadError,
    },
    /// The registry failed.
    #[error("cannot get the base image \"{base}\"")]
    Registry {
        /// The base.
        base: String,
        /// The reason.
        source: RegistryError,
    },
    /// Its layers do not get to where they are needed.
    #[error("cannot put the layers of the base image \"{base}\" into \"{repository}\"")]
    Push {
        /// The base.
        base: String,
        /// The repository.
        repository: String,
        /// The reason.
        source: ImageEndError,
    },
    /// The disk failed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The cache cannot be written.
    #[error("cannot write \"{path}\"")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Work on the disk did not end.
    #[error("the work on the base image \"{0}\" was interrupted")]
    Interrupted(String),
}

impl BaseError {
    /// True where the same may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry { source, .. } => source.is_transient(),
            Self::Push { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}
