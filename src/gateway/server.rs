//! The server of a state directory or a cluster: its routes over TCP, what they share, and listening.
//!
//! It puts the layers in order; each answer is made in a module of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::serve::ListenerExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::net::TcpListener;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::access::Guesses;
use super::guard::Place;
use super::owner_key::OwnerKey;
use super::{answer, control, guard, home, workspace};
use crate::pipeline::workspace::Workspaces;

/// The port that is tried first.
const PORT: u16 = 8080;
/// How many ports after it are tried.
const PORTS: u16 = 100;
/// How long open requests may take to end once the program is to end.
const GRACE: Duration = Duration::from_secs(1);

/// A log as it comes.
pub type Lines = BoxStream<'static, Result<Bytes, axum::BoxError>>;

/// Opens the log of the workspace with this uid; true follows it.
pub type Logs = Arc<dyn Fn(String, bool) -> BoxFuture<'static, Result<Lines, axum::BoxError>> + Send + Sync>;

/// What the gateway is made of.
pub struct Settings {
    /// The instances and templates.
    pub workspaces: Workspaces,
    /// Reads their logs; none where nothing is run.
    pub logs: Option<Logs>,
    /// Opens everything.
    pub owner: OwnerKey,
    /// Whose workspaces are those that name nobody: the person of this machine.
    pub person: String,
    /// Ends streams and connections.
    pub stop: CancellationToken,
}

/// The gateway: a cheap clone of what its routes share.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    settings: Settings,
    place: Place,
    guesses: Guesses,
}

impl Gateway {
    /// The gateway of this place; instances are shown with addresses below it from now on.
    #[must_use]
    pub fn new(settings: Settings, place: Place) -> Self {
        let gateway = Self(Arc::new(Inner { settings, place, guesses: Guesses::default() }));
        gateway.workspaces().set_base(&gateway.url());
        gateway
    }

    /// The address it listens on.
    #[must_use]
    pub fn listening(&self) -> SocketAddr {
        self.0.place.listening()
    }

    /// Its address for a browser, with a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.place.url()
    }

    /// The address that opens everything; its secret is in the fragment, which browsers never send.
    #[must_use]
    pub fn owner_url(&self) -> String {
        format!("{}#key={}", self.url(), self.0.settings.owner.text())
    }

    pub(super) fn place(&self) -> &Place {
        &self.0.place
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) fn workspaces(&self) -> &Workspaces {
        &self.0.settings.workspaces
    }

    pub(super) fn guesses(&self) -> &Guesses {
        &self.0.guesses
    }

    /// Everything that browsers may ask.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/", get(home::page))
            .route("/session", post(home::session))
            .route("/assets/{*path}", get(home::asset))
            .route("/healthz", get(async || "ok\n"))
            .nest(
                "/control/v1",
                control::routes().layer(middleware::from_fn_with_state(self.clone(), home::owner_only)),
            )
            .route("/w/{name}", get(workspace::with_slash))
            // Not nested: the proxy passes paths on as they came, and a nest would cut them.
            .route("/w/{name}/", get(workspace::page))
            .route("/w/{name}/session", post(workspace::session))
            .route("/w/{name}/assets/{*path}", get(home::asset))
            .nest("/w/{name}/gateway/v1", workspace::routes())
            .route("/w/{name}/api/v1/{*rest}", any(workspace::api))
            .route("/w/{name}/ws", any(workspace::api))
            .route("/w/{name}/token", any(workspace::api))
            .fallback(home::not_found)
            .method_not_allowed_fallback(answer::wrong_method)
            .layer(middleware::from_fn_with_state(self.clone(), guard::check))
            .layer(middleware::from_fn(secure))
            .layer(middleware::from_fn(log))
            .with_state(self.clone())
    }

    /// The control API alone, for a socket that only the owner reaches.
    pub fn control_routes(&self) -> Router {
        Router::new()
            .nest("/control/v1", control::routes())
            .fallback(home::not_found)
            .method_not_allowed_fallback(answer::wrong_method)
            .layer(middleware::from_fn(log))
            .with_state(self.clone())
    }
}

async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    answer::secure(response.headers_mut());
    response
}

/// Logs what was asked and answered: the path only, never a query, a header or a body.
async fn log(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), took = ?start.elapsed(), "answered");
    response
}

/// Listens on `wish`, else on port 8080 of the loopback address or the next free one.
pub async fn listen(wish: Option<SocketAddr>) -> io::Result<TcpListener> {
    if let Some(address) = wish {
        return TcpListener::bind(address).await;
    }
    for port in PORT..PORT + PORTS {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {}
            bound => return bound,
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Serves over TCP until the gateway is stopped, then lets open requests end for a moment.
pub async fn serve(gateway: Gateway, listener: TcpListener) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // A key press is one small segment; it must not wait for the next.
        let _ = stream.set_nodelay(true);
    });
    serve_until(listener, gateway.routes(), gateway.settings().stop.clone()).await
}

pub(super) async fn serve_until<L>(listener: L, routes: Router, stop: CancellationToken) -> io::Result<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = serving.into_future();
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = stop.cancelled() => {}
    }
    // What does not end in time is cut off when the future is dropped.
    tokio::time::timeout(GRACE, serving).await.unwrap_or(Ok(()))
}

/// The state of the gateway in a handler.
pub(super) type Shared = State<Gateway>;
