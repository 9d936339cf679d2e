//! The gateway as a browser, a stranger and a hostile workspace meet it: a real server over TCP, real sockets behind.

mod access;
mod cluster;
mod command;
mod hostile;
mod passing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use workshop::adapters::store::Store;
use workshop::crd::labels;
use workshop::domain::container::Address;
use workshop::gateway::{Gateway, OwnerKey, Place, Settings, server, socket};
use workshop::pipeline::upstream::{control_socket, send};
use workshop::pipeline::workspace::Workspaces;

const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway over a state directory of its own.
struct Server {
    state: TempDir,
    store: Arc<Store>,
    workspaces: Workspaces,
    gateway: Gateway,
    owner: OwnerKey,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An answer read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The value of the cookie that it sets, without the attributes.
    fn cookie(&self, name: &str) -> Option<String> {
        let set = self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        set.filter_map(|value| value.split(';').next()?.strip_prefix(name)?.strip_prefix('=')).next().map(str::to_owned)
    }
}

impl Server {
    /// A gateway with the workshop `first` and no instances.
    async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(state.path()).unwrap());
        write_template(&store, state.path());
        let workspaces = Workspaces::open(Arc::clone(&store), state.path()).unwrap();
        let owner = OwnerKey::read_or_make(state.path()).unwrap();
        let stop = CancellationToken::new();
        let listener = server::listen(Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let settings = Settings {
            workspaces: workspaces.clone(),
            logs: None,
            owner: owner.clone(),
            person: "Grace Hopper".into(),
            stop: stop.clone(),
        };
        let gateway = Gateway::new(settings, Place::new(listener.local_addr().unwrap(), None));
        let socket = socket::OwnSocket::bind(&control_socket(state.path())).unwrap();
        tokio::spawn(socket::serve(gateway.clone(), socket));
        tokio::spawn(server::serve(gateway.clone(), listener));
        Self { state, store, workspaces, gateway, owner, stop }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.listening()
    }

    fn host(&self) -> String {
        self.address().to_string()
    }

    /// An instance of the workshop; its uid.
    async fn instance(&self, name: &str) -> String {
        let request = serde_json::from_value(json!({ "template": "first", "name": name, "owner": name })).unwrap();
        self.workspaces.create(&request).await.unwrap().remove(0).uid
    }

    /// A Unix socket that stands for the workspace of this instance.
    fn socket_of(&self, uid: &str) -> PathBuf {
        let path = self.state.path().join(format!("{}.sock", &uid[..8]));
        self.workspaces.set_address(uid, Some(Address::Unix(path.clone())));
        path
    }

    /// Serves these routes as the workspace of the instance.
    fn serve(&self, uid: &str, routes: axum::Router) {
        let listener = tokio::net::UnixListener::bind(self.socket_of(uid)).unwrap();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap();
        });
    }

    /// The header of the owner's cookie.
    fn owner_cookie(&self) -> String {
        format!("{}={}", self.owner.cookie_name(), self.owner.cookie())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> hyper::Response<hyper::body::Incoming> {
        send_to(self.address(), method, path, headers, body).await
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        ask_at(self.address(), method, path, headers, body).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Method::GET, path, headers, Body::empty()).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.ask(Method::POST, path, &headers, body.to_string()).await
    }
}

/// Sends a request as a browser does that was given this address, unless `headers` name another host.
async fn send_to(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> hyper::Response<hyper::body::Incoming> {
    let mut request = Request::builder().method(method).uri(path).body(body).unwrap();
    request.headers_mut().insert("host", address.to_string().parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(hyper::header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    send(&Address::Tcp(address), request, PATIENCE).await.unwrap()
}

async fn ask_at(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let (parts, body) = send_to(address, method, path, headers, body.into()).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}

/// The workshop `first` of two steps, as a sync would leave it.
fn write_template(store: &Store, state: &Path) {
    let digest = workshop::domain::digest::Digest::of(b"no artifact is read here");
    let artifacts = state.join("artifacts");
    std::fs::create_dir_all(&artifacts).unwrap();
    std::fs::write(artifacts.join(format!("{}.db", digest.hex())), b"no artifact is read here").unwrap();
    let template = json!({
        "apiVersion": workshop::crd::API_VERSION,
        "kind": "WorkspaceTemplate",
        "metadata": { "name": "first", "labels": { (labels::OWNER): "o", (labels::WORKSHOP): "first" } },
        "spec": {
            "defaults": {},
            "steps": [
                { "id": "one", "title": "Step one", "imageTag": "localhost/first:one" },
                { "id": "two", "title": "Step two", "imageTag": "localhost/first:two" },
            ],
            "artifact": { "digest": digest.to_string(), "size": 24 },
        },
    });
    store.apply_object(&template, labels::OWNER).unwrap();
}

/// Headers as pairs that one can read.
fn names(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned())).collect()
}
