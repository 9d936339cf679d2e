//! The status of templates: whether workspaces can be made of them, and how many there are.
//!
//! Changes that come together are counted once; nothing is written that says what is said already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::look::problem_of;
use crate::crd::conditions::{self, READY, RECONCILING, Reason};
use crate::crd::instance::Phase;
use crate::crd::template::InstanceCounts;
use crate::crd::{WorkspaceTemplate, WorkspaceTemplateStatus};

/// Changes that come closer together than this are looked at once.
const GATHER: Duration = Duration::from_millis(500);
/// Instances are counted at most this often: a class that comes and goes is not a write for each of them.
const COUNT: Duration = Duration::from_secs(10);
/// Whether artifacts came is looked at this often.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps the status of all templates until `stop` is cancelled.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.settings.mirror.subscribe();
    let mut counted: Option<Instant> = None;
    loop {
        let wait = counted.map_or(GATHER, |counted| (counted + COUNT).saturating_duration_since(Instant::now()));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.recv() => if changed.is_none() { return },
            () = tokio::time::sleep(AGAIN.min(wait.max(GATHER))) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(GATHER) => {}
        }
        while changes.try_recv().is_ok() {}
        if !shared.settings.mirror.is_listed() {
            continue;
        }
        let is_due = counted.is_none_or(|counted| counted.elapsed() >= COUNT);
        look(&shared, is_due).await;
        if is_due {
            counted = Some(Instant::now());
        }
    }
}

async fn look(shared: &Shared, is_counted: bool) {
    let mut counts: BTreeMap<String, InstanceCounts> = BTreeMap::new();
    for instance in shared.settings.mirror.instances() {
        let count = counts.entry(instance.spec.template_ref.name.clone()).or_default();
        count.total += 1;
        match instance.status.as_ref().and_then(|status| status.phase) {
            Some(Phase::Running) => count.running += 1,
            Some(Phase::Suspended) => count.suspended += 1,
            _ => {}
        }
    }
    for template in shared.settings.mirror.templates() {
        let name = template.metadata.name.clone().unwrap_or_default();
        let old = template.status.clone().unwrap_or_default();
        let count = match old.instances.filter(|_| !is_counted) {
            Some(known) => known,
            None => counts.get(&name).copied().unwrap_or_default(),
        };
        let new = build(&old, &template, problem_of(shared, &template).await.as_deref(), count, Timestamp::now());
        if new == old {
            continue;
        }
        if let Err(error) = shared.settings.cluster.apply_template_status(&name, &new).await {
            tracing::debug!(%error, name, "the status of a template was not written");
        }
    }
}

fn build(
    old: &WorkspaceTemplateStatus,
    template: &WorkspaceTemplate,
    problem: Option<&str>,
    count: InstanceCounts,
    now: Timestamp,
) -> WorkspaceTemplateStatus {
    let mut status = old.clone();
    let generation = template.metadata.generation;
    status.observed_generation = generation;
    status.instances = Some(count);
    let (ready, reason, message) = match problem {
        None => (true, Reason::Succeeded, format!("{} steps", template.spec.steps.len())),
        Some(problem) => (false, Reason::TemplateUnusable, problem.to_owned()),
    };
    conditions::set(&mut status.conditions, READY, ready, reason, &message, generation, now);
    if ready {
        conditions::remove(&mut status.conditions, RECONCILING);
    } else {
        conditions::set(&mut status.conditions, RECONCILING, true, reason, &message, generation, now);
    }
    status
}
