//! The owner's way in and the page with all workshops and instances.
//!
//! It knows the owner's key and cookie; what the page shows comes from the control API.

use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::access::{cookies, set_owner_cookie};
use super::answer::{Body, Refusal};
use super::pages;
use super::server::{Gateway, Shared};

/// What opens a session.
#[derive(Deserialize)]
pub struct Secret {
    /// The owner's key.
    pub key: Option<String>,
    /// The token of one instance.
    pub token: Option<String>,
}

/// Whether the owner asks.
pub fn is_owner(gateway: &Gateway, headers: &HeaderMap) -> bool {
    let owner = &gateway.settings().owner;
    cookies(headers, owner.cookie_name()).any(|value| owner.is_cookie(value))
}

/// The page with all workshops and instances.
pub async fn page(State(gateway): Shared, headers: HeaderMap) -> Response {
    if is_owner(&gateway, &headers) {
        pages::html("home.html", StatusCode::OK, &headers)
    } else {
        pages::html("login.html", StatusCode::UNAUTHORIZED, &headers)
    }
}

/// Scripts, styles and fonts; there is nothing secret in them, and the page of the way in needs them.
pub async fn asset(Path(path): Path<std::collections::HashMap<String, String>>, headers: HeaderMap) -> Response {
    pages::asset(path.get("path").map_or("", String::as_str), &headers)
}

/// Exchanges the owner's key for the cookie.
pub async fn session(
    State(gateway): Shared,
    headers: HeaderMap,
    Body(secret): Body<Secret>,
) -> Result<Response, Refusal> {
    open(&gateway, &headers, secret.key.as_deref().unwrap_or_default())
}

/// The owner's cookie for the owner's key.
pub fn open(gateway: &Gateway, headers: &HeaderMap, key: &str) -> Result<Response, Refusal> {
    let owner = &gateway.settings().owner;
    if owner.is(key) {
        let is_https = gateway.place().is_https(headers);
        let cookie = set_owner_cookie(owner.cookie_name().to_owned(), owner.cookie(), is_https);
        return Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response());
    }
    if gateway.guesses().count(Instant::now()) {
        return Err(Refusal::unauthorized());
    }
    Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyGuesses", "too many wrong keys: wait a minute"))
}

/// The layer in front of what only the owner may ask.
pub async fn owner_only(State(gateway): Shared, request: Request, next: Next) -> Response {
    if is_owner(&gateway, request.headers()) {
        next.run(request).await
    } else {
        Refusal::unauthorized().into_response()
    }
}

/// The answer where there is nothing.
pub async fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing at this address")
}
