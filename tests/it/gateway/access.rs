//! Who gets in, and who does not.

use std::io::Write;
use std::sync::{Arc, Mutex};

use hyper::StatusCode;
use serde_json::json;
use workshop::domain::token::Role;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_instance_opens_to_its_own_token_and_to_the_owner_alone() {
    let server = Server::start().await;
    let (alice, bob) = (server.instance("alice").await, server.instance("bob").await);
    for uid in [&alice, &bob] {
        server.serve(uid, axum::Router::new().fallback(async || axum::Json(json!({ "yes": true }))));
    }
    let sign = |uid: &str, role| server.workspaces.sign(uid, "somebody", role, HOUR).unwrap();
    let other = Server::start().await;
    let no_time = server.workspaces.sign(&alice, "somebody", Role::Learner, Duration::ZERO).unwrap();
    let cookie = |token: &str| ("cookie", format!("workshop_token={token}"));
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let rows = [
        ("nothing", ("accept", "*/*".to_owned()), 401),
        ("its cookie", cookie(&sign(&alice, Role::Learner)), 200),
        ("its token", bearer(&sign(&alice, Role::Learner)), 200),
        ("its instructor", bearer(&sign(&alice, Role::Instructor)), 200),
        ("the workspace itself", bearer(&sign(&alice, Role::Workspace)), 401),
        ("the cookie of another instance", cookie(&sign(&bob, Role::Learner)), 401),
        ("the token of another instance", bearer(&sign(&bob, Role::Instructor)), 401),
        ("a token of another key", bearer(&other.workspaces.sign(&alice, "x", Role::Learner, HOUR).unwrap()), 401),
        ("an expired token", cookie(&no_time), 401),
        ("no token at all", cookie("x.y.z"), 401),
        ("the owner", ("cookie", server.owner_cookie()), 200),
        ("another owner", ("cookie", other.owner_cookie()), 401),
        (
            "the owner's key as a cookie",
            ("cookie", format!("{}={}", server.owner.cookie_name(), server.owner.text())),
            401,
        ),
    ];
    for (who, (name, value), expected) in &rows {
        let headers = [(*name, value.as_str())];
        for path in ["/w/alice/api/v1/state", "/w/alice/gateway/v1/state"] {
            let answer = server.get(path, &headers).await;
            assert_eq!(answer.status.as_u16(), *expected, "{who} at {path}: {}", answer.body);
        }
        let page = server.get("/w/alice/", &headers).await;
        assert_eq!(page.status.as_u16(), *expected, "{who} at the page");
        // A stranger is not told which instances there are.
        let unknown = server.get("/w/nobody/api/v1/state", &headers).await;
        assert_eq!(unknown.status.as_u16(), if *who == "the owner" { 404 } else { 401 }, "{who}");
        let control = server.get("/control/v1/instances", &headers).await;
        assert_eq!(control.status.as_u16(), if *who == "the owner" { 200 } else { 401 }, "{who}");
    }
}

#[tokio::test]
async fn a_secret_from_a_fragment_becomes_a_cookie() {
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    let wrong = server.post("/session", &[], json!({ "key": "wrong" })).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (StatusCode::UNAUTHORIZED, "Unauthorized"));
    let right = server.post("/session", &[], json!({ "key": server.owner.text() })).await;
    assert_eq!(right.status, StatusCode::NO_CONTENT);
    let owner = format!("{}={}", server.owner.cookie_name(), right.cookie(server.owner.cookie_name()).unwrap());
    assert!(!owner.contains(server.owner.text()));
    assert_eq!(server.get("/", &[("cookie", &owner)]).await.status, StatusCode::OK);

    // The first visit gives the instance's own cookie, which opens it without the owner's.
    let visit = server.get("/w/alice/", &[("cookie", &owner)]).await;
    let set = visit.header("set-cookie").unwrap();
    assert!(set.contains("Path=/w/alice/") && set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let own = format!("workshop_token={}", visit.cookie("workshop_token").unwrap());
    let again = server.get("/w/alice/", &[("cookie", &own)]).await;
    assert_eq!((again.status, again.header("set-cookie")), (StatusCode::OK, None));

    let token = server.workspaces.sign(&uid, "alice", Role::Learner, HOUR).unwrap();
    let opened = server.post("/w/alice/session", &[], json!({ "token": token })).await;
    assert_eq!((opened.status, opened.cookie("workshop_token")), (StatusCode::NO_CONTENT, Some(token.clone())));
    server.instance("bob").await;
    let elsewhere = server.post("/w/bob/session", &[], json!({ "token": token })).await;
    assert_eq!((elsewhere.status, elsewhere.header("set-cookie")), (StatusCode::UNAUTHORIZED, None));
}

#[tokio::test]
async fn guessing_the_key_is_slowed_down_and_locks_nobody_out() {
    let server = Server::start().await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(server.post("/session", &[], json!({ "key": "wrong" })).await.status.as_u16());
    }
    assert_eq!((seen[0], seen[9], seen[10], seen[11]), (401, 401, 429, 429));
    let right = server.post("/session", &[], json!({ "key": server.owner.text() })).await;
    assert_eq!(right.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn names_of_strangers_lead_nowhere() {
    let server = Server::start().await;
    let port = server.address().port();
    let owner = server.owner_cookie();
    for (host, expected) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("rebound.example:{port}"), 421),
        ("localhost".to_owned(), 421),
        (format!("localhost:{}", port.wrapping_add(1)), 421),
    ] {
        for path in ["/", "/assets/x.js", "/w/alice/", "/healthz", "/control/v1/instances"] {
            let answer = server.get(path, &[("host", &host), ("cookie", &owner)]).await;
            assert_eq!(answer.status.as_u16() == 421, expected == 421, "{host}{path}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    server.serve(&uid, axum::Router::new().fallback(async || "done"));
    let owner = server.owner_cookie();
    let own = format!("http://{}", server.host());
    for (name, value, expected) in [
        ("origin", own.as_str(), true),
        ("origin", "http://evil.example", false),
        ("origin", "http://localhost:3000", false),
        ("origin", "null", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "same-site", false),
        ("sec-fetch-site", "cross-site", false),
        ("accept", "*/*", true),
    ] {
        let headers = [("cookie", owner.as_str()), (name, value)];
        for path in ["/control/v1/instances/alice/resume", "/w/alice/gateway/v1/resume", "/w/alice/api/v1/validate"] {
            let answer = server.post(path, &headers, json!({})).await;
            let refused = answer.status == StatusCode::FORBIDDEN && answer.code() == "CrossOrigin";
            assert_eq!(!refused, expected, "{name}: {value} at {path}: {}", answer.status);
        }
        let upgrade = [headers.as_slice(), &[("upgrade", "websocket"), ("connection", "upgrade")]].concat();
        let answer = server.get("/w/alice/ws", &upgrade).await;
        assert_eq!(answer.status != StatusCode::FORBIDDEN, expected, "{name}: {value} for a WebSocket");
    }
}

#[tokio::test]
async fn paths_cannot_leave_the_workspace() {
    let server = Server::start().await;
    let (alice, bob) = (server.instance("alice").await, server.instance("bob").await);
    let reached = Arc::new(Mutex::new(Vec::new()));
    for uid in [&alice, &bob] {
        let reached = Arc::clone(&reached);
        let note = async move |request: axum::extract::Request| {
            reached.lock().unwrap().push(request.uri().path().to_owned());
            "reached"
        };
        server.serve(uid, axum::Router::new().fallback(note));
    }
    let cookie = format!("workshop_token={}", server.workspaces.sign(&alice, "alice", Role::Learner, HOUR).unwrap());
    for path in [
        "/w/alice/api/v1/../../../bob/api/v1/state",
        "/w/alice/api/v1/%2e%2e/%2e%2e/bob/api/v1/state",
        "/w/alice/api/v1/..%2f..%2fbob/api/v1/state",
        "/w/alice/api/v1/a%5c..%5cb",
        "/w/alice/../bob/api/v1/state",
        "/w/alice%2f..%2fbob/api/v1/state",
        "/w/../alice/api/v1/state",
        "/w/%2e%2e/api/v1/state",
        "/w//api/v1/state",
        "/w/bob/api/v1/state",
        "/w/ALICE/api/v1/state",
        "/w/%61lice/api/v1/state",
    ] {
        let answer = server.get(path, &[("cookie", &cookie)]).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    assert_eq!(*reached.lock().unwrap(), Vec::<String>::new());
    server.get("/w/alice/api/v1/state?path=../..", &[("cookie", &cookie)]).await;
    assert_eq!(*reached.lock().unwrap(), ["/w/alice/api/v1/state"]);
}

/// What was logged, for a test to read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_however_much_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // For all threads: what other tests log is in it too, and does no harm.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    server.serve(&uid, axum::Router::new().fallback(async || "answer"));
    let token = server.workspaces.sign(&uid, "alice", Role::Learner, HOUR).unwrap();
    server.post("/session", &[], json!({ "key": server.owner.text() })).await;
    server.post("/w/alice/session", &[], json!({ "token": token })).await;
    let cookies = format!("{}; workshop_token={token}", server.owner_cookie());
    server.get("/w/alice/?token=in-a-query", &[("cookie", &cookies)]).await;
    server.get("/w/alice/api/v1/state?token=in-a-query", &[("cookie", &cookies)]).await;
    server.get("/w/alice/api/v1/state", &[("authorization", &format!("Bearer {token}"))]).await;
    let opened = server.post("/control/v1/instances/alice/open", &[("cookie", &cookies)], json!({})).await;
    let url = opened.json()["url"].as_str().unwrap().to_owned();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("/w/alice/api/v1/state"), "requests are logged: {logged}");
    let minted = url.split_once("#token=").expect("a token in the fragment").1;
    for secret in [server.owner.text(), &server.owner.cookie(), &token, minted, "in-a-query"] {
        assert!(!logged.contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn whatever_cannot_be_read_is_refused_in_the_one_error_shape() {
    let server = Server::start().await;
    server.instance("alice").await;
    let cookie = server.owner_cookie();
    let origin = format!("http://{}", server.host());
    let json = "application/json";
    let rows: [(&str, &str, &str, &str, u16, &str); 12] = [
        ("POST", "/control/v1/instances", json, "{", 400, "BadRequest"),
        ("POST", "/control/v1/instances", json, r#"{"template": 1}"#, 400, "BadRequest"),
        ("POST", "/control/v1/instances", "text/plain", "{}", 415, "UnsupportedMediaType"),
        ("POST", "/control/v1/instances/alice/goto", json, "[]", 400, "BadRequest"),
        ("POST", "/control/v1/instances/alice/goto", json, "", 400, "BadRequest"),
        ("POST", "/control/v1/instances/alice/extend", json, "{seconds: 1}", 400, "BadRequest"),
        ("POST", "/w/alice/gateway/v1/extend", json, "{", 400, "BadRequest"),
        ("GET", "/control/v1/instances/alice/logs?follow=maybe", json, "", 400, "BadRequest"),
        ("POST", "/session", json, "\"", 400, "BadRequest"),
        ("POST", "/w/alice/session", json, "nothing", 400, "BadRequest"),
        ("PUT", "/control/v1/instances", json, "{}", 405, "MethodNotAllowed"),
        ("POST", "/control/v1/nothing", json, "{}", 404, "NotFound"),
    ];
    for (method, path, kind, body, status, code) in rows {
        let method: Method = method.parse().unwrap();
        let headers = [("cookie", cookie.as_str()), ("origin", &origin), ("content-type", kind)];
        let answer = server.ask(method.clone(), path, &headers, body.to_owned()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{method} {path}: {}",
            answer.body
        );
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {path}");
    }
    let huge = format!("{{\"key\": \"{}\"}}", "x".repeat(3 << 20));
    let answer = server.ask(Method::POST, "/session", &[("content-type", json)], huge).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "TooLarge"), "{}", answer.body);
}
