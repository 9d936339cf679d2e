//! Workspaces in real containers: the same facts of every runtime, then what is particular to each; needs root.

mod conformance;
mod docker;
pub mod fixture;
mod native;
