//! Layer 1: values and rules of the product, pure and synchronous.
//!
//! Nothing here reads a file, a clock, the environment or the network; everything outside comes in as a value.
//!
//! The words, one concept each: *workshop* (the course), *step*, *check* (one assertion of a goss spec),
//! *recipe* (`step-spec.yaml`), *definition* (the rows that a workshop puts into its *artifact*, the SQLite file),
//! *export* (the artifact as YAML files), *revision* (a commit), *unit key* (the identity of a workshop's tree),
//! *plan* (what a sync would change).

pub mod chain;
pub mod clash;
pub mod definition;
pub mod diagnostic;
pub mod diff;
pub mod digest;
pub mod discover;
pub mod duration;
pub mod export;
pub mod goss;
pub mod ignore;
pub mod image;
pub mod key;
pub mod layer;
pub mod names;
pub mod object;
pub mod path_index;
pub mod plan;
pub mod quantity;
pub mod recipe;
pub mod reference;
pub mod revision;
pub mod roster;
pub mod source;
pub mod tree;
pub mod workshop;
pub mod workspace;
pub mod yaml;
