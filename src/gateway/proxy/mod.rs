//! The way from a browser to a workspace's API: one request passed on, its answer made harmless, bytes streamed.
//!
//! The workspace belongs to its learner and may answer anything; no page or script is ever taken from it. Who may pass
//! is decided before.

mod headers;
mod websocket;

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;

use super::answer::Refusal;
use crate::domain::container::{Address, INSTANCE_HEADER};
use crate::pipeline::upstream::{UpstreamError, send_by_any};

/// How long a workspace may take until an answer begins: checks may run for a minute.
const PATIENCE: Duration = Duration::from_secs(70);
/// How long a workspace behind a network may take until it can be connected to.
const CONNECTING: Duration = Duration::from_secs(5);
/// The code of a refusal because nobody could be connected to.
pub const UNREACHABLE: &str = "WorkspaceUnavailable";

/// Whom to pass a request to, and with which right.
pub struct Passage<'a> {
    /// The instance's uid.
    pub instance: &'a str,
    /// Where the workspace listens, the best way first.
    pub ways: &'a [Address],
    /// The token that the workspace is shown.
    pub token: &'a str,
    /// Is over when another container takes the workspace's place: what would go on for ever ends with it.
    pub over: BoxFuture<'static, ()>,
}

/// Passes the request on and gives the answer, or says why there is none. The path goes on as it came, so the caller
/// has checked it with [`is_plain_path`].
pub async fn pass(passage: Passage<'_>, request: Request) -> Result<Response, Refusal> {
    // A script that a browser installs for all pages to come is never an answer of the API.
    if request.headers().contains_key("service-worker") {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", "a workspace serves no scripts"));
    }
    if request.headers().contains_key(header::UPGRADE) {
        return websocket::pass(passage, request).await;
    }
    pass_plain(passage, request).await
}

/// Sends a request to the workspace.
async fn ask(ways: &[Address], request: Request) -> Result<hyper::Response<hyper::body::Incoming>, Refusal> {
    // A socket is there before its workspace is ready.
    let is_network = ways.iter().any(|way| matches!(way, Address::Tcp(_)));
    let connecting = if is_network { CONNECTING } else { Duration::ZERO };
    send_by_any(ways, request, connecting, PATIENCE).await.map_err(refusal)
}

async fn pass_plain(passage: Passage<'_>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut upstream = Request::builder().method(parts.method).uri(path).body(body).map_err(|_| bad_path())?;
    *upstream.headers_mut() = headers::for_workspace(&parts.headers);
    authorize(upstream.headers_mut(), &passage)?;
    answer(ask(passage.ways, upstream).await?, passage.over)
}

fn answer(response: hyper::Response<hyper::body::Incoming>, over: BoxFuture<'static, ()>) -> Result<Response, Refusal> {
    let (parts, body) = response.into_parts();
    // Right after a switch the cluster's forwarding may lead to whoever has the old address by now.
    if parts.status == StatusCode::MISDIRECTED_REQUEST {
        return Err(unavailable("the way to the workspace is not known right now"));
    }
    let status = headers::status(parts.status).ok_or_else(|| {
        bad_gateway(format!("the workspace answered {}, which its API never does", parts.status.as_u16()))
    })?;
    let headers = headers::for_browser(status, &parts.headers);
    let mut body = Body::new(body);
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == headers::EVENTS) {
        body = Body::from_stream(body.into_data_stream().take_until(over));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Says whose workspace is meant, and with which right.
fn authorize(headers: &mut HeaderMap, passage: &Passage<'_>) -> Result<(), Refusal> {
    let instance = HeaderValue::try_from(passage.instance).map_err(|_| Refusal::unauthorized())?;
    headers.insert(INSTANCE_HEADER, instance);
    let mut value = HeaderValue::try_from(format!("Bearer {}", passage.token)).map_err(|_| Refusal::unauthorized())?;
    value.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, value);
    headers.insert(header::HOST, HeaderValue::from_static("workspace"));
    Ok(())
}

/// Why a workspace gave no answer, for the browser: no addresses of this machine.
fn refusal(error: UpstreamError) -> Refusal {
    tracing::debug!(error = %crate::domain::chain::messages(&error).join(": "), "a workspace gave no answer");
    match error {
        UpstreamError::Connect { .. } => unavailable("the workspace is not reachable right now"),
        UpstreamError::TimedOut { .. } => {
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "WorkspaceTimeout", "the workspace did not answer in time")
        }
        _ => bad_gateway("the workspace ended the connection or answered nonsense".to_owned()),
    }
}

/// The workspace is not there now; it may be soon.
pub fn unavailable(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE, message)
        .help("it may be starting: try again in a moment")
}

fn bad_gateway(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "WorkspaceFailed", message)
}

fn bad_path() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BadPath", "the path is not one of a workspace")
}

/// Whether a path means the same to everyone who reads it: no dot segments, no backslashes, no empty segments, and
/// nothing of that behind percent signs.
#[must_use]
pub fn is_plain_path(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let is_hidden = ["%2e%2e", "%2f", "%5c", "%00", "\\", "//"].iter().any(|part| lower.contains(part));
    !is_hidden && !lower.split('/').any(|segment| matches!(segment.replace("%2e", ".").as_str(), "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_be_read_in_two_ways_is_not_plain() {
        fn check(path: &str, expected: bool) {
            assert_eq!(is_plain_path(path), expected, "{path}");
        }
        check("/w/a/api/v1/state", true);
        check("/w/a/api/v1/steps/look-around", true);
        check("/w/a/api/v1/assets/a%20b..c.png", true);
        check("/w/a/../b/api/v1/state", false);
        check("/w/a/api/v1/../../../b", false);
        check("/w/a/api/v1/%2e%2E/b", false);
        check("/w/a/api/v1/.%2e/b", false);
        check("/w/a/api/v1/%2e/b", false);
        check("/w/a/api/v1/..%2fb", false);
        check("/w/a/api/v1/..%5cb", false);
        check("/w/a/api/v1/a\\b", false);
        check("/w/a//api/v1/state", false);
        check("/w/a/api/v1/a%00b", false);
    }
}
