//! Carries a plan out: templates before instances, deletions last, several writes at once, and every object's
//! failure on its own workshop.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::report::{ObjectOutcome, ObjectReport, SyncReport, WorkshopReport, WorkshopState};
use crate::crd::labels;
use crate::domain::chain;
use crate::domain::object::{Kind, ObjectKey};
use crate::domain::plan::{Action, Change, Plan};
use crate::failpoint;
use crate::pipeline::object_end::{Error, ObjectEnd};

/// Writes under way at once: what keeps one API server busy without queueing.
const CONCURRENCY: usize = 16;

/// Refuses the workshops of which an object belongs to somebody else; gives their ids. Reads only.
pub(super) async fn refuse_taken(
    objects: &ObjectEnd,
    plan: &Plan,
    report: &mut SyncReport,
) -> Result<BTreeSet<String>, Error> {
    let taken = taken_by_others(objects, plan).await?;
    let mut refused = BTreeSet::new();
    for change in &plan.changes {
        if let Some(owner) = taken.get(&change.key) {
            refused.insert(change.workshop.clone());
            report.refuse(change, owner.as_deref());
        }
    }
    Ok(refused)
}

/// Carries the plan out but for the refused workshops and notes each result in the report; false when `cancel` ended
/// it before its last write.
pub(super) async fn carry_out(
    objects: &ObjectEnd,
    plan: &Plan,
    refused: &BTreeSet<String>,
    report: &mut SyncReport,
    cancel: &CancellationToken,
) -> bool {
    if plan.refusal.is_some() {
        return true;
    }
    let batch = |wanted: fn(&Change) -> bool| {
        plan.changes
            .iter()
            .filter(move |change| wanted(change) && change.action != Action::Unchanged)
            .filter(|change| !refused.contains(&change.workshop))
            .collect::<Vec<_>>()
    };
    let batches = [
        batch(|change| change.action != Action::Delete && change.key.kind == Kind::WorkspaceTemplate),
        batch(|change| change.action != Action::Delete && change.key.kind == Kind::WorkspaceInstance),
        batch(|change| change.action == Action::Delete && change.key.kind == Kind::WorkspaceInstance),
        batch(|change| change.action == Action::Delete && change.key.kind == Kind::WorkspaceTemplate),
    ];
    for batch in batches {
        let mut results = stream::iter(batch)
            .map(|change| async move {
                // Whoever ended us may have a successor that writes already.
                if cancel.is_cancelled() {
                    return None;
                }
                Some((change, objects.carry_out(change).await))
            })
            .buffer_unordered(CONCURRENCY);
        while let Some(result) = results.next().await {
            let Some((change, result)) = result else { return false };
            failpoint::reached(if change.action == Action::Delete { "mid-prune" } else { "mid-apply" });
            if let Err(error) = result {
                report.fail(change, &chain::line(&error));
            }
        }
    }
    true
}

/// The objects that a plan would create but that exist with another owner, or with none.
async fn taken_by_others(objects: &ObjectEnd, plan: &Plan) -> Result<BTreeMap<ObjectKey, Option<String>>, Error> {
    let created: Vec<ObjectKey> =
        plan.changes.iter().filter(|change| change.action == Action::Create).map(|change| change.key.clone()).collect();
    if created.is_empty() { Ok(BTreeMap::new()) } else { objects.owners(&created).await }
}

impl SyncReport {
    /// Puts the plan's rows into the workshops they belong to; deletions of gone workshops get a row of their own.
    #[must_use]
    pub(super) fn with_rows(mut self, plan: &Plan) -> Self {
        for change in &plan.changes {
            let result = match change.action {
                Action::Create => ObjectOutcome::Created,
                Action::Update => ObjectOutcome::Updated,
                Action::Unchanged => ObjectOutcome::Unchanged,
                Action::Delete => ObjectOutcome::Deleted,
            };
            let row = ObjectReport {
                kind: change.key.kind.as_str(),
                name: name(&change.key),
                result,
                fields: change.fields.clone(),
            };
            let workshop = self.workshop_of(change);
            workshop.objects.push(row);
        }
        for (change, reason) in &plan.withheld {
            let message = format!("{} is kept: {reason}; approve the plan to go on", change.key);
            let workshop = self.workshop_of(change);
            workshop.state = WorkshopState::Refused;
            workshop.message = message;
        }
        self
    }

    fn workshop_of(&mut self, change: &Change) -> &mut WorkshopReport {
        let id = change.workshop.as_str();
        let index =
            self.workshops.iter().position(|workshop| workshop.id.as_deref() == Some(id)).unwrap_or_else(|| {
                let path = change.live.as_ref().and_then(|live| live.annotation(labels::PATH)).unwrap_or_default();
                self.workshops.push(WorkshopReport {
                    id: Some(id.to_owned()),
                    path: path.to_owned(),
                    state: WorkshopState::Removed,
                    message: String::new(),
                    cause: None,
                    steps: Vec::new(),
                    objects: Vec::new(),
                });
                self.workshops.len() - 1
            });
        &mut self.workshops[index]
    }

    fn refuse(&mut self, change: &Change, owner: Option<&str>) {
        let message = match owner {
            Some(owner) => format!(
                "{} belongs to the repository \"{owner}\", which goes on untouched: use another workshop.name, or remove it there first",
                change.key
            ),
            None => format!(
                "{} exists and was not made by a repository: delete it or use another workshop.name",
                change.key
            ),
        };
        let workshop = self.workshop_of(change);
        workshop.state = WorkshopState::Refused;
        workshop.message = message;
        // None of its objects is written.
        workshop.objects.clear();
    }

    fn fail(&mut self, change: &Change, message: &str) {
        let name = name(&change.key);
        let workshop = self.workshop_of(change);
        workshop.state = WorkshopState::Failed;
        workshop.message = format!("failed to write {}: {message}", change.key);
        for object in &mut workshop.objects {
            if object.kind == change.key.kind.as_str() && object.name == name {
                object.result = ObjectOutcome::Failed;
            }
        }
    }
}

fn name(key: &ObjectKey) -> String {
    match &key.namespace {
        None => key.name.clone(),
        Some(namespace) => format!("{namespace}/{}", key.name),
    }
}
