//! With a management API, played by the test as `domain::management` says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};

use reqwest::Method;

use super::Workspace;
use crate::backend::management::Management;
use crate::backend::session;
use crate::domain::management::{ErrorBody, Instance, Phase, PinnedArtifact, Snapshot};
use crate::domain::progress::Status;
use crate::domain::token::Role;

#[derive(Default)]
struct Calls {
    snapshots: Vec<Snapshot>,
    others: Vec<String>,
    refuses: Option<(u16, &'static str)>,
    version: u64,
}

type Shared = Arc<Mutex<Calls>>;

fn instance(version: u64) -> Instance {
    Instance {
        uid: "uid-1".into(),
        namespace: "default".into(),
        name: "alice".into(),
        owner: "alice".into(),
        workshop: "first-steps".into(),
        version: version.to_string(),
        step: if version == 0 { "one" } else { "two" }.into(),
        phase: if version == 0 { Phase::Running } else { Phase::Transitioning },
        started_at: Some("2026-01-01T00:00:00Z".into()),
        expires_at: Some("2026-01-01T04:00:00Z".into()),
        warning: false,
        can_extend: true,
        artifact: PinnedArtifact { digest: "sha256:0".into(), size: 1 },
        message: None,
    }
}

fn call(calls: &Shared, what: String) -> Response {
    let mut calls = calls.lock().unwrap();
    calls.others.push(what);
    match calls.refuses {
        Some((status, code)) => {
            (StatusCode::from_u16(status).unwrap(), Json(ErrorBody::new(code, "no"))).into_response()
        }
        None => StatusCode::ACCEPTED.into_response(),
    }
}

/// Serves the management API and begins the session of `workspace` with it.
async fn manage(workspace: &Workspace, progress: Value) -> Shared {
    let calls = serve(workspace, progress).await;
    tokio::spawn(session::run(Arc::clone(&workspace.app)));
    calls
}

/// Serves the management API, with which no session begins yet.
async fn serve(workspace: &Workspace, progress: Value) -> Shared {
    let calls = Shared::default();
    let session = move |headers: HeaderMap| async move {
        assert_eq!(headers["authorization"], "Bearer own-token");
        let progress = json!({ "epoch": 6, "sequence": 9, "steps": progress });
        let custom = json!({ "notes": "theirs", "other": "x" });
        Json(json!({ "epoch": 7, "instance": instance(0), "progress": progress, "customState": custom }))
    };
    let save = |State(calls): State<Shared>, Json(snapshot): Json<Snapshot>| async move {
        let mut calls = calls.lock().unwrap();
        calls.snapshots.push(snapshot);
        match calls.refuses {
            Some((500, _)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Some((409, "StaleEpoch")) => {
                (StatusCode::CONFLICT, Json(ErrorBody::new("StaleEpoch", "no"))).into_response()
            }
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    };
    let wait = |State(calls): State<Shared>| async move {
        for _ in 0..500 {
            let version = calls.lock().unwrap().version;
            if version > 0 {
                return Json(instance(version));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Json(instance(0))
    };
    let any = |State(calls): State<Shared>, Path(what): Path<String>, Json(body): Json<Value>| async move {
        if what == "extend" && calls.lock().unwrap().refuses.is_none() {
            return Json(json!({ "expiresAt": "2026-01-01T05:00:00Z" })).into_response();
        }
        call(&calls, format!("{what} {body}"))
    };
    let routes = Router::new()
        .route("/management/v1/instances/uid-1/sessions", post(session))
        .route("/management/v1/instances/uid-1/progress", put(save))
        .route("/management/v1/instances/uid-1", get(wait))
        .route("/management/v1/instances/uid-1/{what}", post(any))
        .with_state(Arc::clone(&calls));
    let socket = workspace.root.path().join("management.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let address = crate::backend::config::ManagementAddress::Unix(socket);
    workspace.app.management.set(Management::new(address, "uid-1", "own-token".into())).unwrap();
    calls
}

#[tokio::test]
async fn nothing_is_written_over_what_is_not_known_yet() {
    let workspace = Workspace::start().await;
    workspace.open();
    serve(&workspace, json!([])).await;
    let path = "api/v1/custom-state/notes";
    let write = workspace.ask(Role::Learner, Method::PUT, path, Some(json!({ "value": "mine" })));
    let (write, read, moved) = tokio::join!(write, workspace.get("api/v1/custom-state"), workspace.navigate("next"));
    for answer in [&write, &read, &moved] {
        assert_eq!(answer.code(), (503, "Starting".to_owned()));
        assert_eq!(answer.headers["retry-after"], "1");
    }
    // A request that comes while the session begins waits for it.
    let late = async {
        tokio::task::yield_now().await;
        session::run(Arc::clone(&workspace.app)).await;
    };
    tokio::select! {
        () = late => panic!("a session goes on for ever"),
        answer = workspace.get(path) => assert_eq!(answer.json()["value"], "theirs"),
    }
    let write = workspace.ask(Role::Learner, Method::PUT, path, Some(json!({ "value": "mine" }))).await;
    assert_eq!(write.status, 204);
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come to be");
}

fn done(step: &str) -> Value {
    json!({ "step": step, "status": "completed", "startedAt": "2026-01-01T00:00:00Z", "completedAt": null, "skipped": false })
}

#[tokio::test]
async fn progress_is_taken_over_and_handed_back() {
    let workspace = Workspace::start().await;
    workspace.open();
    workspace.app.with(|live| live.custom.insert("notes".into(), "ours".into()));
    let calls = manage(&workspace, json!([done("one"), done("vanished")])).await;
    until("a snapshot", || !calls.lock().unwrap().snapshots.is_empty()).await;
    let snapshot = calls.lock().unwrap().snapshots[0].clone();
    assert_eq!((snapshot.epoch, snapshot.steps[0].status), (7, Status::Completed));
    assert!(snapshot.steps.iter().any(|row| row.step == "vanished"));
    assert_eq!(snapshot.custom_state["notes"], "ours");
    assert_eq!(snapshot.custom_state["other"], "x");
    let state = workspace.get("api/v1/state").await.json();
    assert_eq!((&state["standalone"], &state["canExtend"]), (&json!(false), &json!(true)));
    assert_eq!(state["expiresAt"], "2026-01-01T04:00:00Z");
    let extended = workspace.post("api/v1/extend", json!({})).await.json();
    assert_eq!(extended["expiresAt"], "2026-01-01T05:00:00Z");
    until("a report of activity", || calls.lock().unwrap().others.iter().any(|call| call.starts_with("activity ")))
        .await;
}

#[tokio::test]
async fn a_step_switch_is_asked_for_after_the_progress_is_safe() {
    let workspace = Workspace::start().await;
    workspace.open();
    let calls = manage(&workspace, json!([])).await;
    until("a session", || workspace.app.with(|live| live.epoch) == Some(Some(7))).await;
    let moved = workspace.navigate("skip").await;
    assert_eq!(
        (moved.status.as_u16(), &moved.json()["target"], &moved.json()["transition"]),
        (202, &json!("two"), &json!(true))
    );
    {
        let calls = calls.lock().unwrap();
        let asked = calls.others.iter().find(|call| call.starts_with("step ")).unwrap();
        assert_eq!(asked, "step {\"step\":\"two\",\"epoch\":7}");
        assert!(calls.snapshots.last().unwrap().steps[0].skipped);
    }
    // The machine is exchanged from outside; until then this is still the old step.
    assert_eq!(workspace.get("api/v1/state").await.json()["step"], "one");
    calls.lock().unwrap().version = 1;
    until("the transition", || workspace.app.with(|live| live.phase()) == Some(Phase::Transitioning)).await;
    assert_eq!(workspace.navigate("reset").await.status, 202);
}

#[tokio::test]
async fn what_is_refused_outside_is_taken_back_inside() {
    let workspace = Workspace::start().await;
    workspace.open();
    assert_eq!(workspace.app.management.get().map(|_| ()), None);
    let calls = manage(&workspace, json!([])).await;
    until("a session", || workspace.app.with(|live| live.epoch) == Some(Some(7))).await;
    calls.lock().unwrap().refuses = Some((500, "Broken"));
    workspace.app.mark_changed();
    assert_eq!(workspace.navigate("reset").await.code(), (503, "ManagementUnavailable".into()));
    assert!(!calls.lock().unwrap().others.iter().any(|call| call.starts_with("reset ")));
    calls.lock().unwrap().refuses = Some((409, "Busy"));
    assert_eq!(workspace.navigate("skip").await.code(), (409, "Busy".into()));
    assert_eq!(workspace.get("api/v1/progress").await.json()["steps"][0]["skipped"], false);
    calls.lock().unwrap().refuses = Some((403, "ExtendRefused"));
    assert_eq!(workspace.post("api/v1/extend", json!({})).await.code(), (403, "ExtendRefused".into()));
}

#[tokio::test]
async fn a_backend_that_another_one_took_over_from_hands_over_nothing() {
    let workspace = Workspace::start().await;
    workspace.open();
    let calls = manage(&workspace, json!([])).await;
    until("a snapshot", || !calls.lock().unwrap().snapshots.is_empty()).await;
    until("it was taken", || workspace.app.with(|live| live.is_dirty) == Some(false)).await;
    calls.lock().unwrap().refuses = Some((409, "StaleEpoch"));
    workspace.app.mark_changed();
    assert!(workspace.app.hand_over().await);
    assert_eq!(workspace.app.with(|live| live.is_stale), Some(true));
    let before = calls.lock().unwrap().snapshots.len();
    workspace.app.mark_changed();
    assert!(workspace.app.hand_over().await);
    assert_eq!(calls.lock().unwrap().snapshots.len(), before);
}

#[tokio::test]
async fn without_an_answer_from_outside_the_workspace_works_and_says_so() {
    let workspace = Workspace::start().await;
    workspace.open();
    let nobody = crate::backend::config::ManagementAddress::Unix(workspace.root.path().join("nobody.sock"));
    workspace.app.management.set(Management::new(nobody, "uid-1", "own-token".into())).unwrap();
    tokio::spawn(session::run(Arc::clone(&workspace.app)));
    assert_eq!(workspace.get("api/v1/state").await.json()["standalone"], false);
    assert_eq!(workspace.navigate("skip").await.code(), (503, "Starting".into()));
    assert_eq!(workspace.get("api/v1/progress").await.json()["steps"][0]["skipped"], false);
    assert_eq!(workspace.post("api/v1/extend", json!({})).await.code(), (503, "ManagementUnavailable".into()));
}
