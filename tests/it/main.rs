//! The one integration binary: every file here is declared, and every real part it needs is really there.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "what a test cannot do without, it may fail on and talk about"
)]

mod architecture;
mod artifact;
mod backend;
mod bad_recipe;
mod cluster;
mod compile;
mod controller;
mod crds;
mod diff;
mod distribution;
mod examples;
mod follow;
mod gateway;
mod generated;
mod git;
mod images;
mod install;
mod learner;
mod management;
mod mirror;
mod node;
mod operator;
mod operator_cluster;
mod provisioner;
mod readme;
mod runtime;
mod scale;
mod spine;
mod support;
mod sync;
mod workspace_cluster;
