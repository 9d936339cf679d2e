//! The status of templates: whether workspaces can be made of them, and how many there are.
//!
//! Changes that come together are counted once; nothing is written that says what is said already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::look::problem_of;
use crate::adapters::cluster::Changed;
use crate::crd::conditions::{self, READY, RECONCILING, Reason};
use crate::crd::instance::Phase;
use crate::crd::template::InstanceCounts;
use crate::crd::{WorkspaceTemplate, WorkspaceTemplateStatus};

/// Changes that come closer together are written once.
const GATHER: Duration = Duration::from_secs(2);
/// Whether artifacts came is looked at this often.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps the status of all templates until `stop` is cancelled.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.settings.mirror.subscribe();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.recv() => if changed.is_none() { return },
            () = tokio::time::sleep(AGAIN) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(GATHER) => {}
        }
        let mut dirty = BTreeSet::new();
        while let Ok(changed) = changes.try_recv() {
            if let Changed::Template(name) = changed {
                dirty.insert(name);
            }
        }
        if shared.settings.mirror.is_listed() {
            look(&shared).await;
        }
    }
}

async fn look(shared: &Shared) {
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
        let count = counts.get(&name).copied().unwrap_or_default();
        let new = build(&old, &template, problem_of(shared, &template).as_deref(), count, Timestamp::now());
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
