//! One source, the whole way: resolve, fetch, discover, changed workshops only, import, compile, plan, apply, prune.
//!
//! Reads as a sentence in [`Sync::run`]; each stage is a file. Nothing here knows whether the ends are a cluster and
//! a registry or the embedded store and a layout.

mod carry_out;
mod error;
mod records;
mod report;
mod settings;
mod unit;
mod wished;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub use error::{Class, Error};
pub use records::Memory;
pub use report::{
    Cause, ObjectOutcome, ObjectReport, PlanReport, StepOutcome, StepReport, SyncReport, WorkshopReport, WorkshopState,
};
pub use settings::Settings;
pub use unit::artifact_path;

use unit::RECIPE;

use records::{Records, Worked, refuse_doubles, wished_objects};

use crate::adapters::store::{SourceRecord, Store, UnitRecord, UnitState};
use crate::crd::labels;
use crate::domain::names::work_digest;
use crate::domain::object::{Live, ObjectKey, key_of};
use crate::domain::plan::{Inputs, Names, Plan, Standing, plan};
use crate::domain::revision::RefSpec;
use crate::failpoint;
use crate::pipeline::compile::Compiler;
use crate::pipeline::object_end::ObjectEnd;
use crate::pipeline::platform::Platform;
use crate::pipeline::source::{Head, Origin, Snapshot, Unit};

/// The labels and annotations that plans read.
const NAMES: Names = Names { workshop_label: labels::WORKSHOP, path_annotation: labels::PATH };

/// The most changed workshops whose objects are read one by one instead of by a list of all.
const MAX_NARROW: usize = 8;

/// Workshops worked on at once: some push or wait for a command while others are read.
const CONCURRENCY: usize = 4;

/// How often a failing command is tried at one unit key.
pub const MAX_TRIES: u32 = 3;

/// What a sync of one source is made of.
pub struct Sync {
    /// The opened source.
    pub origin: Origin,
    /// What of it is followed.
    pub reference: RefSpec,
    /// Where objects go.
    pub objects: ObjectEnd,
    /// Builds and publishes images.
    pub compiler: Arc<Compiler>,
    /// What goes on top of every image; none refuses workshops with a recipe.
    pub platform: Option<Arc<Platform>>,
    /// What was done before.
    pub store: Arc<Store>,
    /// The state directory.
    pub state: PathBuf,
    /// Everything that a person sets.
    pub settings: Settings,
    /// One sync of a source at a time, and what the last one left.
    pub memory: Mutex<Memory>,
}

/// Why a sync runs; decides how much an unchanged head costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The interval: an unchanged head is left at once.
    Poll,
    /// An object of ours changed: objects are compared even at an unchanged head.
    Drift,
    /// Somebody asked, or the program started: failed workshops are tried again too.
    Requested,
}

/// What happens during a sync, for those who show it.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The head was resolved.
    Resolved {
        /// The revision as people see it.
        revision: &'a str,
    },
    /// Work on a workshop begins.
    Workshop {
        /// Its directory.
        path: &'a str,
    },
    /// Something about a workshop's images.
    Compile {
        /// The workshop's id.
        workshop: &'a str,
        /// What happened.
        progress: &'a crate::pipeline::compile::Progress<'a>,
    },
}

/// What belongs to one run of a sync.
#[derive(Clone, Copy)]
struct Turn<'a> {
    trigger: Trigger,
    cancel: &'a CancellationToken,
    listener: Listener<'a>,
}

/// Who listens to a sync.
pub type Listener<'a> = &'a (dyn Fn(Event<'_>) + Send + std::marker::Sync);

impl Sync {
    /// Brings the source's head in, as far as anything is due. `cancel` ends commands that run; a later sync goes on
    /// with what was pushed by key.
    pub async fn run(
        &self,
        trigger: Trigger,
        cancel: &CancellationToken,
        listener: Listener<'_>,
    ) -> Result<SyncReport, Error> {
        let mut memory = self.memory.lock().await;
        let head = self.origin.resolve(&self.reference).await?;
        failpoint::reached("after-resolve");
        let source = self.store.source(&self.settings.owner)?;
        let is_open = memory.is_open;
        let known = memory.records(&self.store, &self.settings.owner)?;
        if trigger == Trigger::Poll && !is_open && self.is_settled(&head, source.as_ref(), known) {
            return Ok(self.unchanged(&head));
        }
        // Between two complete syncs objects change only by our writes and by drift, which has a trigger of its own:
        // a new commit then needs only the objects of the workshops it touches.
        let is_narrow = trigger == Trigger::Poll
            && !memory.is_unsure
            && source
                .is_some_and(|source| source.settings == self.settings.digest(self.platform.as_deref()).to_string());
        let known = memory.begin();
        listener(Event::Resolved { revision: &display(&head) });
        let snapshot = Arc::new(self.origin.snapshot(&head).await?);
        failpoint::reached("after-fetch");

        let units: Vec<&Unit> = snapshot.units.iter().filter(|unit| self.settings.follows(&unit.path)).collect();
        let owned = if is_narrow { None } else { Some(self.objects.list_owned(&self.settings.owner).await?) };
        let mut records = self
            .work(Turn { trigger, cancel, listener }, &snapshot, &units, known, owned.as_deref().unwrap_or_default())
            .await?;
        // A result that somebody ended early, or that a newer commit overtakes, must not prune or write anything.
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        refuse_doubles(&mut records, |path| {
            let unit = units.iter().find(|unit| unit.path == path)?;
            snapshot.read(unit).ok()?.file(RECIPE).map(<[u8]>::to_vec)
        });
        failpoint::reached("after-import");

        let paths: BTreeSet<String> = units.iter().map(|unit| unit.path.clone()).collect();
        let plan = match (self.touched(&records, known, &paths), owned) {
            (Some(keys), None) => {
                let mut live = Vec::new();
                for key in &keys {
                    live.extend(
                        self.objects
                            .get(key)
                            .await?
                            .filter(|live| live.label(labels::OWNER) == Some(&self.settings.owner)),
                    );
                }
                let fresh: Vec<&Worked> = records.iter().filter(|worked| worked.fresh).collect();
                self.plan(&fresh, &paths, &live)
            }
            (_, Some(owned)) => self.plan(&records.iter().collect::<Vec<_>>(), &paths, &owned),
            (None, None) => {
                let owned = self.objects.list_owned(&self.settings.owner).await?;
                self.plan(&records.iter().collect::<Vec<_>>(), &paths, &owned)
            }
        };
        failpoint::reached("after-plan");
        let mut report = self.report(&head, &snapshot, &records, &plan);
        let refused = match plan.refusal {
            Some(_) => BTreeSet::new(),
            None => carry_out::refuse_taken(&self.objects, &plan, &mut report).await?,
        };
        if !self.settings.dry_run {
            if !carry_out::carry_out(&self.objects, &plan, &refused, &mut report, cancel).await {
                return Err(Error::Cancelled);
            }
            failpoint::reached("after-apply");
            self.remember(&head, &paths, &report)?;
            memory.end(records, &report);
        }
        failpoint::reached("after-remember");
        Ok(report)
    }

    /// True when this head was brought in before with these settings, and no try is pending.
    fn is_settled(&self, head: &Head, source: Option<&SourceRecord>, known: &Records) -> bool {
        let (Some(revision), Some(source)) = (&head.revision, source) else { return false };
        source.commit == revision.commit
            && source.settings == self.settings.digest(self.platform.as_deref()).to_string()
            && source.revision == revision.to_string()
            && !known.values().any(|unit| unit.state == UnitState::Failed && unit.tries < MAX_TRIES)
    }

    /// The objects that a few changed workshops have or had; none when much changed or a workshop left.
    fn touched(&self, records: &[Worked], known: &Records, paths: &BTreeSet<String>) -> Option<BTreeSet<ObjectKey>> {
        let fresh: Vec<&UnitRecord> =
            records.iter().filter(|worked| worked.fresh).map(|worked| &*worked.record).collect();
        if fresh.len() > MAX_NARROW || known.keys().any(|path| !paths.contains(path)) {
            return None;
        }
        let before = fresh.iter().filter_map(|record| known.get(&record.path)).map(|record| &**record);
        // The record of a failure does not say which objects were there before it.
        if before.clone().any(|record| record.state != UnitState::Ready) {
            return None;
        }
        // Another id at the same path means that a template may have to go.
        let renamed = before.clone().zip(&fresh).any(|(old, new)| old.id != new.id);
        let objects = before.chain(fresh.iter().copied()).flat_map(|record| &record.objects);
        let keys: BTreeSet<ObjectKey> = objects.filter_map(|(manifest, _)| key_of(manifest)).collect();
        (!renamed && keys.len() <= MAX_NARROW * 8).then_some(keys)
    }

    /// The record of every workshop of the revision: the known one where nothing is due, else that of new work.
    async fn work(
        &self,
        turn: Turn<'_>,
        snapshot: &Arc<Snapshot>,
        units: &[&Unit],
        known: &Records,
        owned: &[Live],
    ) -> Result<Vec<Worked>, Error> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let jobs = units.iter().map(|unit| {
            let known = known.get(&unit.path);
            async move {
                match known.filter(|record| !self.is_due(turn.trigger, unit, record)) {
                    Some(record) => Ok(Worked::new(Arc::clone(record), false)),
                    None => {
                        (turn.listener)(Event::Workshop { path: &unit.path });
                        let record = self.work_on(turn, snapshot, unit, known.map(|record| &**record), owned).await?;
                        if !self.settings.dry_run {
                            self.store.write_unit(&self.settings.owner, &record)?;
                        }
                        failpoint::reached("after-workshop");
                        Ok::<_, Error>(Worked::new(Arc::new(record), true))
                    }
                }
            }
        });
        let mut records: Vec<Worked> = stream::iter(jobs).buffer_unordered(CONCURRENCY).try_collect().await?;
        records.sort_by(|left, right| left.record.path.cmp(&right.record.path));
        Ok(records)
    }

    fn is_due(&self, trigger: Trigger, unit: &Unit, record: &UnitRecord) -> bool {
        let work = work_digest(
            &unit.key,
            self.settings.registry.as_deref(),
            record.base.as_ref(),
            record.recipe.and(self.platform.as_ref()).map(|platform| platform.digest()).as_ref(),
        );
        if work != record.work || self.settings.refresh_base && record.base.is_some() {
            return true;
        }
        match record.state {
            UnitState::Ready if record.placement != self.settings.placement().to_string() => true,
            UnitState::Ready => record.artifact.is_some_and(|digest| !self.has_artifact(digest)),
            UnitState::Invalid => trigger == Trigger::Requested,
            UnitState::Failed => trigger == Trigger::Requested || record.tries < MAX_TRIES,
        }
    }

    fn plan(&self, records: &[&Worked], paths: &BTreeSet<String>, owned: &[Live]) -> Plan {
        let mut workshops = BTreeMap::new();
        for worked in records {
            let record = &worked.record;
            let Some(id) = record.id.clone() else { continue };
            let standing = match record.state {
                _ if worked.double.is_some() => Standing::Kept,
                UnitState::Ready => Standing::Ready(wished_objects(record)),
                UnitState::Invalid | UnitState::Failed => Standing::Kept,
            };
            // Of two with one id both are refused: what is there stays.
            workshops.entry(id).and_modify(|standing| *standing = Standing::Kept).or_insert(standing);
        }
        plan(&Inputs {
            workshops: &workshops,
            paths,
            live: owned,
            names: NAMES,
            prune: self.settings.prune,
            budget: self.settings.budget,
            approved: self.settings.approved.as_deref(),
            manual: self.settings.manual,
        })
    }

    fn report(&self, head: &Head, snapshot: &Snapshot, records: &[Worked], plan: &Plan) -> SyncReport {
        SyncReport {
            source: self.settings.source.clone(),
            revision: head.revision.as_ref().map(ToString::to_string),
            workshops: records.iter().map(Worked::report).collect(),
            plan: Some(PlanReport {
                hash: plan.hash(),
                approved: plan.refusal.is_none() && plan.withheld.is_empty(),
                withheld: plan.withheld.iter().map(|(change, reason)| format!("{}: {reason}", change.key)).collect(),
            }),
            unchanged: false,
            worked: records.iter().filter(|worked| worked.fresh).count(),
            problems: snapshot.problems.iter().map(ToString::to_string).collect(),
            moved_tag: head.moved_from.as_ref().and(head.revision.as_ref()).and_then(|revision| revision.tag.clone()),
        }
        .with_rows(plan)
    }

    fn unchanged(&self, head: &Head) -> SyncReport {
        SyncReport {
            source: self.settings.source.clone(),
            revision: Some(display(head)),
            workshops: Vec::new(),
            plan: None,
            unchanged: true,
            worked: 0,
            problems: Vec::new(),
            moved_tag: None,
        }
    }

    /// The head counts as brought in once its plan was carried out; a withheld deletion is part of that.
    fn remember(&self, head: &Head, paths: &BTreeSet<String>, report: &SyncReport) -> Result<(), Error> {
        self.store.retain_units(&self.settings.owner, paths)?;
        let complete = !report.has_failed_writes();
        let record = SourceRecord {
            source: self.settings.source.clone(),
            revision: display(head),
            commit: head.revision.as_ref().map(|revision| revision.commit.clone()).unwrap_or_default(),
            // An incomplete sync is remembered with settings that nothing equals, so that the next one is complete.
            settings: if complete { self.settings.digest(self.platform.as_deref()).to_string() } else { String::new() },
        };
        // Where nothing changed nothing is written: somebody may be watching the state directory's surroundings.
        if self.store.source(&self.settings.owner)?.as_ref() != Some(&record) {
            self.store.write_source(&self.settings.owner, &record)?;
        }
        Ok(())
    }
}

/// The revision as people see it; files of a directory have none.
fn display(head: &Head) -> String {
    head.revision.as_ref().map_or_else(|| "working files".to_owned(), ToString::to_string)
}
