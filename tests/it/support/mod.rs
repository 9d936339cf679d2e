//! Real parts for the tests: programs found or built here, each stopped when its value is dropped.

pub mod chart;
pub mod cluster;
pub mod controller;
pub mod course;
pub mod crowd;
pub mod engine;
pub mod files;
pub mod git;
pub mod learner;
pub mod local;
pub mod node;
pub mod platform;
pub mod registry;
pub mod rust_source;
pub mod wait;
