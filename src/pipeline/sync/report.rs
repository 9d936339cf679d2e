//! What a sync did, in the shape that `workshop sync --output json` prints and the controller's status is made of.

use serde::Serialize;

use crate::domain::digest::Digest;

/// What one sync did.
#[derive(Debug, Clone, Serialize)]
pub struct SyncReport {
    /// The source without credentials.
    pub source: String,
    /// The revision, `<ref>@sha1:<hash>`; none for a folder.
    pub revision: Option<String>,
    /// Every workshop of the revision, sorted by path, then the removed ones.
    pub workshops: Vec<WorkshopReport>,
    /// The hash of the plan, and what of it waits for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanReport>,
    /// True when the head was the one already brought in, so that nothing was looked at.
    #[serde(skip)]
    pub unchanged: bool,
    /// How many workshops were worked on.
    #[serde(skip)]
    pub worked: usize,
    /// Problems of the source that belong to no single workshop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// A followed tag that names another commit than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_tag: Option<String>,
}

/// How a workshop stands after a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkshopState {
    /// Its objects are as the revision says, and something was done for that.
    Ready,
    /// Its objects are as the revision says, and nothing was due.
    Unchanged,
    /// Its content is wrong; the last good state is kept.
    Invalid,
    /// Something outside or a command failed; the last good state is kept.
    Failed,
    /// Another repository owns its id, or a deletion waits for approval.
    Refused,
    /// The revision no longer has it.
    Removed,
}

impl WorkshopState {
    /// True when the workshop is as the revision says.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Ready | Self::Unchanged | Self::Removed)
    }
}

/// What kind of failure it is, where the state does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Another workshop of the revision has its id or its image.
    Double,
    /// A command of its recipe failed.
    Command,
}

/// What a sync did for one workshop.
#[derive(Debug, Clone, Serialize)]
pub struct WorkshopReport {
    /// The workshop's id; none when it could not be read.
    pub id: Option<String>,
    /// Its directory from the source's root.
    pub path: String,
    /// How it stands.
    pub state: WorkshopState,
    /// Why, unless it is good.
    pub message: String,
    /// What the state alone does not tell.
    #[serde(skip)]
    pub cause: Option<Cause>,
    /// Its steps.
    pub steps: Vec<StepReport>,
    /// Its objects.
    pub objects: Vec<ObjectReport>,
}

/// One step of a report.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct StepReport {
    /// The step's id, or `finish`.
    pub id: String,
    /// Its content key.
    pub key: Option<Digest>,
    /// The digest of its image's manifest.
    pub digest: Option<Digest>,
    /// Built, reused or failed.
    pub result: StepOutcome,
}

/// How a step's image came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepOutcome {
    /// It was built, or with `--dry-run` would be.
    Built,
    /// It was there.
    Reused,
    /// Its build failed.
    Failed,
}

/// One object of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectReport {
    /// The kind.
    pub kind: &'static str,
    /// The name, with the namespace in front for a namespaced kind.
    pub name: String,
    /// Created, updated, unchanged or deleted.
    pub result: ObjectOutcome,
    /// The fields that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectOutcome {
    /// It was made.
    Created,
    /// It was made equal.
    Updated,
    /// It was as it should be.
    Unchanged,
    /// It was removed.
    Deleted,
    /// The write failed; the workshop's message says why.
    Failed,
}

/// The plan of a sync.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// The hash that an approval names.
    pub hash: Digest,
    /// True when all of it was, or may be, carried out.
    pub approved: bool,
    /// What waits, and why.
    pub withheld: Vec<String>,
}

impl SyncReport {
    /// The document of a sync that could not look at anything.
    #[must_use]
    pub fn of_failure(source: &str, error: &super::Error) -> Self {
        Self {
            source: source.to_owned(),
            revision: None,
            workshops: Vec::new(),
            plan: None,
            unchanged: false,
            worked: 0,
            problems: vec![crate::domain::chain::line(error)],
            moved_tag: None,
        }
    }

    /// True when every workshop is as the revision says and nothing waits.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.workshops.iter().all(|workshop| workshop.state.is_good())
    }

    /// True when something was refused for safety.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.workshops.iter().any(|workshop| workshop.state == WorkshopState::Refused)
            || self.plan.as_ref().is_some_and(|plan| !plan.approved)
    }

    /// True when a workshop was worked on or an object written.
    #[must_use]
    pub fn did_something(&self) -> bool {
        let wrote =
            |workshop: &WorkshopReport| workshop.objects.iter().any(|object| object.result != ObjectOutcome::Unchanged);
        self.worked > 0 || self.workshops.iter().any(wrote)
    }

    /// True when an object could not be written.
    #[must_use]
    pub fn has_failed_writes(&self) -> bool {
        self.workshops
            .iter()
            .flat_map(|workshop| &workshop.objects)
            .any(|object| object.result == ObjectOutcome::Failed)
    }

    /// True when another try may help without a new revision.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.workshops.iter().any(|workshop| workshop.state == WorkshopState::Failed)
    }
}
