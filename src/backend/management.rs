//! Asks those who run this workspace: the client of the management API.
//!
//! One call for each of its routes; when to call, and what follows, is `session`'s matter.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::domain::management::{
    Activity, BASE, ErrorBody, ExtendRequest, Extended, Instance, MAX_WAIT_SECONDS, ResetRequest, Session, Snapshot,
    StepRequest,
};

use super::config::ManagementAddress;
use super::store::MAX_BYTES;

/// How long an answer may take, besides the wait that was asked for.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest JSON answer, in bytes: progress and 64 entries of custom state.
const MAX_JSON: usize = 4 << 20;

/// Why the management API did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The client could not be made.
    #[error("failed to prepare requests to the management API")]
    Client(#[source] reqwest::Error),
    /// Nobody answers, or not in time.
    #[error("failed to {attempt}")]
    Unreachable {
        /// What was attempted.
        attempt: &'static str,
        /// The cause.
        source: reqwest::Error,
    },
    /// An answer that is none.
    #[error("failed to {attempt}: the management API answered {answer}")]
    Answer {
        /// What was attempted.
        attempt: &'static str,
        /// What it is.
        answer: String,
    },
    /// It says no.
    #[error("the management API refuses to {attempt}: {}", body.error.message)]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// The status of the answer.
        status: StatusCode,
        /// Why.
        body: ErrorBody,
    },
}

impl ManagementError {
    /// True when it says no, so that what was asked for will not be; false when that is not known.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// True when another backend has taken over this workspace.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Refused { body, .. } if body.error.code == "StaleEpoch")
    }
}

/// The management API for one instance. The client behind it is made with the first request.
#[derive(Debug)]
pub struct Management {
    address: ManagementAddress,
    path: String,
    token: String,
    client: OnceCell<Client>,
}

impl Management {
    /// For `instance`, with the workspace's own token.
    pub fn new(address: ManagementAddress, instance: &str, token: String) -> Self {
        let path = format!("{BASE}/instances/{instance}");
        Self { address, path, token, client: OnceCell::new() }
    }

    async fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ManagementError> {
        let client = self.client.get_or_try_init(|| async {
            // The one provider of this program; installing it twice is no error worth a word.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let builder =
                Client::builder().connect_timeout(Duration::from_secs(5)).pool_max_idle_per_host(2).no_proxy();
            // Certificates are asked for only where they count: many images have none, and building would fail.
            match &self.address {
                ManagementAddress::Unix(path) => builder.tls_certs_only([]).unix_socket(path.as_path()).build(),
                ManagementAddress::Url(url) if url.starts_with("http:") => builder.tls_certs_only([]).build(),
                ManagementAddress::Url(_) => builder.build(),
            }
        });
        let client = client.await.map_err(ManagementError::Client)?;
        let origin = match &self.address {
            ManagementAddress::Url(url) => url.as_str(),
            ManagementAddress::Unix(_) => "http://management",
        };
        let request = client.request(method, format!("{origin}{}{path}", self.path)).timeout(TIMEOUT);
        Ok(request.bearer_auth(&self.token))
    }

    async fn send(&self, attempt: &'static str, request: RequestBuilder) -> Result<Response, ManagementError> {
        let answer = request.send().await.map_err(|source| ManagementError::Unreachable { attempt, source })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let bytes = body(attempt, answer, 64 << 10).await?;
        match serde_json::from_slice(&bytes) {
            Ok(body) if status.is_client_error() => Err(ManagementError::Refused { attempt, status, body }),
            _ => Err(ManagementError::Answer { attempt, answer: status.to_string() }),
        }
    }

    async fn post<T: Serialize>(
        &self,
        attempt: &'static str,
        path: &str,
        body: &T,
    ) -> Result<Response, ManagementError> {
        let request = self.request(Method::POST, path).await?.json(body);
        self.send(attempt, request).await
    }

    /// Claims an epoch; older ones are refused from then on.
    pub async fn begin(&self) -> Result<Session, ManagementError> {
        let attempt = "begin a session";
        let request = self.request(Method::POST, "/sessions").await?;
        json(attempt, self.send(attempt, request).await?).await
    }

    /// The instance, once its version is another one than `version`, or after a while.
    pub async fn wait(&self, version: &str) -> Result<Instance, ManagementError> {
        let attempt = "ask for changes";
        let version: String = url::form_urlencoded::byte_serialize(version.as_bytes()).collect();
        let query = format!("?version={version}&wait={MAX_WAIT_SECONDS}");
        let timeout = TIMEOUT + Duration::from_secs(MAX_WAIT_SECONDS);
        let request = self.request(Method::GET, &query).await?.timeout(timeout);
        json(attempt, self.send(attempt, request).await?).await
    }

    /// Hands over all progress.
    pub async fn save(&self, snapshot: &Snapshot) -> Result<(), ManagementError> {
        let request = self.request(Method::PUT, "/progress").await?.json(snapshot);
        self.send("hand over the progress", request).await.map(drop)
    }

    /// Asks for another step.
    pub async fn go_to(&self, step: &str, epoch: u64) -> Result<(), ManagementError> {
        let request = StepRequest { step: step.to_owned(), epoch };
        self.post("go to another step", "/step", &request).await.map(drop)
    }

    /// Asks for the current step anew.
    pub async fn reset(&self, epoch: u64) -> Result<(), ManagementError> {
        self.post("reset the step", "/reset", &ResetRequest { epoch }).await.map(drop)
    }

    /// Says that the workspace was used at `at`.
    pub async fn report_activity(&self, at: String) -> Result<(), ManagementError> {
        self.post("report activity", "/activity", &Activity { at }).await.map(drop)
    }

    /// Asks for more time.
    pub async fn extend(&self) -> Result<Extended, ManagementError> {
        let attempt = "extend the time";
        json(attempt, self.post(attempt, "/extend", &ExtendRequest::default()).await?).await
    }

    /// The bytes of the artifact with this digest; whoever takes them checks it.
    pub async fn fetch_artifact(&self, digest: &str) -> Result<Vec<u8>, ManagementError> {
        let attempt = "fetch the artifact";
        let request = self.request(Method::GET, &format!("/artifact/{digest}")).await?.timeout(Duration::from_secs(60));
        body(attempt, self.send(attempt, request).await?, MAX_BYTES as usize).await
    }
}

/// The whole body, if it has at most `most` bytes.
async fn body(attempt: &'static str, mut answer: Response, most: usize) -> Result<Vec<u8>, ManagementError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|source| ManagementError::Unreachable { attempt, source })? {
        if bytes.len() + chunk.len() > most {
            return Err(ManagementError::Answer { attempt, answer: format!("more than {most} bytes") });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn json<T: DeserializeOwned>(attempt: &'static str, answer: Response) -> Result<T, ManagementError> {
    let bytes = body(attempt, answer, MAX_JSON).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ManagementError::Answer { attempt, answer: format!("what cannot be read: {error}") })
}
