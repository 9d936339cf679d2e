//! The two probes: the only requests that need no token.

use axum::Router;
use axum::http::header::CACHE_CONTROL;
use axum::routing::get;

const NO_STORE: [(axum::http::HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// `/healthz` says that the process is alive, `/readyz` that a learner can be let in.
pub fn routes() -> Router {
    Router::new()
        .route("/healthz", get(|| async { (NO_STORE, "ok\n") }))
        .route("/readyz", get(|| async { (NO_STORE, "ok\n") }))
}
