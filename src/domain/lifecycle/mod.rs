//! The life of an instance as values: what is wished, what is known, what runs, and what is to be done next. Pure.
//!
//! One decision serves the local operator and the cluster's: they bring what they see and the time, carry out the
//! actions, and keep the record beside the instance. Nothing here starts, stops or writes anything.

mod decide;
mod run;
mod time;

use jiff::Timestamp;

pub use decide::{Inputs, decide};
pub use run::{Run, fingerprint};
pub use time::{Extension, MAX_RESTARTS, READY_WITHIN, back_off, extension, is_warning};

use super::management::Phase;
use super::workspace::Workspace;

/// What the spec of an instance asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The step to be in; the first one where nobody said.
    pub step: Option<String>,
    /// Put to sleep by somebody.
    pub suspended: bool,
    /// Kept from ending and from sleeping for want of use.
    pub hold: bool,
    /// When it ends, in place of what its time to live gives.
    pub expires_at: Option<Timestamp>,
    /// Any new value starts the step anew.
    pub reset: Option<String>,
    /// Any new value moves the pin to the template's revision.
    pub update: Option<String>,
    /// Somebody deleted it.
    pub is_deleted: bool,
}

/// A revision of a template: what it offers, and what an instance keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The identity of the workshop's content.
    pub unit_key: String,
    /// The digest of the artifact.
    pub artifact: String,
    /// The artifact's size in bytes.
    pub artifact_size: u64,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The template's defaults, in the shape of workspace.yaml.
    pub defaults: serde_json::Value,
}

/// One step as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The full image reference.
    pub image_tag: String,
    /// The digest of the image's manifest, where it is known.
    pub image_digest: Option<String>,
}

impl Step {
    /// The image as a runtime is asked for it: `tag@digest`, or the tag alone.
    #[must_use]
    pub fn image(&self) -> String {
        match &self.image_digest {
            Some(digest) => format!("{}@{digest}", self.image_tag),
            None => self.image_tag.clone(),
        }
    }
}

impl Revision {
    /// The step with this id.
    #[must_use]
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// Whether workspaces of both are made of the same images; only texts, titles or the order differ.
    #[must_use]
    pub fn has_images_of(&self, other: &Self) -> bool {
        self.steps.len() == other.steps.len()
            && self.steps.iter().all(|step| other.step(&step.id).is_some_and(|other| other.image() == step.image()))
    }
}

/// What is known of an instance besides its spec; kept in its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it is there.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: Option<String>,
    /// The step that runs, or ran last.
    pub step: Option<String>,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When its time is over.
    pub expires_at: Option<Timestamp>,
    /// When somebody last used it.
    pub last_activity_at: Option<Timestamp>,
    /// The revision that it runs, whatever became of the template since.
    pub pin: Option<Revision>,
    /// The container that was last asked for.
    pub run: Option<Run>,
    /// Starts that failed in a row.
    pub restarts: Option<Restarts>,
    /// Set while it sleeps by itself.
    pub asleep: Option<Asleep>,
    /// When it was last woken after its time was over.
    pub renewed_at: Option<Timestamp>,
    /// The last reset that was carried out.
    pub reset_handled: Option<String>,
    /// The last update that was carried out.
    pub update_handled: Option<String>,
    /// What of the last change did not work out.
    pub notice: Option<String>,
    /// When it was told that its time is over soon; none while that is far.
    pub warned_at: Option<Timestamp>,
    /// The template is newer than the pin.
    pub is_outdated: bool,
}

/// Starts that failed in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarts {
    /// How many.
    pub count: u32,
    /// When the first of them failed.
    pub first: Timestamp,
    /// The container they are about.
    pub fingerprint: String,
    /// When the next start is due; none once it was made.
    pub due: Option<Timestamp>,
    /// Why the last one failed.
    pub reason: String,
}

/// Since when and why an instance sleeps by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asleep {
    /// Since when; use after that wakes it.
    pub since: Timestamp,
    /// Why.
    pub cause: SleepCause,
}

/// Why an instance sleeps by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepCause {
    /// Nobody used it.
    Idle,
    /// Its time is over, and it is persistent.
    Expired,
}

/// What runs for an instance, as its runtime says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    #[default]
    Nothing,
    /// A container.
    Running {
        /// What it was started as.
        fingerprint: String,
        /// Whether its backend answered that it is ready.
        is_ready: bool,
        /// Since when that is waited for.
        since: Timestamp,
        /// What is waited for before it can even begin, such as a node or an image.
        waits_for: Option<String>,
    },
    /// A container that ended, or could not be started.
    Ended {
        /// What it was started as.
        fingerprint: String,
        /// Why, with its last words where it had any.
        reason: String,
    },
}

/// Something to do, in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// End the container and take away what belongs to it.
    Stop,
    /// Start a container.
    Start(Box<Start>),
    /// Hand the pin's artifact to the backend that runs; afterwards the record's run has it.
    Preview {
        /// The artifact's digest.
        artifact: String,
    },
    /// Write this step into the spec.
    GoTo {
        /// The step's id.
        step: String,
    },
    /// Delete the instance: its time is over.
    Delete,
    /// Remove the object: nothing is left of what ran for it.
    Forget,
}

/// What a container is started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The step's id.
    pub step: String,
    /// The image, see [`Step::image`].
    pub image: String,
    /// The identity of everything that it is made of.
    pub fingerprint: String,
    /// The artifact's digest.
    pub artifact: String,
    /// How it runs.
    pub settings: Workspace,
}

/// Why something is as it is; conditions and events have the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the catalogue of conditions documents each")]
pub enum Reason {
    Succeeded,
    Progressing,
    TemplateUnusable,
    InvalidSpec,
    Suspended,
    Idle,
    Expired,
    Expiring,
    StepFailed,
    Restarting,
    CrashLooping,
    NewerRevision,
    Deleted,
}

/// Something to tell once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// What follows from a look at an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The record to keep, before the actions are carried out.
    pub record: Record,
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// What to tell.
    pub events: Vec<Event>,
    /// When to look again, if nothing happens before.
    pub look_again: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
