//! Layer 1: values and rules of the product, pure and synchronous.
//!
//! Nothing here reads a file, a clock, the environment or the network; everything outside comes in as a value.
//!
//! The words, one concept each: *workshop* (the course), *step*, *check* (one assertion of a goss spec),
//! *recipe* (`step-spec.yaml`), *definition* (the rows that a workshop puts into its *artifact*, the SQLite file),
//! *export* (the artifact as YAML files), *revision* (a commit), *unit key* (the identity of a workshop's tree),
//! *plan* (what a sync would change).

pub mod artifact_schema;
pub mod chain;
#[cfg(feature = "platform")]
pub mod clash;
#[cfg(feature = "web")]
pub mod container;
pub mod definition;
pub mod diagnostic;
#[cfg(feature = "platform")]
pub mod diff;
pub mod digest;
#[cfg(feature = "platform")]
pub mod discover;
#[cfg(feature = "platform")]
pub mod distribution;
pub mod duration;
#[cfg(feature = "platform")]
pub mod export;
pub mod goss;
#[cfg(feature = "platform")]
pub mod ignore;
#[cfg(feature = "platform")]
pub mod image;
#[cfg(feature = "platform")]
pub mod key;
#[cfg(feature = "platform")]
pub mod layer;
#[cfg(feature = "platform")]
pub mod lifecycle;
#[cfg(feature = "web")]
pub mod management;
pub mod names;
#[cfg(feature = "platform")]
pub mod object;
#[cfg(feature = "platform")]
pub mod path_index;
#[cfg(feature = "platform")]
pub mod plan;
#[cfg(feature = "web")]
pub mod progress;
pub mod quantity;
#[cfg(feature = "platform")]
pub mod recipe;
#[cfg(feature = "platform")]
pub mod reference;
#[cfg(feature = "platform")]
pub mod revision;
#[cfg(feature = "platform")]
pub mod roster;
#[cfg(feature = "platform")]
pub mod source;
#[cfg(feature = "web")]
pub mod token;
#[cfg(feature = "platform")]
pub mod tree;
#[cfg(feature = "platform")]
pub mod workshop;
pub mod workspace;
pub mod yaml;
