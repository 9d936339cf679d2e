//! Layer 4: the program inside every step image.
//!
//! Static and alone: it needs nothing of the image it runs in, knows Kubernetes, registries and Git not at
//! all, and of this library imports only `domain`.

pub mod checks;
pub mod exec;
mod listen;
mod probes;
mod reaper;
pub mod terminal;

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use listen::{Listen, ListenError};

/// How long open connections may take to finish after SIGTERM; the whole end must stay below two seconds.
const GRACE: Duration = Duration::from_millis(1500);

/// Why the program could not run.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// `WORKSHOP_LISTEN` is wrong, or its address is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A signal handler could not be installed.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
}

/// Serves until SIGTERM or SIGINT, and reaps whatever process ends up as its child.
pub async fn run() -> Result<(), BackendError> {
    // Both before listening: nobody may see the program up before it keeps its promises.
    let mut terminate = signal(SignalKind::terminate()).map_err(BackendError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BackendError::Signals)?;
    reaper::start().map_err(BackendError::Signals)?;

    let listener = Listen::from_environment()?.bind().await?;
    tracing::info!(address = %listener, "listening");
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(listener.serve(probes::routes(), stopping));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    stop.send_replace(true);
    // A client that keeps its connection open must not keep the container alive.
    let _ = tokio::time::timeout(GRACE, serving).await;
    Ok(())
}
