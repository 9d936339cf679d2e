//! An artifact on its way between state directories: beside a workshop's images in their registry, named by its digest.
//!
//! What a cluster runs has to be had by whoever leads there, which need not be who brought it in.

use std::path::Path;

use super::distribute::{DistributeError, Push, pull_artifact, push_artifact};
use super::sync::artifact_path;
use crate::adapters::registry::Registries;
use crate::domain::digest::Digest;

/// What tags of shared artifacts begin with; no step is named so.
const TAG_PREFIX: &str = "artifact-";

/// Where the artifact of this digest is, beside the images in `repository`.
#[must_use]
pub fn shared_reference(repository: &str, digest: Digest) -> String {
    format!("{repository}:{TAG_PREFIX}{}", &digest.hex()[..32])
}

/// The repository of an image reference.
#[must_use]
pub fn repository_of(image: &str) -> &str {
    let named = image.split('@').next().unwrap_or(image);
    match named.rsplit_once(':') {
        // The port of a registry is no tag.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => named,
    }
}

/// Puts the artifact of this digest beside the images in `repository`, unless it is there.
pub async fn push_shared(
    registries: &Registries,
    repository: &str,
    digest: Digest,
    file: &Path,
) -> Result<(), DistributeError> {
    let reference = shared_reference(repository, digest);
    if registries.read_manifest(&reference).await?.is_some() {
        return Ok(());
    }
    let push = Push { file, workspace: None, reference: &reference, registry: None, without_images: true };
    push_artifact(registries, push).await.map(drop)
}

/// Brings the artifact of this digest from beside the image `image` into the state directory.
pub async fn pull_shared(
    registries: &Registries,
    image: &str,
    digest: Digest,
    state: &Path,
) -> Result<(), DistributeError> {
    let reference = shared_reference(repository_of(image), digest);
    let path = artifact_path(state, digest);
    let incoming = path.with_extension("pulled");
    let pulled = pull_artifact(registries, &reference, &incoming).await?;
    if pulled.file != digest {
        let _ = std::fs::remove_file(&incoming);
        return Err(DistributeError::Damaged { reference, reason: format!("it is {}, not {digest}", pulled.file) });
    }
    std::fs::rename(&incoming, &path)
        .map_err(|source| DistributeError::Write { file: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_beside_its_images() {
        for (image, expected) in [
            ("r.io:5000/team/w:one", "r.io:5000/team/w"),
            ("r.io:5000/team/w", "r.io:5000/team/w"),
            ("w:one@sha256:aa", "w"),
            ("w", "w"),
        ] {
            assert_eq!(repository_of(image), expected);
        }
        let reference = shared_reference("r.io/w", Digest::of(b"a"));
        assert_eq!(reference.len(), "r.io/w:artifact-".len() + 32);
        assert!(crate::domain::names::StepId::parse(&reference["r.io/w:".len()..]).is_err());
    }
}
