//! Layer 2: one outside system each; none imports another.

pub mod artifact;
pub mod cluster;
pub mod engine;
pub mod folder;
pub mod git;
pub mod layout;
pub mod provisioner;
pub mod registry;
pub mod runtime;
pub mod store;
pub mod watch;
