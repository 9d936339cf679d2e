//! Answers and notes: small texts by key, kept with the progress.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Caller;
use super::error::ApiError;
use super::{parse, session, with};
use crate::backend::app::App;
use crate::domain::management::{CustomState, ErrorBody, MAX_CUSTOM_ENTRIES, MAX_CUSTOM_VALUE, is_custom_key};

/// All entries.
#[derive(Debug, Serialize, ToSchema)]
pub struct CustomValues {
    /// By key.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub values: CustomState,
}

/// One entry.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CustomValue {
    /// Its text.
    pub value: String,
}

fn key(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let Path(key) = path?;
    if is_custom_key(&key) {
        return Ok(key);
    }
    Err(ApiError::new(StatusCode::BAD_REQUEST, "BadKey", format!("\"{key}\" is no key"))
        .help("a key has 1 to 63 of a-z, 0-9, `.`, `_` and `-`, and begins with a letter or a digit"))
}

/// All entries.
#[utoipa::path(get, path = "/api/v1/custom-state", tag = "custom state", responses(
    (status = 200, body = CustomValues),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn all(State(app): State<Arc<App>>, _: Caller) -> Result<Json<CustomValues>, ApiError> {
    // Whoever reads too early takes for empty what is kept, and may write that.
    session(&app).await?;
    with(&app, |live| Json(CustomValues { values: live.custom.clone() }))
}

/// One entry.
#[utoipa::path(get, path = "/api/v1/custom-state/{key}", tag = "custom state", params(("key" = String, Path)),
    responses(
    (status = 200, body = CustomValue),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn one(
    State(app): State<Arc<App>>,
    _: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<CustomValue>, ApiError> {
    let key = key(path)?;
    session(&app).await?;
    let value = with(&app, |live| live.custom.get(&key).cloned())?;
    value.map(|value| Json(CustomValue { value })).ok_or_else(ApiError::not_found)
}

/// Sets an entry.
#[utoipa::path(put, path = "/api/v1/custom-state/{key}", tag = "custom state", params(("key" = String, Path)),
    request_body = CustomValue, responses(
    (status = 204, description = "It is set"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 413, description = "The value is too long, or there are too many", body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn set(
    State(app): State<Arc<App>>,
    _: Caller,
    path: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let key = key(path)?;
    let CustomValue { value } = parse(&body?)?;
    let too_large = |message: String| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message);
    if value.len() > MAX_CUSTOM_VALUE {
        return Err(too_large(format!("a value has at most {MAX_CUSTOM_VALUE} bytes")));
    }
    session(&app).await?;
    with(&app, |live| {
        if !live.custom.contains_key(&key) && live.custom.len() >= MAX_CUSTOM_ENTRIES {
            return Err(too_large(format!("there are at most {MAX_CUSTOM_ENTRIES} entries")));
        }
        live.store.set_custom(&key, Some(&value))?;
        live.custom.insert(key, value);
        Ok(())
    })??;
    app.mark_changed();
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an entry, whether it is there or not.
#[utoipa::path(delete, path = "/api/v1/custom-state/{key}", tag = "custom state", params(("key" = String, Path)),
    responses(
    (status = 204, description = "It is not there any more"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn remove(
    State(app): State<Arc<App>>,
    _: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let key = key(path)?;
    session(&app).await?;
    with(&app, |live| {
        live.store.set_custom(&key, None)?;
        live.custom.remove(&key);
        Ok::<_, ApiError>(())
    })??;
    app.mark_changed();
    Ok(StatusCode::NO_CONTENT)
}
