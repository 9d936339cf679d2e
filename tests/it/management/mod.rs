//! The management API: one suite of requests and expectations, and the implementations that it is run against.

mod cluster;
mod local;
mod suite;
mod world;
