//! Layer 4: what browsers and workspaces speak to: pages, the way to each workspace, the management API.
//!
//! It answers and passes on; what becomes of an instance is decided in `pipeline::workspace` and the operator.

mod access;
mod answer;
mod control;
mod events;
mod guard;
mod home;
pub mod management;
pub mod network;
mod owner_key;
mod pages;
mod proxy;
pub mod server;
pub mod socket;
mod workspace;

pub use access::TOKEN_TIME;
pub use guard::{Place, PublicUrl};
pub use owner_key::{OwnerKey, OwnerKeyError};
pub use server::{Gateway, Settings};
