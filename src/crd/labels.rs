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

/// The field manager of everything that the operator writes.
pub const OPERATOR_MANAGER: &str = "workshop-operator";

/// The field manager of what people and learners ask of an instance.
pub const WORKSPACE_MANAGER: &str = "workshop-workspace";

/// Label of everything that is made for workspaces, with the value [`PART_OF_VALUE`].
pub const PART_OF: &str = "app.kubernetes.io/part-of";

/// The value of [`PART_OF`].
pub const PART_OF_VALUE: &str = "workshop";

/// Label that a workspace's pods are selected by, with the value `workspace`.
pub const APP: &str = "app.kubernetes.io/name";

/// Label of a workspace's namespace: the instance's uid. A namespace without it is never touched.
pub const INSTANCE_UID: &str = "workshop.platform/instance-uid";

/// Label of a lab: the `cluster.mode` that it was made for.
pub const CLUSTER_MODE: &str = "workshop.platform/cluster-mode";

/// Annotation of a workspace's namespace: `<namespace>/<name>` of the instance.
pub const INSTANCE: &str = "workshop.platform/instance";

/// Annotation of a pod: the identity of what it is made of.
pub const FINGERPRINT: &str = "workshop.platform/fingerprint";

/// Annotation of a pod: the step whose image it is.
pub const STEP: &str = "workshop.platform/step";

/// Annotation of a pod: which start it belongs to; another value makes another pod of the same image.
pub const START: &str = "workshop.platform/start";

/// Annotation of a workspace's Deployment: the digest of the objects around it, which were applied before it.
pub const SURROUNDINGS: &str = "workshop.platform/surroundings";

/// Annotation of a template: what instances may loosen, see docs/operator.md.
pub const ALLOW: &str = "workshop.platform/allow-overrides";

/// The namespace of an instance's workspace.
#[must_use]
pub fn workspace_namespace(namespace: &str, name: &str) -> String {
    let is_plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let plain: String =
        name.chars().map(|character| if is_plain(character) { character } else { '-' }).take(40).collect();
    let digest = Digest::of(format!("{namespace}/{name}").as_bytes()).hex();
    format!("ws-{plain}-{}", &digest[..10])
}

/// How an instance is named in URLs of a cluster: a namespace has no dots, so the first one separates.
#[must_use]
pub fn instance_reference(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

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

    #[test]
    fn a_workspaces_namespace_is_a_valid_name_of_its_own() {
        let check = |namespace: &str, name: &str, begin: &str| {
            let made = workspace_namespace(namespace, name);
            assert!(made.starts_with(begin) && made.len() <= 63, "{made}");
            let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(made.bytes().all(is_label) && !made.ends_with('-'), "{made}");
        };
        check("team", "git-ada", "ws-git-ada-");
        check("team", "git.ada.lovelace", "ws-git-ada-lovelace-");
        check("team", &"a".repeat(253), &format!("ws-{}-", "a".repeat(40)));
        assert_ne!(workspace_namespace("one", "ada"), workspace_namespace("two", "ada"));
    }
}
