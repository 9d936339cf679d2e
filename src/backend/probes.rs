//! The two probes: the only requests that need no token, besides the way in.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};

use super::app::App;

const NO_STORE: [(axum::http::HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()), responses(
    (status = 200, description = "The process is alive", body = String, content_type = "text/plain"),
))]
pub async fn alive() -> Response {
    (NO_STORE, "ok\n").into_response()
}

/// A learner can be let in.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()), responses(
    (status = 200, description = "A learner can be let in", body = String, content_type = "text/plain"),
    (status = 503, description = "Why not", body = String, content_type = "text/plain"),
))]
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.failure() {
        None => (NO_STORE, "ok\n").into_response(),
        Some(failure) => (StatusCode::SERVICE_UNAVAILABLE, NO_STORE, format!("{failure}\n")).into_response(),
    }
}
