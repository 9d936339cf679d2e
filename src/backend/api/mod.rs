//! The API of a workspace, `<base>api/v1`, and the pages beside it.
//!
//! One table of routes; each handler asks `app` and says what it says in the shapes of `view`.

mod auth;
mod checks;
mod custom;
mod error;
mod files;
mod live;
mod navigate;
pub mod openapi;
mod pages;
mod steps;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post, put};
use serde::de::DeserializeOwned;

pub use error::ApiError;
pub use view::progress as progress_view;

use super::app::{App, Live};
use super::files::MAX_CONTENT;
use super::probes;
use super::store::MAX_BYTES;

/// The largest body where nothing else is said, in bytes.
const MAX_BODY: usize = 64 << 10;

type Routes = Vec<(&'static str, MethodRouter<Arc<App>>)>;

/// All routes below the base path, without its slash.
fn table() -> Routes {
    let content = get(files::read).put(files::write).layer(DefaultBodyLimit::max(MAX_CONTENT));
    let artifact = put(live::artifact).layer(DefaultBodyLimit::max(usize::try_from(MAX_BYTES).unwrap_or(usize::MAX)));
    vec![
        ("healthz", get(probes::alive)),
        ("readyz", get(probes::ready)),
        ("session", post(pages::session)),
        ("token", get(live::ttyd_token)),
        ("ws", get(live::terminal)),
        ("api/v1/state", get(steps::state)),
        ("api/v1/steps", get(steps::steps)),
        ("api/v1/steps/{id}", get(steps::step)),
        ("api/v1/navigate", post(navigate::navigate)),
        ("api/v1/validate", get(checks::last).post(checks::run)),
        ("api/v1/progress", get(steps::progress)),
        ("api/v1/custom-state", get(custom::all)),
        ("api/v1/custom-state/{key}", get(custom::one).put(custom::set).delete(custom::remove)),
        ("api/v1/files", get(files::list).delete(files::remove)),
        ("api/v1/files/content", content),
        ("api/v1/files/directory", post(files::make_directory)),
        ("api/v1/files/move", post(files::rename)),
        ("api/v1/files/archive", get(files::archive)),
        ("api/v1/terminal", get(live::terminal)),
        ("api/v1/terminal/restart", post(live::restart)),
        ("api/v1/events", get(live::events)),
        ("api/v1/extend", post(live::extend)),
        ("api/v1/artifact", artifact),
        ("api/v1/assets/{*path}", get(pages::picture)),
        ("api/v1/openapi.json", get(openapi::document)),
        ("api/v1/metrics", get(live::metrics)),
    ]
}

/// Everything that the backend answers.
pub fn routes(app: Arc<App>) -> Router {
    let base = app.config.base_path.clone();
    let mut router = Router::new()
        .route(&base, get(pages::workspace))
        .route(&format!("{base}assets/{{*path}}"), get(pages::page_asset))
        .route("/metrics", get(live::metrics));
    for (path, methods) in table() {
        router = router.route(&format!("{base}{path}"), methods);
    }
    if base != "/" {
        // Probes come from who runs the container, and know no gateway.
        router = router.route("/healthz", get(probes::alive)).route("/readyz", get(probes::ready));
    }
    router
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this route does not take that method")
        })
        .fallback(|| async { ApiError::not_found() })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&app), auth::guard))
        .with_state(app)
}

/// A JSON body.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("the body cannot be read: {error}")))
}

/// A query, whose errors are in the shape of all others.
struct Parameters<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<App>) -> Result<Self, ApiError> {
        let Query(parameters) = Query::from_request_parts(parts, state).await?;
        Ok(Self(parameters))
    }
}

/// How long a request waits for what was kept of this workspace.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until it is known what was kept of this workspace: what is written before would take the place of it.
async fn session(app: &App) -> Result<(), ApiError> {
    if app.has_session(PATIENCE).await {
        return Ok(());
    }
    let message = "what was kept of this workspace is not known yet".to_owned();
    Err(ApiError::starting(Some(message)).help("try again in a moment"))
}

/// Works on the open workshop, or says that it is not open.
fn with<R>(app: &App, work: impl FnOnce(&mut Live) -> R) -> Result<R, ApiError> {
    app.with(work).ok_or_else(|| ApiError::starting(app.failure()))
}

#[cfg(test)]
mod tests;
