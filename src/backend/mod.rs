//! Layer 4: the program inside every step image.
//!
//! Static and alone: it needs nothing of the image it runs in, knows Kubernetes, registries and Git not at
//! all, and of this library imports only `domain` and `pages`. What happens in which order is `start`; what all
//! requests share is `app`; what they ask is `api`.

mod api;
mod app;
pub mod checks;
mod config;
mod content;
mod events;
pub mod exec;
mod files;
mod keys;
mod learner;
mod listen;
mod management;
mod metrics;
mod own_cluster;
mod probes;
mod reaper;
mod session;
mod start;
mod store;
pub mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use rustix::process::DumpableBehavior;
use tokio::signal::unix::{SignalKind, signal};

pub use crate::domain::chain::line as chain;
pub use config::ConfigError;
pub use keys::KeyError;
pub use listen::{Listen, ListenError};

use app::App;
use config::Config;

/// How long open connections may take to finish after SIGTERM; the whole end must stay below two seconds.
const GRACE: Duration = Duration::from_millis(1500);
/// How long the last progress may take to be handed over.
const LAST_WORDS: Duration = Duration::from_millis(1000);
/// The hidden mode that stands in for a shell where the image has none.
const NO_SHELL_MODE: &str = "no-shell";

/// Why the program could not run.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The environment is not that of the container contract.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A signal handler could not be installed.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    /// There is no key to sign with.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Runs a mode of the program that its arguments ask for; `None` where it is to serve.
///
/// To be called before any thread, handler or runtime exists.
pub fn run_mode_if_asked() -> Option<ExitCode> {
    exec::run_if_asked().or_else(files::run_if_asked).or_else(say_that_there_is_no_shell)
}

#[expect(clippy::print_stdout, reason = "standard output is the terminal")]
fn say_that_there_is_no_shell() -> Option<ExitCode> {
    if std::env::args_os().nth(1).as_deref() != Some(std::ffi::OsStr::new(NO_SHELL_MODE)) {
        return None;
    }
    println!(
        "This image has no shell.\r\nThe workshop's author can add one, or name one in access.webTerminal.shell.\r"
    );
    Some(ExitCode::from(127))
}

/// An address that lets the owner of this container in, who runs it without anybody else; `role` is `learner` or
/// `instructor`.
pub fn owners_address(role: Option<&str>) -> Result<String, BackendError> {
    Ok(keys::address(&Config::from_environment()?, role)?)
}

/// Serves until SIGTERM or SIGINT, and reaps whatever process ends up as its child.
pub async fn run() -> Result<(), BackendError> {
    // All before listening: nobody may see the program up before it keeps its promises.
    let mut terminate = signal(SignalKind::terminate()).map_err(BackendError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BackendError::Signals)?;
    let config = Config::from_environment()?;
    reaper::start().map_err(BackendError::Signals)?;
    // Memory holds tokens and specs: nobody attaches to it who is not root anyway.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);

    let listener = config.listen.clone().bind().await?;
    tracing::info!(address = %listener, "listening");
    let app = App::new(config);
    let serving = tokio::spawn(listener.serve(api::routes(std::sync::Arc::clone(&app)), app.stopping()));
    let started = tokio::spawn(start::run(std::sync::Arc::clone(&app)));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    started.abort();
    app.stop();
    let terminal = app.machine.get().and_then(|machine| machine.terminal.clone());
    let hang_up = async {
        if let Some(terminal) = terminal {
            terminal.end().await;
        }
    };
    // A client that keeps its connection open must not keep the container alive.
    let _ = tokio::join!(
        tokio::time::timeout(GRACE, serving),
        tokio::time::timeout(LAST_WORDS, app.hand_over()),
        tokio::time::timeout(GRACE, hang_up),
    );
    Ok(())
}
