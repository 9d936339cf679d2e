//! Layer 2: one outside system each; none imports another.

pub mod artifact;
pub mod folder;
pub mod runtime;
pub mod store;
