//! Who asks: the owner of the state directory, or the bearer of a token for one instance.
//!
//! Sets and reads the two cookies. What the asker may do is decided where the request is answered.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, SameSite};

use crate::domain::token::COOKIE;

/// How long the owner's cookie lasts.
const OWNER_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a token for an instance lasts.
pub const TOKEN_TIME: Duration = Duration::from_secs(12 * 3600);
/// Wrong keys per minute, of everyone together.
const MAX_WRONG: usize = 10;

/// All values of one cookie that the request carries.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// The token of the header `Authorization`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The header that sets the owner's cookie; one that came over TLS is never sent without.
pub fn set_owner_cookie(name: String, value: String, is_https: bool) -> HeaderValue {
    build_cookie(name, value, "/", OWNER_TIME, is_https)
}

/// The header that sets the cookie of one instance.
pub fn set_token_cookie(token: &str, base_path: &str, lasts: Duration, is_https: bool) -> HeaderValue {
    build_cookie(COOKIE.to_owned(), token.to_owned(), base_path, lasts, is_https)
}

fn build_cookie(name: String, value: String, path: &str, lasts: Duration, is_https: bool) -> HeaderValue {
    let lasts = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
    let cookie = Cookie::build((name, value))
        .path(path.to_owned())
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(is_https)
        .max_age(cookie::time::Duration::seconds(lasts));
    let mut value = HeaderValue::try_from(cookie.to_string()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Counts wrong keys, so that guessing is slow; the right one is never refused.
#[derive(Debug, Default)]
pub struct Guesses {
    wrong: Mutex<VecDeque<Instant>>,
}

impl Guesses {
    /// Counts one wrong key; false when there were too many within a minute.
    pub fn count(&self, now: Instant) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        while wrong.front().is_some_and(|first| now.duration_since(*first) > Duration::from_secs(60)) {
            wrong.pop_front();
        }
        if wrong.len() >= MAX_WRONG {
            return false;
        }
        wrong.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_hidden_from_scripts_and_other_sites_and_bound_to_their_path() {
        assert_eq!(
            set_token_cookie("a.b.c", "/w/alice/", Duration::from_secs(60), false).to_str().unwrap(),
            "workshop_token=a.b.c; HttpOnly; SameSite=Strict; Path=/w/alice/; Max-Age=60"
        );
        let owner = set_owner_cookie("workshop_owner_1".into(), "x".into(), false);
        assert!(owner.to_str().unwrap().starts_with("workshop_owner_1=x; HttpOnly; SameSite=Strict; Path=/; "));
        assert!(owner.is_sensitive());
        for is_https in [false, true] {
            let cookie = set_token_cookie("a.b.c", "/w/alice/", Duration::from_secs(60), is_https);
            assert_eq!(cookie.to_str().unwrap().contains("; Secure"), is_https);
        }
    }

    #[test]
    fn every_cookie_of_the_name_is_seen_and_no_other() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; workshop_token=x; xworkshop_token=no".parse().unwrap());
        headers.append(header::COOKIE, "workshop_token=y=z;b".parse().unwrap());
        assert_eq!(cookies(&headers, COOKIE).collect::<Vec<_>>(), ["x", "y=z"]);
    }

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_the_scheme() {
        for (value, expected) in [("Bearer a.b", Some("a.b")), ("bearer a", Some("a")), ("Basic a", None), ("a", None)]
        {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(bearer(&headers), expected, "{value}");
        }
    }

    #[test]
    fn guesses_are_slow_and_forgotten_after_a_minute() {
        let guesses = Guesses::default();
        let start = Instant::now();
        assert!((0..MAX_WRONG).all(|_| guesses.count(start)));
        assert!(!guesses.count(start + Duration::from_secs(59)));
        assert!(guesses.count(start + Duration::from_secs(61)));
    }
}
