//! One look at an instance, in five beats: what is there, whether it may be, what it should be, making it so, saying so.
//!
//! The record is written before anything is done, so that whoever comes after knows what was begun. A look that finds
//! that the object was changed meanwhile begins anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::Shared;
use super::apply::sleeps_with_cluster;
use super::build::{NAME, Subject};
use super::dereference::{Found, hanging};
use super::engine::chance;
use super::outcome::{Class, Problem, pause};
use super::seen::Made;
use super::status::{self, Addresses};
use crate::adapters::cluster::{self, InstancePart, Part, difference};
use crate::crd::conditions::Reason;
use crate::crd::{WorkspaceInstance, WorkspaceTemplate, labels};
use crate::domain::lifecycle::Reason::Succeeded;
use crate::domain::lifecycle::{Action, Decision, Inputs, Revision, Seen, decide};
use crate::domain::management::Phase;
use crate::domain::workspace::{Workspace, effective};
use crate::failpoint;
use crate::pipeline::workspace::record::{overrides_of, permit_of, record_of, revision_of, wish_of};

/// How often what runs of a calm instance is looked at.
pub(super) const CALM: Duration = Duration::from_secs(300);
/// When one that begins to move is looked at again where its pods are not watched.
const MOVING: Duration = Duration::from_secs(1);
/// One that goes on moving is looked at less and less often, down to this: where a thousand move at once, asking about
/// each of them every second takes the time from them that they need.
const MOVING_LONG: Duration = Duration::from_secs(10);
/// So often a look begins anew because others write the object.
const TRIES: usize = 10;

/// What is remembered of an instance from look to look.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What ran when nothing was to do, so that use alone costs no request.
    pub calm: Option<Calm>,
    /// The identity of what was applied for a start that waits for its learner's cluster.
    pub prepared: Option<String>,
    /// Looks in a row that found it on its way.
    moving: u32,
    /// Failures in a row.
    failures: u32,
    /// When what is around was last compared.
    compared: Option<Instant>,
    /// The last value of the annotation that asks for a look.
    requested: Option<String>,
}

#[derive(Debug)]
pub(super) struct Calm {
    pub seen: Seen,
    pub made: Made,
    pub epoch: Option<i64>,
    pub at: Instant,
}

/// What was told of an instance since it was last looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Nudge {
    /// Somebody or something said that what runs is different.
    pub is_due: bool,
    /// The container whose backend answered that it is ready.
    pub answered: Option<String>,
}

/// What a look ended with.
pub(super) struct Done {
    pub uid: String,
    pub memory: Memory,
    /// When to look again; none: it is gone.
    pub next: Option<Duration>,
    /// Its pods are worth a watch.
    pub is_moving: bool,
}

/// What a turn of a look ended with.
enum Turn {
    Gone,
    Again,
    Wait(Duration),
    Moving(Duration),
}

/// Why a turn did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The object was changed meanwhile.
    Stale,
    /// Something failed.
    Problem(Problem),
}

impl From<cluster::Error> for Stop {
    fn from(error: cluster::Error) -> Self {
        Self::Problem(Problem::of_cluster(&error))
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Looks at the instance with this uid until nothing is to do at once.
pub(super) async fn look(shared: Arc<Shared>, uid: String, memory: Memory, nudge: Nudge) -> Done {
    let mut look = Look { shared, uid, memory, nudge };
    let mut stale = 0;
    for _ in 0..TRIES {
        let began = Instant::now();
        let turn = look.turn().await;
        let word = match &turn {
            Ok(Turn::Gone) => "gone",
            Ok(_) => "done",
            Err(Stop::Stale) => "stale",
            Err(Stop::Problem(problem)) => problem.reason.as_str(),
        };
        look.shared.settings.metrics.count(word, began.elapsed());
        match turn {
            Ok(Turn::Gone) => return look.done(None, false),
            Ok(Turn::Again) => {}
            Ok(Turn::Wait(pause)) => return look.done(Some(pause), false),
            Ok(Turn::Moving(pause)) => return look.done(Some(pause), true),
            Err(Stop::Stale) => {
                stale += 1;
                tokio::time::sleep(Duration::from_millis(5 * stale).mul_f64(chance())).await;
                look.refresh().await;
            }
            Err(Stop::Problem(problem)) => {
                look.memory.calm = None;
                if problem.class != Class::Waiting {
                    // Whatever was there may be what is wrong.
                    look.memory.prepared = None;
                }
                look.memory.failures += 1;
                look.report(&problem).await;
                let pause = pause(problem.class, look.memory.failures, chance());
                return look.done(Some(pause), false);
            }
        }
    }
    look.done(Some(MOVING), true)
}

/// What the first three beats gave to act on.
#[derive(Clone, Copy)]
struct Basis<'a> {
    subject: &'a Subject,
    found: &'a Found,
    template: Option<&'a WorkspaceTemplate>,
    /// How what runs was to run.
    settings: Option<&'a Workspace>,
}

pub(super) struct Look {
    pub shared: Arc<Shared>,
    pub uid: String,
    pub memory: Memory,
    pub nudge: Nudge,
}

impl Look {
    fn done(self, next: Option<Duration>, is_moving: bool) -> Done {
        Done { uid: self.uid, memory: self.memory, next, is_moving }
    }

    /// Reads the instance anew, past the watch.
    async fn refresh(&self) {
        let Some(known) = self.shared.settings.mirror.instance_by_uid(&self.uid) else { return };
        let (namespace, name) = key_of(&known);
        if let Ok(Some(instance)) = self.shared.settings.cluster.read_instance(namespace, name).await {
            self.shared.settings.mirror.learn(instance);
        }
    }

    async fn turn(&mut self) -> Result<Turn, Stop> {
        let shared = Arc::clone(&self.shared);
        let Some(instance) = shared.settings.mirror.instance_by_uid(&self.uid) else { return Ok(Turn::Gone) };
        let is_deleted = instance.metadata.deletion_timestamp.is_some();
        if is_deleted && !has_finalizer(&instance) {
            return Ok(Turn::Gone);
        }
        let subject = subject_of(&instance, &self.uid);
        let now = now();

        let annotations = instance.metadata.annotations.as_ref();
        let requested = annotations.and_then(|annotations| annotations.get(labels::REQUESTED_AT)).cloned();
        let is_requested = requested.is_some() && requested != self.memory.requested;
        self.nudge.is_due |= is_requested;

        // Dereference.
        let template = shared.settings.mirror.template(&instance.spec.template_ref.name);
        let found = self.dereference(&instance, &subject, now).await?;

        // Validate.
        let offer = self.validate(&instance, template.as_deref()).await;

        // Build.
        let record = instance.status.as_ref().map(record_of).unwrap_or_default();
        let overrides = overrides_of(&instance);
        let mut decision = decide(Inputs {
            wish: &wish_of(&instance),
            overrides: overrides.as_ref(),
            permit: template.as_deref().map(permit_of).unwrap_or_default(),
            template: offer.as_ref().map_err(String::as_str),
            record: &record,
            seen: &found.seen,
            live_text: false,
            now,
        });
        keep_attempt(&record, &mut decision);
        if let Some(why) = found.namespace.as_ref().and_then(|namespace| hanging(namespace, now)) {
            decision.record.message = Some(why);
        }

        // Apply: the record first.
        let starts = decision.actions.iter().any(|action| matches!(action, Action::Start(_)));
        let mut instance = instance;
        if starts && !has_finalizer(&instance) {
            instance = self.write_finalizers(&instance, true).await?;
        }
        if !starts && decision.record.phase == Phase::Running && record.phase != Phase::Running {
            failpoint::reached("operator-before-status");
        }
        let written = self.write_status(&instance, &subject, &decision, &found, now).await?;
        if starts {
            failpoint::reached("operator-after-record");
        }
        for event in &decision.events {
            status::tell(&shared.settings.cluster, &written, event).await;
        }
        let settings = record.pin.as_ref().and_then(|pin| effective(&pin.defaults, overrides.as_ref()).ok());
        // Sent to sleep while its cluster came up: of the workspace itself there is nothing to stop.
        if decision.record.phase == Phase::Suspended
            && self.memory.prepared.take().is_some()
            && settings.as_ref().is_some_and(sleeps_with_cluster)
        {
            self.rest_cluster(&subject).await?;
        }
        let basis =
            Basis { subject: &subject, found: &found, template: template.as_deref(), settings: settings.as_ref() };
        let turn = self.act(&written, basis, &decision).await?;
        let is_calm = found.is_fresh && matches!(turn, Turn::Wait(_)) && decision.record.phase == Phase::Running;
        if is_calm && decision.record.reason == Some(Succeeded) {
            if is_requested || self.memory.compared.is_some_and(|compared| compared.elapsed() > CALM / 2) {
                self.heal(&subject, &decision.record, overrides.as_ref()).await?;
                self.memory.compared = Some(Instant::now());
            }
            self.memory.compared.get_or_insert_with(Instant::now);
            self.memory.requested = requested;
        }
        self.memory.failures = 0;
        self.remember(&written, &decision, found, &turn);
        Ok(turn)
    }

    /// The template's revision, where workspaces can be made of it; else why not.
    async fn validate(
        &self,
        instance: &WorkspaceInstance,
        template: Option<&WorkspaceTemplate>,
    ) -> Result<Revision, String> {
        let id = &instance.spec.template_ref.name;
        let Some(template) = template else { return Err(format!("its workshop \"{id}\" is not there")) };
        let pinned = instance.status.as_ref().and_then(|status| status.pinned.as_ref());
        // What it is pinned to was usable, and its artifact is where it runs.
        if pinned.is_some_and(|pin| pin.artifact_digest == template.spec.artifact.digest) {
            return Ok(revision_of(template));
        }
        match problem_of(&self.shared, template).await {
            None => Ok(revision_of(template)),
            Some(problem) => Err(format!("its workshop \"{id}\" cannot be used: {problem}")),
        }
    }

    pub(super) async fn write_finalizers(
        &self,
        instance: &Arc<WorkspaceInstance>,
        is_wished: bool,
    ) -> Result<Arc<WorkspaceInstance>, Stop> {
        let mut finalizers = instance.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != labels::INSTANCE_FINALIZER);
        if is_wished {
            finalizers.push(labels::INSTANCE_FINALIZER.to_owned());
        }
        let patch = json!({ "metadata": { "finalizers": finalizers } });
        self.patch(instance, InstancePart::Wish, &patch).await
    }

    /// Patches one part of the instance as it was read; gives it as it is now.
    pub(super) async fn patch(
        &self,
        instance: &Arc<WorkspaceInstance>,
        part: InstancePart,
        patch: &serde_json::Value,
    ) -> Result<Arc<WorkspaceInstance>, Stop> {
        let settings = &self.shared.settings;
        let (namespace, name) = key_of(instance);
        let version = instance.metadata.resource_version.as_deref().unwrap_or_default();
        let patched =
            settings.cluster.patch_instance(namespace, name, version, part, patch, labels::OPERATOR_MANAGER).await;
        let object = match patched {
            Ok(object) => object,
            Err(cluster::Error::Stale { .. } | cluster::Error::Missing { .. }) => return Err(Stop::Stale),
            Err(error) => return Err(error.into()),
        };
        match serde_json::from_value::<WorkspaceInstance>(object) {
            Ok(changed) => {
                settings.mirror.learn(changed.clone());
                Ok(Arc::new(changed))
            }
            Err(error) => Err(Problem::outside(Reason::InvalidSpec, error.to_string()).into()),
        }
    }

    /// Writes what was decided, where it says something new.
    async fn write_status(
        &self,
        instance: &Arc<WorkspaceInstance>,
        subject: &Subject,
        decision: &Decision,
        found: &Found,
        now: Timestamp,
    ) -> Result<Arc<WorkspaceInstance>, Stop> {
        let settings = &self.shared.settings;
        let old = instance.status.clone().unwrap_or_default();
        let known = old.run.as_ref().filter(|run| run.address.is_some());
        let addresses = match known {
            _ if decision.record.phase != Phase::Running => Addresses::default(),
            Some(run) => Addresses { service: run.address.clone(), pod: run.pod_address.clone() },
            None => {
                let service = settings.cluster.read_part(Part::Service, &subject.room(), NAME).await?;
                let pod = found.pod.map(|pod| pod.to_string());
                Addresses { service: status::address_of(service.as_ref()), pod }
            }
        };
        let gateway = settings.gateway_url.as_deref();
        let new = status::build(&old, instance, subject, decision, addresses, gateway, now);
        // One that fails again and again says so and nothing else in between.
        if old == new || (self.memory.failures > 0 && status::is_same_but_told(&old, &new)) {
            return Ok(Arc::clone(instance));
        }
        let before = json!({ "status": old });
        let after = json!({ "status": new });
        match difference(&before, &after, InstancePart::Status) {
            None => Ok(Arc::clone(instance)),
            Some(patch) => self.patch(instance, InstancePart::Status, &patch).await,
        }
    }

    async fn act(
        &mut self,
        instance: &Arc<WorkspaceInstance>,
        basis: Basis<'_>,
        decision: &Decision,
    ) -> Result<Turn, Stop> {
        let Basis { subject, found, template, settings } = basis;
        let mut turn = None;
        let mut actions = decision.actions.iter().peekable();
        while let Some(action) = actions.next() {
            tracing::debug!(instance = subject.room(), ?action, "acts");
            match action {
                // A Deployment changes from one image to the other by itself.
                Action::Stop if matches!(actions.peek(), Some(Action::Start(_))) => {}
                Action::Stop => {
                    self.stop(instance, subject, found, settings).await?;
                    turn = Some(Turn::Wait(Duration::from_secs(2)));
                }
                Action::Start(start) => {
                    let since = decision.record.run.as_ref().map(|run| run.since).unwrap_or_default();
                    self.start(subject, found, start, since, template).await?;
                    self.memory.moving = 0;
                    turn = Some(Turn::Moving(MOVING));
                }
                Action::GoTo { step } => {
                    self.patch(instance, InstancePart::Wish, &json!({ "spec": { "currentStep": step } })).await?;
                    return Ok(Turn::Again);
                }
                Action::Delete => {
                    self.delete(instance).await?;
                    return Ok(Turn::Wait(MOVING));
                }
                Action::Forget => {
                    self.write_finalizers(instance, false).await?;
                    return Ok(Turn::Gone);
                }
                // A running backend keeps its artifact here: another one is another pod.
                Action::Preview { .. } => {}
            }
        }
        let is_moving = matches!(decision.record.phase, Phase::Provisioning | Phase::Transitioning);
        let due = decision.look_again.map(|moment| {
            let span = moment.duration_since(Timestamp::now());
            Duration::try_from(span).unwrap_or(Duration::ZERO).max(Duration::from_millis(1))
        });
        let calm = CALM.mul_f64(0.8 + 0.2 * chance());
        self.memory.moving = if is_moving { self.memory.moving + 1 } else { 0 };
        let moving =
            MOVING.saturating_mul(1 << self.memory.moving.min(8)).min(MOVING_LONG).mul_f64(0.8 + 0.4 * chance());
        Ok(match turn {
            Some(turn) => turn,
            None if is_moving => Turn::Moving(due.map_or(moving, |due| due.min(moving))),
            None => Turn::Wait(due.map_or(calm, |due| due.min(calm))),
        })
    }

    /// Keeps what was seen of one that is as it should be.
    fn remember(&mut self, instance: &WorkspaceInstance, decision: &Decision, found: Found, turn: &Turn) {
        let is_settled = match (&found.seen, decision.record.phase) {
            (Seen::Running { is_ready, .. }, Phase::Running) => *is_ready,
            (Seen::Nothing, Phase::Suspended) => true,
            _ => false,
        };
        if !is_settled || !matches!(turn, Turn::Wait(_)) {
            self.memory.calm = None;
        } else if let (true, Some(made)) = (found.is_fresh, found.made) {
            let epoch = instance.status.as_ref().and_then(|status| status.epoch);
            self.memory.calm = Some(Calm { seen: found.seen, made, epoch, at: Instant::now() });
        }
    }

    /// Says on the instance what failed, once.
    async fn report(&self, problem: &Problem) {
        let settings = &self.shared.settings;
        tracing::debug!(uid = self.uid, reason = %problem.reason, message = problem.message, "a look failed");
        let Some(instance) = settings.mirror.instance_by_uid(&self.uid) else { return };
        let old = instance.status.clone().unwrap_or_default();
        let new = status::build_failed(&old, &instance, problem, now());
        if old == new || !status::is_worth_telling(&old, &new, problem, self.memory.failures) {
            return;
        }
        let (before, after) = (json!({ "status": old }), json!({ "status": new }));
        let Some(patch) = difference(&before, &after, InstancePart::Status) else { return };
        if self.patch(&instance, InstancePart::Status, &patch).await.is_ok() && problem.is_alarming() {
            status::warn(&settings.cluster, &instance, problem).await;
        }
    }
}

/// A start that failed on the way is the same start when it is tried again.
fn keep_attempt(record: &crate::domain::lifecycle::Record, decision: &mut Decision) {
    let (Some(old), Some(new)) = (&record.run, &mut decision.record.run) else { return };
    let is_same = old.fingerprint == new.fingerprint && old.ready_at.is_none() && new.ready_at.is_none();
    if is_same && record.restarts == decision.record.restarts {
        new.since = old.since;
    }
}

/// Why no workspace can be made of `template`, if so; its artifact is brought where it is not here.
pub(super) async fn problem_of(shared: &Shared, template: &WorkspaceTemplate) -> Option<String> {
    let spec = &template.spec;
    let image = spec.steps.first().map(|step| step.image_tag.as_str());
    let pull = spec.image_pull_secret.as_ref();
    shared.settings.artifacts.file(&shared.settings.cluster, &spec.artifact.digest, image, pull).await.err()
}

fn has_finalizer(instance: &WorkspaceInstance) -> bool {
    let finalizers = instance.metadata.finalizers.as_ref();
    finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == labels::INSTANCE_FINALIZER))
}

pub(super) fn key_of(instance: &WorkspaceInstance) -> (&str, &str) {
    let metadata = &instance.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn subject_of(instance: &WorkspaceInstance, uid: &str) -> Subject {
    let (namespace, name) = key_of(instance);
    Subject {
        uid: uid.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        workshop: instance.spec.template_ref.name.clone(),
    }
}

/// The time in the milliseconds that are kept.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
