//! What the API says about the workshop: the shapes, and how they come from what is open.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backend::app::{App, Live, now};
use crate::backend::config::Config;
use crate::domain::management::Phase;
use crate::domain::progress::{Refusal, Status, StepProgress, StepRules};
use crate::domain::token::Role;
use crate::domain::workspace::TerminalServer;

/// Where the learner is, and what this workspace offers.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The instance's uid.
    pub instance: String,
    /// The workshop.
    pub workshop: WorkshopView,
    /// The current step's id.
    pub step: String,
    /// Its title.
    pub step_title: String,
    /// Its position, from 1.
    pub position: usize,
    /// How many steps there are.
    pub total: usize,
    /// Every step is completed or was skipped.
    pub finished: bool,
    /// Where the instance is in its life.
    pub phase: Phase,
    /// What is wrong or going on, for people.
    pub message: Option<String>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// Its time is nearly over.
    pub warning: bool,
    /// The clock that the times are of, RFC 3339.
    pub server_time: String,
    /// Nobody can be asked for another step: only the text changes.
    pub standalone: bool,
    /// More time can be asked for.
    pub can_extend: bool,
    /// What the caller is here.
    pub role: Role,
    /// The terminal.
    pub terminal: TerminalView,
    /// The editor is offered.
    pub editor: bool,
    /// The files are offered.
    pub files: bool,
    /// The learner's home.
    pub home: String,
}

/// The workshop.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WorkshopView {
    /// Its id.
    pub id: String,
    /// Its display name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The terminal.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TerminalView {
    /// It is offered.
    pub enabled: bool,
    /// `builtin` or `ttyd`.
    pub server: String,
}

/// One step of the list.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// From 1.
    pub position: usize,
    /// Where it is.
    pub status: Status,
    /// The learner went on without completing it.
    pub skipped: bool,
    /// It has checks.
    pub has_checks: bool,
    /// It may be skipped.
    pub can_skip: bool,
    /// It may be entered.
    pub can_enter: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// All steps.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Steps {
    /// In their order.
    pub steps: Vec<StepView>,
}

/// A step with its text.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepContent {
    /// As in the list.
    #[serde(flatten)]
    pub step: StepView,
    /// The text, rendered and sanitised.
    pub html: String,
    /// Where `next` leads.
    pub next: Option<String>,
    /// Where `previous` leads.
    pub previous: Option<String>,
    /// Of the text.
    pub digest: String,
}

/// What was done.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProgressView {
    /// The start of a backend that it comes from.
    pub epoch: u64,
    /// Counts changes.
    pub sequence: u64,
    /// Steps that are completed.
    pub completed: usize,
    /// Steps that there are.
    pub total: usize,
    /// One row for each step, in their order.
    pub steps: Vec<StepProgress>,
}

/// Where an action leads.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Navigated {
    /// The step; none after the last one.
    pub target: Option<String>,
    /// The machine is exchanged: this connection will end.
    pub transition: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The state, as `role` sees it.
pub fn state(app: &App, live: &Live, role: Role) -> State {
    let instance = live.instance.as_ref();
    let Config { settings, instance: uid, .. } = &app.config;
    let access = &settings.access;
    let server = match access.web_terminal.server {
        TerminalServer::Builtin => "builtin",
        TerminalServer::Ttyd => "ttyd",
    };
    let workshop = &live.workshop;
    State {
        instance: uid.clone(),
        workshop: WorkshopView {
            id: workshop.id.clone(),
            name: workshop.name.clone(),
            version: workshop.version.clone(),
        },
        step: live.step.clone(),
        step_title: live.ledger.rules(&live.step).map(|rules| rules.title.clone()).unwrap_or_default(),
        position: live.position(&live.step).unwrap_or(0),
        total: workshop.steps.len(),
        finished: live.ledger.is_finished(),
        phase: live.phase(),
        message: instance.and_then(|instance| instance.message.clone()),
        started_at: instance.map_or_else(|| Some(app.started_at.clone()), |instance| instance.started_at.clone()),
        expires_at: instance.and_then(|instance| instance.expires_at.clone()),
        warning: instance.is_some_and(|instance| instance.warning),
        server_time: now(),
        standalone: app.management.get().is_none(),
        can_extend: instance.is_some_and(|instance| instance.can_extend),
        role,
        terminal: TerminalView { enabled: access.web_terminal.enabled, server: server.to_owned() },
        editor: access.editor.enabled && access.files.enabled,
        files: access.files.enabled,
        home: app.machine.get().map(|machine| machine.home.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

/// One step; a caller who is not bound may enter all.
pub fn step(live: &Live, rules: &StepRules, is_bound: bool) -> StepView {
    let row = live.ledger.row(&rules.id);
    let refusal = live.ledger.can_enter(&rules.id).err().filter(|_| is_bound && rules.id != live.step);
    let reason = refusal.map(|refusal| match refusal {
        Refusal::StepLocked { reason, .. } => reason,
        refusal => refusal.to_string(),
    });
    StepView {
        id: rules.id.clone(),
        title: rules.title.clone(),
        position: live.position(&rules.id).unwrap_or(0),
        status: row.status,
        skipped: row.skipped,
        has_checks: rules.has_checks,
        can_skip: rules.can_skip || !is_bound,
        can_enter: reason.is_none(),
        reason,
    }
}

/// All steps, as somebody sees them who is bound by gates or not.
pub fn steps(live: &Live, is_bound: bool) -> Steps {
    Steps { steps: live.workshop.steps.iter().map(|rules| step(live, rules, is_bound)).collect() }
}

/// What was done.
pub fn progress(live: &Live) -> ProgressView {
    let progress = live.progress();
    ProgressView {
        epoch: progress.epoch,
        sequence: progress.sequence,
        completed: live.ledger.completed(),
        total: live.workshop.steps.len(),
        steps: live.workshop.steps.iter().map(|rules| live.ledger.row(&rules.id)).collect(),
    }
}
