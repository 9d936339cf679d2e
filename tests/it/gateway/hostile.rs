//! A workspace that its learner made hostile: whatever it answers, nothing of it becomes a page, a script, a cookie or
//! a redirection in the browser, and it holds nobody up for ever.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;

/// Answers every connection with these bytes once a request's head came; keeps the connection open where asked to.
fn answer_with(server: &Server, uid: &str, bytes: &[u8], stay: bool) {
    let listener = UnixListener::bind(server.socket_of(uid)).unwrap();
    let bytes = bytes.to_vec();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_once(stream, bytes.clone(), stay));
        }
    });
}

/// Answers with these bytes once a request's head came.
pub(super) async fn answer_once(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: Vec<u8>, stay: bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let _ = stream.write_all(&bytes).await;
    if stay {
        std::future::pending::<()>().await;
    }
}

fn response(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const PAGE: &str = "<!doctype html><script>fetch('/control/v1/instances')</script>";

/// What must hold for everything that reaches a browser from below `/w/<name>/api`.
fn assert_harmless(answer: &Answer, what: &str) {
    let headers = names(&answer.headers);
    for forbidden in [
        "set-cookie",
        "location",
        "service-worker-allowed",
        "clear-site-data",
        "refresh",
        "link",
        "access-control-allow-origin",
        "www-authenticate",
        "strict-transport-security",
        "content-encoding",
        "x-own",
    ] {
        assert!(!headers.contains_key(forbidden), "{what} sets {forbidden}: {headers:?}");
    }
    let kind = headers.get("content-type").map_or("", String::as_str);
    for executable in ["html", "xml;", "script", "css", "multipart"] {
        assert!(!kind.contains(executable), "{what} is {kind}");
    }
    assert_eq!(headers["x-content-type-options"], "nosniff", "{what}");
    assert_eq!(headers["content-security-policy"], "sandbox; default-src 'none'; frame-ancestors 'none'", "{what}");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{what}");
}

/// What a hostile workspace answers, and the status that a browser gets for it.
pub(super) fn answers() -> Vec<(&'static str, Vec<u8>, u16)> {
    let evil = "Set-Cookie: workshop_owner=x; Path=/\r\nLocation: https://evil.example/\r\n\
                Service-Worker-Allowed: /\r\nClear-Site-Data: \"*\"\r\nRefresh: 0; url=/\r\nX-Own: 1\r\n\
                Access-Control-Allow-Origin: *\r\nContent-Security-Policy: script-src *\r\n\
                X-Content-Type-Options: sniff\r\nLink: </x>; rel=preload\r\nContent-Encoding: gzip";
    let huge = format!("X-Huge: {}", "x".repeat(80 << 10));
    let many = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    vec![
        ("a page", response("200 OK\r\nContent-Type: text/html", PAGE), 200),
        ("a page as XHTML", response("200 OK\r\nContent-Type: application/xhtml+xml", PAGE), 200),
        ("a script", response("200 OK\r\nContent-Type: text/javascript", "alert(1)"), 200),
        ("a page without a type", response("200 OK", PAGE), 200),
        ("a page that fails", response("500 Oops\r\nContent-Type: text/html", PAGE), 500),
        ("a page that was not found", response("404 No\r\nContent-Type: text/html", PAGE), 404),
        ("evil headers", response(&format!("200 OK\r\n{evil}\r\nContent-Type: application/json"), "{}"), 200),
        ("two types", response("200 OK\r\nContent-Type: application/json\r\nContent-Type: text/html", PAGE), 200),
        ("a redirection", response("302 Found\r\nLocation: https://evil.example/", ""), 502),
        ("a moved page", response("301 Moved\r\nLocation: /w/other/", ""), 502),
        ("a question for a password", response("401 No\r\nWWW-Authenticate: Basic realm=x", ""), 401),
        ("a refusal because it is another workspace", response("421 Elsewhere", "{}"), 503),
        ("a proxy's question", response("407 No\r\nProxy-Authenticate: Basic realm=x", ""), 502),
        (
            "an upgrade nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n<script>".to_vec(),
            502,
        ),
        ("a huge header", response(&format!("200 OK\r\n{huge}"), "{}"), 502),
        ("too many headers", response(&format!("200 OK\r\n{}", many.trim_end()), "{}"), 502),
        ("no HTTP", b"<script>alert(1)</script>\r\n\r\n".to_vec(), 502),
        ("HTTP/0.9", PAGE.as_bytes().to_vec(), 502),
        ("nothing", Vec::new(), 502),
        ("a head that breaks off", b"HTTP/1.1 200 OK\r\nContent-Ty".to_vec(), 502),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\nx".to_vec(), 502),
    ]
}

#[tokio::test]
async fn nothing_that_a_workspace_answers_runs_in_a_browser() {
    let server = Server::start().await;
    let cookie = server.owner_cookie();
    for (index, (what, bytes, expected)) in answers().iter().enumerate() {
        let name = format!("w{index}");
        let uid = server.instance(&name).await;
        answer_with(&server, &uid, bytes, false);
        // As a navigation, which would show a page if there were one.
        let headers = [("cookie", cookie.as_str()), ("sec-fetch-mode", "navigate"), ("accept", "text/html")];
        let answer = server.get(&format!("/w/{name}/api/v1/steps/x"), &headers).await;
        assert_eq!(answer.status.as_u16(), *expected, "{what}: {}", answer.body);
        // The gateway's own refusals have a cookie for the instance at most.
        assert_harmless_but_cookie(&answer, what);
    }
}

/// The gateway itself gives the owner the instance's cookie; a workspace never gives one.
pub(super) fn assert_harmless_but_cookie(answer: &Answer, what: &str) {
    let mut headers = answer.headers.clone();
    let set: Vec<_> = headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    assert!(set.iter().all(|cookie| cookie.starts_with("workshop_token=") && cookie.contains("Path=/w/")), "{set:?}");
    headers.remove("set-cookie");
    assert_harmless(&Answer { status: answer.status, headers, body: String::new() }, what);
}

#[tokio::test]
async fn a_workspace_serves_no_service_worker() {
    let server = Server::start().await;
    let uid = server.instance("w0").await;
    answer_with(&server, &uid, &response("200 OK\r\nContent-Type: text/javascript", "self.onfetch = 1"), false);
    let headers = [("cookie", &*server.owner_cookie()), ("service-worker", "script")];
    let answer = server.get("/w/w0/api/v1/assets/worker.js", &headers).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_broken_body_ends_the_answer_and_nothing_else() {
    let server = Server::start().await;
    let uid = server.instance("w0").await;
    answer_with(
        &server,
        &uid,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n<script>",
        false,
    );
    let cookie = server.owner_cookie();
    let response = server.send(Method::GET, "/w/w0/api/v1/state", &[("cookie", &cookie)], Body::empty()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut seen = Vec::new();
    let is_broken = loop {
        match tokio::time::timeout(PATIENCE, body.frame()).await.expect("an end in time") {
            Some(Ok(frame)) => seen.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(is_broken, "a broken body is no whole one");
    assert_eq!(seen, b"{}");
    assert_eq!(server.get("/w/w0/gateway/v1/state", &[("cookie", &cookie)]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_workspace_that_never_answers_holds_up_only_who_asks_it() {
    let server = Server::start().await;
    let (slow, quick) = (server.instance("w0").await, server.instance("w1").await);
    answer_with(&server, &slow, b"HTTP/1.1 200 OK\r\nX-Slow: ", true);
    answer_with(&server, &quick, &response("200 OK\r\nContent-Type: application/json", "{}"), false);
    let cookie = server.owner_cookie();
    let headers = [("cookie", cookie.as_str())];
    let waiting = server.get("/w/w0/api/v1/state", &headers);
    tokio::pin!(waiting);
    let others = async {
        for _ in 0..20 {
            assert_eq!(server.get("/w/w1/api/v1/state", &headers).await.status, StatusCode::OK);
        }
    };
    tokio::select! {
        _ = &mut waiting => panic!("it answered"),
        () = others => {}
    }
}

#[tokio::test]
async fn a_hostile_end_of_a_websocket_gets_no_other_upgrade() {
    let server = Server::start().await;
    let uid = server.instance("w0").await;
    let handshake = [
        ("cookie", &*server.owner_cookie()),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "tty"),
    ];
    answer_with(
        &server,
        &uid,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\
          Sec-WebSocket-Protocol: other\r\nSet-Cookie: workshop_owner=x\r\n\r\n",
        true,
    );
    let answer = server.get("/w/w0/api/v1/terminal", &handshake).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "WorkspaceFailed"));
    // Other upgrades are not passed on at all.
    let mut other = handshake;
    other[2].1 = "h2c";
    assert_eq!(server.get("/w/w0/api/v1/terminal", &other).await.status, StatusCode::BAD_REQUEST);
}
