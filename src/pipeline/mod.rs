//! Layer 3: one file per arrow of the data flow, and the pairs of ends.

pub mod export;
pub mod import;
pub mod platform;
pub mod source;
