//! Runs the checks of the current step, one run at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Caller;
use super::error::ApiError;
use super::{Parameters, with};
use crate::backend::app::{App, now};
use crate::backend::checks::{self, Options};
use crate::domain::goss::{Outcome, Report};
use crate::domain::management::ErrorBody;

/// How long the answer to a passed check waits until the progress is kept outside.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

/// Runs the checks of the current step; a step that passes is completed.
pub async fn run_checks(app: &App) -> Result<Arc<Report>, ApiError> {
    let Ok(_running) = app.checking.try_lock() else {
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "Busy", "the checks are running already"));
    };
    let (step, spec) = with(app, |live| Ok::<_, ApiError>((live.step.clone(), live.store.spec(&live.step)?)))??;
    let Some(spec) = spec else {
        return Err(ApiError::new(StatusCode::CONFLICT, "NoChecks", "this step has no checks: just go on"));
    };
    let machine = app.machine.get().ok_or_else(|| ApiError::starting(app.failure()))?;
    let options = Options {
        engine: app.config.settings.checks.engine,
        base_dir: app.config.path("/workshop/.goss"),
        command_user: machine.command_user.clone(),
        image_environment: machine.environment.clone(),
        ..Options::default()
    };
    let mut report = checks::run(&spec, &options).await.map_err(|error| {
        app.metrics.count_checks("error");
        let message = crate::backend::chain(&error);
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ChecksBroken", message)
            .help("this is a mistake in the workshop, not yours: skip the step or tell your instructor")
    })?;
    report.step.clone_from(&step);
    app.metrics.count_checks(if report.passed { "passed" } else { "failed" });
    let report = Arc::new(report);
    let is_current = with(app, |live| {
        // The step may have been left meanwhile.
        let is_current = live.step == step;
        if is_current {
            live.report = Some(Arc::clone(&report));
        }
        is_current
    })?;
    if is_current {
        app.events.send("checks", &*report);
    }
    if report.passed {
        let now = now();
        app.record(|ledger| {
            ledger.complete(&step, &now);
        })?;
        // What a learner is told is done outlives this container, whatever happens to it in the next moment.
        let _ = tokio::time::timeout(KEPT_WITHIN, app.hand_over()).await;
    }
    Ok(report)
}

/// What a report says is still to be done.
pub fn missing(report: &Report) -> Vec<String> {
    let is_open = |outcome| matches!(outcome, Outcome::Failed | Outcome::Error);
    report.results.iter().filter(|result| is_open(result.outcome)).map(|result| result.message.clone()).collect()
}

/// Runs the checks of the current step now.
#[utoipa::path(post, path = "/api/v1/validate", tag = "checks", responses(
    (status = 200, body = Report),
    (status = 401, body = ErrorBody),
    (status = 409, description = "`NoChecks`", body = ErrorBody),
    (status = 429, description = "`Busy`: they run already", body = ErrorBody),
    (status = 500, description = "`ChecksBroken`: the spec cannot be run", body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn run(State(app): State<Arc<App>>, _: Caller) -> Result<Response, ApiError> {
    let report = run_checks(&app).await?;
    Ok(Json(&*report).into_response())
}

/// What [`last`] answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes the two documents, which the report makes itself")]
pub enum LastReport {
    /// Ours.
    Report(Report),
    /// goss's.
    Goss(GossDocument),
}

/// The document of `goss validate --format json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct GossDocument {
    /// One for each assertion.
    results: Vec<serde_json::Value>,
    /// The counts.
    summary: serde_json::Value,
}

/// The query of [`last`].
#[derive(Debug, Deserialize)]
pub struct Format {
    format: Option<String>,
}

/// The last report of the current step, or null.
#[utoipa::path(get, path = "/api/v1/validate", tag = "checks", params(
    ("format" = Option<String>, Query, description = "`goss` for goss's own document"),
), responses(
    (status = 200, body = Option<LastReport>),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn last(
    State(app): State<Arc<App>>,
    _: Caller,
    Parameters(format): Parameters<Format>,
) -> Result<Response, ApiError> {
    let report = with(&app, |live| live.report.clone())?;
    match format.format.as_deref() {
        None => Ok(Json(report.as_deref()).into_response()),
        Some("goss") => Ok(Json(report.map(|report| report.to_goss())).into_response()),
        Some(other) => Err(ApiError::bad_request(format!("there is no format \"{other}\""))),
    }
}
