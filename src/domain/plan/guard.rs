//! The refusals: how much may be pruned at once, what needs a second confirmation, what waits for approval.

use std::collections::BTreeSet;
use std::fmt;

use super::{Action, Change, Inputs, Plan, hash};
use crate::domain::object::Kind;

/// How many workshops one sync may remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// The greater of one and half of the workshops that exist.
    Half,
    /// At most this many workshops.
    Count(usize),
    /// At most this share of the workshops that exist, in percent.
    Percent(u8),
}

impl Budget {
    /// How many of `existing` workshops may go.
    #[must_use]
    pub fn limit(self, existing: usize) -> usize {
        match self {
            Self::Half => (existing / 2).max(1),
            Self::Count(count) => count,
            Self::Percent(percent) => existing * usize::from(percent.min(100)) / 100,
        }
    }
}

/// Why a deletion waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithheldReason {
    /// More workshops would go than the budget allows.
    Budget {
        /// Workshops that would go.
        wanted: usize,
        /// Workshops that may.
        limit: usize,
    },
    /// The revision has no workshop at all any more.
    Everything,
    /// Somebody works in it.
    InUse,
}

impl fmt::Display for WithheldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget { wanted, limit } => {
                write!(f, "{wanted} workshops would be pruned and the budget is {limit}")
            }
            Self::Everything => f.write_str("the revision has no workshop left and all objects would be pruned"),
            Self::InUse => f.write_str("a learner works in it"),
        }
    }
}

/// Why a whole plan waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Approval is manual and this plan was not approved.
    NotApproved,
}

/// Puts the deletions into the plan or withholds them.
pub(super) fn guard(inputs: &Inputs<'_>, changes: Vec<Change>, deletions: Vec<Change>) -> Plan {
    let approved = inputs.approved == Some(hash(changes.iter().chain(&deletions)).to_string().as_str());
    if approved {
        return Plan { changes: changes.into_iter().chain(deletions).collect(), withheld: Vec::new(), refusal: None };
    }
    let pending = changes.iter().any(|change| change.action != Action::Unchanged) || !deletions.is_empty();
    let label = inputs.names.workshop_label;
    let existing: BTreeSet<_> = inputs
        .live
        .iter()
        .filter(|live| live.key.kind == Kind::WorkspaceTemplate)
        .filter_map(|live| live.label(label))
        .collect();
    let leaving: BTreeSet<_> = deletions
        .iter()
        .filter(|change| change.key.kind == Kind::WorkspaceTemplate)
        .map(|change| change.workshop.as_str())
        .collect();
    let limit = inputs.budget.limit(existing.len());
    let whole_tree = inputs.workshops.is_empty() && inputs.paths.is_empty() && !existing.is_empty();
    let in_use: BTreeSet<String> =
        deletions.iter().filter(|change| is_in_use(change)).map(|change| change.workshop.clone()).collect();
    let reason = |change: &Change| {
        if whole_tree {
            Some(WithheldReason::Everything)
        } else if leaving.contains(change.workshop.as_str()) && leaving.len() > limit {
            Some(WithheldReason::Budget { wanted: leaving.len(), limit })
        } else if is_in_use(change)
            // A template outlives the instances that cannot go yet.
            || change.key.kind == Kind::WorkspaceTemplate && in_use.contains(&change.workshop)
        {
            Some(WithheldReason::InUse)
        } else {
            None
        }
    };
    let (withheld, allowed): (Vec<_>, Vec<_>) =
        deletions.iter().cloned().map(|change| (reason(&change), change)).partition(|(reason, _)| reason.is_some());
    Plan {
        refusal: (inputs.manual && pending).then_some(Refusal::NotApproved),
        changes: changes.into_iter().chain(allowed.into_iter().map(|(_, change)| change)).collect(),
        withheld: withheld.into_iter().filter_map(|(reason, change)| Some((change, reason?))).collect(),
    }
}

fn is_in_use(change: &Change) -> bool {
    change.key.kind == Kind::WorkspaceInstance
        && change
            .live
            .as_ref()
            .and_then(|live| live.text("/status/phase"))
            .is_some_and(|phase| matches!(phase, "Running" | "Transitioning"))
}
