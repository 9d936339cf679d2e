//! Refusals in the API's one error shape, and the headers that every answer of the gateway carries.
//!
//! It decides no status by itself; whoever refuses names it.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// The stable word for programs.
    pub code: &'static str,
    /// What was attempted and why not, for people.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
}

impl Refusal {
    /// A refusal without help.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), help: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// No valid token or key came with the request.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "this needs a valid token")
            .help("open the address that `workshop up` or `workshop workspace open` prints")
    }

    /// There is no instance of this name.
    #[must_use]
    pub fn no_such_instance(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchInstance", format!("there is no instance \"{name}\""))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(help) = self.help {
            error["help"] = help.into();
        }
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// What no answer goes out without: types are not guessed, no other site embeds or reads it, addresses are not told on.
pub fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'"));
}
