//! What the operator asks of a runtime; tests stand in for one here.
//!
//! The runtimes themselves are behind `pipeline::runtime_end`.

use std::future::Future;
use std::time::Duration;

use crate::domain::container::{Found, WorkspaceSpec};

/// What the operator asks of a runtime; errors are told to people as they are.
pub trait Containers: Clone + Send + Sync + 'static {
    /// Brings an image to where containers are started from.
    fn prepare(&self, image: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// Starts a container; returns once its first process runs.
    fn start(&self, spec: &WorkspaceSpec, fingerprint: &str) -> impl Future<Output = Result<Found, String>> + Send;
    /// Ends a container and removes all of it.
    fn stop(&self, uid: &str, grace: Duration) -> impl Future<Output = Result<(), String>> + Send;
    /// All containers.
    fn list(&self) -> impl Future<Output = Result<Vec<Found>, String>> + Send;
    /// The end of what a container printed; empty where nothing is known.
    fn last_words(&self, uid: &str) -> impl Future<Output = String> + Send;
}
