//! What is known of each workshop of a source: the records of a sync, and what a running program keeps of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Error;
use super::report::{Cause, StepOutcome, StepReport, SyncReport, WorkshopReport, WorkshopState};
use crate::adapters::store::{Store, UnitRecord, UnitState};
use crate::domain::clash::{Claim, find_clashes};
use crate::domain::object::key_of;
use crate::domain::plan::Desired;

pub(super) type Records = BTreeMap<String, Arc<UnitRecord>>;

/// What a running program remembers between two syncs of a source; the store has the same.
#[derive(Debug)]
pub struct Memory {
    records: Option<Records>,
    /// Objects may be otherwise than the records say: a sync ended early, something was not written, or this is the
    /// first one. The next compares them all.
    pub(super) is_unsure: bool,
    /// The last sync left something that may become possible without a new commit.
    pub(super) is_open: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self { records: None, is_unsure: true, is_open: true }
    }
}

impl Memory {
    pub(super) fn records(&mut self, store: &Store, owner: &str) -> Result<&Records, Error> {
        if self.records.is_none() {
            let units = store.units(owner)?;
            self.records = Some(units.into_iter().map(|record| (record.path.clone(), Arc::new(record))).collect());
        }
        Ok(self.records.get_or_insert_default())
    }

    pub(super) fn begin(&mut self) -> &Records {
        (self.is_unsure, self.is_open) = (true, true);
        self.records.get_or_insert_default()
    }

    pub(super) fn end(&mut self, records: Vec<Worked>, report: &SyncReport) {
        let has_doubles = records.iter().any(|worked| worked.double.is_some());
        self.records = Some(records.into_iter().map(|worked| (worked.record.path.clone(), worked.record)).collect());
        self.is_open = report.is_refused();
        self.is_unsure = self.is_open || has_doubles || report.has_failed_writes();
    }
}

/// A workshop's record and whether it was worked on now.
#[derive(Debug)]
pub(super) struct Worked {
    pub record: Arc<UnitRecord>,
    pub fresh: bool,
    /// Why it is refused beside the others of the revision. No part of the record: without them it is fine.
    pub double: Option<String>,
}

impl Worked {
    pub fn new(record: Arc<UnitRecord>, fresh: bool) -> Self {
        Self { record, fresh, double: None }
    }

    pub fn report(&self) -> WorkshopReport {
        let record = &self.record;
        WorkshopReport {
            id: record.id.clone(),
            path: record.path.clone(),
            state: match record.state {
                _ if self.double.is_some() => WorkshopState::Invalid,
                UnitState::Ready if self.fresh => WorkshopState::Ready,
                UnitState::Ready => WorkshopState::Unchanged,
                UnitState::Invalid => WorkshopState::Invalid,
                UnitState::Failed => WorkshopState::Failed,
            },
            message: self.double.as_ref().unwrap_or(&record.message).clone(),
            cause: match (&self.double, record.state) {
                (Some(_), _) => Some(Cause::Double),
                // Only a failing command is counted.
                (None, UnitState::Failed) if record.tries > 0 => Some(Cause::Command),
                _ => None,
            },
            steps: serde_json::from_value::<Vec<StepReport>>(record.steps.clone())
                .unwrap_or_default()
                .into_iter()
                .map(|step| if self.fresh { step } else { StepReport { result: step.result.when_known(), ..step } })
                .collect(),
            objects: Vec::new(),
        }
    }
}

impl StepOutcome {
    /// What a later sync says of a step that nothing was done for.
    const fn when_known(self) -> Self {
        match self {
            Self::Built | Self::Reused => Self::Reused,
            Self::Failed => Self::Failed,
        }
    }
}

pub(super) fn wished_objects(record: &UnitRecord) -> Vec<Desired> {
    record
        .objects
        .iter()
        .filter_map(|(manifest, first_step)| {
            Some(Desired {
                key: key_of(manifest)?,
                workshop: record.id.clone()?,
                manifest: manifest.clone(),
                first_step: first_step.clone(),
            })
        })
        .collect()
}

/// Two directories with one id, or two workshops with one image, are both refused and keep their last good state.
/// `read_recipe` gives the text of a recipe by the workshop's path; it is asked for those that clash only.
pub(super) fn refuse_doubles(records: &mut [Worked], mut read_recipe: impl FnMut(&str) -> Option<Vec<u8>>) {
    let named: Vec<(usize, &UnitRecord, &str)> = records
        .iter()
        .enumerate()
        .filter_map(|(index, worked)| Some((index, &*worked.record, worked.record.id.as_deref()?)))
        .collect();
    let mut recipes: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    let claims = |recipes: &BTreeMap<usize, Vec<u8>>| {
        let found: Vec<_> = named
            .iter()
            .enumerate()
            .map(|(index, (_, record, id))| Claim {
                path: &record.path,
                id,
                image: record.image.as_deref(),
                recipe: recipes.get(&index).map(Vec::as_slice),
            })
            .collect();
        find_clashes(&found)
    };
    for (index, _) in claims(&recipes) {
        if let Some(text) = read_recipe(&named[index].1.path) {
            recipes.insert(index, text);
        }
    }
    let mut refusals: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (index, problem) in claims(&recipes) {
        refusals.entry(named[index].0).or_default().push(problem.to_string());
    }
    for (index, messages) in refusals {
        records[index].double = Some(messages.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn worked(path: &str, id: &str) -> Worked {
        let record = json!({
            "path": path, "id": id, "image": null, "unit": "u", "work": crate::domain::digest::Digest::of(b""),
            "recipe": null, "base": null, "state": "ready", "message": "", "tries": 0, "artifact": null,
            "objects": [], "steps": null,
        });
        Worked::new(Arc::new(serde_json::from_value(record).expect("a record")), true)
    }

    #[test]
    fn doubles_are_refused_with_their_place_and_remembered_as_they_are_alone() {
        let mut records = vec![worked("a", "one"), worked("b", "one"), worked("c", "two")];
        let recipe = "version: v1\nworkshop:\n  name: one\n  image: one\n";
        let mut asked = Vec::new();
        refuse_doubles(&mut records, |path| {
            asked.push(path.to_owned());
            Some(recipe.as_bytes().to_vec())
        });
        assert_eq!(asked, ["a", "b"]);
        let reports: Vec<_> = records.iter().map(Worked::report).collect();
        assert_eq!(reports[0].message, "a/step-spec.yaml:3:9: workshop.name: the id \"one\" is also that of \"b\"");
        assert_eq!(
            reports.iter().map(|report| (report.state, report.cause)).collect::<Vec<_>>(),
            [
                (WorkshopState::Invalid, Some(Cause::Double)),
                (WorkshopState::Invalid, Some(Cause::Double)),
                (WorkshopState::Ready, None)
            ]
        );
        assert!(records.iter().all(|worked| worked.record.state == UnitState::Ready));
    }

    #[test]
    fn nothing_is_certain_before_a_first_sync() {
        let memory = Memory::default();
        assert!(memory.is_unsure && memory.is_open);
    }
}
