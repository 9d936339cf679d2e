//! Health and metrics on one port: `/healthz`, `/readyz`, `/metrics`. Nothing else is served, nothing is changed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Error, Shared};

/// The port that is tried first when nobody names one.
const PORT: u16 = 8080;

/// Starts to serve; gives the address that was taken.
pub(super) async fn serve(shared: Arc<Shared>) -> Result<(SocketAddr, JoinHandle<()>), Error> {
    let listener = match shared.options.listen {
        Some(address) => listen(address).await?,
        None => match listen((Ipv4Addr::LOCALHOST, PORT).into()).await {
            Ok(listener) => listener,
            Err(_) => listen((Ipv4Addr::LOCALHOST, 0).into()).await?,
        },
    };
    let address =
        listener.local_addr().map_err(|source| Error::Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), source })?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let serving = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "health and metrics are not served any more");
        }
    });
    Ok((address, serving))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// A replica that waits for the lease is ready too: it is where it should be.
async fn ready(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    if shared.metrics.is_leading() && !shared.metrics.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the repositories are not known yet\n");
    }
    (StatusCode::OK, "ok\n")
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], shared.metrics.render())
}
