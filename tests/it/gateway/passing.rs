//! What passes between browser and workspace: streams as they come, sockets both ways, pages from the gateway.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Request as Asked, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::*;

#[tokio::test]
async fn an_event_arrives_before_the_stream_ends() {
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    let (events, receiver) = mpsc::channel::<Event>(1);
    let receiver = Arc::new(tokio::sync::Mutex::new(Some(receiver)));
    let serve = async move || {
        let receiver = receiver.lock().await.take().unwrap();
        Sse::new(ReceiverStream::new(receiver).map(Ok::<_, Infallible>))
    };
    server.serve(&uid, axum::Router::new().route("/w/alice/api/v1/events", get(serve)));
    let cookie = server.owner_cookie();
    events.send(Event::default().event("state").data("first")).await.unwrap();
    let response = server.send(Method::GET, "/w/alice/api/v1/events", &[("cookie", &cookie)], Body::empty()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut read = async || {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    };
    assert_eq!(read().await, "event: state\ndata: first\n\n");
    // Only now the workspace has more to say: nothing waited for it.
    events.send(Event::default().data("second")).await.unwrap();
    assert_eq!(read().await, "data: second\n\n");
}

#[tokio::test]
async fn a_large_body_flows_without_being_kept() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: u64 = 100;
    /// Sockets, and the buffers of four programs' ends.
    const UNDER_WAY: u64 = 16;
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    let taken = Arc::new(AtomicU64::new(0));
    let count = async |State(taken): State<Arc<AtomicU64>>, request: Asked| {
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            taken.fetch_add(frame.unwrap().into_data().unwrap().len() as u64, Ordering::SeqCst);
        }
        taken.load(Ordering::SeqCst).to_string()
    };
    let routes = axum::Router::new().fallback(any(count)).with_state(Arc::clone(&taken));
    server.serve(&uid, routes);
    let sent = Arc::new(AtomicU64::new(0));
    let furthest = Arc::new(AtomicU64::new(0));
    let chunks = stream::unfold(0, {
        let (sent, furthest, taken) = (Arc::clone(&sent), Arc::clone(&furthest), Arc::clone(&taken));
        move |number| {
            let ahead = sent.load(Ordering::SeqCst) - taken.load(Ordering::SeqCst);
            furthest.fetch_max(ahead, Ordering::SeqCst);
            let next = (number < CHUNKS).then(|| {
                sent.fetch_add(CHUNK as u64, Ordering::SeqCst);
                (Ok::<_, Infallible>(tokio_util::bytes::Bytes::from(vec![7_u8; CHUNK])), number + 1)
            });
            async move { next }
        }
    });
    let cookie = server.owner_cookie();
    let path = "/w/alice/api/v1/files/content?path=/home/learner/big";
    let answer = server.ask(Method::PUT, path, &[("cookie", &cookie)], Body::from_stream(chunks)).await;
    assert_eq!(answer.body, (CHUNKS * CHUNK as u64).to_string());
    let ahead = furthest.load(Ordering::SeqCst) / CHUNK as u64;
    assert!(ahead <= UNDER_WAY, "{ahead} MiB were under way at once");
}

#[tokio::test]
async fn a_websocket_is_passed_on_with_its_protocol() {
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.protocols(["workshop.tty.v1"]).on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Binary(_) | Message::Text(_)) && socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    };
    server.serve(&uid, axum::Router::new().route("/w/alice/api/v1/terminal", any(echo)));
    let connect = async |headers: &[(&'static str, &str)]| {
        let mut request = format!("ws://{}/w/alice/api/v1/terminal", server.host()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await
    };
    let cookie = server.owner_cookie();
    let own = format!("http://{}", server.host());
    let protocol = ("sec-websocket-protocol", "tty, workshop.tty.v1");
    let (mut socket, answer) = connect(&[("cookie", &cookie), ("origin", &own), protocol]).await.expect("a connection");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "workshop.tty.v1");
    for size in [0, 1, 70_000] {
        let bytes = tungstenite::Bytes::from(vec![b'x'; size]);
        socket.send(tungstenite::Message::Binary(bytes.clone())).await.unwrap();
        let back = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(back, tungstenite::Message::Binary(bytes));
    }
    for headers in
        [&[("origin", own.as_str()), protocol][..], &[("cookie", &cookie), ("origin", "http://evil.example")]]
    {
        let Err(tungstenite::Error::Http(refused)) = connect(headers).await else { panic!("{headers:?} got in") };
        assert!([401, 403].contains(&refused.status().as_u16()), "{}", refused.status());
    }
    // A gateway that ends takes its connections with it.
    server.stop.cancel();
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an end in time");
    assert!(!matches!(end, Some(Ok(tungstenite::Message::Binary(_) | tungstenite::Message::Text(_)))), "{end:?}");
}

#[tokio::test]
async fn the_workspace_is_shown_its_own_token_and_no_cookie() {
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    let show = async |request: Asked| {
        let shown: BTreeMap<_, _> = names(request.headers());
        (([("etag", "\"v1\"")]), axum::Json(json!({ "path": request.uri().to_string(), "headers": shown })))
            .into_response()
    };
    server.serve(&uid, axum::Router::new().fallback(show));
    let headers = [
        ("cookie", server.owner_cookie()),
        ("x-forwarded-host", "evil".to_owned()),
        ("if-match", "\"v0\"".to_owned()),
        ("referer", "http://localhost/secret".to_owned()),
        ("workshop-instance", "another".to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = server.get("/w/alice/api/v1/steps/one?a=b%20c&d", &headers).await;
    let seen = answer.json();
    assert_eq!(seen["path"], "/w/alice/api/v1/steps/one?a=b%20c&d");
    let mut sent: Vec<&String> = seen["headers"].as_object().unwrap().keys().collect();
    sent.sort();
    assert_eq!(sent, ["authorization", "host", "if-match", "workshop-instance"]);
    assert_eq!(seen["headers"]["workshop-instance"], uid.as_str(), "whoever else has the address by now can tell");
    let token = seen["headers"]["authorization"].as_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims =
        server.workspaces.verify_key().unwrap().verify(token, &uid, 0, jiff::Timestamp::now().as_second()).unwrap();
    assert_eq!((claims.sub.as_str(), claims.role), ("alice", workshop::domain::token::Role::Learner));
    assert_eq!(answer.header("etag"), Some("\"v1\""));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'; frame-ancestors 'none'"));
}

#[tokio::test]
async fn pages_come_from_the_gateway_and_are_not_sent_twice() {
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    server.serve(&uid, axum::Router::new().fallback(async || "never"));
    let cookie = server.owner_cookie();
    for path in ["/", "/w/alice/"] {
        let page = server.get(path, &[("cookie", &cookie)]).await;
        assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, Some("text/html; charset=utf-8")));
        assert!(page.header("content-security-policy").unwrap().contains("script-src 'self'"));
        assert_ne!(page.body, "never");
        let etag = page.header("etag").unwrap().to_owned();
        let again = server.get(path, &[("cookie", &cookie), ("if-none-match", &etag)]).await;
        assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
        // Without the cookie the same tag gives the way in, which nobody keeps.
        let locked = server.get(path, &[("if-none-match", &etag)]).await;
        assert_eq!((locked.status, locked.header("cache-control")), (StatusCode::UNAUTHORIZED, Some("no-store")));
    }
    let missing = server.get("/w/alice/assets/../../../etc/passwd", &[("cookie", &cookie)]).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let slashless = server.get("/w/alice", &[]).await;
    assert_eq!((slashless.status.as_u16(), slashless.header("location")), (308, Some("/w/alice/")));
}

#[tokio::test]
async fn a_workspace_that_is_not_there_is_told_of_and_a_sleeping_one_wakes() {
    let server = Server::start().await;
    let uid = server.instance("alice").await;
    let cookie = server.owner_cookie();
    let headers = [("cookie", cookie.as_str())];
    let absent = server.get("/w/alice/api/v1/state", &headers).await;
    assert_eq!((absent.status.as_u16(), absent.code().as_str()), (503, "WorkspaceUnavailable"));
    server.socket_of(&uid);
    let dead = server.get("/w/alice/api/v1/state", &headers).await;
    assert_eq!((dead.status.as_u16(), dead.code().as_str()), (503, "WorkspaceUnavailable"));
    server.workspaces.set_address(&uid, None);

    let asleep = async || {
        let key = workshop::pipeline::workspace::key("alice");
        server
            .store
            .change_object(&key, |object, _| {
                object["status"]["phase"] = "Suspended".into();
                object["status"]["asleep"] = json!({ "since": "2026-01-01T00:00:00Z", "cause": "Idle" });
                Ok::<_, workshop::adapters::store::Error>(())
            })
            .unwrap();
        assert!(server.workspaces.get("alice").await.unwrap().unwrap().suspended);
    };
    let spec_changed = |before: &Value| {
        let now = server.store.object(&workshop::pipeline::workspace::key("alice")).unwrap().unwrap().manifest;
        now["spec"] != before["spec"] || now["status"] != before["status"]
    };
    let manifest = || server.store.object(&workshop::pipeline::workspace::key("alice")).unwrap().unwrap().manifest;
    for (method, path, wakes) in [
        (Method::GET, "/w/alice/api/v1/state", false),
        (Method::GET, "/w/alice/api/v1/events", false),
        (Method::GET, "/w/alice/gateway/v1/state", false),
        (Method::POST, "/w/alice/api/v1/validate", true),
        (Method::GET, "/w/alice/", true),
        (Method::POST, "/w/alice/gateway/v1/resume", true),
    ] {
        asleep().await;
        let before = manifest();
        let answer = server.ask(method.clone(), path, &headers, Body::empty()).await;
        if path.contains("/api/") {
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "WorkspaceSuspended"), "{path}");
        }
        assert_eq!(spec_changed(&before), wakes, "{method} {path}");
    }
}

#[tokio::test]
async fn the_page_makes_workspaces_for_the_person_of_this_machine() {
    let server = Server::start().await;
    let cookie = server.owner_cookie();
    let headers = [("cookie", cookie.as_str())];
    for expected in ["first-grace-hopper", "first-grace-hopper-2", "first-grace-hopper-3"] {
        let made = server.post("/control/v1/instances", &headers, json!({ "template": "first" })).await;
        let view = &made.json()["instances"][0];
        assert_eq!(
            (made.status.as_u16(), &view["name"], &view["owner"]),
            (201, &json!(expected), &json!("Grace Hopper"))
        );
    }
}

#[tokio::test]
async fn changes_of_an_instance_are_streamed_from_the_gateway() {
    let server = Server::start().await;
    server.instance("alice").await;
    let cookie = server.owner_cookie();
    let headers = [("cookie", cookie.as_str())];
    let response = server.send(Method::GET, "/w/alice/gateway/v1/events", &headers, Body::empty()).await;
    let mut body = response.into_body();
    let mut read = async || {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    };
    assert!(read().await.contains("\"step\":\"one\""));
    let moved = server.post("/control/v1/instances/alice/goto", &headers, json!({ "step": "two" })).await;
    assert_eq!((moved.status, moved.json()["step"].as_str()), (StatusCode::ACCEPTED, Some("two")));
    let told = read().await;
    assert!(told.starts_with("event: instance\n") && told.contains("\"step\":\"two\""), "{told}");
    let gone = server.ask(Method::DELETE, "/control/v1/instances/alice", &headers, Body::empty()).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert!(read().await.starts_with("event: deleted\n"));
}
