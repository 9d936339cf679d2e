//! Everything about a sync that a person sets, by flags or by a WorkshopRepository.

use crate::domain::digest::{Digest, FramedHasher};
use crate::domain::names::FORMAT_VERSION;
use crate::domain::plan::Budget;
use crate::pipeline::compile::CommandPolicy;
use crate::pipeline::platform::Platform;

/// Everything about a sync that a person sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The owner label's value.
    pub owner: String,
    /// The source as people see it.
    pub source: String,
    /// Only workshops below these directories; all where empty.
    pub paths: Vec<String>,
    /// The ignore text that the origin was opened with.
    pub ignore: Option<String>,
    /// The registry put before image names.
    pub registry: Option<String>,
    /// The registry's name for nodes.
    pub pull_registry: Option<String>,
    /// The Secret for pulling: namespace and name.
    pub pull_secret: Option<(String, String)>,
    /// The namespace of the roster's instances.
    pub target_namespace: String,
    /// Whether what the revision no longer has is removed.
    pub prune: bool,
    /// How much may go at once.
    pub budget: Budget,
    /// A plan with any change waits for its approval.
    pub manual: bool,
    /// The approved plan's hash.
    pub approved: Option<String>,
    /// What commands may do.
    pub commands: CommandPolicy,
    /// Resolve every base again.
    pub refresh_base: bool,
    /// Print what would be done and write nothing.
    pub dry_run: bool,
}

impl Settings {
    /// The digest of everything beside the revision that a result depends on.
    pub(super) fn digest(&self, platform: Option<&Platform>) -> Digest {
        let mut hasher = FramedHasher::new("workshop.settings");
        hasher.number(FORMAT_VERSION).optional(platform.map(|platform| platform.digest().to_string()));
        hasher.optional(self.registry.as_deref()).optional(self.pull_registry.as_deref());
        hasher.part(&self.target_namespace).part([u8::from(self.prune), u8::from(self.manual)]);
        hasher.part(format!("{:?} {:?} {:?}", self.budget, self.pull_secret, self.commands.allowed));
        hasher.optional(self.approved.as_deref()).optional(self.ignore.as_deref());
        for path in &self.paths {
            hasher.part(path);
        }
        hasher.finish()
    }

    /// The digest of what is in the objects beside the workshop itself: another one makes other objects.
    pub(super) fn placement(&self) -> Digest {
        let mut hasher = FramedHasher::new("workshop.placement");
        hasher.optional(self.pull_registry.as_deref()).part(&self.target_namespace);
        let (namespace, name) = self.pull_secret.clone().unzip();
        hasher.optional(namespace).optional(name);
        hasher.finish()
    }

    /// True for a workshop below one of the followed directories.
    pub(super) fn follows(&self, path: &str) -> bool {
        let below = |root: &String| {
            let root = root.trim_end_matches('/').trim_start_matches("./");
            root.is_empty()
                || root == "."
                || path == root
                || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
        };
        self.paths.is_empty() || self.paths.iter().any(below)
    }
}
