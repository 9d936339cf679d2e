//! The learner's files over HTTP; their rights are the learner's.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Parameters;
use super::auth::Caller;
use super::error::ApiError;
use crate::backend::app::{App, Machine};
use crate::backend::files::Entry;
use crate::domain::management::ErrorBody;

/// The query that names a file.
#[derive(Debug, Deserialize)]
pub struct FilePath {
    path: Option<String>,
}

/// The query of a move.
#[derive(Debug, Deserialize)]
pub struct FileMove {
    from: String,
    to: String,
}

/// What is in a directory.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listing {
    /// The directory.
    pub path: String,
    /// By name.
    pub entries: Vec<Entry>,
}

fn machine(app: &App) -> Result<&Machine, ApiError> {
    if !app.config.settings.access.files.enabled {
        let message = "this workshop offers no files in the browser";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "FilesDisabled", message));
    }
    app.machine.get().ok_or_else(|| ApiError::starting(app.failure()))
}

fn named(path: FilePath) -> Result<String, ApiError> {
    path.path.ok_or_else(|| ApiError::bad_request("a `path` is needed"))
}

fn or_home(machine: &Machine, path: FilePath) -> String {
    path.path.unwrap_or_else(|| machine.home.to_string_lossy().into_owned())
}

/// What is in a directory; of the home where none is named.
#[utoipa::path(get, path = "/api/v1/files", tag = "files", params(("path" = Option<String>, Query)), responses(
    (status = 200, body = Listing),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "It is no directory", body = ErrorBody),
    (status = 413, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn list(
    State(app): State<Arc<App>>,
    _: Caller,
    Parameters(path): Parameters<FilePath>,
) -> Result<Json<Listing>, ApiError> {
    let machine = machine(&app)?;
    let path = or_home(machine, path);
    let entries = machine.files.list(&path).await?;
    Ok(Json(Listing { path, entries }))
}

/// The bytes of a file.
#[utoipa::path(get, path = "/api/v1/files/content", tag = "files", params(("path" = String, Query)), responses(
    (status = 200, content_type = "application/octet-stream", body = Vec<u8>, headers(("etag" = String))),
    (status = 304, description = "As the client has it"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "It is no file", body = ErrorBody),
    (status = 413, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Caller,
    headers: HeaderMap,
    Parameters(path): Parameters<FilePath>,
) -> Result<Response, ApiError> {
    let content = machine(&app)?.files.read(&named(path)?).await?;
    let tag = etag(&content.tag)?;
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (ETAG, tag)];
    Ok((headers, content.bytes).into_response())
}

/// The tag comes from a program that the learner may own, and goes into a header.
fn etag(tag: &str) -> Result<String, ApiError> {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or_default();
    if inner.len() == 32 && inner.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(tag.to_owned());
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "FilesUnavailable", "the files child talks nonsense"))
}

/// Writes a file; with `If-Match` only where it is as the client last saw it, with `If-None-Match: *` only a new one.
#[utoipa::path(put, path = "/api/v1/files/content", tag = "files", params(("path" = String, Query),
    ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 204, description = "It is written", headers(("etag" = String))),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody),
    (status = 412, description = "`Changed`: it is not as the client last saw it", body = ErrorBody),
    (status = 413, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn write(
    State(app): State<Arc<App>>,
    _: Caller,
    Parameters(path): Parameters<FilePath>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let machine = machine(&app)?;
    let path = named(path)?;
    let if_match = headers.get(IF_MATCH).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let is_new = headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == "*");
    let tag = machine.files.write(&path, if_match, is_new, &body?).await?;
    Ok((StatusCode::NO_CONTENT, [(ETAG, etag(&tag)?)]).into_response())
}

/// Removes a file, or a directory with all that is in it.
#[utoipa::path(delete, path = "/api/v1/files", tag = "files", params(("path" = String, Query)), responses(
    (status = 204, description = "It is gone"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn remove(
    State(app): State<Arc<App>>,
    _: Caller,
    Parameters(path): Parameters<FilePath>,
) -> Result<StatusCode, ApiError> {
    machine(&app)?.files.remove(&named(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a directory.
#[utoipa::path(post, path = "/api/v1/files/directory", tag = "files", params(("path" = String, Query)), responses(
    (status = 204, description = "It is made"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn make_directory(
    State(app): State<Arc<App>>,
    _: Caller,
    Parameters(path): Parameters<FilePath>,
) -> Result<StatusCode, ApiError> {
    machine(&app)?.files.make_directory(&named(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives something another name, which nothing may have.
#[utoipa::path(post, path = "/api/v1/files/move", tag = "files", params(("from" = String, Query),
    ("to" = String, Query)), responses(
    (status = 204, description = "It has its new name"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn rename(
    State(app): State<Arc<App>>,
    _: Caller,
    Parameters(names): Parameters<FileMove>,
) -> Result<StatusCode, ApiError> {
    machine(&app)?.files.rename(&names.from, &names.to).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A directory as a gzipped tar; the home where none is named.
#[utoipa::path(get, path = "/api/v1/files/archive", tag = "files", params(("path" = Option<String>, Query)),
    responses(
    (status = 200, content_type = "application/gzip", body = Vec<u8>),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody),
    (status = 413, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn archive(
    State(app): State<Arc<App>>,
    _: Caller,
    Parameters(path): Parameters<FilePath>,
) -> Result<Response, ApiError> {
    let machine = machine(&app)?;
    let path = or_home(machine, path);
    let body = machine.files.archive(&path).await?;
    let name: String =
        path.rsplit('/').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    let name = if name.is_empty() { "files".to_owned() } else { name };
    let headers = [
        (CONTENT_TYPE, "application/gzip".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.tar.gz\"")),
    ];
    Ok((headers, body).into_response())
}
