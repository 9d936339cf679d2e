//! The decision: from wish, record and what runs, to the next record and what is to be done. No clock, no side effect.
//!
//! The order of the questions is the order of their weight: deletion, revision, end of time, sleep, what should run.

use std::time::Duration;

use jiff::Timestamp;

use super::time::{RESTART_WINDOW, later, notice_span, warning_span};
use super::{
    Action, Asleep, Decision, Event, MAX_RESTARTS, READY_WITHIN, Reason, Record, Restarts, Revision, Run, Seen,
    SleepCause, Start, Step, Wish, back_off, fingerprint, is_warning,
};
use crate::domain::management::Phase;
use crate::domain::workspace::{LifecycleMode, Permit, Workspace, effective, refused_overrides};

/// Everything that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What the spec asks for.
    pub wish: &'a Wish,
    /// What the spec has in place of the template's defaults, in the shape of workspace.yaml.
    pub overrides: Option<&'a serde_json::Value>,
    /// What the template lets overrides loosen.
    pub permit: Permit,
    /// The template as it is now, where workspaces can be made of it; else why not.
    pub template: Result<&'a Revision, &'a str>,
    /// What is known.
    pub record: &'a Record,
    /// What runs.
    pub seen: &'a Seen,
    /// A running backend can be handed another artifact, and gets it without being asked (local mode).
    pub live_text: bool,
    /// The time.
    pub now: Timestamp,
}

/// What follows from a look at an instance.
#[must_use]
pub fn decide(inputs: Inputs<'_>) -> Decision {
    let mut turn =
        Turn { record: inputs.record.clone(), inputs, actions: Vec::new(), events: Vec::new(), look_again: None };
    turn.decide();
    Decision { record: turn.record, actions: turn.actions, events: turn.events, look_again: turn.look_again }
}

struct Turn<'a> {
    inputs: Inputs<'a>,
    record: Record,
    actions: Vec<Action>,
    events: Vec<Event>,
    look_again: Option<Timestamp>,
}

impl Turn<'_> {
    fn decide(&mut self) {
        let Inputs { wish, seen, now, .. } = self.inputs;
        if wish.is_deleted {
            self.show(Phase::Terminating, Reason::Deleted, None);
            self.record.run = None;
            self.actions.push(if *seen == Seen::Nothing { Action::Forget } else { Action::Stop });
            return;
        }
        let is_reset = wish.reset.is_some() && wish.reset != self.record.reset_handled;
        self.pin(is_reset);
        let Some(pin) = self.record.pin.clone() else {
            let why = self.inputs.template.err().unwrap_or("its template cannot be used").to_owned();
            self.show(Phase::Pending, Reason::TemplateUnusable, Some(why));
            return self.stop();
        };
        let settings = match effective(&pin.defaults, self.inputs.overrides) {
            Ok(settings) => settings,
            Err(error) => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                self.show(Phase::Failed, Reason::InvalidSpec, Some(format!("its settings cannot be used: {why}")));
                return self.stop();
            }
        };
        // Whoever moves it wants it awake. One that nobody used was where it should be when it fell asleep; one whose time
        // was over may still have been on its way, so that being elsewhere says nothing.
        let is_idle = self.record.asleep.is_some_and(|asleep| asleep.cause == SleepCause::Idle);
        let is_elsewhere = self.target(&pin).is_some_and(|step| self.record.step.as_ref() != Some(&step.id));
        let is_moved = is_reset || (is_idle && is_elsewhere);
        self.wake(is_moved);
        self.warn(&settings);
        if self.is_over() && settings.lifecycle.mode == LifecycleMode::Ephemeral {
            self.tell(Reason::Expired, "its time is over: it is deleted");
            self.show(Phase::Terminating, Reason::Expired, Some("its time is over".to_owned()));
            self.actions.push(Action::Delete);
            return;
        }
        if self.is_over() && self.record.asleep.is_none() {
            self.record.asleep = Some(Asleep { since: now, cause: SleepCause::Expired });
            self.record.warned_at = None;
            self.tell(Reason::Expired, "its time is over: it sleeps until somebody comes back");
        }
        self.doze(&settings);
        if wish.suspended || self.record.asleep.is_some() {
            return self.sleep();
        }
        self.run(&pin, &settings);
    }

    /// Keeps the template's revision, or moves to it where that was asked for.
    fn pin(&mut self, is_reset: bool) {
        let Inputs { wish, template, .. } = self.inputs;
        let is_update = wish.update.is_some() && wish.update != self.record.update_handled;
        if is_reset || is_update {
            self.record.reset_handled.clone_from(&wish.reset);
            self.record.update_handled.clone_from(&wish.update);
            self.record.notice = None;
            self.record.restarts = None;
        }
        if let Ok(offer) = template {
            let follows = match &self.record.pin {
                None => true,
                Some(pin) if is_reset || is_update => {
                    // A step that vanished stays reachable for those who are in it.
                    let is_kept = self.target(pin).is_none_or(|step| offer.step(&step.id).is_some());
                    if !is_kept {
                        self.record.notice =
                            Some("its step is not in the template's revision any more: it stays on its own".to_owned());
                    }
                    is_kept
                }
                Some(pin) => self.inputs.live_text && pin != offer && pin.has_images_of(offer),
            };
            if let (true, Some(pin)) = (follows, &self.record.pin)
                && !is_reset
                && !is_update
            {
                // Texts only: what else the revision changes waits for an update.
                let defaults = pin.defaults.clone();
                self.record.pin = Some(Revision { defaults, ..offer.clone() });
            } else if follows {
                self.record.pin = Some(offer.clone());
            }
            let is_outdated = self.record.pin.as_ref().is_some_and(|pin| {
                (&pin.artifact, &pin.defaults) != (&offer.artifact, &offer.defaults) || !pin.has_images_of(offer)
            });
            if is_outdated && !self.record.is_outdated {
                self.tell(Reason::NewerRevision, "its template is newer than what it runs: reset or update moves it");
            }
            self.record.is_outdated = is_outdated;
        }
    }

    /// The step to be in: the wished one where the pin has it, else the last one, else the first.
    fn target<'p>(&self, pin: &'p Revision) -> Option<&'p Step> {
        let named = |id: &Option<String>| id.as_deref().and_then(|id| pin.step(id));
        named(&self.inputs.wish.step).or_else(|| named(&self.record.step)).or_else(|| pin.steps.first())
    }

    /// Ends the sleep of an instance that was used since, or that is to be elsewhere.
    fn wake(&mut self, is_moved: bool) {
        let Some(asleep) = self.record.asleep else { return };
        if !is_moved && self.record.last_activity_at.is_none_or(|used| used <= asleep.since) {
            return;
        }
        self.record.asleep = None;
        let now = self.inputs.now;
        if asleep.cause == SleepCause::Expired || self.record.expires_at.is_some_and(|end| end <= now) {
            self.record.renewed_at = Some(now);
        }
    }

    /// When its time is over.
    fn end(&self, settings: &Workspace) -> Option<Timestamp> {
        let ttl = settings.lifecycle.ttl.get();
        let by_life = self.record.started_at.map(|started| later(started, ttl));
        let end = self.inputs.wish.expires_at.or(by_life);
        // One that was woken after its end has its time anew.
        end.map(|end| self.record.renewed_at.map_or(end, |renewed| end.max(later(renewed, ttl))))
    }

    fn is_over(&self) -> bool {
        !self.inputs.wish.hold && self.record.expires_at.is_some_and(|end| end <= self.inputs.now)
    }

    /// Finds out when it ends, and tells once that this is near. Nothing ends that was not told: an end that passed
    /// while nobody looked, or that was just moved to now, is put off until people had time.
    fn warn(&mut self, settings: &Workspace) {
        let Inputs { wish, now, .. } = self.inputs;
        let (ttl, mode) = (settings.lifecycle.ttl.get(), settings.lifecycle.mode);
        self.record.expires_at = self.end(settings);
        // One that sleeps and is never deleted has nothing to lose.
        let is_safe = wish.hold || (mode == LifecycleMode::Persistent && self.record.asleep.is_some());
        let Some(end) = self.record.expires_at.filter(|_| !is_safe) else {
            self.record.warned_at = None;
            return;
        };
        if !is_warning(Some(end), ttl, wish.hold, now) {
            self.record.warned_at = None;
            self.look_at(end.checked_sub(warning_span(ttl)).unwrap_or(now));
            return;
        }
        // Whole seconds, as conditions keep them.
        let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let with_notice = |since| end.max(later(since, notice_span(ttl)));
        // One that was told of a later end is told anew of an earlier one.
        let told = self.record.warned_at.filter(|told| {
            let known = self.inputs.record.expires_at;
            known.is_none_or(|known| with_notice(*told) >= known)
        });
        let since = told.unwrap_or(whole);
        let end = with_notice(since);
        self.record.expires_at = Some(end);
        self.record.warned_at = Some(since);
        if told.is_none() {
            let what = match mode {
                LifecycleMode::Ephemeral => "deleted",
                LifecycleMode::Persistent => "put to sleep",
            };
            self.tell(Reason::Expiring, &format!("it is {what} at {end}"));
        }
        if end > now {
            self.look_at(end);
        }
    }

    /// When it goes to sleep, if nobody uses it until then.
    fn idle_end(&self, settings: &Workspace) -> Option<Timestamp> {
        let ready = self.record.run.as_ref()?.ready_at?;
        let used = self.record.last_activity_at.map_or(ready, |used| used.max(ready));
        let sleeps = settings.lifecycle.idle_suspend && !self.inputs.wish.hold;
        sleeps.then(|| later(used, settings.lifecycle.idle_timeout.get()))
    }

    /// Puts it to sleep where nobody used it for long enough.
    fn doze(&mut self, settings: &Workspace) {
        let now = self.inputs.now;
        if self.record.asleep.is_some() || self.idle_end(settings).is_none_or(|due| due > now) {
            return;
        }
        self.record.asleep = Some(Asleep { since: now, cause: SleepCause::Idle });
        let span = settings.lifecycle.idle_timeout;
        self.tell(Reason::Idle, &format!("nobody used it for {span}: it sleeps until somebody does"));
    }

    fn sleep(&mut self) {
        let (reason, message) = match self.record.asleep {
            _ if self.inputs.wish.suspended => (Reason::Suspended, "it is suspended"),
            Some(Asleep { cause: SleepCause::Expired, .. }) => (Reason::Expired, "its time is over: using it wakes it"),
            _ => (Reason::Idle, "nobody used it: using it wakes it"),
        };
        self.show(Phase::Suspended, reason, Some(message.to_owned()));
        self.record.restarts = None;
        self.stop();
    }

    /// Makes what should run run.
    fn run(&mut self, pin: &Revision, settings: &Workspace) {
        let Inputs { wish, seen, now, live_text, .. } = self.inputs;
        let Some(step) = self.target(pin) else {
            return self.show(Phase::Failed, Reason::InvalidSpec, Some("its workshop has no steps".to_owned()));
        };
        if let Some(wished) = wish.step.as_ref().filter(|wished| **wished != step.id) {
            self.record.notice = Some(format!("there is no step \"{wished}\" in what it runs"));
        }
        let artifact = (!live_text).then_some(pin.artifact.as_str());
        let print = fingerprint(step, settings, wish.reset.as_deref(), artifact);
        if self.record.restarts.as_ref().is_some_and(|restarts| restarts.fingerprint != print) {
            self.record.restarts = None;
        }
        // What runs was allowed when it was started, and an edit of the spec takes nothing from a learner.
        let is_known = self.inputs.record.run.as_ref().is_some_and(|run| run.fingerprint == print)
            || matches!(seen, Seen::Running { fingerprint, .. } if *fingerprint == print);
        if let (false, Some(why)) = (is_known, self.refusal(pin, settings)) {
            let runs = self.inputs.record.run.as_ref().is_some_and(
                |run| matches!(seen, Seen::Running { fingerprint, is_ready: true, .. } if *fingerprint == run.fingerprint),
            );
            let phase = if runs { Phase::Running } else { Phase::Failed };
            return self.show(phase, Reason::InvalidSpec, Some(why));
        }
        let start = || Start {
            step: step.id.clone(),
            image: step.image(),
            fingerprint: print.clone(),
            artifact: pin.artifact.clone(),
            settings: settings.clone(),
        };
        match seen {
            Seen::Running { fingerprint, is_ready: true, .. } if *fingerprint == print => {
                self.runs(pin, step, &print, settings);
            }
            Seen::Running { fingerprint, since, waits_for, .. } if *fingerprint == print => {
                let due = later(*since, READY_WITHIN);
                if due <= now {
                    let within = READY_WITHIN.as_secs();
                    return self.failed(pin, step, &print, &format!("it did not answer within {within} s"), start);
                }
                self.look_at(due);
                self.under_way(step);
                if let (Some(what), None) = (waits_for, &self.record.notice) {
                    self.record.message = Some(format!("step \"{}\" starts: {what}", step.id));
                }
            }
            Seen::Ended { fingerprint, reason } if *fingerprint == print => {
                self.failed(pin, step, &print, reason, start);
            }
            other => {
                if self.is_resting(&print) {
                    if matches!(other, Seen::Running { .. }) {
                        self.actions.push(Action::Stop);
                    }
                    return;
                }
                self.start(start(), *other != Seen::Nothing);
                self.under_way(step);
            }
        }
    }

    /// Why the overrides go too far, if they do.
    fn refusal(&self, pin: &Revision, settings: &Workspace) -> Option<String> {
        self.inputs.overrides?;
        let defaults = effective(&pin.defaults, None).ok()?;
        let refused = refused_overrides(&defaults, settings, self.inputs.permit);
        (!refused.is_empty()).then(|| format!("its overrides go beyond its template: {}", refused.join("; ")))
    }

    /// It is as wished.
    fn runs(&mut self, pin: &Revision, step: &Step, print: &str, settings: &Workspace) {
        let Inputs { now, live_text, .. } = self.inputs;
        // What a restarted program finds running may be unknown to it; its backend has an artifact of then.
        let run = self.record.run.take().filter(|run| run.fingerprint == print).unwrap_or_else(|| Run {
            step: step.id.clone(),
            fingerprint: print.to_owned(),
            artifact: String::new(),
            since: now,
            ready_at: None,
        });
        let ready_at = run.ready_at.unwrap_or(now);
        if live_text && run.artifact != pin.artifact {
            self.actions.push(Action::Preview { artifact: pin.artifact.clone() });
        }
        self.record.run = Some(Run { ready_at: Some(ready_at), ..run });
        self.record.step = Some(step.id.clone());
        if self.record.started_at.is_none() {
            self.record.started_at = Some(now);
            self.warn(settings);
        }
        if let Some(due) = self.idle_end(settings) {
            self.look_at(due);
        }
        if let Some(restarts) = &self.record.restarts {
            let calm = later(ready_at, RESTART_WINDOW);
            if calm <= now {
                self.record.restarts = None;
            } else if restarts.due.is_none() {
                self.look_at(calm);
            }
        }
        let notice = self.record.notice.clone();
        self.show(Phase::Running, Reason::Succeeded, notice);
    }

    /// The container of this step ended, or does not answer.
    fn failed(&mut self, pin: &Revision, step: &Step, print: &str, why: &str, start: impl Fn() -> Start) {
        let now = self.inputs.now;
        let was_ready = self.record.run.as_ref().is_some_and(|run| run.fingerprint == print && run.ready_at.is_some());
        let before =
            self.record.step.as_deref().filter(|before| *before != step.id).and_then(|before| pin.step(before));
        if let (false, Some(before)) = (was_ready, before) {
            let message = format!("step \"{}\" did not start ({why}): back at \"{}\"", step.id, before.id);
            self.tell(Reason::StepFailed, &message);
            self.record.notice = Some(message.clone());
            self.record.run = None;
            self.actions.push(Action::GoTo { step: before.id.clone() });
            return self.show(Phase::Transitioning, Reason::StepFailed, Some(message));
        }
        match &self.record.restarts {
            Some(Restarts { due: Some(due), .. }) if *due > now => {
                let due = *due;
                self.look_at(due);
            }
            Some(Restarts { due: Some(_), .. }) => {
                self.record.restarts.iter_mut().for_each(|restarts| restarts.due = None);
                self.start(start(), true);
                self.restarting(why);
            }
            Some(restarts) if restarts.count > MAX_RESTARTS => {
                let message = format!("it ended {} times in a row: {}", restarts.count, restarts.reason);
                self.show(Phase::Failed, Reason::CrashLooping, Some(message));
            }
            other => {
                let in_row = other.as_ref().filter(|restarts| later(restarts.first, RESTART_WINDOW) > now);
                let count = in_row.map_or(1, |restarts| restarts.count + 1);
                let first = in_row.map_or(now, |restarts| restarts.first);
                let pause = back_off(count);
                let is_last = count > MAX_RESTARTS;
                let due = (!is_last).then(|| later(now, pause));
                let reason = why.to_owned();
                self.record.restarts = Some(Restarts { count, first, fingerprint: print.to_owned(), due, reason });
                if is_last {
                    let message = format!("it ended {count} times in a row: {why}");
                    self.tell(Reason::CrashLooping, &message);
                    self.show(Phase::Failed, Reason::CrashLooping, Some(message));
                    return self.stop_what_runs();
                }
                self.tell(Reason::Restarting, why);
                if pause == Duration::ZERO {
                    self.record.restarts.iter_mut().for_each(|restarts| restarts.due = None);
                    self.start(start(), true);
                } else {
                    self.look_at(later(now, pause));
                }
                self.restarting(why);
            }
        }
    }

    /// Nothing runs: whether that is on purpose, because a start failed and the next is not due.
    fn is_resting(&mut self, print: &str) -> bool {
        let Some(restarts) = self.record.restarts.clone().filter(|restarts| restarts.fingerprint == print) else {
            return false;
        };
        if restarts.count > MAX_RESTARTS {
            let message = format!("it ended {} times in a row: {}", restarts.count, restarts.reason);
            self.show(Phase::Failed, Reason::CrashLooping, Some(message));
            return true;
        }
        if let Some(due) = restarts.due.filter(|due| *due > self.inputs.now) {
            self.look_at(due);
            self.restarting(&restarts.reason);
            return true;
        }
        self.record.restarts.iter_mut().for_each(|restarts| restarts.due = None);
        false
    }

    fn start(&mut self, start: Start, is_in_the_way: bool) {
        if is_in_the_way {
            self.actions.push(Action::Stop);
        }
        self.record.run = Some(Run {
            step: start.step.clone(),
            fingerprint: start.fingerprint.clone(),
            artifact: start.artifact.clone(),
            since: self.inputs.now,
            ready_at: None,
        });
        self.actions.push(Action::Start(Box::new(start)));
    }

    fn under_way(&mut self, step: &Step) {
        let is_elsewhere = self.record.step.as_deref().is_some_and(|before| before != step.id);
        if is_elsewhere && self.record.phase == Phase::Running {
            self.record.notice = None;
        }
        let message = format!("step \"{}\" starts", step.id);
        let message = self.record.notice.clone().map_or(message, |notice| notice);
        self.show(self.working(), Reason::Progressing, Some(message));
    }

    fn restarting(&mut self, why: &str) {
        self.show(self.working(), Reason::Restarting, Some(format!("it is started again: {why}")));
    }

    fn working(&self) -> Phase {
        if self.record.started_at.is_some() { Phase::Transitioning } else { Phase::Provisioning }
    }

    /// Nothing is to run.
    fn stop(&mut self) {
        self.record.run = None;
        self.stop_what_runs();
    }

    fn stop_what_runs(&mut self) {
        if *self.inputs.seen != Seen::Nothing {
            self.actions.push(Action::Stop);
        }
    }

    fn show(&mut self, phase: Phase, reason: Reason, message: Option<String>) {
        (self.record.phase, self.record.reason, self.record.message) = (phase, Some(reason), message);
    }

    fn tell(&mut self, reason: Reason, message: &str) {
        self.events.push(Event { reason, message: message.to_owned() });
    }

    fn look_at(&mut self, moment: Timestamp) {
        self.look_again = Some(self.look_again.map_or(moment, |known| known.min(moment)));
    }
}
