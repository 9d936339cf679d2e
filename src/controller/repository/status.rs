//! Fifth beat: what became of a sync, as conditions, counts and events. Writes only where something changed.

use k8s_openapi::jiff::Timestamp;

use crate::adapters::cluster;
use crate::controller::outcome::{Class, Conditions, Problem};
use crate::crd::conditions::{self, READY, RECONCILING, Reason, STALLED, cut_message};
use crate::crd::repository::{Counts, NotReadyWorkshop};
use crate::crd::{WorkshopRepository, WorkshopRepositoryStatus};
use crate::domain::chain;
use crate::pipeline::object_end;
use crate::pipeline::source::{self, SourceError};
use crate::pipeline::sync::{self, Cause, SyncReport, WorkshopReport, WorkshopState};

/// The most workshops that a status lists.
const MAX_LISTED: usize = 50;

/// The most workshops that the message of a condition names.
const MAX_NAMED: usize = 3;

/// How a reconciliation ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub(crate) conditions: Conditions,
    /// Who can end the failure; none after success.
    pub(crate) class: Option<Class>,
    /// The revision that was tried, where the source could be asked for it.
    pub(crate) attempted: Option<String>,
    /// What the revision holds; none where nothing was looked at.
    pub(crate) content: Option<Content>,
}

/// What a revision holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    pub(crate) counts: Counts,
    pub(crate) not_ready: Vec<NotReadyWorkshop>,
    pub(crate) pending_plan: Option<String>,
    pub(crate) moved_tag: Option<String>,
    /// Workshops that were worked on, for the event.
    pub(crate) worked: usize,
}

impl Ended {
    /// The end that a failure of the whole reconciliation makes.
    pub(crate) fn failed(problem: &Problem, attempted: Option<String>) -> Self {
        Self { conditions: Conditions::of(problem), class: Some(problem.class), attempted, content: None }
    }

    /// The end that a report makes; not for one that says "unchanged".
    pub(crate) fn reported(report: &SyncReport, is_manual: bool) -> Self {
        let content = read_content(report);
        let revision = report.revision.clone().unwrap_or_else(|| "working files".to_owned());
        let (conditions, class) = conclude(report, &content, &revision, is_manual);
        Self { conditions, class, attempted: Some(revision), content: Some(content) }
    }

    /// True when what a Secret holds may be what was wrong: the source or a registry refused.
    pub(crate) fn may_be_for_credentials(&self) -> bool {
        match self.class {
            None => false,
            Some(class) => class == Class::Outside || self.content.is_none(),
        }
    }

    /// The end when somebody keeps changing an object back.
    pub(crate) fn fought(mut self, object: &str, manager: &str) -> Self {
        if self.conditions.ready {
            self.conditions = Conditions {
                ready: false,
                reason: Reason::DriftFought,
                message: format!("{object} is changed again and again by \"{manager}\" and is left as it is for now"),
                reconciling: false,
                stalled: true,
            };
        }
        self
    }
}

fn read_content(report: &SyncReport) -> Content {
    let there: Vec<&WorkshopReport> =
        report.workshops.iter().filter(|workshop| workshop.state != WorkshopState::Removed).collect();
    let bad: Vec<&&WorkshopReport> = there.iter().filter(|workshop| !workshop.state.is_good()).collect();
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    Content {
        counts: Counts {
            workshops: count(there.len()),
            ready: count(there.len() - bad.len()),
            failed: count(bad.len()),
        },
        not_ready: bad
            .iter()
            .take(MAX_LISTED)
            .map(|workshop| NotReadyWorkshop {
                id: workshop.id.clone(),
                path: workshop.path.clone(),
                reason: reason_of(report, workshop).as_str().to_owned(),
                message: cut_message(&workshop.message),
            })
            .collect(),
        pending_plan: report.plan.as_ref().filter(|plan| !plan.approved).map(|plan| plan.hash.to_string()),
        moved_tag: report.moved_tag.clone(),
        worked: report.worked,
    }
}

fn reason_of(report: &SyncReport, workshop: &WorkshopReport) -> Reason {
    match workshop.state {
        _ if workshop.cause == Some(Cause::Double) => Reason::DuplicateWorkshop,
        WorkshopState::Failed if workshop.cause == Some(Cause::Command) => Reason::CommandFailed,
        WorkshopState::Invalid => Reason::InvalidContent,
        WorkshopState::Refused if waits_for_approval(report, workshop) => Reason::ApprovalRequired,
        WorkshopState::Refused => Reason::OwnedByAnother,
        _ => Reason::Failed,
    }
}

/// Whether one of the withheld deletions is what a refused workshop's message is about.
fn waits_for_approval(report: &SyncReport, workshop: &WorkshopReport) -> bool {
    let withheld = report.plan.as_ref().map(|plan| plan.withheld.as_slice()).unwrap_or_default();
    withheld.iter().filter_map(|row| row.split_once(": ")).any(|(key, _)| workshop.message.starts_with(key))
}

fn conclude(report: &SyncReport, content: &Content, revision: &str, is_manual: bool) -> (Conditions, Option<Class>) {
    let end = |class: Class, reason: Reason, message: String| {
        (Conditions::of(&Problem { class, reason, message }), Some(class))
    };
    if let Some(problem) = report.problems.first() {
        let more =
            if report.problems.len() > 1 { format!("; and {} more", report.problems.len() - 1) } else { String::new() };
        return end(Class::Person, Reason::SourceInvalid, format!("{problem}{more}"));
    }
    let failed: Vec<&NotReadyWorkshop> =
        content.not_ready.iter().filter(|workshop| workshop.reason != Reason::ApprovalRequired.as_str()).collect();
    if !failed.is_empty() {
        let class = if report.is_retryable() { Class::Outside } else { Class::Person };
        let mut message =
            format!("{} of {} workshops at {revision}: ", content.counts.failed, content.counts.workshops);
        let named: Vec<String> = failed
            .iter()
            .take(MAX_NAMED)
            .map(|workshop| {
                if workshop.message.starts_with(&workshop.path) {
                    workshop.message.clone()
                } else {
                    format!("{}: {}", workshop.path, workshop.message)
                }
            })
            .collect();
        message.push_str(&named.join("; "));
        if content.counts.failed > MAX_NAMED as i64 {
            message.push_str("; and more");
        }
        return end(class, Reason::WorkshopsFailed, message);
    }
    if let Some(hash) = &content.pending_plan {
        let withheld = report.plan.as_ref().map(|plan| plan.withheld.join("; ")).unwrap_or_default();
        let why = if withheld.is_empty() { "the plan has changes".to_owned() } else { withheld };
        let reason = if is_manual { Reason::ApprovalRequired } else { Reason::PruneBudgetExceeded };
        let message = format!("{why}; approve it with the annotation workshop.platform/approve={hash}");
        return end(Class::Person, reason, message);
    }
    let workshops = content.counts.workshops;
    (Conditions::ready(format!("{workshops} workshop{} at {revision}", if workshops == 1 { "" } else { "s" })), None)
}

/// The status after `ended`; equal to the old one where nothing changed.
pub(crate) fn build_status(
    old: &WorkshopRepositoryStatus,
    repository: &WorkshopRepository,
    ended: &Ended,
    handled: Option<String>,
    now: Timestamp,
) -> WorkshopRepositoryStatus {
    let generation = repository.metadata.generation;
    let mut status = old.clone();
    status.observed_generation = generation;
    if handled.is_some() {
        status.last_handled_reconcile_at = handled;
    }
    if ended.attempted.is_some() {
        status.last_attempted_revision.clone_from(&ended.attempted);
    }
    if let Some(content) = &ended.content {
        status.counts = Some(content.counts);
        status.not_ready.clone_from(&content.not_ready);
        status.pending_plan.clone_from(&content.pending_plan);
        // Nobody's fight takes back that the revision was applied.
        if ended.conditions.ready || ended.conditions.reason == Reason::DriftFought {
            status.last_applied_revision.clone_from(&ended.attempted);
        }
    }
    let Conditions { ready, reason, message, reconciling, stalled } = &ended.conditions;
    conditions::set(&mut status.conditions, READY, *ready, *reason, message, generation, now);
    for (kind, is_set) in [(RECONCILING, *reconciling), (STALLED, *stalled)] {
        if is_set {
            conditions::set(&mut status.conditions, kind, true, *reason, message, generation, now);
        } else {
            conditions::remove(&mut status.conditions, kind);
        }
    }
    status
}

/// The status while work is under way.
pub(crate) fn build_progress(
    old: &WorkshopRepositoryStatus,
    repository: &WorkshopRepository,
    revision: &str,
    now: Timestamp,
) -> WorkshopRepositoryStatus {
    let mut status = old.clone();
    let generation = repository.metadata.generation;
    status.last_attempted_revision = Some(revision.to_owned());
    let message = format!("bringing in {revision}");
    conditions::remove(&mut status.conditions, STALLED);
    conditions::set(&mut status.conditions, RECONCILING, true, Reason::Progressing, &message, generation, now);
    if conditions::get(&status.conditions, READY).is_none() {
        conditions::set(&mut status.conditions, READY, false, Reason::Progressing, &message, generation, now);
    }
    status
}

/// The status of a repository that is suspended: what was true of it stays.
pub(crate) fn build_suspended(
    old: &WorkshopRepositoryStatus,
    repository: &WorkshopRepository,
    now: Timestamp,
) -> WorkshopRepositoryStatus {
    let mut status = old.clone();
    let generation = repository.metadata.generation;
    status.observed_generation = generation;
    conditions::remove(&mut status.conditions, RECONCILING);
    conditions::remove(&mut status.conditions, STALLED);
    let ready = conditions::get(&status.conditions, READY).is_some_and(|condition| condition.status == "True");
    let message = match &status.last_applied_revision {
        Some(revision) => format!("suspended at {revision}"),
        None => "suspended before anything was applied".to_owned(),
    };
    conditions::set(&mut status.conditions, READY, ready, Reason::Suspended, &message, generation, now);
    status
}

/// What a failing source means.
pub(crate) fn of_source(error: &SourceError) -> Problem {
    use source::Problem as At;
    let message = chain::line(error);
    let (is_for_a_person, reason) = match error {
        SourceError::Git(error) => match &error.problem {
            At::Unauthenticated
            | At::Forbidden
            | At::PlainCredentials
            | At::InvalidCredentials(_)
            | At::Certificate
            | At::HostKey => (true, Reason::AuthenticationFailed),
            At::MissingRef(_) | At::NoVersion(_) | At::MissingCommit(_) | At::NoCommit(_) | At::InvalidRef(_) => {
                (true, Reason::RevisionNotFound)
            }
            At::Empty | At::Sha256 | At::Shallow | At::TooManyFiles(_) => (true, Reason::SourceInvalid),
            At::NotFound => (true, Reason::SourceUnavailable),
            At::Timeout(_) => (false, Reason::TimedOut),
            At::Mirror(_) => (false, Reason::LocalFailure),
            At::TooManyRequests | At::Unreachable | At::Failed(_) => (false, Reason::SourceUnavailable),
        },
        SourceError::Folder(_) | SourceError::CutOff => (!error.is_retryable(), Reason::SourceUnavailable),
        SourceError::Invalid(_) | SourceError::NoRepository { .. } | SourceError::Artifact(_) => {
            (true, Reason::InvalidSpec)
        }
    };
    if is_for_a_person { Problem::person(reason, message) } else { Problem::outside(reason, message) }
}

/// What a failing API server means.
pub(crate) fn of_cluster(error: &cluster::Error) -> Problem {
    let reason = match error {
        cluster::Error::Forbidden { .. } | cluster::Error::Unauthenticated { .. } => Reason::Forbidden,
        cluster::Error::NotServed { .. } => Reason::KindsNotServed,
        _ => Reason::ApiUnavailable,
    };
    // Rights and kinds may be given any time, and nothing tells us.
    Problem::outside(reason, chain::line(error))
}

/// What a failing sync means.
pub(crate) fn of_sync(error: &sync::Error) -> Problem {
    match error {
        sync::Error::Source(error) => of_source(error),
        sync::Error::Objects(object_end::Error::Cluster(error)) => of_cluster(error),
        sync::Error::Objects(object_end::Error::Embedded(_))
        | sync::Error::Read(_)
        | sync::Error::Store(_)
        | sync::Error::Artifact(_)
        | sync::Error::WriteArtifact { .. }
        | sync::Error::CutOff
        | sync::Error::Cancelled => Problem::outside(Reason::LocalFailure, chain::line(error)),
    }
}
