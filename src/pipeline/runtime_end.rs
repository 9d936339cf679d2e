//! Where workspaces run: the native runtime or a container engine. The pair of ends for running containers.
//!
//! It finds the runtime, brings images out of the state directory to it, and asks it; what runs when is the operator's.

pub use crate::domain::container::{
    Address, Capabilities, Egress, Found, FoundState, ManagementReach, RuntimeChoice, WorkspaceSpec,
};
