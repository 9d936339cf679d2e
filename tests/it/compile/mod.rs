//! `workshop build compile` on a real registry, with real commands in real containers; needs root.

mod failures;
pub mod fixture;
mod images;
mod rebuild;
mod running;
