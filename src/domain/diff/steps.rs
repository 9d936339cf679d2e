//! Which steps came, went, moved or changed, and why their images would be built again.

use std::collections::{BTreeSet, HashMap};

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::rebuild::{Rebuilds, compare_recipes};
use super::{State, StepChange, StepLine, View};
use crate::domain::definition::Definition;

/// Every step of a workshop that only one side has.
pub(super) fn all_steps(view: &View, state: State) -> Vec<StepChange> {
    let rebuild = (state == State::Added && view.recipe().is_some()).then(|| "new step".to_owned());
    let mut ids: Vec<String> = view.lines().into_iter().flatten().map(|line| line.id).collect();
    if view.recipe().is_some_and(|(recipe, _)| recipe.finish.is_some()) {
        ids.push("finish".to_owned());
    }
    ids.into_iter().map(|id| StepChange { id, state, changes: Vec::new(), rebuild: rebuild.clone() }).collect()
}

/// The steps that differ: those of the second side in its order, then the removed ones.
pub(super) fn compare_steps(before: &View, after: &View) -> Vec<StepChange> {
    let (Some(old), Some(new)) = (before.lines(), after.lines()) else { return Vec::new() };
    let rebuilds = match (before.recipe(), after.recipe()) {
        (Some(before), Some(after)) => Some(compare_recipes(before, after)),
        _ => None,
    };
    let definitions = before.definition().zip(after.definition());
    let moved = moved_steps(&old, &new);
    let places: HashMap<&str, &StepLine> = old.iter().map(|line| (line.id.as_str(), line)).collect();
    let mut changes = Vec::new();
    for line in &new {
        let rebuild = rebuilds.as_ref().and_then(|rebuilds| rebuilds.reasons.get(&line.id).cloned());
        let Some(counterpart) = places.get(line.id.as_str()) else {
            changes.push(StepChange { id: line.id.clone(), state: State::Added, changes: Vec::new(), rebuild });
            continue;
        };
        let mut parts = Vec::new();
        if counterpart.title != line.title {
            parts.push("title".to_owned());
        }
        if let Some((old, new)) = &definitions {
            parts.extend(differing_rows(old, new, &line.id));
        }
        if counterpart.image_tag != line.image_tag {
            parts.push("image tag".to_owned());
        }
        parts.extend(recipe_parts(rebuilds.as_ref(), &line.id));
        let state = match (moved.contains(line.id.as_str()), parts.is_empty()) {
            (true, _) => State::Moved,
            (false, false) => State::Changed,
            (false, true) => State::Unchanged,
        };
        if state != State::Unchanged || rebuild.is_some() {
            changes.push(StepChange { id: line.id.clone(), state, changes: parts, rebuild });
        }
    }
    changes.extend(compare_finish(before, after, rebuilds.as_ref()));
    let kept: BTreeSet<&str> = new.iter().map(|line| line.id.as_str()).collect();
    changes.extend(old.iter().filter(|line| !kept.contains(line.id.as_str())).map(|line| StepChange {
        id: line.id.clone(),
        state: State::Removed,
        changes: Vec::new(),
        rebuild: None,
    }));
    changes
}

fn recipe_parts(rebuilds: Option<&Rebuilds>, id: &str) -> Vec<String> {
    rebuilds.and_then(|rebuilds| rebuilds.changes.get(id)).cloned().unwrap_or_default()
}

fn compare_finish(before: &View, after: &View, rebuilds: Option<&Rebuilds>) -> Option<StepChange> {
    let has = |view: &View| view.recipe().is_some_and(|(recipe, _)| recipe.finish.is_some());
    let rebuilds = rebuilds?;
    let changes = recipe_parts(Some(rebuilds), "finish");
    let state = match (has(before), has(after)) {
        (false, false) => return None,
        (false, true) => State::Added,
        (true, false) => State::Removed,
        (true, true) if changes.is_empty() => State::Unchanged,
        (true, true) => State::Changed,
    };
    let rebuild = rebuilds.reasons.get("finish").cloned();
    (state != State::Unchanged || rebuild.is_some()).then(|| StepChange {
        id: "finish".to_owned(),
        state,
        changes,
        rebuild,
    })
}

/// What differs in the rows of a step that both have, beside its title and image tag.
fn differing_rows(before: &Definition, after: &Definition, id: &str) -> Vec<String> {
    let (Some(old), Some(new)) = (before.step(id), after.step(id)) else { return Vec::new() };
    let same = [
        ("text", old.markdown == new.markdown),
        ("checks", old.goss_spec == new.goss_spec),
        ("metadata", old.metadata == new.metadata),
        ("unlock condition", old.navigation.unlock_condition == new.navigation.unlock_condition),
    ];
    same.iter().filter(|(_, same)| !same).map(|(name, _)| (*name).to_owned()).collect()
}

/// The ids that both sides have, in another order.
fn moved_steps<'l>(before: &'l [StepLine], after: &'l [StepLine]) -> BTreeSet<&'l str> {
    let ids = |lines: &'l [StepLine], others: &[StepLine]| -> Vec<&'l str> {
        let others: BTreeSet<&str> = others.iter().map(|line| line.id.as_str()).collect();
        lines.iter().map(|line| line.id.as_str()).filter(|id| others.contains(id)).collect()
    };
    let (old, new) = (ids(before, after), ids(after, before));
    capture_diff_slices(Algorithm::Myers, &old, &new)
        .iter()
        .filter(|operation| !matches!(operation, DiffOp::Equal { .. }))
        .flat_map(|operation| new[operation.new_range()].iter().copied())
        .collect()
}
