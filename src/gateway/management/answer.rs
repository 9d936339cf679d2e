//! The answers of the management API: JSON, and each refusal in the one shape that `domain::management` has for it.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{error, warn};

use crate::domain::management::ErrorBody;
use crate::pipeline::workspace::{Class, Error};

/// A request that is not carried out.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    body: Box<ErrorBody>,
}

impl Refused {
    /// A refusal with its code for programs and its message for people.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, body: Box::new(ErrorBody::new(code, message)) }
    }
}

impl From<Error> for Refused {
    fn from(refusal: Error) -> Self {
        let status = match (refusal.class(), refusal.code()) {
            (Class::NotFound, _) => StatusCode::NOT_FOUND,
            (Class::Invalid, _) => StatusCode::BAD_REQUEST,
            (Class::Refused, "ExtendRefused") => StatusCode::FORBIDDEN,
            (Class::Refused, _) => StatusCode::CONFLICT,
            (Class::Unavailable, code) => {
                // Those who run the platform are told what does not answer; a workspace only that it may ask again.
                warn!(error = &refusal as &dyn std::error::Error, "failed to answer a workspace for now");
                let message = "the request cannot be carried out now";
                let mut refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
                refused.body = Box::new(refused.body.help(refusal.help().unwrap_or("ask again")));
                return refused;
            }
            (Class::Outside, _) => {
                // A workspace is not told about files and databases of this machine.
                error!(error = &refusal as &dyn std::error::Error, "failed to answer a workspace");
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Failed", "the request could not be carried out");
            }
        };
        let mut body = ErrorBody::new(refusal.code(), refusal.to_string());
        if let Some(help) = refusal.help() {
            body = body.help(help);
        }
        Self { status, body: Box::new(body) }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        json(self.status, &self.body)
    }
}

/// An answer in JSON that nobody keeps.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, headers, Body::from(bytes)).into_response(),
        Err(error) => {
            error!(%error, "failed to write an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
