//! What every verb is given: the state directory, the printer and the cluster flags.

use std::path::PathBuf;

use super::{Exit, Failure, Global, Printer};

/// What every verb is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// The state directory; it may not exist yet.
    pub state: PathBuf,
    /// Writes results and talk.
    pub printer: Printer,
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub kube_context: Option<String>,
    /// `--namespace`.
    pub namespace: Option<String>,
}

impl Context {
    /// The context that the global flags describe; starts logging to standard error.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        start_logging(global);
        let state = match &global.state {
            Some(state) => std::path::absolute(state)
                .map_err(|error| Failure::outside(format!("failed to make \"{}\" absolute", state.display()), error))?,
            None => default_state().ok_or_else(|| {
                Failure::new(Exit::Usage, "there is no home directory to keep the state in").help("give --state DIR")
            })?,
        };
        Ok(Self {
            state,
            printer: Printer::new(global),
            kubeconfig: global.kubeconfig.clone(),
            kube_context: global.context.clone(),
            namespace: global.namespace.clone(),
        })
    }
}

/// The XDG data directory's `workshop`.
fn default_state() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("workshop"))
}

fn start_logging(global: &Global) {
    use tracing_subscriber::EnvFilter;
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        // What a failed request was is told by whoever sent it, and better.
        (_, 0) => "warn,kube_client=off",
        (_, 1) => "workshop=info,warn",
        (_, 2) => "workshop=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("WORKSHOP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
