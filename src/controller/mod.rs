//! Layer 4: the reconciler of WorkshopRepository objects.
//!
//! One process leads; it watches the repositories and their objects and gives each repository a worker of its own.
//! A worker's five beats are in `repository`: dereference, validate, build, apply, status. What a failure leads to is
//! decided in `outcome` alone. All knowledge of Git, images and plans is in the pipeline.

mod drift;
mod http;
mod leader;
mod metrics;
mod outcome;
mod repository;
mod state;
mod supervisor;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::adapters::cluster::{self, Cluster};
use crate::adapters::store::{self, Store};
use crate::pipeline::platform::Platform;

/// Everything that a person sets.
#[derive(Clone)]
pub struct Options {
    /// The state directory, which is locked.
    pub state: PathBuf,
    /// Where health and metrics are served; none takes a free port of this machine when the usual one is busy.
    pub listen: Option<SocketAddr>,
    /// What goes on top of every image.
    pub platform: Option<Arc<Platform>>,
    /// Whether the commands of recipes run here.
    pub allow_commands: bool,
    /// Whether registries may be entered with this user's own Docker credentials; never in a pod.
    pub docker_credentials: bool,
    /// How many repositories are brought in at once.
    pub concurrency: usize,
    /// What else is done while this process leads.
    pub beside: Option<Beside>,
}

/// Work of another front that goes on only while this process leads, and what it counts.
#[derive(Clone)]
pub struct Beside {
    /// Works until the token is cancelled, then ends by itself.
    pub work: Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Adds its metrics to those that are served.
    pub register: Arc<dyn Fn(&mut Registry) + Send + Sync>,
}

/// Why the controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory is used by another process or cannot be used.
    #[error("failed to use the state directory \"{}\"", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its store cannot be opened.
    #[error("failed to open the store in the state directory")]
    Store(#[source] store::Error),
    /// The address for health and metrics cannot be used.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The lease cannot be had.
    #[error("failed to become the one that writes")]
    Lead(#[source] cluster::Error),
}

/// What all parts of the controller share.
pub(crate) struct Shared {
    cluster: Cluster,
    store: Arc<Store>,
    options: Options,
    metrics: metrics::Metrics,
    /// Syncs under way at once.
    permits: tokio::sync::Semaphore,
}

/// How long the workers may take to end before they are cut off.
const GRACE: Duration = Duration::from_secs(5);

/// Runs until `stop` is cancelled; `started` is told where health and metrics are.
pub async fn run(
    cluster: Cluster,
    options: Options,
    stop: CancellationToken,
    started: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let state =
        state::State::open(&options.state).map_err(|source| Error::State { path: options.state.clone(), source })?;
    let store = Arc::new(Store::open(&options.state).map_err(Error::Store)?);
    let permits = tokio::sync::Semaphore::new(options.concurrency.max(1));
    let metrics = metrics::Metrics::new(|registry| {
        if let Some(beside) = &options.beside {
            (beside.register)(registry);
        }
    });
    let shared = Arc::new(Shared { cluster, store, options, metrics, permits });
    let (address, serving) = http::serve(Arc::clone(&shared)).await?;
    started(address);
    let led = leader::lead(&shared, state.identity(), &stop, |lost| {
        let shared = Arc::clone(&shared);
        async move {
            let beside = shared.options.beside.clone();
            let other = async {
                if let Some(beside) = beside {
                    (beside.work)(lost.clone()).await;
                }
            };
            tokio::join!(supervisor::supervise(Arc::clone(&shared), lost.clone()), other);
        }
    });
    let result = led.await;
    serving.abort();
    result
}
