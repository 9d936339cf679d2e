//! Layer 3: one file per arrow of the data flow, and the pairs of ends.

pub mod platform;
pub mod source;
