//! A WebSocket passed on: the handshake is built anew, then bytes are copied both ways without reading them.
//!
//! Frames are the business of the two ends; the `Origin` was checked before.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;

use super::{Passage, ask, authorize, bad_gateway, bad_path};
use crate::gateway::answer::Refusal;

/// What of the handshake is passed on. No extensions: what is compressed on one side would be on the other.
const HANDSHAKE: &[&str] = &["sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol"];

pub async fn pass(passage: Passage<'_>, mut request: Request) -> Result<Response, Refusal> {
    let asked = request.headers();
    let is_websocket =
        asked.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !is_websocket || request.method() != Method::GET || !asked.contains_key(header::SEC_WEBSOCKET_KEY) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadUpgrade", "only WebSockets are passed on"));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut upstream = Request::builder().uri(path).body(Body::empty()).map_err(|_| bad_path())?;
    for name in HANDSHAKE {
        if let Some(value) = asked.get(*name).filter(|value| value.len() <= 256) {
            upstream.headers_mut().insert(HeaderName::from_static(name), value.clone());
        }
    }
    mark(upstream.headers_mut());
    authorize(upstream.headers_mut(), &passage)?;

    let mut answered = ask(passage.ways, upstream).await?;
    if answered.status() != StatusCode::SWITCHING_PROTOCOLS {
        return super::answer(answered, passage.over);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    mark(response.headers_mut());
    let accept = answered.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    let accept = accept.ok_or_else(|| bad_gateway("the workspace accepted no WebSocket".to_owned()))?;
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
    if let Some(protocol) = answered.headers().get(header::SEC_WEBSOCKET_PROTOCOL) {
        if !is_offered(request.headers(), protocol) {
            return Err(bad_gateway("the workspace chose a protocol that was not offered".to_owned()));
        }
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    let browser = hyper::upgrade::on(&mut request);
    let workspace = hyper::upgrade::on(&mut answered);
    tokio::spawn(async move {
        let copying = async {
            let (browser, workspace) = tokio::try_join!(browser, workspace).ok()?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(browser), &mut TokioIo::new(workspace)).await.ok()
        };
        // Dropping both ends closes them.
        tokio::select! {
            _ = copying => {}
            () = passage.over => {}
        }
    });
    Ok(response)
}

fn mark(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn is_offered(asked: &HeaderMap, chosen: &HeaderValue) -> bool {
    let offers = asked.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut offers = offers.iter().filter_map(|offer| offer.to_str().ok()).flat_map(|offer| offer.split(','));
    chosen.to_str().is_ok_and(|chosen| offers.any(|offer| offer.trim() == chosen))
}
