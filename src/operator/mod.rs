//! Layer 4: makes what runs match the instances: one workspace each.
//!
//! It decides nothing about what a repository holds; that is the controller's.

pub mod cluster;
pub mod local;
