//! Goes to another step: asks those who exchange the machine, or, alone, changes the text.
//!
//! What is allowed is the domain's decision. What a move completes is handed over before the machine is exchanged.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::auth::Caller;
use super::checks::{missing, run_checks};
use super::error::ApiError;
use super::view::Navigated;
use super::{parse, session, with};
use crate::backend::app::{App, now};
use crate::backend::management::Management;
use crate::domain::management::{ErrorBody, Phase};
use crate::domain::progress::{Action, Ledger, Move, Refusal, StepProgress};

const ALONE: &str = "this workspace runs alone: only the text changes, the machine stays as it is";

/// Where to.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NavigateRequest {
    /// What to do.
    pub action: ActionName,
    /// The step, for `goto`.
    #[serde(default)]
    pub step: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActionName {
    /// On, the step being done.
    Next,
    /// Back.
    Previous,
    /// To a step.
    Goto,
    /// On, the step not being done.
    Skip,
    /// The current step's machine anew.
    Reset,
}

/// Goes to another step, or begins this one anew.
#[utoipa::path(post, path = "/api/v1/navigate", tag = "steps", request_body = NavigateRequest, responses(
    (status = 200, description = "Done; the machine stays", body = Navigated),
    (status = 202, description = "The machine is being exchanged", body = Navigated),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, description = "`NoSuchStep`", body = ErrorBody),
    (status = 409, description = "`ChecksFailing` with `missing`, `StepLocked`, `SkipForbidden`, `NoPreviousStep`",
        body = ErrorBody),
    (status = 429, description = "`Busy`: checks are running", body = ErrorBody),
    (status = 500, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
pub async fn navigate(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request: NavigateRequest = parse(&body?)?;
    session(&app).await?;
    let action = match (request.action, request.step) {
        (ActionName::Reset, _) => return reset(&app).await,
        (ActionName::Next, _) => Action::Next,
        (ActionName::Previous, _) => Action::Previous,
        (ActionName::Skip, _) => Action::Skip,
        (ActionName::Goto, Some(step)) => Action::Goto(step),
        (ActionName::Goto, None) => return Err(ApiError::bad_request("`goto` needs a `step`")),
    };
    let is_bound = caller.is_bound();
    let decide = || with(&app, |live| (live.step.clone(), live.ledger.decide(&live.step, &action, is_bound)));
    let (from, decided) = match decide()? {
        // The learner may have done it since the last run.
        (_, Err(Refusal::ChecksFailing)) => {
            let report = run_checks(&app).await?;
            match decide()? {
                (_, Err(refusal @ Refusal::ChecksFailing)) => {
                    let mut error = ApiError::from(refusal);
                    error.body.error.missing = Some(missing(&report));
                    return Err(error);
                }
                decided => decided,
            }
        }
        decided => decided,
    };
    go(&app, &from, decided?).await
}

async fn reset(app: &App) -> Result<Response, ApiError> {
    let step = with(app, |live| live.step.clone())?;
    let Some(management) = app.management.get() else {
        let message = "this workspace runs alone: start its container anew to begin the step again".to_owned();
        return Ok(Json(Navigated { target: Some(step), transition: false, message: Some(message) }).into_response());
    };
    let epoch = epoch(app)?;
    hand_over(app).await?;
    management.reset(epoch).await?;
    Ok(transition(app, &step, &step, "the step begins anew"))
}

fn epoch(app: &App) -> Result<u64, ApiError> {
    with(app, |live| live.epoch)?.ok_or_else(|| {
        let message = "those who run this workspace do not answer yet";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ManagementUnavailable", message).help("try again in a moment")
    })
}

/// Hands over all progress, without which no machine may be exchanged.
async fn hand_over(app: &App) -> Result<(), ApiError> {
    if app.hand_over().await {
        return Ok(());
    }
    let message = "the progress cannot be kept at the moment, so the machine stays";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ManagementUnavailable", message).help("try again in a moment"))
}

fn transition(app: &App, from: &str, to: &str, message: &str) -> Response {
    let phase = Phase::Transitioning;
    app.events.send("transition", &json!({ "from": from, "to": to, "phase": phase, "message": message }));
    let target = Some(to.to_owned());
    let body = Navigated { target, transition: true, message: Some(message.to_owned()) };
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

async fn go(app: &App, from: &str, decided: Move) -> Result<Response, ApiError> {
    let Some(target) = decided.target.clone().filter(|target| target != from) else {
        note(app, from, &decided)?;
        let message = if decided.target.is_none() { "this was the last step" } else { "you are in this step already" };
        let body = Navigated { target: decided.target, transition: false, message: Some(message.to_owned()) };
        return Ok(Json(body).into_response());
    };
    match app.management.get() {
        None => {
            note(app, from, &decided)?;
            app.enter(&target)?;
            app.events.send("content", &json!({ "step": target }));
            app.tell(&["progress", "steps", "state"]);
            let body = Navigated { target: Some(target), transition: false, message: Some(ALONE.to_owned()) };
            Ok(Json(body).into_response())
        }
        Some(management) => exchange(app, management, from, &target, &decided).await,
    }
}

/// Writes down what the move completes or skips.
fn note(app: &App, step: &str, decided: &Move) -> Result<(), ApiError> {
    if !decided.completes && !decided.skips {
        return Ok(());
    }
    let now = now();
    app.record(|ledger| {
        if decided.completes {
            ledger.complete(step, &now);
        }
        if decided.skips {
            ledger.skip(step);
        }
    })?;
    Ok(())
}

/// Takes back what a refused move noted, where nothing else has changed it since.
fn take_back(app: &App, before: &StepProgress, noted: &StepProgress) -> Result<(), ApiError> {
    fn field<T: Clone + PartialEq>(now: &mut T, before: &T, noted: &T) {
        if now == noted {
            now.clone_from(before);
        }
    }
    app.record(|ledger| {
        let mut rows = ledger.rows().to_vec();
        if let Some(row) = rows.iter_mut().find(|row| row.step == before.step) {
            field(&mut row.status, &before.status, &noted.status);
            field(&mut row.started_at, &before.started_at, &noted.started_at);
            field(&mut row.completed_at, &before.completed_at, &noted.completed_at);
            field(&mut row.skipped, &before.skipped, &noted.skipped);
        }
        *ledger = Ledger::new(ledger.steps().to_vec(), rows);
    })?;
    Ok(())
}

async fn exchange(
    app: &App,
    management: &Management,
    from: &str,
    target: &str,
    decided: &Move,
) -> Result<Response, ApiError> {
    let epoch = epoch(app)?;
    let before = with(app, |live| live.ledger.row(from))?;
    note(app, from, decided)?;
    let noted = with(app, |live| live.ledger.row(from))?;
    // First the progress: the container may be gone before its next turn.
    hand_over(app).await?;
    if let Err(error) = management.go_to(target, epoch).await {
        // Without an answer it may have been done.
        if error.is_refusal() && noted != before {
            take_back(app, &before, &noted)?;
        }
        return Err(error.into());
    }
    Ok(transition(app, from, target, "the machine of the next step is being started"))
}
