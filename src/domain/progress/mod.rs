//! What a learner has done of a workshop, and where they may go from here.
//!
//! Pure decisions over rows: when a step is completed, what opens it, what a refusal says. Running checks, keeping the
//! rows and switching images happen elsewhere.

mod condition;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use condition::{Condition, InvalidCondition};

/// The metadata key of a step whose value `false` forbids to skip it.
pub const SKIP: &str = "skip";

/// Where a step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not the current one, and not done.
    #[default]
    Pending,
    /// The current one, and not done yet.
    Active,
    /// Done.
    Completed,
}

impl Status {
    /// The word of the tables and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Completed => "completed",
        }
    }

    /// The status of a row.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Completed].into_iter().find(|status| status.as_str() == text)
    }
}

/// What was done of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepProgress {
    /// The step's id.
    pub step: String,
    /// Where it is.
    pub status: Status,
    /// When it was first entered, RFC 3339.
    pub started_at: Option<String>,
    /// When it was completed, RFC 3339.
    pub completed_at: Option<String>,
    /// The learner went on without completing it.
    #[serde(default)]
    pub skipped: bool,
}

/// The rules of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRules {
    /// Its id.
    pub id: String,
    /// Its title, for refusals.
    pub title: String,
    /// Where `next` leads.
    pub next: Option<String>,
    /// Where `previous` leads.
    pub previous: Option<String>,
    /// What has to hold before it is entered; a text that is no condition keeps it closed.
    pub unlock: Option<Result<Condition, InvalidCondition>>,
    /// A check spec decides whether it is completed.
    pub has_checks: bool,
    /// It may be left without being completed.
    pub can_skip: bool,
}

/// Where somebody wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// On, the step being done.
    Next,
    /// Back.
    Previous,
    /// To a step.
    Goto(String),
    /// On, the step not being done.
    Skip,
}

/// What follows from an action that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The step to enter; none where `next` or `skip` ends the workshop.
    pub target: Option<String>,
    /// The current step is thereby completed.
    pub completes: bool,
    /// The current step is thereby skipped.
    pub skips: bool,
}

/// Why an action is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The current step has checks that did not pass.
    #[error("the checks of this step do not pass yet")]
    ChecksFailing,
    /// The step cannot be entered yet.
    #[error("\"{title}\" is still closed: {reason}")]
    StepLocked {
        /// The step's title.
        title: String,
        /// What opens it.
        reason: String,
    },
    /// The step must not be skipped.
    #[error("\"{0}\" cannot be skipped")]
    SkipForbidden(String),
    /// There is no such step.
    #[error("there is no step \"{0}\"")]
    NoSuchStep(String),
    /// Nothing comes before this step.
    #[error("there is no step before this one")]
    NoPreviousStep,
}

/// The steps of a workshop in their order, with the rows of one workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    steps: Vec<StepRules>,
    rows: Vec<StepProgress>,
}

impl Ledger {
    /// Puts rules and rows together; rows of steps that are not there any more are kept.
    #[must_use]
    pub fn new(steps: Vec<StepRules>, rows: Vec<StepProgress>) -> Self {
        Self { steps, rows }
    }

    /// The steps in their order.
    #[must_use]
    pub fn steps(&self) -> &[StepRules] {
        &self.steps
    }

    /// The rows, one for each step that was ever entered.
    #[must_use]
    pub fn rows(&self) -> &[StepProgress] {
        &self.rows
    }

    /// The rules of a step.
    #[must_use]
    pub fn rules(&self, step: &str) -> Option<&StepRules> {
        self.steps.iter().find(|rules| rules.id == step)
    }

    /// What was done of a step; a step that was never entered is pending.
    #[must_use]
    pub fn row(&self, step: &str) -> StepProgress {
        let found = self.rows.iter().find(|row| row.step == step).cloned();
        found.unwrap_or_else(|| StepProgress { step: step.to_owned(), ..StepProgress::default() })
    }

    /// Whether a step is completed.
    #[must_use]
    pub fn is_completed(&self, step: &str) -> bool {
        self.rows.iter().any(|row| row.step == step && row.status == Status::Completed)
    }

    /// How many of the workshop's steps are completed.
    #[must_use]
    pub fn completed(&self) -> usize {
        self.steps.iter().filter(|rules| self.is_completed(&rules.id)).count()
    }

    /// Whether every step is completed or was skipped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|rules| self.is_done_with(&rules.id))
    }

    fn is_done_with(&self, step: &str) -> bool {
        self.rows.iter().any(|row| row.step == step && (row.skipped || row.status == Status::Completed))
    }

    /// Whether the learner may enter `step`; the reason why not.
    ///
    /// Its `unlock_condition` has to hold. A step without one that the chain of `next` leads to is open once the
    /// chain is done up to it: steps with checks completed or skipped. What was entered before stays open.
    pub fn can_enter(&self, step: &str) -> Result<(), Refusal> {
        self.entering(step, None)
    }

    /// As [`Ledger::can_enter`], as if `left` were done with already.
    fn entering(&self, step: &str, left: Option<&str>) -> Result<(), Refusal> {
        let rules = self.rules(step).ok_or_else(|| Refusal::NoSuchStep(step.to_owned()))?;
        let locked = |reason: String| Refusal::StepLocked { title: rules.title.clone(), reason };
        match &rules.unlock {
            Some(Ok(condition)) if condition.holds(&|step| self.is_completed(step)) => return Ok(()),
            Some(Ok(condition)) => return Err(locked(self.missing(condition))),
            Some(Err(error)) => return Err(locked(error.to_string())),
            None => {}
        }
        if self.row(step).started_at.is_some() {
            return Ok(());
        }
        match self.first_undone_before(step, left) {
            None => Ok(()),
            Some(undone) => Err(locked(format!("complete or skip \"{}\" first", undone.title))),
        }
    }

    /// The first step with checks on the chain to `step` that is neither completed nor skipped.
    fn first_undone_before(&self, step: &str, left: Option<&str>) -> Option<&StepRules> {
        let mut at = self.steps.first()?;
        let mut undone = None;
        // The chain may be a ring.
        for _ in 0..self.steps.len() {
            if at.id == step {
                return undone;
            }
            if undone.is_none() && at.has_checks && left != Some(at.id.as_str()) && !self.is_done_with(&at.id) {
                undone = Some(at);
            }
            at = at.next.as_deref().and_then(|next| self.rules(next))?;
        }
        // The chain does not lead there: a step beside it, which nothing but its condition could close.
        None
    }

    fn missing(&self, condition: &Condition) -> String {
        let titles: Vec<String> = condition
            .missing(&|step| self.is_completed(step))
            .into_iter()
            .map(|step| format!("\"{}\"", self.rules(&step).map_or(step.as_str(), |rules| rules.title.as_str())))
            .collect();
        format!("complete {} first", titles.join(" and "))
    }

    /// What `action` does in step `current`. Where `is_bound` is not set (an instructor), only what is impossible is
    /// refused. A step with checks counts as done once its row says so: run them before.
    pub fn decide(&self, current: &str, action: &Action, is_bound: bool) -> Result<Move, Refusal> {
        let rules = self.rules(current).ok_or_else(|| Refusal::NoSuchStep(current.to_owned()))?;
        let is_completed = self.is_completed(current);
        let mut moved = Move { target: rules.next.clone(), completes: false, skips: false };
        match action {
            Action::Next if is_completed => {}
            Action::Next if rules.has_checks && is_bound => return Err(Refusal::ChecksFailing),
            Action::Next => moved.completes = !rules.has_checks,
            Action::Skip if is_completed => {}
            Action::Skip if !rules.has_checks => moved.completes = true,
            Action::Skip if is_bound && !rules.can_skip => return Err(Refusal::SkipForbidden(rules.title.clone())),
            Action::Skip => moved.skips = true,
            Action::Previous => moved.target = Some(rules.previous.clone().ok_or(Refusal::NoPreviousStep)?),
            Action::Goto(step) => {
                let target = self.position(step).ok_or_else(|| Refusal::NoSuchStep(step.clone()))?;
                moved.completes = !rules.has_checks && !is_completed && Some(target) > self.position(current);
                moved.target = Some(step.clone());
            }
        }
        let Some(target) = &moved.target else { return Ok(moved) };
        if self.rules(target).is_none() {
            return Err(Refusal::NoSuchStep(target.clone()));
        }
        if is_bound && target != current {
            // What this very move completes may be what opens the target.
            let mut after = self.clone();
            if moved.completes {
                after.complete(current, "");
            }
            after.entering(target, Some(current).filter(|_| moved.skips))?;
        }
        Ok(moved)
    }

    fn position(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|rules| rules.id == step)
    }

    fn row_mut(&mut self, step: &str) -> &mut StepProgress {
        let at = self.rows.iter().position(|row| row.step == step).unwrap_or_else(|| {
            self.rows.push(StepProgress { step: step.to_owned(), ..StepProgress::default() });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// Makes `step` the current one at `now` (RFC 3339); true when a row changed.
    pub fn enter(&mut self, step: &str, now: &str) -> bool {
        let before = self.rows.clone();
        for row in &mut self.rows {
            if row.status == Status::Active && row.step != step {
                row.status = Status::Pending;
            }
        }
        let row = self.row_mut(step);
        row.started_at.get_or_insert_with(|| now.to_owned());
        if row.status == Status::Pending {
            row.status = Status::Active;
        }
        self.rows != before
    }

    /// Completes `step` at `now` (RFC 3339); true when it was not completed before.
    pub fn complete(&mut self, step: &str, now: &str) -> bool {
        let row = self.row_mut(step);
        if row.status == Status::Completed {
            return false;
        }
        row.status = Status::Completed;
        row.skipped = false;
        row.completed_at = Some(now.to_owned());
        row.started_at.get_or_insert_with(|| now.to_owned());
        true
    }

    /// Records that the learner goes on without completing `step`.
    pub fn skip(&mut self, step: &str) {
        let row = self.row_mut(step);
        row.skipped = row.status != Status::Completed;
    }
}

#[cfg(test)]
mod tests;
