//! Refusals in the API's one error shape, and the headers that every answer of the gateway carries.
//!
//! It decides no status by itself; whoever refuses names it.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
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

/// A JSON body; one that cannot be read is refused in the same shape as everything else.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let Json(body) = <Json<T> as FromRequest<S>>::from_request(request, state).await.map_err(refuse)?;
        Ok(Self(body))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Refusal> {
        let body = <Json<T> as OptionalFromRequest<S>>::from_request(request, state).await.map_err(refuse)?;
        Ok(body.map(|Json(body)| Self(body)))
    }
}

fn refuse(rejection: JsonRejection) -> Refusal {
    let status = rejection.status();
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "TooLarge",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
        _ => "BadRequest",
    };
    let status = if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
    let text = rejection.body_text();
    let mut letters = text.chars();
    let message: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).take(500).collect();
    Refusal::new(status, code, message).help("send JSON, with `Content-Type: application/json`")
}

/// The answer where the path is one of ours and the method is not.
pub async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this address does not take that method")
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
