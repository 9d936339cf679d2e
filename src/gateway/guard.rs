//! Where browsers find the gateway, and which requests one may have been tricked into: the rules of the headers `Host`
//! and `Origin`.
//!
//! Pure decisions and the layer that applies them; who the asker is, is decided by `access`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Refusal;
use super::server::Gateway;

/// Where browsers find a gateway: the address that it listens on, and the one that something in front of it has.
#[derive(Debug, Clone)]
pub struct Place {
    listening: SocketAddr,
    public: Option<PublicUrl>,
}

/// The address of a gateway that something in front of it has: scheme and host, and nothing below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    is_https: bool,
    /// As browsers send it in `Host`: without the scheme's own port.
    host: String,
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
        let is_https = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(format!("it begins with {other}, not with http or https")),
        };
        let is_bare = url.username().is_empty() && url.password().is_none();
        if !is_bare || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("it has more than a scheme, a host and a port: pages are at the root of their host".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it has no host")?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self { is_https, host: format!("{host}{port}") })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/", if self.is_https { "https" } else { "http" }, self.host)
    }
}

impl PublicUrl {
    /// Whether `host` (the header) is this one; a browser may name the scheme's own port or not.
    fn is(&self, host: &str) -> bool {
        let own = if self.is_https { ":443" } else { ":80" };
        host.strip_suffix(own).unwrap_or(host).eq_ignore_ascii_case(&self.host)
    }
}

impl Place {
    /// The place of a gateway that listens on `listening`, and is found at `public` by others, if that is given.
    #[must_use]
    pub const fn new(listening: SocketAddr, public: Option<PublicUrl>) -> Self {
        Self { listening, public }
    }

    /// The address it listens on.
    #[must_use]
    pub const fn listening(&self) -> SocketAddr {
        self.listening
    }

    /// Its address for a browser, with a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        if let Some(public) = &self.public {
            return public.to_string();
        }
        let mut address = self.listening;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}/")
    }

    /// Whether `host` (the header) names this gateway. A name that a stranger's DNS points here does not: that is how
    /// another site's page would become ours in the eyes of a browser.
    #[must_use]
    pub fn is_own_host(&self, host: &str) -> bool {
        self.public.as_ref().is_some_and(|public| public.is(host)) || is_own_address(host, self.listening)
    }

    /// Whether the browser speaks TLS, with whatever stands in front of this gateway.
    #[must_use]
    pub fn is_https(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let public = self.public.as_ref().filter(|public| public.is(host));
        // A script can say so too, and gains nothing: it may not speak for another origin by that.
        let forwarded = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
        forwarded || public.is_some_and(|public| public.is_https)
    }
}

fn is_own_address(host: &str, listening: SocketAddr) -> bool {
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
pub fn is_own_origin(origin: &str, host: &str, is_https: bool) -> bool {
    let scheme = if is_https { "https://" } else { "http://" };
    origin.strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

/// Whether the request changes something or opens a channel, so that no other origin may cause it.
fn is_guarded(method: &Method, headers: &HeaderMap) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) || headers.contains_key(header::UPGRADE)
}

/// What is wrong with where the request comes from.
fn refusal(method: &Method, headers: &HeaderMap, place: &Place) -> Option<Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if hosts.next().is_some() || !place.is_own_host(host) {
        return Some(
            Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "MisdirectedRequest",
                format!("this server is not \"{}\"", host.chars().take(100).collect::<String>()),
            )
            .help(format!("use {}, or tell the server its address by --gateway-url", place.url())),
        );
    }
    if !is_guarded(method, headers) {
        return None;
    }
    let is_https = place.is_https(headers);
    let is_foreign = headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !origin.to_str().is_ok_and(|origin| is_own_origin(origin, host, is_https)));
    // Sent by browsers only, and out of reach of scripts.
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_other_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    (is_foreign || is_other_site).then(|| {
        Refusal::new(StatusCode::FORBIDDEN, "CrossOrigin", "a page of another origin may not do this".to_owned())
    })
}

/// The layer in front of everything that is served over TCP.
pub async fn check(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    match refusal(request.method(), request.headers(), gateway.place()) {
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
            let place = Place::new(listening.parse().unwrap(), None);
            assert_eq!(place.is_own_host(host), expected, "{host} at {listening}");
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
    fn a_public_url_is_an_origin_and_its_host_is_ours_as_browsers_send_it() {
        fn check(url: &str, host: &str, expected: bool) {
            let place = Place::new("10.0.0.5:8082".parse().unwrap(), Some(url.parse().unwrap()));
            assert_eq!(place.is_own_host(host), expected, "{host} at {url}");
        }
        check("https://class.example", "class.example", true);
        check("https://class.example/", "CLASS.example:443", true);
        check("https://class.example:443/", "class.example", true);
        check("http://class.example", "class.example:80", true);
        check("https://class.example", "class.example:80", false);
        check("https://class.example:8443", "class.example:8443", true);
        check("https://class.example:8443", "class.example", false);
        check("https://class.example", "evil.example", false);
        check("https://class.example", "class.example.evil.example", false);
        check("https://class.example", "sub.class.example", false);
        check("https://class.example", "", false);
        // What listens is found at its address as well: probes and whoever forwards a port.
        check("https://class.example", "10.0.0.5:8082", true);
        check("https://class.example", "localhost:8082", true);
        for bad in [
            "class.example",
            "ftp://class.example",
            "https://",
            "https://a.example/below/",
            "https://u@a.example",
            "https://a.example/?x",
            "https://a.example/#x",
            "",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
        }
        assert_eq!("HTTPS://Class.Example:443".parse::<PublicUrl>().unwrap().to_string(), "https://class.example/");
    }

    #[test]
    fn behind_tls_an_origin_is_ours_over_tls_alone() {
        fn check(url: Option<&str>, headers: &[(&'static str, &str)], refused: bool) {
            let place = Place::new("0.0.0.0:8082".parse().unwrap(), url.map(|url| url.parse().unwrap()));
            let headers =
                headers.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()));
            let headers: HeaderMap = headers.collect();
            assert_eq!(refusal(&Method::POST, &headers, &place).is_some(), refused, "{headers:?}");
        }
        let own = Some("https://class.example");
        check(own, &[("host", "class.example"), ("origin", "https://class.example")], false);
        check(own, &[("host", "class.example"), ("origin", "http://class.example")], true);
        check(own, &[("host", "class.example"), ("origin", "https://evil.example")], true);
        check(own, &[("host", "evil.example"), ("origin", "https://evil.example")], true);
        check(own, &[("host", "localhost:8082"), ("origin", "http://localhost:8082")], false);
        check(own, &[("host", "localhost:8082"), ("origin", "https://localhost:8082")], true);
        let (host, origin) = (("host", "10.0.0.5:8082"), ("origin", "https://10.0.0.5:8082"));
        check(None, &[host, origin, ("x-forwarded-proto", "https")], false);
        check(None, &[host, origin], true);
    }

    #[test]
    fn an_origin_is_ours_when_it_is_the_host_over_http() {
        fn check(origin: &str, expected: bool) {
            assert_eq!(is_own_origin(origin, "localhost:8080", false), expected, "{origin}");
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
