//! Answers that are no success: one JSON shape for all of them.

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::backend::files::{FailureKind, FilesError};
use crate::backend::management::ManagementError;
use crate::backend::store::StoreError;
use crate::domain::management::ErrorBody;
use crate::domain::progress::Refusal;

/// An answer that is no success.
#[derive(Debug)]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// Its body.
    pub body: ErrorBody,
    /// After how many seconds it is worth another try.
    pub retry_after: Option<u8>,
}

impl ApiError {
    /// An error with a code and a message.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody::new(code, message), retry_after: None }
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: &str) -> Self {
        self.body = self.body.help(help);
        self
    }

    /// A body, a query or a path that cannot be read.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// The workspace is not open yet, or cannot be opened.
    pub fn starting(failure: Option<String>) -> Self {
        let message = failure.unwrap_or_else(|| "the workspace is starting".to_owned());
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "Starting", message) }
    }

    /// Nothing is at this path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing here")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry = self.retry_after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        (self.status, retry, Json(self.body)).into_response()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match refusal {
            Refusal::ChecksFailing => (StatusCode::CONFLICT, "ChecksFailing"),
            Refusal::StepLocked { .. } => (StatusCode::CONFLICT, "StepLocked"),
            Refusal::SkipForbidden(_) => (StatusCode::CONFLICT, "SkipForbidden"),
            Refusal::NoPreviousStep => (StatusCode::CONFLICT, "NoPreviousStep"),
            Refusal::NoSuchStep(_) => (StatusCode::NOT_FOUND, "NoSuchStep"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::OtherWorkshop { .. } => (StatusCode::CONFLICT, "OtherWorkshop"),
            StoreError::NoSuchStep(_) => (StatusCode::CONFLICT, "NoSuchStep"),
            error if error.is_content() => (StatusCode::UNPROCESSABLE_ENTITY, "BadArtifact"),
            _ => {
                tracing::error!(error = %crate::backend::chain(&error), "the working copy fails");
                (StatusCode::INTERNAL_SERVER_ERROR, "Storage")
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<ManagementError> for ApiError {
    fn from(error: ManagementError) -> Self {
        match error {
            ManagementError::Refused { status, body, .. } if status != StatusCode::UNAUTHORIZED => {
                Self { status, body, retry_after: None }
            }
            error => {
                tracing::warn!(error = %crate::backend::chain(&error), "the management API does not do it");
                let message = "those who run this workspace do not answer";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ManagementUnavailable", message)
                    .help("try again in a moment")
            }
        }
    }
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Refused { kind, message } => {
                let (status, code) = match kind {
                    FailureKind::NotFound => (StatusCode::NOT_FOUND, "NoSuchFile"),
                    FailureKind::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
                    FailureKind::Conflict => (StatusCode::CONFLICT, "Conflict"),
                    FailureKind::Changed => (StatusCode::PRECONDITION_FAILED, "Changed"),
                    FailureKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "TooLarge"),
                    FailureKind::Path => (StatusCode::BAD_REQUEST, "BadPath"),
                    FailureKind::Io => (StatusCode::INTERNAL_SERVER_ERROR, "FileSystem"),
                };
                // The words come from a program that the learner may own.
                Self::new(status, code, message.chars().take(1000).collect::<String>())
            }
            error => {
                tracing::warn!(error = %crate::backend::chain(&error), "the files child fails");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "FilesUnavailable", error.to_string())
            }
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", "the body is larger than this route takes")
            }
            _ => Self::bad_request("the body did not arrive whole"),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}
