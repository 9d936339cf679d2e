//! The state, the steps with their texts, and the progress.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::auth::Caller;
use super::error::ApiError;
use super::view::{self, ProgressView, StepContent, Steps};
use super::with;
use crate::backend::app::App;
use crate::domain::management::ErrorBody;
use crate::domain::progress::Refusal;

/// Where the learner is, and what this workspace offers.
#[utoipa::path(get, path = "/api/v1/state", tag = "steps", responses(
    (status = 200, body = view::State),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn state(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<view::State>, ApiError> {
    with(&app, |live| Json(view::state(&app, live, caller.0.role)))
}

/// All steps in their order.
#[utoipa::path(get, path = "/api/v1/steps", tag = "steps", responses(
    (status = 200, body = Steps),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn steps(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Steps>, ApiError> {
    with(&app, |live| Json(view::steps(live, caller.is_bound())))
}

/// A step with its text. Texts are no secret: also those of steps that cannot be entered yet are shown.
#[utoipa::path(get, path = "/api/v1/steps/{id}", tag = "content", params(("id" = String, Path)), responses(
    (status = 200, body = StepContent),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn step(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<StepContent>, ApiError> {
    let Path(id) = id?;
    let (step, rules, markdown) = with(&app, |live| {
        let rules = live.ledger.rules(&id).cloned().ok_or(Refusal::NoSuchStep(id.clone()))?;
        let markdown = live.store.markdown(&id)?.unwrap_or_default();
        Ok::<_, ApiError>((view::step(live, &rules, caller.is_bound()), rules, markdown))
    })??;
    // A long text takes a while, which is not for the threads that serve everybody.
    let shared = Arc::clone(&app);
    let rendered = tokio::task::spawn_blocking(move || shared.renderer.render(&markdown)).await;
    let rendered = rendered.map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Rendering", "the text of this step cannot be rendered")
    })?;
    Ok(Json(StepContent {
        step,
        html: rendered.html.clone(),
        next: rules.next,
        previous: rules.previous,
        digest: rendered.digest.to_string(),
    }))
}

/// What was done.
#[utoipa::path(get, path = "/api/v1/progress", tag = "steps", responses(
    (status = 200, body = ProgressView),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn progress(State(app): State<Arc<App>>, _: Caller) -> Result<Json<ProgressView>, ApiError> {
    with(&app, |live| Json(view::progress(live)))
}
