//! What a compile would find: keys and published images, read-only.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::error::CompileError;
use super::publish::KEY_ANNOTATION;
use super::session::{Progress, Session};
use super::{CompileInput, Compiler, PARALLEL};
use crate::domain::digest::Digest;
use crate::domain::image::Manifest;
use crate::domain::key::key_tag;

/// A step beside what the repository has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepStatus {
    /// The step's id, or `finish`.
    pub id: String,
    /// The key of its content now.
    pub key: Digest,
    /// The full reference without the digest.
    pub image_tag: String,
    /// True when the repository has content of that key.
    pub is_built: bool,
    /// The image under the step's id.
    pub digest: Option<Digest>,
    /// True when that image has content of that key.
    pub is_current: bool,
}

impl Compiler {
    /// Compares a workshop with what its repository has.
    pub async fn status(&self, input: &CompileInput<'_>) -> Result<Vec<StepStatus>, CompileError> {
        let silent = |_: Progress<'_>| {};
        let session = Session::new(self, input, &silent);
        let (_, steps) = session.planned().await?;
        let session = &session;
        stream::iter(&steps)
            .map(|step| async move {
                let repository = &session.repository;
                let key_reference = format!("{repository}:{}", key_tag(step.key));
                let built = self.images.resolve(&key_reference);
                let built = session.images(|| format!("look up \"{key_reference}\""), built).await?;
                let read = self.images.read_manifest(repository, step.id);
                let published = session.images(|| format!("look up \"{repository}:{}\"", step.id), read).await?;
                let key = published
                    .as_ref()
                    .and_then(|(_, manifest)| Manifest::parse(manifest).ok()?.annotations.get(KEY_ANNOTATION).cloned());
                Ok(StepStatus {
                    id: step.id.to_owned(),
                    key: step.key,
                    image_tag: format!("{repository}:{}", step.id),
                    is_built: built.is_some(),
                    digest: published.map(|(digest, _)| digest),
                    is_current: key.as_deref() == Some(step.key.to_string().as_str()),
                })
            })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }
}
