//! Instances and templates as people and the control API see them.
//!
//! Views only: everything is computed from objects, and nothing can be changed through one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Error;
use super::record::{overrides_of, phase_of, record_of, wish_of};
use crate::crd::{WorkspaceInstance, WorkspaceTemplate};
use crate::domain::lifecycle::{Record, is_warning};
use crate::domain::management::{self, PinnedArtifact};
use crate::domain::workspace::{IsolationMode, Workspace, effective};

/// An instance as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// Its uid: the audience of all tokens.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it is named in addresses and commands: its name, in a cluster `<namespace>.<name>`.
    pub reference: String,
    /// The workshop's id.
    pub template: String,
    /// Whose it is.
    pub owner: String,
    /// Who shares it with its owner, where its workshop is for teams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// The step that it is in, or goes to.
    pub step: String,
    /// The steps of what it runs, in order.
    pub steps: Vec<StepView>,
    /// Where it is in its life.
    pub phase: management::Phase,
    /// What is going on or wrong.
    pub message: Option<String>,
    /// When it first ran, RFC 3339.
    pub started_at: Option<String>,
    /// When its time is over, RFC 3339.
    pub expires_at: Option<String>,
    /// True shortly before that.
    pub warning: bool,
    /// When somebody last used it, RFC 3339.
    pub last_activity_at: Option<String>,
    /// True when it sleeps: `asleep` is absent where somebody put it to sleep.
    pub suspended: bool,
    /// Why it sleeps by itself, `Idle` or `Expired`; using it wakes it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<String>,
    /// Kept from ending and from sleeping by itself.
    pub hold: bool,
    /// Its template is newer than what it runs.
    pub update_available: bool,
    /// How far it is.
    pub progress: ProgressView,
    /// Where it is reached; without a token.
    pub url: String,
}

impl InstanceView {
    /// Whose token is wanted: its owner's where nobody is named, else that of one of those who share it.
    pub fn person<'v>(&'v self, named: Option<&'v str>) -> Result<&'v str, Error> {
        let Some(named) = named else { return Ok(&self.owner) };
        if named == self.owner || self.members.iter().any(|member| member == named) {
            return Ok(named);
        }
        let message = format!("\"{named}\" is not one of those who share \"{}\"", self.name);
        let help = if self.members.is_empty() {
            "it is its owner's alone: workshops with isolation.mode team have members".to_owned()
        } else {
            format!("they are {} and {}", self.owner, self.members.join(", "))
        };
        Err(Error::refused("NoMember", message, help))
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
}

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgressView {
    /// Steps that are completed.
    pub completed: usize,
    /// All steps.
    pub total: usize,
}

/// A workshop that workspaces are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateView {
    /// The workshop's id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its steps, in order.
    pub steps: Vec<StepView>,
    /// Whether workspaces can be made of it.
    pub ready: bool,
    /// Why not, or what is wrong with its newest revision.
    pub message: Option<String>,
    /// How many instances there are.
    pub instances: usize,
}

/// An instance's parts, read once for all questions about it.
pub(super) struct Parts<'a> {
    pub instance: &'a WorkspaceInstance,
    pub record: Record,
    pub settings: Workspace,
}

impl<'a> Parts<'a> {
    /// `template` serves an instance that has no pin yet.
    pub fn new(instance: &'a WorkspaceInstance, template: Option<&WorkspaceTemplate>) -> Self {
        let mut record = instance.status.as_ref().map(record_of).unwrap_or_default();
        if record.pin.is_none() {
            record.pin = template.map(super::record::revision_of);
        }
        let overrides = overrides_of(instance);
        let defaults = record.pin.as_ref().map(|pin| pin.defaults.clone()).unwrap_or_default();
        let settings = effective(&defaults, overrides.as_ref()).unwrap_or_default();
        Self { instance, record, settings }
    }

    /// The step that it is in, or goes to.
    pub fn step(&self) -> String {
        let spec = &self.instance.spec;
        let wished = spec.current_step.as_ref();
        let known = |step: &&String| self.record.pin.as_ref().is_none_or(|pin| pin.step(step).is_some());
        wished
            .filter(known)
            .or(self.record.step.as_ref())
            .or_else(|| self.record.pin.as_ref()?.steps.first().map(|step| &step.id))
            .cloned()
            .unwrap_or_default()
    }

    /// Whether another step or a reset was asked for that was not begun yet.
    fn is_asked_elsewhere(&self) -> bool {
        let wish = wish_of(self.instance);
        Some(self.step()) != self.record.step || (wish.reset.is_some() && wish.reset != self.record.reset_handled)
    }

    /// The ids of its steps.
    pub fn steps(&self) -> Vec<String> {
        self.record.pin.iter().flat_map(|pin| pin.steps.iter().map(|step| step.id.clone())).collect()
    }

    pub fn is_warning(&self, now: Timestamp) -> bool {
        let hold = self.instance.spec.hold.unwrap_or(false);
        is_warning(self.expires_at(), self.settings.lifecycle.ttl.get(), hold, now)
    }

    /// Its end: what the last look of the operator gave, or the wish that came since.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.record.expires_at.max(wish_of(self.instance).expires_at)
    }

    pub fn view(&self, reference: &str, base: &str, now: Timestamp) -> InstanceView {
        let Self { instance, record, .. } = self;
        let status = instance.status.clone().unwrap_or_default();
        let metadata = &instance.metadata;
        let steps: Vec<StepView> = record
            .pin
            .iter()
            .flat_map(|pin| &pin.steps)
            .map(|step| StepView { id: step.id.clone(), title: step.title.clone() })
            .collect();
        let is_done = |row: &&crate::crd::instance::StepProgress| {
            row.status == crate::crd::instance::ProgressStatus::Completed
                && steps.iter().any(|step| step.id == row.step)
        };
        let phase = if metadata.deletion_timestamp.is_some() {
            management::Phase::Terminating
        } else {
            match status.phase.map(phase_of).unwrap_or_default() {
                // What was asked for counts from when it was, not from when somebody looked.
                management::Phase::Running if self.is_asked_elsewhere() => management::Phase::Transitioning,
                phase => phase,
            }
        };
        InstanceView {
            uid: metadata.uid.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            reference: reference.to_owned(),
            url: if base.is_empty() {
                // Who asks without a gateway of their own is told what the operator says.
                status.access_endpoints.first().map(|endpoint| endpoint.url.clone()).unwrap_or_default()
            } else {
                format!("{base}/w/{reference}/")
            },
            template: instance.spec.template_ref.name.clone(),
            owner: instance.spec.owner.clone(),
            members: if self.settings.isolation.mode == IsolationMode::Team {
                instance.spec.members.clone()
            } else {
                Vec::new()
            },
            step: self.step(),
            phase,
            message: status.message.or(status.notice),
            started_at: status.started_at,
            expires_at: self.expires_at().map(|end| end.to_string()),
            warning: self.is_warning(now),
            last_activity_at: status.last_activity_at,
            suspended: instance.spec.suspended.unwrap_or(false) || record.asleep.is_some(),
            asleep: record.asleep.filter(|_| instance.spec.suspended != Some(true)).map(|asleep| match asleep.cause {
                crate::domain::lifecycle::SleepCause::Idle => "Idle".to_owned(),
                crate::domain::lifecycle::SleepCause::Expired => "Expired".to_owned(),
            }),
            hold: instance.spec.hold.unwrap_or(false),
            update_available: record.is_outdated,
            progress: ProgressView { completed: status.progress.iter().filter(is_done).count(), total: steps.len() },
            steps,
        }
    }

    /// The instance as its own workspace may know it.
    pub fn told(&self, can_extend: bool, now: Timestamp) -> management::Instance {
        let view = self.view("", "", now);
        let pin = self.record.pin.as_ref();
        let artifact = PinnedArtifact {
            digest: pin.map(|pin| pin.artifact.clone()).unwrap_or_default(),
            size: pin.map_or(0, |pin| pin.artifact_size),
        };
        let mut told = management::Instance {
            uid: view.uid,
            namespace: view.namespace,
            name: view.name,
            owner: view.owner,
            workshop: view.template,
            version: String::new(),
            step: view.step,
            phase: view.phase,
            started_at: view.started_at,
            expires_at: view.expires_at,
            warning: view.warning,
            can_extend,
            artifact,
            message: view.message,
        };
        // The version is of what is told, not of the object: progress and activity change the object all the time.
        let text = serde_json::to_vec(&told).expect("an instance is plain data with text keys");
        told.version = crate::domain::digest::Digest::of(&text).hex()[..16].to_owned();
        told
    }
}
