//! Plans of every kind of change, and the refusals.

use serde_json::json;

use super::*;
use crate::domain::object::Kind;

const NAMES: Names = Names { workshop_label: "w", path_annotation: "p" };

fn template(id: &str, path: &str, title: &str) -> Value {
    json!({
        "apiVersion": "workshop.platform/v1alpha1", "kind": "WorkspaceTemplate",
        "metadata": {"name": id, "labels": {"w": id}, "annotations": {"p": path}},
        "spec": {"title": title},
    })
}

fn desired(id: &str, path: &str, title: &str) -> Desired {
    Desired {
        key: ObjectKey { kind: Kind::WorkspaceTemplate, namespace: None, name: id.into() },
        workshop: id.into(),
        manifest: template(id, path, title),
        first_step: None,
    }
}

fn live(id: &str, path: &str, title: &str) -> Live {
    Live::from_manifest(template(id, path, title)).unwrap()
}

fn instance(id: &str, name: &str, phase: &str) -> Live {
    Live::from_manifest(json!({
        "kind": "WorkspaceInstance",
        "metadata": {"name": name, "namespace": "n", "labels": {"w": id}},
        "status": {"phase": phase},
    }))
    .unwrap()
}

struct Case<'a> {
    ready: &'a [(&'a str, &'a str, &'a str)],
    kept: &'a [(&'a str, &'a str)],
    live: Vec<Live>,
    budget: Budget,
    manual: bool,
    approved: Option<String>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self { ready: &[], kept: &[], live: Vec::new(), budget: Budget::Half, manual: false, approved: None }
    }
}

fn run(case: &Case<'_>) -> Plan {
    let mut workshops = BTreeMap::new();
    let mut paths = BTreeSet::new();
    for (id, path, title) in case.ready {
        workshops.insert((*id).to_owned(), Standing::Ready(vec![desired(id, path, title)]));
        paths.insert((*path).to_owned());
    }
    for (id, path) in case.kept {
        if !id.is_empty() {
            workshops.insert((*id).to_owned(), Standing::Kept);
        }
        paths.insert((*path).to_owned());
    }
    plan(&Inputs {
        workshops: &workshops,
        paths: &paths,
        live: &case.live,
        names: NAMES,
        prune: true,
        budget: case.budget,
        approved: case.approved.as_deref(),
        manual: case.manual,
    })
}

fn check(case: &Case<'_>, expected: &[&str]) {
    let plan = run(case);
    let rows: Vec<String> = plan
        .changes
        .iter()
        .map(|change| format!("{:?} {}", change.action, change.key.name))
        .chain(plan.withheld.iter().map(|(change, reason)| format!("withheld {} because {reason}", change.key.name)))
        .chain(plan.refusal.iter().map(|refusal| format!("{refusal:?}")))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn objects_are_created_updated_and_left_alone() {
    check(
        &Case {
            ready: &[("a", "a", "1"), ("b", "b", "2"), ("c", "c", "3")],
            live: vec![live("b", "b", "old"), live("c", "c", "3")],
            ..Case::default()
        },
        &["Create a", "Update b", "Unchanged c"],
    );
}

#[test]
fn what_the_revision_no_longer_has_is_pruned_within_the_budget() {
    let four = || ["a", "b", "c", "d"].map(|id| live(id, id, "1")).to_vec();
    check(
        &Case { ready: &[("a", "a", "1"), ("b", "b", "1")], live: four(), ..Case::default() },
        &["Unchanged a", "Unchanged b", "Delete d", "Delete c"],
    );
    check(
        &Case { ready: &[("a", "a", "1")], live: four(), ..Case::default() },
        &[
            "Unchanged a",
            "withheld d because 3 workshops would be pruned and the budget is 2",
            "withheld c because 3 workshops would be pruned and the budget is 2",
            "withheld b because 3 workshops would be pruned and the budget is 2",
        ],
    );
    check(
        &Case { ready: &[("a", "a", "1")], live: four(), budget: Budget::Count(3), ..Case::default() },
        &["Unchanged a", "Delete d", "Delete c", "Delete b"],
    );
}

#[test]
fn deleting_the_whole_tree_waits_for_the_hash_of_its_plan() {
    let case = Case { live: vec![live("a", "a", "1")], ..Case::default() };
    check(&case, &["withheld a because the revision has no workshop left and all objects would be pruned"]);
    let approved = Some(run(&case).hash().to_string());
    check(&Case { approved, ..case }, &["Delete a"]);
}

#[test]
fn a_broken_workshop_keeps_its_objects() {
    check(&Case { kept: &[("a", "a")], live: vec![live("a", "a", "1")], ..Case::default() }, &[]);
    // Its id cannot even be read: the directory alone protects it.
    check(&Case { kept: &[("", "a")], live: vec![live("a", "a", "1")], ..Case::default() }, &[]);
}

#[test]
fn a_directory_given_to_another_id_lets_the_old_one_go() {
    check(
        &Case { ready: &[("new", "a", "1")], live: vec![live("old", "a", "1")], ..Case::default() },
        &["Create new", "Delete old"],
    );
}

#[test]
fn a_moved_workshop_is_updated_and_not_recreated() {
    check(&Case { ready: &[("a", "new/a", "1")], live: vec![live("a", "a", "1")], ..Case::default() }, &["Update a"]);
}

#[test]
fn an_instance_in_use_and_its_template_wait_for_confirmation() {
    check(
        &Case {
            ready: &[("b", "b", "1")],
            live: vec![
                live("a", "a", "1"),
                live("b", "b", "1"),
                instance("a", "ada", "Running"),
                instance("a", "bob", "Suspended"),
            ],
            ..Case::default()
        },
        &[
            "Unchanged b",
            "Delete bob",
            "withheld ada because a learner works in it",
            "withheld a because a learner works in it",
        ],
    );
}

#[test]
fn a_manual_plan_waits_and_its_hash_lets_it_pass() {
    let case = Case { ready: &[("a", "a", "1")], manual: true, ..Case::default() };
    check(&case, &["Create a", "NotApproved"]);
    let approved = Some(run(&case).hash().to_string());
    check(&Case { approved, ..case }, &["Create a"]);
    check(
        &Case { ready: &[("a", "a", "1")], live: vec![live("a", "a", "1")], manual: true, ..Case::default() },
        &["Unchanged a"],
    );
}

#[test]
fn what_is_being_deleted_is_not_deleted_again() {
    let mut ending = instance("gone", "gone-ada", "Terminating");
    ending.manifest["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let plan = run(&Case { live: vec![ending], ..Case::default() });
    assert!(plan.is_empty(), "{plan:#?}");
    let plan = run(&Case { live: vec![instance("gone", "gone-ada", "Suspended")], ..Case::default() });
    assert!(!plan.is_empty());
}
