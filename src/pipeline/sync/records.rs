//! What is known of each workshop of a source: the records of a sync, and what a running program keeps of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Error;
use super::report::{StepOutcome, StepReport, SyncReport, WorkshopReport, WorkshopState};
use crate::adapters::store::{Store, UnitRecord, UnitState};
use crate::domain::object::key_of;
use crate::domain::plan::Desired;

pub(super) type Records = BTreeMap<String, Arc<UnitRecord>>;

/// What a running program remembers between two syncs of a source; the store has the same.
#[derive(Debug, Default)]
pub struct Memory {
    records: Option<Records>,
    /// Set while a sync is under way: one that ended early leaves the next unsure of what was written.
    pub(super) is_unsure: bool,
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
        self.is_unsure = true;
        self.records.get_or_insert_default()
    }

    pub(super) fn end(&mut self, records: Vec<Worked>, report: &SyncReport) {
        self.records = Some(records.into_iter().map(|worked| (worked.record.path.clone(), worked.record)).collect());
        self.is_unsure = report.has_failed_writes();
    }
}

/// A workshop's record and whether it was worked on now.
#[derive(Debug)]
pub(super) struct Worked {
    pub record: Arc<UnitRecord>,
    pub fresh: bool,
}

impl Worked {
    pub fn report(&self) -> WorkshopReport {
        let record = &self.record;
        WorkshopReport {
            id: record.id.clone(),
            path: record.path.clone(),
            state: match record.state {
                UnitState::Ready if self.fresh => WorkshopState::Ready,
                UnitState::Ready => WorkshopState::Unchanged,
                UnitState::Invalid => WorkshopState::Invalid,
                UnitState::Failed => WorkshopState::Failed,
            },
            message: record.message.clone(),
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
pub(super) fn refuse_doubles(records: &mut [Worked]) {
    let mut ids: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut images: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, worked) in records.iter().enumerate() {
        if let Some(id) = &worked.record.id {
            ids.entry(id).or_default().push(index);
        }
        if let Some(image) = &worked.record.image {
            images.entry(image).or_default().push(index);
        }
    }
    let mut refusals: BTreeMap<usize, String> = BTreeMap::new();
    for (what, field, doubles) in [("image", "workshop.image", images), ("id", "workshop.name", ids)] {
        for (text, indices) in doubles.into_iter().filter(|(_, indices)| indices.len() > 1) {
            for index in &indices {
                let others: Vec<String> = indices
                    .iter()
                    .filter(|other| *other != index)
                    .map(|other| format!("\"{}\"", records[*other].record.path))
                    .collect();
                let message =
                    format!("the {what} \"{text}\" is also used by {}: give each its own {field}", others.join(", "));
                refusals.insert(*index, message);
            }
        }
    }
    for (index, message) in refusals {
        let record = Arc::make_mut(&mut records[index].record);
        record.state = UnitState::Invalid;
        record.message = message;
    }
}
