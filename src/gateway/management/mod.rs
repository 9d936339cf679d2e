//! The management API of local mode and of the cluster: what a workspace asks of those who run it, `/management/v1/instances/{uid}/…`.
//!
//! Each request carries the workspace's own token and reaches its own instance only. What may be done is decided in
//! `pipeline::workspace`; the document that describes it is `openapi`.

mod answer;
mod openapi;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::domain::management::{
    Activity, ErrorBody, ExtendRequest, Extended, Instance, MAX_WAIT_SECONDS, ResetRequest, Session, Snapshot,
    StepRequest,
};
use crate::domain::token::{Role, TokenError};
use crate::pipeline::workspace::Workspaces;
use answer::{Refused, json};
pub use openapi::document;

/// The largest body of a request, in bytes: custom state at its limits, with every character escaped.
const MAX_BODY: usize = 2 << 20;

/// What answers the management API.
pub fn routes(workspaces: Workspaces) -> Router {
    let instance = Router::new()
        .route("/", get(read))
        .route("/sessions", post(claim))
        .route("/progress", put(write_progress))
        .route("/step", post(request_step))
        .route("/reset", post(request_reset))
        .route("/activity", post(report_activity))
        .route("/extend", post(extend))
        .route("/artifact/{digest}", get(artifact));
    Router::new()
        .route("/management/v1/openapi.json", get(async || json(StatusCode::OK, &document())))
        .nest("/management/v1/instances/{uid}", instance)
        .fallback(async || Refused::new(StatusCode::NOT_FOUND, "NoSuchPath", "the management API has no such path"))
        .method_not_allowed_fallback(async || {
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "the path has no such method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(workspaces)
}

/// Refuses who is not the workspace of the instance with this uid.
fn admit(workspaces: &Workspaces, headers: &HeaderMap, uid: &str) -> Result<(), Refused> {
    let unauthorized =
        |why: &str| Refused::new(StatusCode::UNAUTHORIZED, "Unauthorized", format!("the request is not let in: {why}"));
    let forbidden = |why: &str| Refused::new(StatusCode::FORBIDDEN, "Forbidden", why.to_owned());
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| unauthorized("it carries no bearer token"))?;
    let claims = match workspaces.verify_key()?.verify(bearer, uid, 0, Timestamp::now().as_second()) {
        Ok(claims) => claims,
        Err(TokenError::Audience) => return Err(forbidden("the token is for another instance")),
        Err(error) => return Err(unauthorized(&error.to_string())),
    };
    if claims.role == Role::Workspace { Ok(()) } else { Err(forbidden("only the workspace itself asks here")) }
}

/// Reads a body; an absent one is what `T` is without any field.
fn body<T: DeserializeOwned>(bytes: Result<Bytes, BytesRejection>) -> Result<T, Refused> {
    let bytes = bytes.map_err(|rejection| {
        let status = rejection.status();
        let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "TooLarge" } else { "Invalid" };
        Refused::new(status, code, rejection.body_text())
    })?;
    let text = if bytes.is_empty() { &b"{}"[..] } else { &bytes[..] };
    serde_json::from_slice(text)
        .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "Invalid", format!("the body cannot be read: {error}")))
}

#[derive(Debug, Deserialize)]
struct Poll {
    version: Option<String>,
    wait: Option<u64>,
}

/// The instance; waits until it differs from `version`, or `wait` seconds passed.
#[utoipa::path(get, path = "/management/v1/instances/{uid}", tag = "instance", params(
    ("uid" = String, Path, description = "The instance's uid."),
    ("version" = Option<String>, Query, description = "The version that the asker knows."),
    ("wait" = Option<u64>, Query, maximum = 25, description = "How many seconds to wait for another one."),
), responses(
    (status = 200, description = "The instance.", body = Instance),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role.", body = ErrorBody),
    (status = 404, description = "No such instance.", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
))]
async fn read(
    State(workspaces): State<Workspaces>,
    Path(uid): Path<String>,
    Query(poll): Query<Poll>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    let wait = Duration::from_secs(poll.wait.unwrap_or(0).min(MAX_WAIT_SECONDS));
    Ok(json(StatusCode::OK, &workspaces.told_after(&uid, poll.version.as_deref(), wait).await?))
}

/// A starting backend takes over: what older ones send is refused from then on.
#[utoipa::path(post, path = "/management/v1/instances/{uid}/sessions", tag = "session", params(
    ("uid" = String, Path, description = "The instance's uid."),
), responses(
    (status = 200, description = "The epoch, and all that is known.", body = Session),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role.", body = ErrorBody),
    (status = 404, description = "No such instance.", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
))]
async fn claim(
    State(workspaces): State<Workspaces>,
    Path(uid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    Ok(json(StatusCode::OK, &workspaces.claim(&uid).await?))
}

/// Keeps all progress in place of what was kept.
#[utoipa::path(put, path = "/management/v1/instances/{uid}/progress", tag = "session", params(
    ("uid" = String, Path, description = "The instance's uid."),
), request_body = Snapshot, responses(
    (status = 204, description = "It is kept."),
    (status = 400, description = "It cannot be read, or is more than is kept.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role.", body = ErrorBody),
    (status = 404, description = "No such instance.", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
    (status = 409, description = "Another backend took over, or a newer snapshot is kept (`StaleEpoch`).", body = ErrorBody),
    (status = 413, description = "The body is larger than any snapshot.", body = ErrorBody),
))]
async fn write_progress(
    State(workspaces): State<Workspaces>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    workspaces.write_progress(&uid, &body::<Snapshot>(bytes)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Asks for another step; its container takes the place of this one.
#[utoipa::path(post, path = "/management/v1/instances/{uid}/step", tag = "session", params(
    ("uid" = String, Path, description = "The instance's uid."),
), request_body = StepRequest, responses(
    (status = 202, description = "It is under way."),
    (status = 400, description = "It cannot be read.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role.", body = ErrorBody),
    (status = 404, description = "No such instance, or no such step (`NoSuchStep`).", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
    (status = 409, description = "Another backend took over, or the instance is being deleted.", body = ErrorBody),
))]
async fn request_step(
    State(workspaces): State<Workspaces>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    let StepRequest { step, epoch } = body(bytes)?;
    workspaces.request_step(&uid, epoch, &step).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Asks for the current step anew.
#[utoipa::path(post, path = "/management/v1/instances/{uid}/reset", tag = "session", params(
    ("uid" = String, Path, description = "The instance's uid."),
), request_body = ResetRequest, responses(
    (status = 202, description = "It is under way."),
    (status = 400, description = "It cannot be read.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role.", body = ErrorBody),
    (status = 404, description = "No such instance.", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
    (status = 409, description = "Another backend took over, or the instance is being deleted.", body = ErrorBody),
))]
async fn request_reset(
    State(workspaces): State<Workspaces>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    let ResetRequest { epoch } = body(bytes)?;
    workspaces.request_reset(&uid, epoch).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Says that the workspace is in use, which keeps it from falling asleep.
#[utoipa::path(post, path = "/management/v1/instances/{uid}/activity", tag = "session", params(
    ("uid" = String, Path, description = "The instance's uid."),
), request_body = Activity, responses(
    (status = 204, description = "It counts."),
    (status = 400, description = "It cannot be read.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role.", body = ErrorBody),
    (status = 404, description = "No such instance.", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
))]
async fn report_activity(
    State(workspaces): State<Workspaces>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    let Activity { at } = body(bytes)?;
    let at = at.parse().map_err(|_| {
        Refused::new(StatusCode::BAD_REQUEST, "Invalid", "`at` is no moment such as 2027-01-31T12:00:00Z")
    })?;
    workspaces.touch(&uid, at).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Asks for more time, within the learner's limit.
#[utoipa::path(post, path = "/management/v1/instances/{uid}/extend", tag = "session", params(
    ("uid" = String, Path, description = "The instance's uid."),
), request_body = ExtendRequest, responses(
    (status = 200, description = "The new end.", body = Extended),
    (status = 400, description = "It cannot be read.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role, or no more time is given (`ExtendRefused`).", body = ErrorBody),
    (status = 404, description = "No such instance.", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
    (status = 409, description = "The instance is being deleted.", body = ErrorBody),
))]
async fn extend(
    State(workspaces): State<Workspaces>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    let ExtendRequest { seconds } = body(bytes)?;
    let end = workspaces.request_extension(&uid, seconds.map(Duration::from_secs)).await?;
    Ok(json(StatusCode::OK, &Extended { expires_at: Some(end) }))
}

/// The artifact that the instance is pinned to.
#[utoipa::path(get, path = "/management/v1/instances/{uid}/artifact/{digest}", tag = "instance", params(
    ("uid" = String, Path, description = "The instance's uid."),
    ("digest" = String, Path, description = "The pinned artifact's digest, `sha256:` and 64 hex digits."),
), responses(
    (status = 200, description = "The SQLite file.", body = Vec<u8>, content_type = "application/vnd.sqlite3"),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "A token of another instance or role.", body = ErrorBody),
    (status = 404, description = "No such instance, or another artifact than the pinned one.", body = ErrorBody),
    (status = 503, description = "Not now, the same again may succeed.", body = ErrorBody),
))]
async fn artifact(
    State(workspaces): State<Workspaces>,
    Path((uid, digest)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    admit(&workspaces, &headers, &uid)?;
    let bytes = workspaces.artifact(&uid, &digest).await?;
    Ok(([(header::CONTENT_TYPE, "application/vnd.sqlite3")], Body::from(bytes)).into_response())
}
