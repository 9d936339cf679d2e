//! Which requests a browser may have been tricked into: the rules of the headers `Host` and `Origin`.
//!
//! Pure decisions and the layer that applies them; who the asker is, is decided by `access`.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Refusal;
use super::server::Gateway;

/// Whether `host` (the header) names the address that is listened on. A name that a stranger's DNS points here does
/// not: that is how another site's page would become ours in the eyes of a browser.
#[must_use]
pub fn is_own_host(host: &str, listening: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => match port.parse() {
            Ok(port) => (name, port),
            Err(_) => return false,
        },
        _ => (host, 80_u16),
    };
    if port != listening.port() {
        return false;
    }
    if ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    // An address is no name that DNS could turn; where all addresses are listened on, each is ours.
    bare.parse::<IpAddr>().is_ok_and(|address| address == listening.ip() || listening.ip().is_unspecified())
}

/// Whether the origin is the one of pages served under `host`.
#[must_use]
pub fn is_own_origin(origin: &str, host: &str) -> bool {
    origin.strip_prefix("http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

/// Whether the request changes something or opens a channel, so that no other origin may cause it.
fn is_guarded(method: &Method, headers: &HeaderMap) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) || headers.contains_key(header::UPGRADE)
}

/// What is wrong with where the request comes from.
fn refusal(method: &Method, headers: &HeaderMap, listening: SocketAddr) -> Option<Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if hosts.next().is_some() || !is_own_host(host, listening) {
        return Some(
            Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "MisdirectedRequest",
                format!("this server is not \"{}\"", host.chars().take(100).collect::<String>()),
            )
            .help("use the address that `workshop up` prints, with localhost or 127.0.0.1"),
        );
    }
    if !is_guarded(method, headers) {
        return None;
    }
    let is_foreign = headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !origin.to_str().is_ok_and(|origin| is_own_origin(origin, host)));
    // Sent by browsers only, and out of reach of scripts.
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_other_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    (is_foreign || is_other_site).then(|| {
        Refusal::new(StatusCode::FORBIDDEN, "CrossOrigin", "a page of another origin may not do this".to_owned())
    })
}

/// The layer in front of everything that is served over TCP.
pub async fn check(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    match refusal(request.method(), request.headers(), gateway.listening()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_with_the_port_are_our_host() {
        fn check(host: &str, listening: &str, expected: bool) {
            assert_eq!(is_own_host(host, listening.parse().unwrap()), expected, "{host} at {listening}");
        }
        check("localhost:8080", "127.0.0.1:8080", true);
        check("LOCALHOST:8080", "127.0.0.1:8080", true);
        check("127.0.0.1:8080", "127.0.0.1:8080", true);
        check("[::1]:8080", "127.0.0.1:8080", true);
        check("localhost", "127.0.0.1:80", true);
        check("[::1]", "127.0.0.1:80", true);
        check("localhost", "127.0.0.1:8080", false);
        check("localhost:8081", "127.0.0.1:8080", false);
        check("evil.example:8080", "127.0.0.1:8080", false);
        check("localhost.evil.example:8080", "127.0.0.1:8080", false);
        check("127.0.0.1.nip.io:8080", "127.0.0.1:8080", false);
        check("evil@localhost:8080", "127.0.0.1:8080", false);
        check("localhost:8080:8080", "127.0.0.1:8080", false);
        check("localhost:", "127.0.0.1:8080", false);
        check("", "127.0.0.1:8080", false);
        check("192.168.1.5:8080", "127.0.0.1:8080", false);
        check("192.168.1.5:8080", "192.168.1.5:8080", true);
        check("192.168.1.5:8080", "0.0.0.0:8080", true);
        check("class.example:8080", "0.0.0.0:8080", false);
    }

    #[test]
    fn an_origin_is_ours_when_it_is_the_host_over_http() {
        fn check(origin: &str, expected: bool) {
            assert_eq!(is_own_origin(origin, "localhost:8080"), expected, "{origin}");
        }
        check("http://localhost:8080", true);
        check("http://LOCALHOST:8080", true);
        check("https://localhost:8080", false);
        check("http://127.0.0.1:8080", false);
        check("http://localhost:3000", false);
        check("http://localhost", false);
        check("http://localhost:8080.evil.example", false);
        check("null", false);
    }
}
