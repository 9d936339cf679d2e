//! Layer 4: what browsers and workspaces speak to: pages, the way to each workspace, the management API.
//!
//! It answers and passes on; what becomes of an instance is decided in `pipeline::workspace` and the operator.
