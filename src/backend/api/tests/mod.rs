//! A backend in the test's own process, asked over HTTP; every answer is held against the OpenAPI document.

mod access;
mod document;
mod learning;
mod managed;

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backend::app::{App, Machine, seconds};
use crate::backend::config::Config;
use crate::backend::exec::Identity;
use crate::backend::files::FilesClient;
use crate::backend::store::{self, fixture};
use crate::domain::token::{Claims, Role, SigningKey};

/// The base path of the tests.
const BASE: &str = "/w/alice/";

struct Workspace {
    app: Arc<App>,
    key: SigningKey,
    origin: String,
    client: reqwest::Client,
    document: Value,
    root: TempDir,
}

/// What a request got.
struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.bytes)))
    }

    fn code(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        (self.status.as_u16(), body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl Workspace {
    /// An open workspace of the fixture's workshop, in its first step.
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(variables: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fixture::write(&root.path().join("workshop/artifact/workshop.db"), "");
        let key = SigningKey::generate();
        let verify_key = key.verify_key().to_string();
        let config = Config::parse(|name| match name {
            "WORKSHOP_ROOT" => root.path().to_str().map(str::to_owned),
            "WORKSHOP_INSTANCE" => Some("uid-1".into()),
            "WORKSHOP_BASE_PATH" => Some(BASE.into()),
            "WORKSHOP_VERIFY_KEY" => Some(verify_key.clone()),
            "WORKSHOP_TOKEN_GENERATION" => Some("3".into()),
            name => variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned()),
        })
        .unwrap();
        let app = App::new(config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let routes = super::routes(Arc::clone(&app));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let document = serde_json::to_value(super::openapi::build(BASE)).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { app, key, origin, client, document, root }
    }

    /// What `start` does, without an account and a shell.
    fn open(&self) {
        let (state, artifact) = (self.app.config.state(), self.app.config.path("/workshop/artifact"));
        let (store, workshop) = store::open(&state, &artifact, "uid-1").unwrap();
        self.app.open(store, workshop).unwrap();
        self.app.verify_key.set(self.key.verify_key()).unwrap();
        let home = self.root.path().join("home");
        std::fs::create_dir_all(&home).unwrap();
        let files = FilesClient::new(Identity::current());
        self.app
            .machine
            .set(Machine { home, files, terminal: None, environment: Vec::new(), command_user: None })
            .unwrap();
        self.app.set_failure(None);
    }

    fn claims(&self, role: Role) -> Claims {
        let (aud, sub) = ("uid-1".to_owned(), "alice".to_owned());
        Claims { aud, sub, role, generation: 3, iat: seconds() - 5, exp: seconds() + 60 }
    }

    fn token(&self, role: Role) -> String {
        self.key.sign(&self.claims(role))
    }

    /// Sends a request below the base path and holds the answer against the document.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.client.request(method.clone(), format!("{}{BASE}{path}", self.origin)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let answer = Answer { status, headers, bytes: answer.bytes().await.unwrap().to_vec() };
        document::check(&self.document, &method, path, &answer);
        answer
    }

    async fn ask(&self, role: Role, method: Method, path: &str, body: Option<Value>) -> Answer {
        let authorization = format!("Bearer {}", self.token(role));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.send(method, path, &[("authorization", &authorization)], body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Role::Learner, Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Role::Learner, Method::POST, path, Some(body)).await
    }

    async fn navigate(&self, action: &str) -> Answer {
        self.post("api/v1/navigate", json!({ "action": action })).await
    }

    /// An artifact's bytes, as `sql` changes the fixture.
    fn artifact(&self, sql: &str) -> Vec<u8> {
        let path = self.root.path().join("other.db");
        let _ = std::fs::remove_file(&path);
        fixture::write(&path, sql);
        std::fs::read(path).unwrap()
    }

    async fn preview(&self, role: Role, sql: &str) -> Answer {
        let authorization = format!("Bearer {}", self.token(role));
        self.send(Method::PUT, "api/v1/artifact", &[("authorization", &authorization)], self.artifact(sql)).await
    }
}
