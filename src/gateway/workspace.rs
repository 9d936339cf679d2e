//! What is below `/w/<name>/`: the workspace's page, its session, its API passed on, and what the gateway says of the
//! instance while the workspace is not there.
//!
//! Every request must show a token of this very instance, or be the owner's.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::access::{TOKEN_TIME, bearer, cookies, now, set_token_cookie};
use super::answer::{Body, Refusal};
use super::control::{self, ExtendBody};
use super::home::{self, Secret, is_owner};
use super::proxy::{self, Passage, is_plain_path};
use super::server::{Gateway, Shared};
use super::{events, pages};
use crate::domain::chain;
use crate::domain::management::Phase;
use crate::domain::token::{COOKIE, Claims, Role};
use crate::pipeline::workspace::InstanceView;

/// The longest namespace, a dot, and the longest name.
const MAX_NAME: usize = 63 + 1 + 253;

type Names = Path<HashMap<String, String>>;

/// What the gateway itself says and does, also while the workspace is not there.
pub fn routes() -> Router<Gateway> {
    Router::new()
        .route("/state", get(state))
        .route("/events", get(changes))
        .route("/reset", post(reset))
        .route("/resume", post(resume))
        .route("/extend", post(extend))
}

/// Somebody who may use an instance.
struct Admitted {
    view: InstanceView,
    token: String,
    /// The cookie that spares the next request the way here.
    cookie: Option<axum::http::HeaderValue>,
}

impl Admitted {
    fn answer(self, mut response: Response) -> Response {
        if let Some(cookie) = self.cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// The path below which an instance is.
pub fn base_path(name: &str) -> String {
    format!("/w/{name}/")
}

/// Whether `name` can be what refers to an instance: its name, with its namespace in a cluster; it becomes part of
/// paths.
fn is_name(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    name.len() <= MAX_NAME && name.split('.').all(is_part)
}

fn name_of(names: &HashMap<String, String>) -> &str {
    names.get("name").map_or("", String::as_str)
}

/// What a token says, if it opens this instance for a person.
fn verify(gateway: &Gateway, view: &InstanceView, token: &str) -> Option<Claims> {
    let key = gateway.workspaces().verify_key().ok()?;
    key.verify(token, &view.uid, 0, now()).ok().filter(|claims| claims.role != Role::Workspace)
}

/// The instance that is below `/w/<name>/`: one that has another reference is somewhere else.
async fn find(gateway: &Gateway, name: &str) -> Result<Option<InstanceView>, Refusal> {
    if !is_name(name) {
        return Ok(None);
    }
    let found = gateway.workspaces().get(name).await.map_err(control::refusal)?;
    Ok(found.filter(|view| view.reference == name))
}

/// Lets the bearer of a token of this instance in, and the owner into all. Others learn not even whether it exists.
async fn admit(gateway: &Gateway, name: &str, headers: &HeaderMap) -> Result<Admitted, Refusal> {
    let view = find(gateway, name).await?;
    let is_owner = is_owner(gateway, headers);
    let Some(view) = view else {
        return Err(if is_owner { Refusal::no_such_instance(name) } else { Refusal::unauthorized() });
    };
    let mut shown = cookies(headers, COOKIE).chain(bearer(headers));
    if let Some(token) = shown.find(|token| verify(gateway, &view, token).is_some()) {
        let token = token.to_owned();
        return Ok(Admitted { view, token, cookie: None });
    }
    if !is_owner {
        return Err(Refusal::unauthorized());
    }
    let token =
        gateway.workspaces().sign(&view.uid, &view.owner, Role::Learner, TOKEN_TIME).map_err(control::refusal)?;
    let is_https = gateway.place().is_https(headers);
    let cookie = Some(set_token_cookie(&token, &base_path(name), TOKEN_TIME, is_https));
    Ok(Admitted { view, token, cookie })
}

/// `/w/<name>` is not below itself.
pub async fn with_slash(Path(names): Names) -> Response {
    let name = name_of(&names);
    if !is_name(name) {
        return home::not_found().await.into_response();
    }
    Redirect::permanent(&base_path(name)).into_response()
}

/// The workspace's page; opening it wakes a workspace that sleeps.
pub async fn page(State(gateway): Shared, Path(names): Names, headers: HeaderMap) -> Response {
    let name = name_of(&names);
    match admit(&gateway, name, &headers).await {
        Ok(admitted) => {
            wake(&gateway, &admitted.view).await;
            let response = pages::html("workspace.html", StatusCode::OK, &headers);
            admitted.answer(response)
        }
        Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED => {
            pages::html("login.html", StatusCode::UNAUTHORIZED, &headers)
        }
        // Only the owner comes here: the list says what there is.
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Redirect::to("/").into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Exchanges a token for the cookie of its instance, or the owner's key for the owner's.
pub async fn session(
    State(gateway): Shared,
    Path(names): Names,
    headers: HeaderMap,
    Body(secret): Body<Secret>,
) -> Result<Response, Refusal> {
    if let Some(key) = &secret.key {
        return home::open(&gateway, &headers, key);
    }
    let name = name_of(&names);
    let view = find(&gateway, name).await?;
    let token = secret.token.unwrap_or_default();
    let claims = view.and_then(|view| verify(&gateway, &view, &token)).ok_or_else(Refusal::unauthorized)?;
    let lasts = Duration::from_secs(u64::try_from(claims.exp.saturating_sub(now())).unwrap_or(0));
    let is_https = gateway.place().is_https(&headers);
    let cookie = set_token_cookie(&token, &base_path(name), lasts, is_https);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Passes a request on to the workspace.
pub async fn api(State(gateway): Shared, Path(names): Names, request: Request) -> Result<Response, Refusal> {
    let name = name_of(&names);
    let admitted = admit(&gateway, name, request.headers()).await?;
    let path = request.uri().path();
    if !is_plain_path(path) || !path.starts_with(&base_path(name)) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadPath", "the path is not one of this workspace"));
    }
    let over = until_replaced(&gateway, &admitted.view.uid);
    let ways = gateway.workspaces().addresses(&admitted.view.uid);
    if ways.is_empty() {
        // A page that was left open asks by itself, again and again; only what somebody does wakes a workspace.
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            wake(&gateway, &admitted.view).await;
        }
        return Err(absent(&admitted.view));
    }
    let (instance, token) = (&admitted.view.uid, &admitted.token);
    let passage = Passage { instance, ways: &ways, token, over };
    let response = match proxy::pass(passage, request).await {
        Ok(response) => response,
        Err(refusal) => {
            if refusal.code == proxy::UNREACHABLE {
                gateway.workspaces().nudge(&admitted.view.uid);
            }
            refusal.into_response()
        }
    };
    Ok(admitted.answer(response))
}

/// Is over when the program ends, or when something else is to run than what does now. What is replaced may live on for
/// seconds, and whoever is left in it would type into a machine that is gone.
fn until_replaced(gateway: &Gateway, uid: &str) -> BoxFuture<'static, ()> {
    let (workspaces, stop) = (gateway.workspaces().clone(), gateway.settings().stop.clone());
    let (run, uid) = (workspaces.run(uid), uid.to_owned());
    let replaced = async move {
        let mut changes = workspaces.watch_instance(&uid);
        while workspaces.run(&uid) == run {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    async move { stop.run_until_cancelled(replaced).await.unwrap_or_default() }.boxed()
}

/// Why there is no workspace behind the instance now.
fn absent(view: &InstanceView) -> Refusal {
    match view.phase {
        Phase::Suspended => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "WorkspaceSuspended", "the workspace sleeps")
            .help("open its page again, or resume it"),
        Phase::Failed => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "WorkspaceFailed",
            view.message.clone().unwrap_or_else(|| "the workspace did not start".into()),
        )
        .help("reset it to try again"),
        _ => proxy::unavailable("the workspace is not ready yet"),
    }
}

/// Wakes a workspace that fell asleep; one that somebody put to sleep stays so until somebody resumes it.
async fn wake(gateway: &Gateway, view: &InstanceView) {
    if !view.suspended {
        return;
    }
    if let Err(error) = gateway.workspaces().wake(&view.reference).await {
        let error = chain::messages(&error).join(": ");
        tracing::warn!(instance = view.name, error, "failed to wake a workspace");
    }
}

async fn state(State(gateway): Shared, Path(names): Names, headers: HeaderMap) -> Result<Response, Refusal> {
    let admitted = admit(&gateway, name_of(&names), &headers).await?;
    let view = Json(&admitted.view).into_response();
    Ok(admitted.answer(([(header::CACHE_CONTROL, "no-store")], view).into_response()))
}

async fn changes(State(gateway): Shared, Path(names): Names, headers: HeaderMap) -> Result<Response, Refusal> {
    let admitted = admit(&gateway, name_of(&names), &headers).await?;
    let stream = events::of_instance(gateway, admitted.view.uid.clone());
    Ok(admitted.answer(stream.into_response()))
}

async fn reset(State(gateway): Shared, Path(names): Names, headers: HeaderMap) -> Result<Response, Refusal> {
    let admitted = admit(&gateway, name_of(&names), &headers).await?;
    control::accepted(gateway.workspaces().reset(&admitted.view.reference).await)
}

async fn resume(State(gateway): Shared, Path(names): Names, headers: HeaderMap) -> Result<Response, Refusal> {
    let admitted = admit(&gateway, name_of(&names), &headers).await?;
    control::accepted(gateway.workspaces().resume(&admitted.view.reference).await)
}

async fn extend(
    State(gateway): Shared,
    Path(names): Names,
    headers: HeaderMap,
    body: Option<Body<ExtendBody>>,
) -> Result<Response, Refusal> {
    let admitted = admit(&gateway, name_of(&names), &headers).await?;
    let time = control::extension(body);
    // Whoever has only the instance's token is bound by the learner's limit.
    let expires = gateway.workspaces().request_extension(&admitted.view.uid, time).await.map_err(control::refusal)?;
    Ok(Json(json!({ "expiresAt": expires })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_nothing_that_means_something_in_a_path() {
        for name in ["a", "first-steps-ada", "0", "class.first-ada", "class.first.ada"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "A", "é", "a..b", ".a", "a.", "a%2fb", "a\\b", &"a".repeat(318)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
