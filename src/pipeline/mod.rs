//! Layer 3: one file per arrow of the data flow, and the pairs of ends.

pub mod base;
pub mod compile;
pub mod distribute;
pub mod export;
pub mod image_end;
pub mod image_store;
pub mod import;
pub mod object_end;
pub mod place_artifact;
pub mod platform;
pub mod runtime_end;
pub mod share_artifact;
pub mod side;
pub mod source;
pub mod sync;
pub mod upstream;
pub mod workspace;
