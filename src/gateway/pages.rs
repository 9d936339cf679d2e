//! The gateway's own pages and scripts as answers: types, entity tags and caching.
//!
//! It serves what `crate::pages` holds; who may see a page is decided by the routes.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::answer::Refusal;
use crate::pages::{self, CONTENT_SECURITY_POLICY};

/// An HTML page; it is asked for again each time, and costs nothing when it did not change.
pub fn html(name: &str, status: StatusCode, asked: &HeaderMap) -> Response {
    serve(name, status, "no-cache", asked)
}

/// A file of `assets/`: its name changes with its content.
pub fn asset(path: &str, asked: &HeaderMap) -> Response {
    serve(&format!("assets/{path}"), StatusCode::OK, "public, max-age=31536000, immutable", asked)
}

fn serve(path: &str, status: StatusCode, caching: &'static str, asked: &HeaderMap) -> Response {
    let Some(page) = pages::page(path) else {
        return Refusal::new(StatusCode::NOT_FOUND, "NotFound", "there is no such page").into_response();
    };
    let is_known = status == StatusCode::OK && matches_etag(asked, &page.etag);
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = match page.bytes {
            std::borrow::Cow::Borrowed(bytes) => Body::from(bytes),
            std::borrow::Cow::Owned(bytes) => Body::from(bytes),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if let Ok(kind) = HeaderValue::try_from(page.content_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    };
    let headers = response.headers_mut();
    // A refusal must not be taken for the page later.
    let caching = if status == StatusCode::OK { caching } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    if status == StatusCode::OK
        && let Ok(etag) = HeaderValue::try_from(page.etag)
    {
        headers.insert(header::ETAG, etag);
    }
    response
}

fn matches_etag(asked: &HeaderMap, etag: &str) -> bool {
    asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_tag_matches_itself_in_any_list() {
        for (given, expected) in
            [("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("\"b\"", false), ("a", false)]
        {
            let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, given.parse().unwrap())]);
            assert_eq!(matches_etag(&asked, "\"a\""), expected, "{given}");
        }
    }
}
