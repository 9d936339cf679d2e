//! The operator on a real node: pods from images that were pushed to a registry, reached through the gateway, watched
//! over by `workshop controller` with exactly the rights in `manifests/`.

mod bundle;
mod class;
mod faults;
mod isolation;
mod journey;
mod lab;
mod life;
mod own_cluster;
mod revisions;
mod team;

use reqwest::Method;
use serde_json::json;

use crate::support::cluster::condition;
use crate::support::course::{Course, Seat};
use crate::support::learner::Learner;

/// The statuses of all steps, in their order.
fn statuses(learner: &mut Learner, reference: &str) -> Vec<String> {
    let steps = learner.api(reference, &Method::GET, "steps", None);
    let steps = steps["steps"].as_array().expect("steps").clone();
    steps.iter().map(|step| step["status"].as_str().expect("a status").to_owned()).collect()
}

/// Navigates, as the page does.
fn navigate(learner: &mut Learner, reference: &str, action: &str) {
    learner.api(reference, &Method::POST, "navigate", Some(&json!({ "action": action })));
}
