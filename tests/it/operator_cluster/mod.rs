//! The operator on a control plane without a node: what it writes, what it leaves alone, and how often it writes.
//!
//! Where a node would say that a pod is ready or cannot start, the test writes that into the pod's status.

mod faults;
mod life;
mod scene;

use scene::Scene;

#[test]
fn an_operator_makes_workspaces_and_takes_them_away() {
    let scene = Scene::start();
    life::an_instance_becomes_a_namespace_of_its_own_in_few_writes(&scene);
    life::a_step_switch_is_few_writes_and_one_image(&scene);
    life::a_newer_template_touches_nothing_until_somebody_asks(&scene);
    life::what_overrides_may_not_is_refused_and_what_runs_goes_on(&scene);
    life::one_that_sleeps_has_no_pods(&scene);
    faults::a_step_that_does_not_start_leads_back_with_its_reason(&scene);
    faults::rights_that_are_taken_away_are_told_and_it_heals(&scene);
    faults::what_somebody_changes_around_a_workspace_is_put_back(&scene);
    faults::a_namespace_that_hangs_says_what_it_waits_for(&scene);
    faults::a_namespace_of_somebody_else_is_left_alone(&scene);
    faults::one_of_the_same_name_waits_for_its_predecessor(&scene);
    life::the_end_is_told_before_it_comes(&scene);
}
