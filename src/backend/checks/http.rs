//! Asks over HTTP as a check says, and keeps the answer within bounds.
//!
//! No proxy but the one that the check names: what the platform itself is told is not the check's.

use std::sync::Once;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method, Proxy, redirect};

use super::fact::{Fact, Missing, failed, read_text, reason, unknown, value};
use crate::domain::goss::Found;
use crate::domain::goss::subject::Request;

const MAX_BODY: usize = 4 << 20;
const MAX_PEM: u64 = 4 << 20;
const MAX_REDIRECTS: usize = 10;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: String,
    body: String,
    is_cut: bool,
}

pub async fn ask(request: &Request) -> Result<Answer, Missing> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another part of the program may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let client = client(request)?;
    match tokio::time::timeout(request.timeout, exchange(&client, request)).await {
        Ok(answer) => answer,
        Err(_) => failed(format!("it did not answer within {} ms", request.timeout.as_millis())),
    }
}

/// What is found for an attribute of an answer.
pub fn fact(answer: Option<&Result<Answer, Missing>>, attribute: &str) -> Fact {
    let answer = match answer {
        Some(Ok(answer)) => answer,
        Some(Err(missing)) => return Err(missing.clone()),
        None => return unknown("nothing was asked"),
    };
    match attribute {
        "status" => value(answer.status),
        "Headers" => Ok(Found::Text(answer.headers.clone())),
        "Body" if answer.is_cut => failed(format!("the answer is larger than the {MAX_BODY} bytes that are compared")),
        "Body" => Ok(Found::Text(answer.body.clone())),
        other => unknown(format!("an answer has no attribute \"{other}\"")),
    }
}

fn client(request: &Request) -> Result<Client, Missing> {
    let builder = || -> Result<ClientBuilder, Missing> {
        let follow = if request.no_follow_redirects {
            redirect::Policy::none()
        } else {
            redirect::Policy::limited(MAX_REDIRECTS)
        };
        let mut builder = Client::builder()
            .redirect(follow)
            .no_proxy()
            .pool_max_idle_per_host(0)
            .connect_timeout(request.timeout.max(Duration::from_millis(1)))
            .tls_danger_accept_invalid_certs(request.allow_insecure);
        if let Some(proxy) = &request.proxy {
            let proxy = Proxy::all(proxy).map_err(|error| Missing::Unknown(format!("the proxy is wrong: {error}")))?;
            builder = builder.proxy(proxy);
        }
        if let Some(file) = &request.ca_file {
            let certificates = Certificate::from_pem_bundle(pem(file)?.as_bytes());
            let certificates = certificates.map_err(|error| Missing::Unknown(format!("{file} is wrong: {error}")))?;
            builder = builder.tls_certs_only(certificates);
        }
        if let (Some(certificate), Some(key)) = (&request.cert_file, &request.key_file) {
            let both = format!("{}\n{}", pem(key)?, pem(certificate)?);
            let identity = Identity::from_pem(both.as_bytes());
            builder = builder
                .identity(identity.map_err(|error| Missing::Unknown(format!("{certificate} is wrong: {error}")))?);
        }
        Ok(builder)
    };
    // An image without certificates of authorities has none to trust, which http does not need.
    let built = builder()?.build().or_else(|error| match builder() {
        Ok(builder) if request.ca_file.is_none() => builder.tls_certs_only([]).build(),
        _ => Err(error),
    });
    built.map_err(|error| Missing::Unknown(format!("the request cannot be made: {}", deepest(&error))))
}

fn pem(file: &str) -> Result<String, Missing> {
    match read_text(file, MAX_PEM) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => unknown(format!("there is no file {file}")),
        Err(error) => unknown(format!("cannot read {file}: {}", reason(&error))),
    }
}

async fn exchange(client: &Client, request: &Request) -> Result<Answer, Missing> {
    let method = Method::from_bytes(request.method.to_ascii_uppercase().as_bytes());
    let Ok(method) = method else { return unknown(format!("\"{}\" is no HTTP method", request.method)) };
    let mut asking = client.request(method, &request.url).headers(headers(&request.headers)?);
    if request.username.is_some() || request.password.is_some() {
        asking = asking.basic_auth(request.username.as_deref().unwrap_or_default(), request.password.as_deref());
    }
    if let Some(body) = &request.body {
        asking = asking.body(body.clone());
    }
    let mut response = match asking.send().await {
        Ok(response) => response,
        Err(error) if error.is_builder() => {
            return unknown(format!("\"{}\" cannot be asked: {}", request.url, deepest(&error)));
        }
        Err(error) => return failed(format!("it does not answer: {}", deepest(&error))),
    };
    let status = response.status().as_u16();
    let headers = header_lines(response.headers());
    let mut body = Vec::new();
    let mut is_cut = false;
    while !is_cut {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MAX_BODY - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                is_cut = chunk.len() > room;
            }
            Ok(None) => break,
            Err(error) => return failed(format!("the answer broke off: {}", deepest(&error))),
        }
    }
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned(), is_cut })
}

fn headers(lines: &[String]) -> Result<HeaderMap, Missing> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some((name, value)) = parsed else { return unknown(format!("\"{line}\" is no header")) };
        headers.append(name, value);
    }
    Ok(headers)
}

/// `Content-Type: text/plain` each, in the spelling that goss shows.
fn header_lines(headers: &HeaderMap) -> String {
    let lines = headers.iter().map(|(name, value)| {
        let words = name.as_str().split('-').map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        });
        format!("{}: {}", words.collect::<Vec<_>>().join("-"), String::from_utf8_lossy(value.as_bytes()))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The innermost reason, which the outer ones only wrap.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    let text = reason.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
