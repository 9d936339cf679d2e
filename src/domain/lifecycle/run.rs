//! The identity of a container: what it is made of, so that another wish is told from the same one.
//!
//! Equal fingerprints mean that a running container is what is wished, also after a restart of the program.

use jiff::Timestamp;

use super::Step;
use crate::domain::digest::FramedHasher;
use crate::domain::workspace::{Lifecycle, Workspace};

/// The container that was last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its step.
    pub step: String,
    /// Its identity.
    pub fingerprint: String,
    /// The digest of the artifact that its backend has.
    pub artifact: String,
    /// When it was asked for.
    pub since: Timestamp,
    /// When it first answered.
    pub ready_at: Option<Timestamp>,
}

/// The identity of a container of `step` under `settings`; `artifact` is part of it where a running backend cannot be
/// handed another one.
#[must_use]
pub fn fingerprint(step: &Step, settings: &Workspace, reset: Option<&str>, artifact: Option<&str>) -> String {
    // What only decides when a container ends does not change what it is.
    let persist = settings.lifecycle.persist.clone();
    let lasting = Workspace { lifecycle: Lifecycle { persist, ..Lifecycle::default() }, ..settings.clone() };
    let settings = serde_json::to_vec(&lasting).expect("settings are plain data with text keys");
    let mut hasher = FramedHasher::new("workshop.run");
    hasher.part(&step.id).part(step.image_digest.as_deref().unwrap_or(&step.image_tag));
    hasher.part(settings).optional(reset).optional(artifact);
    hasher.finish().hex()[..32].to_owned()
}
