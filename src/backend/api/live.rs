//! What goes on: events, the terminal, more time, a new artifact, the counts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::auth::Caller;
use super::error::ApiError;
use super::view;
use super::with;
use crate::backend::app::App;
use crate::backend::metrics;
use crate::backend::store::{self, Source};
use crate::backend::terminal::{Access, Terminal};
use crate::domain::management::{ErrorBody, Extended};
use crate::domain::token::Role;

/// How often a stream without events shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

fn state_event(app: &App, role: Role) -> Event {
    let data = app.with(|live| serde_json::to_string(&view::state(app, live, role)).unwrap_or_default());
    Event::default().event("state").data(data.unwrap_or_else(|| "{}".to_owned()))
}

fn stream(app: Arc<App>, role: Role) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let listening = app.metrics.listener();
    let events = app.events.listen();
    let mut stopping = app.stopping();
    let first = state_event(&app, role);
    let rest = futures_util::stream::unfold((app, events, listening), move |(app, mut events, listening)| async move {
        let event = match events.recv().await {
            Ok(event) if event.name != "state" => Event::default().event(event.name).data(event.data),
            // Who missed something gets it all.
            Ok(_) | Err(RecvError::Lagged(_)) => state_event(&app, role),
            Err(RecvError::Closed) => return None,
        };
        Some((event, (app, events, listening)))
    });
    let end = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    futures_util::stream::once(async { first }).chain(rest).map(Ok).take_until(Box::pin(end))
}

/// What happens, as it happens: server-sent events `state`, `steps`, `progress`, `content`, `checks`, `transition`,
/// `terminal` and `message`. The first one is `state`.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn events(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, ApiError> {
    with(&app, |_| ())?;
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("");
    Ok(Sse::new(stream(app, caller.0.role)).keep_alive(keep_alive).into_response())
}

fn open_terminal(app: &App) -> Result<&Terminal, ApiError> {
    if !app.config.settings.access.web_terminal.enabled {
        let message = "this workshop offers no terminal in the browser";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "TerminalDisabled", message));
    }
    let terminal = app.machine.get().and_then(|machine| machine.terminal.as_ref());
    terminal.ok_or_else(|| ApiError::starting(app.failure()))
}

/// The terminal as a WebSocket: subprotocol `workshop.tty.v1`, or `tty` for clients of ttyd, also at `/ws`.
#[utoipa::path(get, path = "/api/v1/terminal", tag = "terminal", responses(
    (status = 101, description = "The connection is a WebSocket"),
    (status = 400, description = "No WebSocket, or no subprotocol that we speak", body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 426, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn terminal(
    State(app): State<Arc<App>>,
    _: Caller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let terminal = open_terminal(&app)?;
    let upgrade = upgrade.map_err(|rejection| {
        let status = rejection.status();
        ApiError::new(status, "NoWebSocket", rejection.body_text())
    })?;
    Ok(terminal.upgrade(upgrade, Access::ReadWrite))
}

/// What ttyd's clients ask for before they connect; ours is in the cookie or the `Authorization`.
#[utoipa::path(get, path = "/token", tag = "terminal", responses(
    (status = 200, body = serde_json::Value),
    (status = 401, body = ErrorBody),
))]
pub async fn ttyd_token(_: Caller) -> Json<serde_json::Value> {
    Json(json!({ "token": "" }))
}

/// A new shell in place of the one that ended or hangs.
#[utoipa::path(post, path = "/api/v1/terminal/restart", tag = "terminal", responses(
    (status = 204, description = "It is being started"),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn restart(State(app): State<Arc<App>>, _: Caller) -> Result<StatusCode, ApiError> {
    open_terminal(&app)?.restart();
    Ok(StatusCode::NO_CONTENT)
}

/// More time.
#[utoipa::path(post, path = "/api/v1/extend", tag = "state", responses(
    (status = 200, body = Extended),
    (status = 401, body = ErrorBody),
    (status = 403, description = "`ExtendRefused`", body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn extend(State(app): State<Arc<App>>, _: Caller) -> Result<Json<Extended>, ApiError> {
    let Some(management) = app.management.get() else {
        let message = "this workspace runs alone and has no end";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "ExtendRefused", message));
    };
    let extended = management.extend().await?;
    with(&app, |live| {
        if let Some(instance) = &mut live.instance {
            instance.expires_at.clone_from(&extended.expires_at);
        }
    })?;
    app.tell(&["state"]);
    Ok(Json(extended))
}

/// Live preview: other texts, checks, titles and another order of the same workshop; progress stays.
#[utoipa::path(put, path = "/api/v1/artifact", tag = "content",
    request_body(content = Vec<u8>, content_type = "application/vnd.sqlite3"), responses(
    (status = 204, description = "It is in place"),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 409, description = "`OtherWorkshop`, or `NoSuchStep`: the current step is not in it", body = ErrorBody),
    (status = 413, body = ErrorBody),
    (status = 422, description = "`BadArtifact`", body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn artifact(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    caller.must_help()?;
    let body = body?;
    let (workshop, step) = with(&app, |live| (live.workshop.id.clone(), live.step.clone()))?;
    let shared = Arc::clone(&app);
    let work = move || -> Result<(), ApiError> {
        let state = shared.config.state();
        let keeps = Some((workshop.as_str(), step.as_str()));
        let (store, workshop) = store::install(&state, &Source::Bytes(&body), &shared.config.instance, keeps)?;
        shared.replace(store, workshop);
        Ok(())
    };
    let broken = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Storage", "the artifact was not put in place");
    tokio::task::spawn_blocking(work).await.map_err(broken)??;
    Ok(StatusCode::NO_CONTENT)
}

/// The counts, for Prometheus.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "probes", responses(
    (status = 200, content_type = "application/openmetrics-text", body = String),
    (status = 401, body = ErrorBody),
))]
pub async fn metrics(State(app): State<Arc<App>>, _: Caller) -> Response {
    let terminal = app.machine.get().and_then(|machine| machine.terminal.as_ref()).map(Terminal::metrics);
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.encode(terminal)).into_response()
}
