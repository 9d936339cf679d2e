//! Workshop Platform: hands-on Linux workshops from Git.
//!
//! A team commits a workshop as YAML. Each arrow below is one file of [`pipeline`]:
//!
//! ```text
//! source ─▶ file tree ─import▶ definition (SQLite) ─compile▶ OCI images ─plan▶ objects ─apply▶ cluster or embedded store
//! ```
//!
//! Four layers, imports point down only (`tests/it/architecture.rs` holds the table):
//!
//! 1. [`domain`] values and rules, [`crd`] Kubernetes wire types
//! 2. [`adapters`] one outside system each
//! 3. [`pipeline`] one file per arrow, and the pairs of ends (cluster or local)
//! 4. the fronts: [`cli`] for authors and scripts, [`controller`] for a cluster, [`operator`] for workspaces,
//!    [`gateway`] for browsers, [`backend`] inside every step image
//!
//! Beside the layers, [`failpoint`] names the crash points of the tests and [`pages`] holds the web pages.

#[cfg(feature = "platform")]
pub mod adapters;
#[cfg(feature = "backend")]
pub mod backend;
#[cfg(feature = "platform")]
pub mod cli;
#[cfg(feature = "platform")]
pub mod controller;
#[cfg(feature = "platform")]
pub mod crd;
pub mod domain;
#[cfg(feature = "platform")]
pub mod failpoint;
#[cfg(feature = "platform")]
pub mod gateway;
#[cfg(feature = "platform")]
pub mod operator;
#[cfg(feature = "web")]
pub mod pages;
#[cfg(feature = "platform")]
pub mod pipeline;
