//! A learner's way through a workshop, alone and with an instructor.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::{BASE, Workspace};
use crate::backend::store::Store;
use crate::domain::token::Role;

#[tokio::test]
async fn a_learner_goes_through_the_workshop() {
    let workspace = Workspace::start().await;
    workspace.open();
    let state = workspace.get("api/v1/state").await.json();
    let expected = json!({ "id": "first-steps", "name": "First steps", "version": "v1" });
    assert_eq!((&state["workshop"], &state["step"], &state["position"]), (&expected, &json!("one"), &json!(1)));
    assert_eq!(
        (&state["standalone"], &state["phase"], &state["role"]),
        (&json!(true), &json!("Running"), &json!("learner"))
    );

    // Red: the way on is closed, and it is said what is missing.
    assert_eq!(workspace.get("api/v1/validate").await.json(), Value::Null);
    let refused = workspace.navigate("next").await;
    assert_eq!(refused.code(), (409, "ChecksFailing".into()));
    assert_eq!(refused.json()["error"]["missing"].as_array().unwrap().len(), 1);
    assert_eq!(workspace.get("api/v1/validate").await.json()["passed"], false);
    assert!(workspace.get("api/v1/validate?format=goss").await.json()["summary"]["failed-count"] == 1);
    assert_eq!(workspace.get("api/v1/validate?format=x").await.status, 400);
    let steps = workspace.get("api/v1/steps").await.json();
    let enter: Vec<&Value> = steps["steps"].as_array().unwrap().iter().map(|step| &step["canEnter"]).collect();
    assert_eq!(enter, [&json!(true), &json!(false), &json!(false)]);
    assert_eq!(steps["steps"][1]["reason"], "complete or skip \"Look around\" first");
    let goto = json!({ "action": "goto", "step": "three" });
    assert_eq!(workspace.post("api/v1/navigate", goto).await.code(), (409, "StepLocked".into()));
    assert_eq!(workspace.post("api/v1/navigate", json!({ "action": "goto" })).await.status, 400);
    let none = json!({ "action": "goto", "step": "none" });
    assert_eq!(workspace.post("api/v1/navigate", none).await.code(), (404, "NoSuchStep".into()));
    assert_eq!(workspace.navigate("previous").await.code(), (409, "NoPreviousStep".into()));

    // Skipped, then green, then the last one, which has no checks.
    let skipped = workspace.navigate("skip").await;
    assert_eq!((skipped.status.as_u16(), &skipped.json()["target"]), (200, &json!("two")));
    assert!(skipped.json()["message"].as_str().unwrap().contains("alone"));
    assert_eq!(workspace.navigate("skip").await.code(), (409, "SkipForbidden".into()));
    let report = workspace.post("api/v1/validate", json!({})).await.json();
    assert_eq!((&report["step"], &report["passed"]), (&json!("two"), &json!(true)));
    assert_eq!(workspace.navigate("next").await.json()["target"], "three");
    assert_eq!(workspace.post("api/v1/validate", json!({})).await.code(), (409, "NoChecks".into()));
    let end = workspace.navigate("next").await.json();
    assert_eq!((&end["target"], &end["transition"]), (&Value::Null, &json!(false)));

    let progress = workspace.get("api/v1/progress").await.json();
    let rows: Vec<_> =
        progress["steps"].as_array().unwrap().iter().map(|row| (&row["status"], &row["skipped"])).collect();
    let (pending, completed, yes, no) = (json!("pending"), json!("completed"), json!(true), json!(false));
    assert_eq!(rows, [(&pending, &yes), (&completed, &no), (&completed, &no)]);
    assert_eq!((&progress["completed"], &progress["total"]), (&json!(2), &json!(3)));
    assert_eq!(workspace.get("api/v1/state").await.json()["finished"], true);
    assert_eq!(workspace.navigate("reset").await.json()["transition"], false);
    assert_eq!(workspace.post("api/v1/extend", json!({})).await.code(), (403, "ExtendRefused".into()));
}

#[tokio::test]
async fn the_check_spec_of_the_current_step_is_where_it_always_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let workspace = Workspace::start().await;
    workspace.open();
    let file = workspace.root.path().join("workshop/.goss/goss.yaml");
    assert!(std::fs::read_to_string(&file).unwrap().contains("/nowhere/at/all"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    workspace.navigate("skip").await;
    assert!(!std::fs::read_to_string(&file).unwrap().contains("/nowhere/at/all"));
    workspace.navigate("next").await;
    assert!(!file.exists());
}

#[tokio::test]
async fn gates_do_not_bind_an_instructor() {
    let workspace = Workspace::start().await;
    workspace.open();
    let go = async |step: &str| {
        let body = json!({ "action": "goto", "step": step });
        workspace.ask(Role::Instructor, Method::POST, "api/v1/navigate", Some(body)).await
    };
    assert_eq!(go("three").await.json()["target"], "three");
    assert_eq!(go("two").await.json()["target"], "two");
    let skipped =
        workspace.ask(Role::Instructor, Method::POST, "api/v1/navigate", Some(json!({ "action": "skip" }))).await;
    assert_eq!(skipped.json()["target"], "three");
}

#[tokio::test]
async fn texts_are_rendered_and_pictures_served() {
    let workspace = Workspace::start().await;
    workspace.open();
    let step = workspace.get("api/v1/steps/one").await.json();
    assert!(step["html"].as_str().unwrap().contains("<h1 id=\"doc-one\">"), "{step}");
    assert_eq!((&step["next"], &step["previous"], &step["canSkip"]), (&json!("two"), &Value::Null, &json!(true)));
    assert_eq!(workspace.get("api/v1/steps/none").await.code(), (404, "NoSuchStep".into()));

    let assets = workspace.root.path().join("workshop/assets");
    std::fs::create_dir_all(assets.join("deep")).unwrap();
    std::fs::write(assets.join("deep/a b.SVG"), "<svg/>").unwrap();
    std::fs::write(assets.join("page.html"), "<script>").unwrap();
    std::fs::write(workspace.root.path().join("secret.png"), "secret").unwrap();
    std::os::unix::fs::symlink("../../secret.png", assets.join("link.png")).unwrap();
    let picture = workspace.get("api/v1/assets/deep/a%20b.SVG").await;
    assert_eq!((picture.status.as_u16(), picture.headers["content-type"].to_str().unwrap()), (200, "image/svg+xml"));
    assert!(picture.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
    for path in ["page.html", "link.png", "none.png", "..%2f..%2fsecret.png", "%2e%2e/secret.png", "deep"] {
        assert_eq!(workspace.get(&format!("api/v1/assets/{path}")).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn answers_and_notes_are_kept_within_limits() {
    let workspace = Workspace::start().await;
    workspace.open();
    let set = async |key: &str, value: &str| {
        let body = Some(json!({ "value": value }));
        workspace.ask(Role::Learner, Method::PUT, &format!("api/v1/custom-state/{key}"), body).await.status.as_u16()
    };
    assert_eq!(set("notes", "a\nb").await, 204);
    assert_eq!(workspace.get("api/v1/custom-state/notes").await.json(), json!({ "value": "a\nb" }));
    assert_eq!(workspace.get("api/v1/custom-state/none").await.status, 404);
    assert_eq!(set("Notes", "x").await, 400);
    assert_eq!(set("workshop%3Askipped", "x").await, 400);
    assert_eq!(set("notes", &"x".repeat(4096)).await, 204);
    assert_eq!(set("notes", &"x".repeat(4097)).await, 413);
    for index in 1..64 {
        assert_eq!(set(&format!("key-{index}"), "x").await, 204);
    }
    assert_eq!(set("one-more", "x").await, 413);
    assert_eq!(workspace.ask(Role::Learner, Method::DELETE, "api/v1/custom-state/key-1", None).await.status, 204);
    assert_eq!(set("one-more", "x").await, 204);
    assert_eq!(workspace.get("api/v1/custom-state").await.json()["values"].as_object().unwrap().len(), 64);
    let stored = workspace.app.with(|live| Store::custom_state(&live.store).unwrap().len());
    assert_eq!(stored, Some(64));
}

#[tokio::test]
async fn a_live_preview_changes_texts_and_keeps_progress() {
    let workspace = Workspace::start().await;
    workspace.open();
    workspace.navigate("skip").await;
    let newer = "UPDATE steps SET title = 'Go on, newer', markdown = '# Newer' WHERE id = 'two';";
    assert_eq!(workspace.preview(Role::Learner, newer).await.code(), (403, "Forbidden".into()));
    assert_eq!(workspace.preview(Role::Workspace, newer).await.status, 204);
    let state = workspace.get("api/v1/state").await.json();
    assert_eq!((&state["step"], &state["stepTitle"]), (&json!("two"), &json!("Go on, newer")));
    assert!(workspace.get("api/v1/steps/two").await.json()["html"].as_str().unwrap().contains("Newer"));
    assert_eq!(workspace.get("api/v1/progress").await.json()["steps"][0]["skipped"], true);

    let other = "PRAGMA foreign_keys = OFF; UPDATE workshop SET id = 'w'; UPDATE steps SET workshop_id = 'w';";
    assert_eq!(workspace.preview(Role::Instructor, other).await.code(), (409, "OtherWorkshop".into()));
    let gone = "UPDATE navigation SET next_step_id = NULL WHERE step_id = 'one'; DELETE FROM navigation WHERE step_id <> 'one';
        DELETE FROM step_metadata; DELETE FROM steps WHERE id <> 'one';";
    assert_eq!(workspace.preview(Role::Instructor, gone).await.code(), (409, "NoSuchStep".into()));
    let authorization = format!("Bearer {}", workspace.token(Role::Instructor));
    let junk = workspace.send(Method::PUT, "api/v1/artifact", &[("authorization", &authorization)], "junk").await;
    assert_eq!(junk.code(), (422, "BadArtifact".into()));
    assert_eq!(workspace.get("api/v1/state").await.json()["stepTitle"], "Go on, newer");
}

/// The next event of the stream that is called `name`.
async fn next_event(stream: &mut (impl futures_util::Stream<Item = String> + Unpin), name: &str) -> Value {
    let wait = async {
        loop {
            let event = stream.next().await.expect("the stream goes on");
            if let Some(data) = event.strip_prefix(&format!("event: {name}\ndata: ")) {
                return serde_json::from_str(data.trim()).unwrap();
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("no event {name}"))
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let workspace = Workspace::start().await;
    workspace.open();
    let url = format!("{}{BASE}api/v1/events", workspace.origin);
    let answer = workspace.client.get(url).bearer_auth(workspace.token(Role::Learner)).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    // Events are separated by an empty line, whatever pieces they arrive in.
    let pieces = answer.bytes_stream().map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap());
    let events = pieces.scan(String::new(), |rest, piece| {
        rest.push_str(&piece);
        let mut events: Vec<String> = rest.split("\n\n").map(str::to_owned).collect();
        *rest = events.pop().unwrap_or_default();
        futures_util::future::ready(Some(futures_util::stream::iter(events)))
    });
    let mut events = Box::pin(events.flatten());
    assert_eq!(next_event(&mut events, "state").await["step"], "one");
    workspace.post("api/v1/validate", json!({})).await;
    assert_eq!(next_event(&mut events, "checks").await["passed"], false);
    workspace.navigate("skip").await;
    assert_eq!(next_event(&mut events, "content").await["step"], "two");
    assert_eq!(next_event(&mut events, "state").await["step"], "two");
    // Who lags behind gets the state.
    for _ in 0..1000 {
        workspace.app.events.send("message", &json!({}));
    }
    assert_eq!(next_event(&mut events, "state").await["step"], "two");
    let metrics = workspace.get("api/v1/metrics").await;
    let text = String::from_utf8(metrics.bytes).unwrap();
    assert!(text.contains("workshop_backend_checks_total{result=\"failed\"} 1"), "{text}");
    assert!(text.contains("workshop_backend_event_listeners 1"), "{text}");
    workspace.app.stop();
    assert!(tokio::time::timeout(std::time::Duration::from_secs(20), events.for_each(|_| async {})).await.is_ok());
}

#[tokio::test]
async fn what_the_workshop_does_not_offer_is_refused() {
    let settings =
        r#"{"access": {"files": {"enabled": false}, "webTerminal": {"enabled": false, "server": "builtin"}}}"#;
    let workspace = Workspace::start_with(&[("WORKSHOP_SETTINGS", settings)]).await;
    workspace.open();
    assert_eq!(workspace.get("api/v1/files").await.code(), (403, "FilesDisabled".into()));
    assert_eq!(workspace.get("api/v1/terminal").await.code(), (403, "TerminalDisabled".into()));
    let state = workspace.get("api/v1/state").await.json();
    assert_eq!(
        (&state["files"], &state["editor"], &state["terminal"]["enabled"]),
        (&json!(false), &json!(false), &json!(false))
    );
}

#[tokio::test]
async fn only_a_learners_own_doing_is_activity() {
    let workspace = Workspace::start().await;
    workspace.open();
    workspace.get("api/v1/state").await;
    workspace.get("api/v1/metrics").await;
    workspace.ask(Role::Instructor, Method::GET, "api/v1/steps", None).await;
    assert_eq!(workspace.app.used(), 0);
    workspace.get("api/v1/steps").await;
    assert!(workspace.app.used() > 0);
}
