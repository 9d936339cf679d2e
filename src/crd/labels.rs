//! Labels, annotations and field managers on our objects: the inventory of record and what a sync compares.
//!
//! Only names and their values' forms; who owns what is decided by the plan.

use crate::domain::digest::Digest;

/// Label: who owns the object, the uid of a WorkshopRepository or `src-<32 hex>` for a source without one.
pub const OWNER: &str = "workshop.platform/repository";

/// Label: the id of the workshop that the object comes from.
pub const WORKSHOP: &str = "workshop.platform/workshop";

/// Annotation: the unit key's tree id, that is the identity of the workshop's content.
pub const UNIT_KEY: &str = "workshop.platform/unit-key";

/// Annotation: the followed tag, where there is one.
pub const TAG: &str = "workshop.platform/tag";

/// Annotation: the manifest digest that the base image was resolved to.
pub const BASE_DIGEST: &str = "workshop.platform/base-digest";

/// Annotation: the workshop's directory, from the repository's root.
pub const PATH: &str = "workshop.platform/path";

/// Annotation: the digest of the recipe's bytes, for which the base digest was recorded.
pub const RECIPE: &str = "workshop.platform/recipe";

/// Label: the WorkshopClass that an instance belongs to.
pub const CLASS: &str = "workshop.platform/class";

/// Annotation: the digest over everything the workshop's objects depend on; equal means nothing is due.
pub const WORK: &str = "workshop.platform/work";

/// Annotation: any new value starts a reconciliation now.
pub const REQUESTED_AT: &str = "reconcile.workshop.platform/requestedAt";

/// Annotation: the hash of the plan that may go ahead.
pub const APPROVE: &str = "workshop.platform/approve";

/// Annotation of an instance: any new value moves it to its template's revision.
pub const UPDATE: &str = "workshop.platform/update";

/// Finalizer of an instance: what runs for it is taken away before the object is.
pub const INSTANCE_FINALIZER: &str = "workshop.platform/workspace";

/// Finalizer of a repository whose deletion policy removes what it made.
pub const FINALIZER: &str = "workshop.platform/repository";

/// The field manager of every server-side apply of the reconciler.
pub const FIELD_MANAGER: &str = "workshop-controller";

/// The field manager that writes a roster's `step`, once, at an instance's creation.
pub const ROSTER_MANAGER: &str = "workshop-roster";

/// The field manager of what people and workspaces ask of an instance.
pub const WORKSPACE_MANAGER: &str = "workshop-workspace";

/// The owner label's value for a source without a WorkshopRepository; `source` is its text without credentials.
#[must_use]
pub fn build_source_owner(source: &str) -> String {
    let digest = Digest::of(source.as_bytes()).hex();
    format!("src-{}", &digest[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_source_is_a_valid_label_value_and_tells_sources_apart() {
        let owner = build_source_owner("https://git.example/team/workshops.git");
        assert_eq!(owner.len(), 36);
        assert!(owner.starts_with("src-") && owner[4..].bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(owner, build_source_owner("https://git.example/team/other.git"));
    }
}
