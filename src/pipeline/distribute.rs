//! An artifact to a registry and back: the file, its `workspace.yaml`, and a look whether its images are there.
//!
//! What the bytes are is `domain::distribution`'s matter; images are pushed by compile and fetched by `place_artifact`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use super::place_artifact::full_tag;
use crate::adapters::artifact::{self, Artifact, ArtifactError, MAX_BYTES};
use crate::adapters::registry::{BlobSource, Named, Registries, RegistryError};
use crate::domain::definition::StepRow;
use crate::domain::digest::Digest;
use crate::domain::distribution::{
    Description, MAX_CONFIG, MAX_DATABASE, MAX_WORKSPACE, NotDistributed, Parts, build_distribution, parse_distribution,
};
use crate::domain::image::{Descriptor, MANIFEST};

/// Why an artifact was not pushed or pulled.
#[derive(Debug, thiserror::Error)]
pub enum DistributeError {
    /// The file is no artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What is there is no artifact.
    #[error("\"{reference}\" {source}")]
    Foreign {
        /// The reference.
        reference: String,
        /// What it is.
        source: NotDistributed,
    },
    /// Nothing is there.
    #[error("there is no artifact \"{0}\" in its registry")]
    Missing(String),
    /// The parts contradict each other.
    #[error("the artifact \"{reference}\" is damaged: {reason}")]
    Damaged {
        /// The reference.
        reference: String,
        /// What does not fit.
        reason: String,
    },
    /// The reference cannot be pushed to.
    #[error("\"{0}\" names a digest; an artifact is pushed under a tag")]
    Digest(String),
    /// Something else has the name.
    #[error("\"{reference}\" is taken by something else: it {source}")]
    Taken {
        /// The reference.
        reference: String,
        /// What has it.
        source: NotDistributed,
    },
    /// Learners' progress is nobody else's.
    #[error("\"{0}\" holds the progress and notes of workspaces, which do not belong into a registry")]
    State(String),
    /// Images are missing.
    #[error("the registry has no image for {}", .0.join(", "))]
    NoImages(Vec<String>),
    /// The file cannot be written.
    #[error("failed to write \"{file}\"")]
    Write {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl DistributeError {
    /// True when the content is at fault: trying again cannot help.
    #[must_use]
    pub fn is_content(&self) -> bool {
        match self {
            Self::Artifact(error) => error.is_content(),
            Self::Foreign { .. } | Self::Damaged { .. } | Self::State(_) | Self::NoImages(_) => true,
            Self::Registry(_) | Self::Missing(_) | Self::Digest(_) | Self::Taken { .. } | Self::Write { .. } => false,
        }
    }
}

/// The images that the steps' tags stand for now, by step; those that are nowhere, as `STEP ("IMAGE")`.
pub async fn resolve_images(
    registries: &Registries,
    steps: &[StepRow],
    known: &BTreeMap<String, Digest>,
    registry: Option<&str>,
) -> Result<(BTreeMap<String, Digest>, Vec<String>), RegistryError> {
    let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
    for step in steps {
        let tag = full_tag(step, registry);
        let reference = match known.get(step.id.as_str()) {
            Some(digest) => {
                format!("{}@{digest}", tag.rsplit_once(':').map_or(tag.as_str(), |(repository, _)| repository))
            }
            None => tag,
        };
        match registries.resolve(&reference).await? {
            Some(digest) => drop(found.insert(step.id.to_string(), digest)),
            None => missing.push(format!("step {} (\"{reference}\")", step.id)),
        }
    }
    Ok((found, missing))
}

/// What is pushed where.
pub struct Push<'a> {
    /// The artifact's file.
    pub file: &'a Path,
    /// The text of its `workspace.yaml`.
    pub workspace: Option<Vec<u8>>,
    /// `REGISTRY/REPOSITORY[:TAG]`.
    pub reference: &'a str,
    /// The registry of images that name none.
    pub registry: Option<&'a str>,
    /// Push although images are missing.
    pub without_images: bool,
}

/// Pushes an artifact; gives its manifest's digest.
pub async fn push_artifact(registries: &Registries, push: Push<'_>) -> Result<(Artifact, Digest), DistributeError> {
    let Named { repository, tag, digest } = Registries::name(push.reference)?;
    if digest.is_some() {
        return Err(DistributeError::Digest(push.reference.to_owned()));
    }
    let (artifact, state) = artifact::read_with_state(push.file)?;
    if !state.runtime.is_empty() || !state.custom.is_empty() {
        return Err(DistributeError::State(push.file.display().to_string()));
    }
    let tag = tag.unwrap_or_else(|| "latest".to_owned());
    let reference = format!("{repository}:{tag}");
    if let Some((_, manifest)) = registries.read_manifest(&reference).await?
        && let Err(source) = parse_distribution(&manifest)
    {
        return Err(DistributeError::Taken { reference, source });
    }
    if !push.without_images {
        let steps = &artifact.definition.steps;
        let (_, missing) = resolve_images(registries, steps, &artifact.images, push.registry).await?;
        if !missing.is_empty() {
            return Err(DistributeError::NoImages(missing));
        }
    }
    let failed = |source| ArtifactError::Io { attempt: "read", path: push.file.to_owned(), source };
    let database = std::fs::read(push.file).map_err(failed)?;
    let distribution = build_distribution(&artifact.definition, database, push.workspace);
    for (digest, bytes) in distribution.blobs {
        registries.push_blob(&repository, &digest, &BlobSource::Bytes(bytes), None).await?;
    }
    let digest = registries.push_manifest(&repository, &[tag], MANIFEST, &distribution.manifest).await?;
    Ok((artifact, digest))
}

/// An artifact that was pulled.
#[derive(Debug)]
pub struct Pulled {
    /// What its file holds.
    pub artifact: Artifact,
    /// The sha256 of the file.
    pub file: Digest,
    /// The manifest's digest.
    pub digest: Digest,
    /// The text of its `workspace.yaml`.
    pub workspace: Option<Vec<u8>>,
}

/// Pulls an artifact to `file`, which is replaced as a whole once everything was found to be right.
pub async fn pull_artifact(registries: &Registries, reference: &str, file: &Path) -> Result<Pulled, DistributeError> {
    debug_assert_eq!(MAX_DATABASE, MAX_BYTES);
    let Named { repository, .. } = Registries::name(reference)?;
    let missing = || DistributeError::Missing(reference.to_owned());
    let (digest, manifest) = registries.read_manifest(reference).await?.ok_or_else(missing)?;
    let Parts { config, database, workspace } = parse_distribution(&manifest)
        .map_err(|source| DistributeError::Foreign { reference: reference.to_owned(), source })?;
    let damaged = |reason: String| DistributeError::Damaged { reference: reference.to_owned(), reason };
    let fetch = async |part: &Descriptor, max: u64| {
        let bytes = registries.read_blob(&repository, &part.digest, part.size.min(max)).await?;
        if bytes.len() as u64 != part.size || Digest::of(&bytes) != part.digest {
            return Err(damaged(format!("its part {} is not what the manifest says", part.digest)));
        }
        Ok(bytes)
    };
    let description: Description = serde_json::from_slice(&fetch(&config, MAX_CONFIG).await?)
        .map_err(|error| damaged(format!("its description cannot be read ({error})")))?;
    let bytes = fetch(&database, MAX_DATABASE).await?;
    let workspace = match &workspace {
        Some(part) => Some(fetch(part, MAX_WORKSPACE).await?),
        None => None,
    };
    let failed = |source| DistributeError::Write { file: file.display().to_string(), source };
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut incoming = tempfile::Builder::new()
        .prefix(".artifact-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(failed)?;
    incoming.write_all(&bytes).and_then(|()| incoming.as_file().sync_data()).map_err(failed)?;
    // Its own path would name a temporary file.
    let artifact = artifact::read(incoming.path()).map_err(|error| damaged(told(&error, incoming.path())))?;
    let definition = &artifact.definition;
    if description.id != definition.id.as_str() || description.content_digest != artifact.content_digest {
        return Err(damaged("its description is that of another file".to_owned()));
    }
    incoming.persist(file).map_err(|error| failed(error.error))?;
    Ok(Pulled { artifact, file: database.digest, digest, workspace })
}

/// The error without the path of the file that it is about.
fn told(error: &ArtifactError, path: &Path) -> String {
    error.to_string().replace(&format!("\"{}\"", path.display()), "its file")
}
