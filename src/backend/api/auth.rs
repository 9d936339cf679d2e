//! Who may do what: every request but the probes and the way in needs a token.
//!
//! Also what all answers have in common: headers, a time limit, a count.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, COOKIE as COOKIE_HEADER, HOST, HeaderMap, HeaderValue, LOCATION, ORIGIN,
    REFERRER_POLICY, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::pages;
use crate::backend::app::{App, seconds};
use crate::domain::container::INSTANCE_HEADER;
use crate::domain::token::{COOKIE, Claims, Role, TokenError};

/// How long an answer may take to begin; checks run for at most a minute.
const TIMEOUT: Duration = Duration::from_secs(90);
/// What a learner's browser asks by itself, also when nobody is there.
const IDLE: [&str; 7] = ["", "ws", "token", "api/v1/events", "api/v1/state", "api/v1/metrics", "api/v1/terminal"];

/// Whose request it is.
#[derive(Debug, Clone)]
pub struct Caller(pub Claims);

impl Caller {
    /// Whether gates bind the caller.
    pub fn is_bound(&self) -> bool {
        self.0.role == Role::Learner
    }

    /// Refuses learners.
    pub fn must_help(&self) -> Result<(), ApiError> {
        if self.0.role != Role::Learner {
            return Ok(());
        }
        let message = "this is for instructors and for those who run the workspace";
        Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message))
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| unauthorized(None))
    }
}

fn unauthorized(error: Option<&TokenError>) -> ApiError {
    let message = error.map_or_else(|| "a token is needed".to_owned(), ToString::to_string);
    ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
        .help("open the address with the token that you were given")
}

/// The token of a request: of its `Authorization`, else of its cookie.
fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(authorization) = headers.get(AUTHORIZATION) {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    let cookies = headers.get_all(COOKIE_HEADER).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// What `token` says, if it opens this workspace.
pub fn verify(app: &App, token: &str) -> Result<Claims, ApiError> {
    let key = app.verify_key.get().ok_or_else(|| ApiError::starting(app.failure()))?;
    key.verify(token, &app.config.instance, app.config.generation, seconds())
        .map_err(|error| unauthorized(Some(&error)))
}

/// A browser says where a request comes from; another site's must change nothing here and open no terminal.
fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) && !headers.contains_key(UPGRADE);
    let Some(origin) = headers.get(ORIGIN).filter(|_| !is_safe) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    if origin.is_some_and(|(_, authority)| !host.is_empty() && authority.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "CrossOrigin", "the request comes from another site"))
}

/// A gateway that means another workspace has come to the wrong address: its learner is told to try again, not to log in.
fn check_instance(instance: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(INSTANCE_HEADER) {
        Some(meant) if meant.as_bytes() != instance.as_bytes() => {
            Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "Misdirected", "this is another workspace"))
        }
        _ => Ok(()),
    }
}

/// Lets a request in, or says why not.
fn admit(app: &App, request: &mut Request) -> Result<(), Response> {
    check_instance(&app.config.instance, request.headers()).map_err(IntoResponse::into_response)?;
    check_origin(request.method(), request.headers()).map_err(IntoResponse::into_response)?;
    let path = request.uri().path();
    let inner = path.strip_prefix(app.config.base_path.as_str());
    // The pages' scripts are the same in every program, and the page that asks for the token needs them.
    let is_open = ["/healthz", "/readyz"].contains(&path)
        || inner.is_some_and(|inner| ["healthz", "readyz"].contains(&inner) || inner.starts_with("assets/"))
        || (inner == Some("session") && request.method() == Method::POST);
    if is_open {
        return Ok(());
    }
    let verified = token(request.headers()).ok_or_else(|| unauthorized(None)).and_then(|token| verify(app, token));
    match verified {
        Ok(claims) => {
            if claims.role == Role::Learner && inner.is_some_and(|inner| !IDLE.contains(&inner)) {
                app.touch();
            }
            request.extensions_mut().insert(Caller(claims));
            Ok(())
        }
        Err(error) if inner == Some("") && error.status == StatusCode::UNAUTHORIZED => {
            Err(pages::login(error.status).into_response())
        }
        Err(error) => Err(error.into_response()),
    }
}

/// Stands before every route.
pub async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let without_slash = app.config.base_path.trim_end_matches('/');
    let mut response = if !without_slash.is_empty() && request.uri().path() == without_slash {
        (StatusCode::PERMANENT_REDIRECT, [(LOCATION, app.config.base_path.clone())]).into_response()
    } else {
        match admit(&app, &mut request) {
            Err(refused) => refused,
            Ok(()) => match tokio::time::timeout(TIMEOUT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => {
                    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", "the answer took too long").into_response()
                }
            },
        }
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    app.metrics.count_request(&method, response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_token_is_in_the_authorization_or_a_cookie() {
        let check =
            |pairs: &[(&'static str, &str)], expected| assert_eq!(token(&headers(pairs)), expected, "{pairs:?}");
        check(&[], None);
        check(&[("authorization", "Bearer abc")], Some("abc"));
        check(&[("authorization", "bearer abc"), ("cookie", "workshop_token=x")], Some("abc"));
        check(&[("authorization", "Basic abc"), ("cookie", "workshop_token=x")], None);
        check(&[("cookie", "a=b; workshop_token=abc; c=d")], Some("abc"));
        check(&[("cookie", "a=b"), ("cookie", "workshop_token=abc")], Some("abc"));
        check(&[("cookie", "workshop_tokens=abc")], None);
    }

    #[test]
    fn a_request_for_another_workspace_is_sent_back() {
        let check = |pairs: &[(&'static str, &str)], expected: Option<u16>| {
            let found = check_instance("u-1", &headers(pairs)).err().map(|error| error.status.as_u16());
            assert_eq!(found, expected, "{pairs:?}");
        };
        check(&[], None);
        check(&[(INSTANCE_HEADER, "u-1")], None);
        check(&[(INSTANCE_HEADER, "u-2")], Some(421));
        check(&[(INSTANCE_HEADER, "")], Some(421));
    }

    #[test]
    fn what_another_site_sends_changes_nothing() {
        let check = |method: Method, pairs: &[(&'static str, &str)], expected: bool| {
            assert_eq!(check_origin(&method, &headers(pairs)).is_ok(), expected, "{method} {pairs:?}");
        };
        let host = ("host", "localhost:7681");
        check(Method::POST, &[host], true);
        check(Method::POST, &[host, ("origin", "http://localhost:7681")], true);
        check(Method::POST, &[host, ("origin", "https://LOCALHOST:7681")], true);
        check(Method::POST, &[host, ("origin", "http://localhost:8080")], false);
        check(Method::DELETE, &[host, ("origin", "http://evil.example")], false);
        check(Method::PUT, &[host, ("origin", "null")], false);
        check(Method::GET, &[host, ("origin", "http://evil.example")], true);
        check(Method::GET, &[host, ("origin", "http://evil.example"), ("upgrade", "websocket")], false);
        check(Method::POST, &[("origin", "http://")], false);
    }
}
