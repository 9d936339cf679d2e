//! What `up` and `run` have in common: workspaces are run, their management API and the gateway are served.
//!
//! It starts the fronts in order and ends them in the opposite one; what they do is their own matter.

use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Context, Exit, Failure};
use crate::domain::lifecycle::Event;
use crate::gateway::{Gateway, OwnerKey, Place, Settings, management, network, server, socket};
use crate::operator::local;
use crate::pipeline::runtime_end::{Capabilities, ManagementReach, RuntimeChoice, RuntimeEnd};
use crate::pipeline::upstream::control_socket;
use crate::pipeline::workspace::Workspaces;

/// How long the servers may take to end.
const GRACE: Duration = Duration::from_secs(2);
/// So many files may be open at once: each learner has a handful of connections. Workspaces inherit the limit, and old
/// programs in them close every number below it, so it is not the highest that is allowed.
const OPEN_FILES: u64 = 1 << 16;

/// The file of a state directory that names the runtime which ran its workspaces last.
pub const RUNTIME: &str = "runtime";

/// How workspaces are run and served.
#[derive(Debug, Clone, clap::Args)]
pub struct ServingFlags {
    /// Address and port to serve on [default: 127.0.0.1:8080, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// What runs workspaces: docker, podman or native [default: the first of them that is there]
    #[arg(long, value_name = "NAME", env = "WORKSHOP_RUNTIME")]
    pub runtime: Option<RuntimeChoice>,
}

/// Running workspaces and their servers.
pub struct Serving {
    /// The gateway.
    pub gateway: Gateway,
    /// What the runtime can do.
    pub runtime: Capabilities,
    operator: JoinHandle<()>,
    fronts: Vec<JoinHandle<std::io::Result<()>>>,
    management: Vec<JoinHandle<std::io::Result<()>>>,
    /// Ends the management API, after all workspaces: each flushes its progress at its end.
    last: CancellationToken,
}

impl Serving {
    /// Runs the workspaces of the state directory and serves them until `stop`.
    pub async fn start(
        workspaces: Workspaces,
        flags: &ServingFlags,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let state = workspaces.state().to_owned();
        let store = workspaces.store().cloned().ok_or_else(|| {
            Failure::new(Exit::Usage, "the workspaces of a cluster are run by the cluster")
                .help("`workshop controller` runs them")
        })?;
        raise_open_files();
        let runtime = RuntimeEnd::detect(flags.runtime, &state).await.map_err(|error| {
            Failure::from_error(Exit::Outside, error)
                .help("install docker, podman or runc, or give --no-run to bring workshops in without running them")
        })?;
        let capabilities = runtime.describe();
        let used = state.join(RUNTIME);
        std::fs::write(&used, capabilities.name)
            .map_err(|error| Failure::outside(format!("failed to write \"{}\"", used.display()), error))?;
        let owner = OwnerKey::read_or_make(&state).map_err(|error| Failure::from_error(Exit::Outside, error))?;
        let listener = server::listen(flags.listen).await.map_err(|error| {
            let address = flags.listen.map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string());
            Failure::outside(format!("failed to listen on {address}"), error)
        })?;
        let listening = listener.local_addr().map_err(|error| Failure::outside("failed to read the port", error))?;
        let last = CancellationToken::new();
        let (management, management_socket, management_url) =
            serve_management(&workspaces, &state, &capabilities.management, &last).await?;

        let logs = runtime.clone();
        let settings = Settings {
            workspaces: workspaces.clone(),
            logs: Some(Arc::new(move |uid, follow| {
                let runtime = logs.clone();
                async move { Ok(runtime.logs(&uid, follow).await?.map_err(axum::BoxError::from).boxed()) }.boxed()
            })),
            owner,
            person: super::workspace::person(),
            stop: stop.clone(),
        };
        let gateway = Gateway::new(settings, Place::new(listening, None));
        let path = control_socket(&state);
        let control = socket::OwnSocket::bind(&path).map_err(|error| cannot_bind(&path, error))?;
        let fronts = vec![
            tokio::spawn(server::serve(gateway.clone(), listener)),
            tokio::spawn(socket::serve(gateway.clone(), control)),
        ];
        let printer = context.printer.clone();
        let settings = local::Settings {
            workspaces,
            store,
            runtime,
            management_socket,
            management_url,
            stop: stop.clone(),
            listener: Arc::new(move |name, event| tell(&printer, name, event)),
        };
        let operator = tokio::spawn(local::run(settings));
        Ok(Self { gateway, runtime: capabilities, operator, fronts, management, last })
    }

    /// Waits until everything has ended after `stop`; asked a second time to end, it leaves the rest behind. True when
    /// nothing was left.
    pub async fn end(self, context: &Context) -> bool {
        let ending = async {
            // Told to end by the same token, the operator ends all workspaces first.
            let _ = self.operator.await;
            self.last.cancel();
            let servers = self.fronts.into_iter().chain(self.management);
            let _ = tokio::time::timeout(GRACE, futures_util::future::join_all(servers)).await;
        };
        tokio::select! {
            () = ending => true,
            () = super::ending() => {
                context.printer.talk_always("ended at once; the next start takes over what still runs");
                false
            }
        }
    }
}

/// Lets this program have more files open than a shell gives it; where that is refused, it goes on with those.
pub(super) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, "failed to raise the number of files that may be open");
    }
}

/// The management API where the runtime's containers reach it: its sockets' tasks, its Unix socket, its URL.
async fn serve_management(
    workspaces: &Workspaces,
    state: &Path,
    reach: &ManagementReach,
    stop: &CancellationToken,
) -> Result<(Vec<JoinHandle<std::io::Result<()>>>, Option<PathBuf>, Option<String>), Failure> {
    let routes = management::routes(workspaces.clone());
    // Alone in its directory: that is what containers are given.
    let directory = state.join("management");
    let path = directory.join("api.sock");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|error| Failure::outside(format!("failed to create \"{}\"", directory.display()), error))?;
    let listener = bind_unix(&path).map_err(|error| cannot_bind(&path, error))?;
    let unix = axum::serve(listener, routes.clone()).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut tasks = vec![tokio::spawn(unix.into_future())];
    let url = match reach {
        ManagementReach::Socket => None,
        ManagementReach::Network { listen, host } => {
            let failed = |error| Failure::outside(format!("failed to listen on {listen} for workspaces"), error);
            let listener = network::listen(*listen, &state.join("management.port")).map_err(failed)?;
            let port = listener.local_addr().map_err(failed)?.port();
            tasks.push(tokio::spawn(network::serve(listener, routes, stop.clone())));
            Some(format!("http://{host}:{port}"))
        }
    };
    Ok((tasks, Some(path), url))
}

fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Root of a container may be another user here; who reaches the socket is decided by its directory.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn cannot_bind(path: &Path, error: std::io::Error) -> Failure {
    Failure::outside(format!("failed to listen on \"{}\"", path.display()), error)
        .help("the path of a socket has at most 107 characters: a state directory nearer to the root helps")
}

/// Says what happens to workspaces.
fn tell(printer: &super::Printer, name: &str, event: &Event) {
    printer.talk(&format!("{name}: {}", event.message));
}
