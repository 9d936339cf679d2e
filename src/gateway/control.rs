//! The control API `/control/v1`: workshops and instances, listed, made, changed and ended.
//!
//! The same routes serve the owner's browser and the control socket. Each is one operation of `pipeline::workspace`.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;

use super::access::TOKEN_TIME;
use super::answer::{Body, Refusal};
use super::events;
use super::server::{Gateway, Shared};
use crate::domain::chain;
use crate::domain::roster::owner_part;
use crate::domain::token::Role;
use crate::pipeline::workspace::{Class, CreateRequest, Error, InstanceView};

/// The routes, without a word on who may ask.
pub fn routes() -> Router<Gateway> {
    Router::new()
        .route("/workshops", get(workshops))
        .route("/instances", get(instances).post(create))
        .route("/instances/{name}", get(instance).delete(delete))
        .route("/instances/{name}/goto", post(goto))
        .route("/instances/{name}/reset", post(reset))
        .route("/instances/{name}/suspend", post(suspend))
        .route("/instances/{name}/resume", post(resume))
        .route("/instances/{name}/extend", post(extend))
        .route("/instances/{name}/update", post(update))
        .route("/instances/{name}/logs", get(logs))
        .route("/instances/{name}/open", post(open))
        .route("/events", get(async |State(gateway): Shared| events::of_everything(gateway)))
}

/// How an operation's error is told.
pub fn refusal(error: Error) -> Refusal {
    let message = chain::messages(&error).join(": ");
    let status = match error.class() {
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::Invalid => StatusCode::BAD_REQUEST,
        Class::Refused if error.code() == "ExtendRefused" => StatusCode::FORBIDDEN,
        Class::Refused => StatusCode::CONFLICT,
        Class::Outside => StatusCode::INTERNAL_SERVER_ERROR,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal { help: error.help().map(str::to_owned), ..Refusal::new(status, error.code(), message) }
}

/// The instance as it is now that something was asked of it.
pub fn accepted(changed: Result<InstanceView, Error>) -> Result<Response, Refusal> {
    let view = changed.map_err(refusal)?;
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

async fn found(gateway: &Gateway, name: &str) -> Result<InstanceView, Refusal> {
    gateway.workspaces().get(name).await.map_err(refusal)?.ok_or_else(|| Refusal::no_such_instance(name))
}

async fn workshops(State(gateway): Shared) -> Result<Response, Refusal> {
    let workshops = gateway.workspaces().templates().await.map_err(refusal)?;
    Ok(Json(json!({ "workshops": workshops })).into_response())
}

async fn instances(State(gateway): Shared) -> Result<Response, Refusal> {
    let instances = gateway.workspaces().list().await.map_err(refusal)?;
    Ok(Json(json!({ "instances": instances })).into_response())
}

async fn create(State(gateway): Shared, Body(mut request): Body<CreateRequest>) -> Result<Response, Refusal> {
    // The page names nobody, and asking twice is no mistake there.
    if request.owner.trim().is_empty() && request.count.is_none() {
        request.owner.clone_from(&gateway.settings().person);
        if request.name.is_none() {
            request.name = free_name(&gateway, &request).await.map_err(refusal)?;
        }
    }
    let made = gateway.workspaces().create(&request).await.map_err(refusal)?;
    Ok((StatusCode::CREATED, Json(json!({ "instances": made }))).into_response())
}

/// A name with a number where the plain one is taken; none where it is free, or no number is.
async fn free_name(gateway: &Gateway, request: &CreateRequest) -> Result<Option<String>, Error> {
    let prefix = request.prefix.as_deref().unwrap_or(&request.template).trim_end_matches('-');
    let plain = format!("{prefix}-{}", owner_part(&request.owner).trim_matches('-'));
    if gateway.workspaces().get(&plain).await?.is_none() {
        return Ok(None);
    }
    for number in 2..100 {
        let name = format!("{plain}-{number}");
        if gateway.workspaces().get(&name).await?.is_none() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

async fn instance(State(gateway): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    Ok(Json(found(&gateway, &name).await?).into_response())
}

async fn delete(State(gateway): Shared, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    gateway.workspaces().delete(&name).await.map_err(refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where to go.
#[derive(Deserialize)]
struct GotoBody {
    step: String,
}

async fn goto(
    State(gateway): Shared,
    Path(name): Path<String>,
    Body(body): Body<GotoBody>,
) -> Result<Response, Refusal> {
    accepted(gateway.workspaces().goto(&name, &body.step).await)
}

async fn reset(State(gateway): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    accepted(gateway.workspaces().reset(&name).await)
}

async fn suspend(State(gateway): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    accepted(gateway.workspaces().suspend(&name).await)
}

async fn resume(State(gateway): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    accepted(gateway.workspaces().resume(&name).await)
}

async fn update(State(gateway): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    accepted(gateway.workspaces().update(&name).await)
}

/// By how much more time.
#[derive(Deserialize)]
pub struct ExtendBody {
    seconds: Option<u64>,
}

/// The time that was asked for; none means the workshop's own.
pub fn extension(body: Option<Body<ExtendBody>>) -> Option<Duration> {
    body.and_then(|Body(body)| body.seconds).map(Duration::from_secs)
}

async fn extend(
    State(gateway): Shared,
    Path(name): Path<String>,
    body: Option<Body<ExtendBody>>,
) -> Result<Response, Refusal> {
    let expires = gateway.workspaces().extend(&name, extension(body)).await.map_err(refusal)?;
    Ok(Json(json!({ "expiresAt": expires })).into_response())
}

#[derive(Deserialize)]
struct LogsQuery {
    #[serde(default)]
    follow: bool,
}

async fn logs(
    State(gateway): Shared,
    Path(name): Path<String>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let bad = |rejection: QueryRejection| {
        Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", rejection.body_text()).help("`follow` is true or false")
    };
    let Query(query) = query.map_err(bad)?;
    let view = found(&gateway, &name).await?;
    let none =
        || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "NoRuntime", "nothing is run here, so there are no logs");
    let logs = gateway.settings().logs.as_ref().ok_or_else(none)?;
    let lines = logs(view.uid, query.follow)
        .await
        .map_err(|error| Refusal::new(StatusCode::NOT_FOUND, "NoLogs", chain::messages(&*error).join(": ")))?;
    let lines = lines.take_until(gateway.settings().stop.clone().cancelled_owned());
    let head = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, axum::body::Body::from_stream(lines)).into_response())
}

/// Who is to come in.
#[derive(Deserialize)]
struct OpenBody {
    member: Option<String>,
}

async fn open(
    State(gateway): Shared,
    Path(name): Path<String>,
    body: Option<Body<OpenBody>>,
) -> Result<Response, Refusal> {
    let view = found(&gateway, &name).await?;
    let member = body.and_then(|Body(body)| body.member);
    let person = view.person(member.as_deref()).map_err(refusal)?;
    let token = gateway.workspaces().sign(&view.uid, person, Role::Learner, TOKEN_TIME).map_err(refusal)?;
    Ok(Json(json!({ "url": format!("{}#token={token}", view.url) })).into_response())
}
