//! What of a request's and an answer's head passes between browser and workspace: named headers only.
//!
//! Pure; types of content come from a fixed list, so that nothing of a workspace is a page or a script to a browser.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// What a workspace is told of a request. No cookies, no `Origin` (it was checked), no `Range`, no encodings.
const TO_WORKSPACE: &[&str] =
    &["accept", "accept-language", "content-type", "if-match", "if-none-match", "last-event-id", "user-agent"];

/// The types that an answer may have, as they go out.
const TYPES: &[(&str, &str)] = &[
    ("application/json", "application/json"),
    (EVENTS, EVENTS),
    ("application/octet-stream", BYTES),
    ("application/gzip", "application/gzip"),
    ("image/png", "image/png"),
    ("image/jpeg", "image/jpeg"),
    ("image/gif", "image/gif"),
    ("image/webp", "image/webp"),
    ("image/svg+xml", "image/svg+xml"),
    ("text/plain", "text/plain; charset=utf-8"),
];
const BYTES: &str = "application/octet-stream";
/// The one type whose body goes on for ever.
pub const EVENTS: &str = "text/event-stream";

/// Longest value of a header that is passed on, in bytes.
const MAX_VALUE: usize = 1024;

/// The headers for the workspace.
pub fn for_workspace(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in TO_WORKSPACE {
        if let Some(value) = headers.get(*name).filter(|value| value.len() <= MAX_VALUE) {
            passed.insert(HeaderName::from_static(name), value.clone());
        }
    }
    passed
}

/// The status for the browser; none where no API answers so, such as a redirection or an upgrade nobody asked for.
pub fn status(status: StatusCode) -> Option<StatusCode> {
    let is_passed = status.is_success() && status != StatusCode::PARTIAL_CONTENT && status != StatusCode::RESET_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status.is_client_error() && !is_for_servers(status)
        || status.is_server_error();
    is_passed.then_some(status)
}

/// Statuses that would make a browser ask its user, or do something else than hand over an answer.
fn is_for_servers(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::TOO_EARLY
            | StatusCode::UPGRADE_REQUIRED
    )
}

/// The headers for the browser, made of those of the workspace.
pub fn for_browser(status: StatusCode, headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_body {
        let kind = content_type(headers.get(header::CONTENT_TYPE));
        passed.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if kind == BYTES || kind == "application/gzip" {
            passed.insert(header::CONTENT_DISPOSITION, disposition(headers.get(header::CONTENT_DISPOSITION)));
        }
        if kind == EVENTS {
            passed.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        }
    }
    let etag = headers.get(header::ETAG).filter(|etag| is_etag(etag));
    let caching = if etag.is_some() { "private, no-cache" } else { "no-store" };
    passed.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Some(etag) = etag {
        passed.insert(header::ETAG, etag.clone());
    }
    let is_number = |value: &&HeaderValue| value.len() <= 6 && value.as_bytes().iter().all(u8::is_ascii_digit);
    if let Some(seconds) = headers.get(header::RETRY_AFTER).filter(is_number) {
        passed.insert(header::RETRY_AFTER, seconds.clone());
    }
    passed
}

/// The type of the fixed list that was meant; of everything else it is bytes.
fn content_type(given: Option<&HeaderValue>) -> &'static str {
    let essence = given.and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    let essence = essence.map(|essence| essence.trim().to_ascii_lowercase());
    TYPES.iter().find(|(name, _)| essence.as_deref() == Some(name)).map_or(BYTES, |(_, sent)| sent)
}

/// Bytes are saved, never shown; the file's name is kept where it is a plain one.
fn disposition(given: Option<&HeaderValue>) -> HeaderValue {
    let plain = HeaderValue::from_static("attachment");
    let Some(name) = given
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("attachment; filename=\"")?.split('"').next())
    else {
        return plain;
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._- ".contains(&byte);
    if name.is_empty() || name.len() > 200 || !name.bytes().all(is_plain) {
        return plain;
    }
    HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).unwrap_or(plain)
}

fn is_etag(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let quoted = bytes.strip_prefix(b"W/").unwrap_or(bytes);
    quoted.len() >= 2
        && bytes.len() <= 200
        && quoted.starts_with(b"\"")
        && quoted.ends_with(b"\"")
        && quoted[1..quoted.len() - 1].iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap()))
            .collect()
    }

    #[test]
    fn only_types_of_the_list_go_out_and_the_rest_is_bytes() {
        fn check(given: &str, expected: &str) {
            assert_eq!(content_type(Some(&HeaderValue::try_from(given).unwrap())), expected, "{given}");
        }
        check("application/json", "application/json");
        check("Application/JSON; charset=utf-16", "application/json");
        check("text/plain; charset=utf-7", "text/plain; charset=utf-8");
        check("image/svg+xml", "image/svg+xml");
        check("text/html", BYTES);
        check("text/html; charset=utf-8", BYTES);
        check("application/xhtml+xml", BYTES);
        check("text/javascript", BYTES);
        check("application/javascript", BYTES);
        check("text/css", BYTES);
        check("text/xml", BYTES);
        check("application/json, text/html", BYTES);
        check("multipart/x-mixed-replace; boundary=x", BYTES);
        check("", BYTES);
        assert_eq!(content_type(None), BYTES);
    }

    #[test]
    fn nothing_but_the_named_headers_reaches_the_browser() {
        let hostile = map(&[
            ("content-type", "text/html"),
            ("set-cookie", "workshop_owner=x; Path=/"),
            ("location", "https://evil.example/"),
            ("service-worker-allowed", "/"),
            ("clear-site-data", "\"*\""),
            ("content-security-policy", "script-src *"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("refresh", "0; url=https://evil.example/"),
            ("link", "</x>; rel=preload"),
            ("content-encoding", "gzip"),
            ("strict-transport-security", "max-age=99999999"),
            ("www-authenticate", "Basic realm=x"),
            ("etag", "\"a\""),
            ("retry-after", "5"),
        ]);
        assert_eq!(
            for_browser(StatusCode::OK, &hostile),
            map(&[
                ("content-type", BYTES),
                ("content-disposition", "attachment"),
                ("cache-control", "private, no-cache"),
                ("etag", "\"a\""),
                ("retry-after", "5"),
            ])
        );
    }

    #[test]
    fn a_saved_file_keeps_a_plain_name() {
        fn check(given: &str, expected: &str) {
            assert_eq!(disposition(Some(&HeaderValue::try_from(given).unwrap())), expected);
        }
        check("attachment; filename=\"home.tar.gz\"", "attachment; filename=\"home.tar.gz\"");
        check("inline", "attachment");
        check("inline; filename=\"a.html\"", "attachment");
        check("attachment; filename=\"../../a\"", "attachment");
        check("attachment; filename=\"\"", "attachment");
    }

    #[test]
    fn a_workspace_learns_no_cookie_and_no_address() {
        let asked = map(&[
            ("cookie", "workshop_owner=secret"),
            ("authorization", "Bearer of-somebody"),
            ("origin", "http://localhost:8080"),
            ("referer", "http://localhost:8080/w/a/"),
            ("x-forwarded-for", "10.0.0.1"),
            ("connection", "close, x-secret"),
            ("transfer-encoding", "chunked"),
            ("range", "bytes=0-1"),
            ("accept-encoding", "gzip"),
            ("accept", "application/json"),
            ("if-match", "\"a\""),
        ]);
        assert_eq!(for_workspace(&asked), map(&[("accept", "application/json"), ("if-match", "\"a\"")]));
    }

    #[test]
    fn statuses_that_no_api_answers_do_not_pass() {
        for code in [100, 101, 103, 205, 206, 300, 301, 302, 303, 307, 308, 407, 421, 426] {
            assert_eq!(status(StatusCode::from_u16(code).unwrap()), None, "{code}");
        }
        for code in [200, 201, 202, 204, 304, 400, 401, 403, 404, 409, 412, 413, 429, 500, 503] {
            assert!(status(StatusCode::from_u16(code).unwrap()).is_some(), "{code}");
        }
    }

    #[test]
    fn only_quoted_plain_text_is_an_entity_tag() {
        for (given, expected) in
            [("\"a\"", true), ("W/\"a\"", true), ("a", false), ("\"", false), ("\"a\"b\"", false), ("", false)]
        {
            assert_eq!(is_etag(&HeaderValue::try_from(given).unwrap()), expected, "{given}");
        }
    }
}
