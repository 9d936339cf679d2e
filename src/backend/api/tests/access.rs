//! Who is let in, and where from.

use reqwest::Method;

use super::{BASE, Workspace};
use crate::domain::token::{COOKIE, Claims, Role, SigningKey};

type Change = fn(&mut Claims);

#[tokio::test]
async fn nothing_but_the_probes_and_the_way_in_answers_without_a_token() {
    let workspace = Workspace::start().await;
    workspace.open();
    for (path, _) in super::super::table() {
        let filled = path.replace("{*path}", "a").replace("{id}", "a").replace("{key}", "a");
        let status = workspace.send(Method::GET, &filled, &[], "").await.status.as_u16();
        let expected = if ["healthz", "readyz"].contains(&path) { 200 } else { 401 };
        assert_eq!(status, expected, "{path}");
    }
    let root = |path: &str| workspace.client.get(format!("{}{path}", workspace.origin)).send();
    assert_eq!(root("/healthz").await.unwrap().status(), 200);
    assert_eq!(root("/metrics").await.unwrap().status(), 401);
    assert_eq!(root("/nothing").await.unwrap().status(), 401);
    let redirect = root("/w/alice").await.unwrap();
    assert_eq!((redirect.status().as_u16(), redirect.headers()["location"].to_str().unwrap()), (308, BASE));
}

#[tokio::test]
async fn a_page_request_without_a_token_gets_the_page_that_asks_for_it() {
    let workspace = Workspace::start().await;
    workspace.open();
    let refused = workspace.send(Method::GET, "", &[], "").await;
    assert_eq!(refused.status, 401);
    assert!(refused.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(refused.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let page = workspace.get("").await;
    assert_eq!((page.status.as_u16(), page.headers["x-content-type-options"].to_str().unwrap()), (200, "nosniff"));
    let tag = page.headers["etag"].to_str().unwrap();
    let authorization = format!("Bearer {}", workspace.token(Role::Learner));
    let known = workspace.send(Method::GET, "", &[("authorization", &authorization), ("if-none-match", tag)], "").await;
    assert_eq!(known.status, 304);
    // The scripts of that page are everybody's.
    assert_eq!(workspace.send(Method::GET, "assets/none.js", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_token_opens_its_workspace_while_it_is_valid() {
    let workspace = Workspace::start().await;
    workspace.open();
    let status = async |token: &str| {
        let authorization = format!("Bearer {token}");
        workspace.send(Method::GET, "api/v1/state", &[("authorization", &authorization)], "").await.status.as_u16()
    };
    let signed = |change: Change| {
        let mut claims = workspace.claims(Role::Learner);
        change(&mut claims);
        workspace.key.sign(&claims)
    };
    let cases: [(&str, String, u16); 8] = [
        ("its own", signed(|_| ()), 200),
        ("a later generation", signed(|claims| claims.generation = 4), 200),
        ("another workspace's", signed(|claims| claims.aud = "uid-2".into()), 401),
        ("an older generation", signed(|claims| claims.generation = 2), 401),
        ("expired", signed(|claims| claims.exp = 1_000), 401),
        ("of another key", SigningKey::generate().sign(&workspace.claims(Role::Learner)), 401),
        ("unsigned", "eyJhbGciOiJub25lIn0.e30.".into(), 401),
        ("signed with HS256", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl".into(), 401),
    ];
    for (what, token, expected) in cases {
        assert_eq!(status(&token).await, expected, "{what}");
    }
    let in_query = format!("api/v1/state?token={}", workspace.token(Role::Learner));
    assert_eq!(workspace.send(Method::GET, &in_query, &[], "").await.status, 401);
}

#[tokio::test]
async fn the_browser_gets_a_cookie_for_its_token() {
    let workspace = Workspace::start().await;
    workspace.open();
    let token = workspace.token(Role::Learner);
    let session = async |token: &str, headers: &[(&str, &str)]| {
        let body = serde_json::json!({ "token": token }).to_string();
        workspace.send(Method::POST, "session", headers, body).await
    };
    let given = session(&token, &[]).await;
    assert_eq!(given.status, 204);
    let cookie = given.headers["set-cookie"].to_str().unwrap().to_owned();
    for part in [format!("{COOKIE}={token}").as_str(), "HttpOnly", "SameSite=Strict", "Path=/w/alice/", "Max-Age="] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("Secure"), "{cookie}");
    let secure = session(&token, &[("x-forwarded-proto", "https")]).await;
    assert!(secure.headers["set-cookie"].to_str().unwrap().contains("Secure"));
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(workspace.send(Method::GET, "api/v1/state", &[("cookie", pair)], "").await.status, 200);

    assert_eq!(session("nonsense", &[]).await.code(), (401, "Unauthorized".into()));
    assert_eq!(workspace.send(Method::POST, "session", &[], "{").await.code(), (400, "BadRequest".into()));
    assert_eq!(session(&token, &[("origin", "http://evil.example")]).await.status, 403);
}

#[tokio::test]
async fn what_another_site_sends_is_refused() {
    let workspace = Workspace::start().await;
    workspace.open();
    let cookie = format!("{COOKIE}={}", workspace.token(Role::Learner));
    let own = workspace.origin.clone();
    for (origin, expected) in [(own.as_str(), 200), ("http://evil.example", 403), ("null", 403)] {
        let headers = [("cookie", cookie.as_str()), ("origin", origin)];
        let answer = workspace.send(Method::POST, "api/v1/navigate", &headers, r#"{"action":"skip"}"#).await;
        assert_eq!(answer.status, expected, "{origin}");
    }
    let upgrade = [
        ("cookie", cookie.as_str()),
        ("origin", "http://evil.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(workspace.send(Method::GET, "api/v1/terminal", &upgrade, "").await.code(), (403, "CrossOrigin".into()));
}

#[tokio::test]
async fn before_it_is_open_it_says_why() {
    let workspace = Workspace::start().await;
    workspace.app.set_failure(Some("there is no artifact".into()));
    let ready = workspace.send(Method::GET, "readyz", &[], "").await;
    assert_eq!((ready.status.as_u16(), ready.bytes), (503, b"there is no artifact\n".to_vec()));
    assert_eq!(workspace.send(Method::GET, "healthz", &[], "").await.status, 200);
    let answer = workspace.get("api/v1/state").await;
    assert_eq!(answer.code(), (503, "Starting".into()));
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let workspace = Workspace::start().await;
    workspace.open();
    let authorization = format!("Bearer {}", workspace.token(Role::Learner));
    let large = vec![b' '; super::super::MAX_BODY + 1];
    let answer = workspace.send(Method::POST, "api/v1/navigate", &[("authorization", &authorization)], large).await;
    assert_eq!(answer.status, 413);
}
