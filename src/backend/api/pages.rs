//! The pages, the way in, and the pictures of the texts.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH, SET_COOKIE,
};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use utoipa::ToSchema;

use super::auth::verify;
use super::error::ApiError;
use super::parse;
use crate::backend::app::{App, seconds};
use crate::domain::management::ErrorBody;
use crate::domain::token::COOKIE;
use crate::pages::{self, Page};

/// The largest picture, in bytes.
const MAX_PICTURE: u64 = 16 << 20;
/// What a picture may do when somebody opens it as a page: nothing.
const PICTURE_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'";
const PICTURES: [(&str, &str); 8] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/x-icon"),
    ("svg", "image/svg+xml"),
];

fn serve(page: Page, status: StatusCode, request: &HeaderMap, cache: &'static str) -> Response {
    let headers: [(HeaderName, String); 4] = [
        (CONTENT_TYPE, page.content_type),
        (ETAG, page.etag.clone()),
        (CACHE_CONTROL, cache.to_owned()),
        (CONTENT_SECURITY_POLICY, pages::CONTENT_SECURITY_POLICY.to_owned()),
    ];
    let is_known = request.get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == page.etag.as_bytes());
    if is_known && status == StatusCode::OK {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (status, headers, Body::from(page.bytes)).into_response()
}

/// The page that takes the token out of the address and sends it.
pub fn login(status: StatusCode) -> Response {
    match pages::page("login.html") {
        Some(page) => serve(page, status, &HeaderMap::new(), "no-store"),
        None => ApiError::new(status, "Unauthorized", "a token is needed").into_response(),
    }
}

/// The learner's page.
pub async fn workspace(request: HeaderMap) -> Response {
    match pages::page("workspace.html") {
        Some(page) => serve(page, StatusCode::OK, &request, "no-cache"),
        None => ApiError::not_found().into_response(),
    }
}

/// A script, a style or a font of the pages.
pub async fn page_asset(Path(path): Path<String>, request: HeaderMap) -> Response {
    match pages::page(&format!("assets/{path}")) {
        Some(page) => serve(page, StatusCode::OK, &request, "no-cache"),
        None => ApiError::not_found().into_response(),
    }
}

/// The token that lets a browser in.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SessionRequest {
    /// The token.
    pub token: String,
}

/// Gives the browser its cookie.
#[utoipa::path(post, path = "/session", tag = "session", security(()), request_body = SessionRequest, responses(
    (status = 204, description = "The cookie is set"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn session(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request: SessionRequest = parse(&body?)?;
    let claims = verify(&app, &request.token)?;
    let mut cookie = cookie::Cookie::new(COOKIE, request.token);
    cookie.set_http_only(true);
    cookie.set_same_site(cookie::SameSite::Strict);
    cookie.set_path(app.config.base_path.clone());
    cookie.set_max_age(cookie::time::Duration::seconds(claims.exp - seconds()));
    // We speak plain HTTP; who speaks TLS before us says so.
    let is_secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    cookie.set_secure(is_secure);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie.to_string())]).into_response())
}

/// A picture of the texts.
#[utoipa::path(get, path = "/api/v1/assets/{path}", tag = "content", params(("path" = String, Path,
    description = "Below /workshop/assets")), responses(
    (status = 200, description = "The picture", content_type = "image/*", body = Vec<u8>),
    (status = 304, description = "As the browser has it"),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody),
))]
pub async fn picture(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let is_plain = path.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains('\0'));
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    let kind = PICTURES.iter().find(|(it, _)| *it == extension).map(|(_, kind)| *kind);
    let (Some(kind), true) = (kind, is_plain) else { return Err(ApiError::not_found()) };
    let root = app.config.path("/workshop/assets");
    let not_found = |_| ApiError::not_found();
    // A link must not lead out of the directory: we may read more than the learner.
    let root = tokio::fs::canonicalize(root).await.map_err(not_found)?;
    let file = tokio::fs::canonicalize(root.join(&path)).await.map_err(not_found)?;
    if !file.starts_with(&root) {
        return Err(ApiError::not_found());
    }
    let file = tokio::fs::File::open(file).await.map_err(not_found)?;
    let metadata = file.metadata().await.map_err(not_found)?;
    if !metadata.is_file() || metadata.len() > MAX_PICTURE {
        return Err(ApiError::not_found());
    }
    let mut bytes = Vec::new();
    file.take(MAX_PICTURE).read_to_end(&mut bytes).await.map_err(not_found)?;
    let etag = format!("\"{}\"", &crate::domain::digest::Digest::of(&bytes).hex()[..32]);
    let page = Page { bytes: bytes.into(), content_type: kind.to_owned(), etag };
    let mut response = serve(page, StatusCode::OK, &headers, "private, no-cache");
    let policy = axum::http::HeaderValue::from_static(PICTURE_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}
