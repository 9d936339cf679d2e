//! What a sync would change: wished objects against those that exist, with the refusals that protect people.
//!
//! Pure: the caller lists what exists and carries the plan out. Nothing is ever pruned that does not carry the
//! repository's own label, and nothing while its workshop directory still stands.

mod guard;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::digest::{Digest, FramedHasher};
use super::object::{Live, ObjectKey, differences, fields_of_others};

pub use guard::{Budget, Refusal, WithheldReason};

/// An object as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// What names it.
    pub key: ObjectKey,
    /// The workshop it belongs to.
    pub workshop: String,
    /// Everything that a sync owns of it.
    pub manifest: Value,
    /// The step that a new instance begins with; only its creation carries it.
    pub first_step: Option<String>,
}

/// What happens to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is made.
    Create,
    /// It is made equal.
    Update,
    /// It is as it should be.
    Unchanged,
    /// It goes.
    Delete,
}

/// One row of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// The object.
    pub key: ObjectKey,
    /// The workshop it belongs to.
    pub workshop: String,
    /// Field paths that differ, for an update.
    pub fields: Vec<String>,
    /// The wished object; none for a deletion.
    pub desired: Option<Desired>,
    /// The existing object; none for a creation.
    pub live: Option<Live>,
}

/// What a revision says of one workshop.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It is valid; these are its objects.
    Ready(Vec<Desired>),
    /// It stands in the revision but cannot be used now: its objects stay as they are.
    Kept,
}

/// Everything a plan is made of.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The workshops of the revision by id.
    pub workshops: &'a BTreeMap<String, Standing>,
    /// Directories that stand in the revision as workshops, readable or not.
    pub paths: &'a BTreeSet<String>,
    /// The existing objects that carry the owner's label.
    pub live: &'a [Live],
    /// The label that holds the workshop's id, and the annotation that holds its path.
    pub names: Names,
    /// Whether what the revision no longer has is removed.
    pub prune: bool,
    /// How much may go at once.
    pub budget: Budget,
    /// The hash of the plan that somebody approved.
    pub approved: Option<&'a str>,
    /// A plan with any change waits for its approval.
    pub manual: bool,
}

/// The metadata names that plans read.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Label with the workshop's id.
    pub workshop_label: &'static str,
    /// Annotation with the workshop's path.
    pub path_annotation: &'static str,
}

/// What a sync would do, in the order it does it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Rows: creations and updates in the order of kinds, then deletions in the opposite order.
    pub changes: Vec<Change>,
    /// Deletions that wait for somebody's approval, and why.
    pub withheld: Vec<(Change, WithheldReason)>,
    /// Set when nothing at all may be done before somebody approves.
    pub refusal: Option<Refusal>,
}

impl Plan {
    /// True when carrying it out would write nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.withheld.is_empty() && self.changes.iter().all(|change| change.action == Action::Unchanged)
    }

    /// The hash that an approval names: equal plans have equal hashes.
    #[must_use]
    pub fn hash(&self) -> Digest {
        hash(self.changes.iter().chain(self.withheld.iter().map(|(change, _)| change)))
    }
}

fn hash<'a>(changes: impl Iterator<Item = &'a Change>) -> Digest {
    let mut rows: Vec<_> = changes.filter(|change| change.action != Action::Unchanged).collect();
    rows.sort_by(|left, right| left.key.cmp(&right.key));
    let mut hasher = FramedHasher::new("workshop.plan");
    for change in rows {
        hasher.part([change.action as u8]).part(change.key.to_string());
        hasher.optional(change.desired.as_ref().map(|desired| desired.manifest.to_string()));
    }
    hasher.finish()
}

/// Makes the plan.
#[must_use]
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let live: BTreeMap<&ObjectKey, &Live> = inputs.live.iter().map(|live| (&live.key, live)).collect();
    let desired: Vec<&Desired> = inputs
        .workshops
        .values()
        .flat_map(|standing| match standing {
            Standing::Ready(objects) => objects.as_slice(),
            Standing::Kept => &[],
        })
        .collect();
    let wished: BTreeSet<&ObjectKey> = desired.iter().map(|desired| &desired.key).collect();

    let mut changes: Vec<Change> =
        desired.iter().map(|desired| apply_change(desired, live.get(&desired.key).copied())).collect();
    changes.sort_by(|left, right| left.key.cmp(&right.key));

    let mut deletions: Vec<Change> = inputs
        .live
        .iter()
        // What is being deleted needs nobody to say so again.
        .filter(|live| live.manifest.pointer("/metadata/deletionTimestamp").is_none())
        .filter(|live| inputs.prune && !wished.contains(&live.key) && is_gone(live, inputs))
        .map(|live| Change {
            action: Action::Delete,
            key: live.key.clone(),
            workshop: live.label(inputs.names.workshop_label).unwrap_or_default().to_owned(),
            fields: Vec::new(),
            desired: None,
            live: Some(live.clone()),
        })
        .collect();
    deletions.sort_by(|left, right| right.key.cmp(&left.key));
    guard::guard(inputs, changes, deletions)
}

fn apply_change(desired: &Desired, live: Option<&Live>) -> Change {
    let fields = live
        .map(|live| differences(&desired.manifest, &live.manifest, fields_of_others(desired.key.kind)))
        .unwrap_or_default();
    let action = match live {
        None => Action::Create,
        Some(_) if fields.is_empty() => Action::Unchanged,
        Some(_) => Action::Update,
    };
    Change {
        action,
        key: desired.key.clone(),
        workshop: desired.workshop.clone(),
        fields,
        desired: Some(desired.clone()),
        live: live.cloned(),
    }
}

/// True when the revision has nothing that an existing object could still belong to.
fn is_gone(live: &Live, inputs: &Inputs<'_>) -> bool {
    let Some(id) = live.label(inputs.names.workshop_label) else { return false };
    match inputs.workshops.get(id) {
        Some(Standing::Kept) => false,
        Some(Standing::Ready(_)) => true,
        // The id left, but a directory at its path may be the same workshop with a broken or new id.
        None => live
            .annotation(inputs.names.path_annotation)
            .is_none_or(|path| !inputs.paths.contains(path) || inputs_has_ready_path(inputs, path)),
    }
}

/// True when a valid workshop of the revision stands at `path`: then the directory was given to another id.
fn inputs_has_ready_path(inputs: &Inputs<'_>, path: &str) -> bool {
    inputs.workshops.values().any(|standing| match standing {
        Standing::Ready(objects) => objects.iter().any(|desired| {
            desired
                .manifest
                .get("metadata")
                .and_then(|metadata| metadata.get("annotations"))
                .and_then(|annotations| annotations.get(inputs.names.path_annotation))
                .and_then(Value::as_str)
                == Some(path)
        }),
        Standing::Kept => false,
    })
}

#[cfg(test)]
mod tests;
