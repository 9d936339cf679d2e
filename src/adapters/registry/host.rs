//! One registry: its client, how it is reached, and its single requests, each tried once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use reqwest::header::{ACCEPT, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use super::BlobSource;
use super::credentials::Credentials;
use super::error::{Attempt, RegistryError};
use crate::domain::digest::Digest;
use crate::domain::image::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, MAX_MANIFEST};

const USER_AGENT: &str = concat!("workshop/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte for this long, a transfer is given up. Registries hash a large upload before they answer.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Uploads to one registry at a time.
const UPLOADS: usize = 4;
/// Tokens live for at least a minute by the specification.
const TOKEN_LIFE: Duration = Duration::from_secs(50);
/// Bytes read from a file at a time.
const CHUNK: usize = 256 << 10;

/// One registry.
pub(super) struct Host {
    name: String,
    base: String,
    client: Client,
    http: reqwest::Client,
    auth: RegistryAuth,
    challenges: bool,
    tokens: Mutex<BTreeMap<String, (String, Instant)>>,
    uploads: Semaphore,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("base", &self.base).field("challenges", &self.challenges).finish_non_exhaustive()
    }
}

impl Host {
    /// Finds out how the registry is reached and whether it wants to know who we are.
    pub(super) async fn open(
        name: &str,
        reference: &str,
        insecure: bool,
        credentials: &Credentials,
    ) -> Result<Self, RegistryError> {
        let attempt = Attempt { registry: name, reference, verb: "read" };
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .danger_accept_invalid_certs(insecure)
            .build()
            .map_err(|source| RegistryError::Client {
                registry: name.to_owned(),
                source: Box::new(OciDistributionError::RequestError(source)),
            })?;
        let mut base = format!("{}://{name}", if is_loopback(name) { "http" } else { "https" });
        let mut probe = http.get(format!("{base}/v2/")).send().await;
        if insecure && !is_loopback(name) && probe.as_ref().is_err_and(reqwest::Error::is_connect) {
            base = format!("http://{name}");
            probe = http.get(format!("{base}/v2/")).send().await;
        }
        let response = probe.map_err(|error| attempt.transport(error))?;
        // A limit is told here already; anything else is told by the request that follows.
        if response.status() == StatusCode::TOO_MANY_REQUESTS || response.status().is_server_error() {
            return Err(refusal(attempt, response).await);
        }
        let challenges = response.status() == StatusCode::UNAUTHORIZED;
        let client = Client::try_from(ClientConfig {
            protocol: if base.starts_with("http:") { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: insecure,
            // Chunked uploads cost a round trip for each 4 MiB; every registry takes a whole blob.
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        })
        .map_err(|source| RegistryError::Client { registry: name.to_owned(), source: Box::new(source) })?;
        let mut auth = RegistryAuth::Anonymous;
        if challenges {
            let (credentials, host) = (credentials.clone(), name.to_owned());
            auth = tokio::task::spawn_blocking(move || credentials.find(&host))
                .await
                .map_err(|_| attempt.content("looking for credentials panicked"))??;
            // Stored only where it is needed: with it, the library asks before every request who wants to know.
            client.store_auth_if_needed(name, &auth).await;
        }
        Ok(Self {
            name: name.to_owned(),
            base,
            client,
            http,
            auth,
            challenges,
            tokens: Mutex::default(),
            uploads: Semaphore::new(UPLOADS),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn head_manifest(&self, parsed: &Reference, text: &str) -> Result<Digest, RegistryError> {
        let response = self.manifest(Method::HEAD, parsed, text).await?;
        match digest_header(&response) {
            Some(digest) => Ok(digest),
            None => self.get_manifest(parsed, text).await.map(|(digest, _)| digest),
        }
    }

    pub(super) async fn get_manifest(
        &self,
        parsed: &Reference,
        text: &str,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        let attempt = self.attempt(text, "read");
        let mut response = self.manifest(Method::GET, parsed, text).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| attempt.transport(error))? {
            if (bytes.len() + chunk.len()) as u64 > MAX_MANIFEST {
                return Err(RegistryError::Oversized { reference: text.to_owned(), max: MAX_MANIFEST });
            }
            bytes.extend_from_slice(&chunk);
        }
        let digest = Digest::of(&bytes);
        let promised = parsed.digest().map_or_else(|| digest_header(&response), |wanted| wanted.parse().ok());
        match promised {
            Some(promised) if promised != digest => Err(attempt.content(format!("its digest is {digest}"))),
            _ => Ok((digest, bytes)),
        }
    }

    async fn manifest(&self, method: Method, parsed: &Reference, text: &str) -> Result<Response, RegistryError> {
        let attempt = self.attempt(text, "read");
        let target = parsed.digest().or(parsed.tag()).unwrap_or("latest");
        let url = format!("{}/v2/{}/manifests/{target}", self.base, parsed.repository());
        let request =
            self.http.request(method, url).header(ACCEPT, [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", "));
        let request = self.authorise(request, parsed, attempt).await?;
        let response = request.send().await.map_err(|error| attempt.transport(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(parsed.repository());
        }
        Err(refusal(attempt, response).await)
    }

    async fn authorise(
        &self,
        request: reqwest::RequestBuilder,
        parsed: &Reference,
        attempt: Attempt<'_>,
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        if !self.challenges {
            return Ok(request);
        }
        let repository = parsed.repository();
        let kept = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(repository).cloned();
        if let Some((token, _)) = kept.filter(|(_, made)| made.elapsed() < TOKEN_LIFE) {
            return Ok(request.bearer_auth(token));
        }
        let token = self
            .client
            .auth(parsed, &self.auth, RegistryOperation::Pull)
            .await
            .map_err(|error| attempt.library(error))?;
        match (token, &self.auth) {
            (Some(token), _) => {
                let kept = (token.clone(), Instant::now());
                self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.to_owned(), kept);
                Ok(request.bearer_auth(token))
            }
            (None, RegistryAuth::Basic(name, password)) => Ok(request.basic_auth(name, Some(password))),
            (None, _) => Ok(request),
        }
    }

    /// Hands the blob to `each` piece by piece; succeeds only when all of it came and has its digest.
    async fn pull(
        &self,
        reference: &Reference,
        digest: &Digest,
        max: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let text = format!("{}@{digest}", reference.repository());
        let attempt = self.attempt(&text, "read");
        let descriptor = OciDescriptor { digest: digest.to_string(), ..OciDescriptor::default() };
        let mut blob =
            self.client.pull_blob_stream(reference, &descriptor).await.map_err(|error| attempt.library(error))?;
        let mut size = 0;
        while let Some(chunk) = blob.stream.next().await {
            let chunk = chunk.map_err(|error| attempt.stream(error))?;
            size += chunk.len() as u64;
            if size > max {
                return Err(RegistryError::Oversized { reference: text, max });
            }
            each(&chunk)?;
        }
        Ok(())
    }

    pub(super) async fn pull_to_memory(
        &self,
        reference: &Reference,
        digest: &Digest,
        max: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        self.pull(reference, digest, max, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    pub(super) async fn pull_to_file(
        &self,
        reference: &Reference,
        digest: &Digest,
        max: u64,
        to: &Path,
    ) -> Result<(), RegistryError> {
        let failed = |source| RegistryError::File { path: to.to_owned(), digest: *digest, source };
        let directory = to.parent().unwrap_or(Path::new("."));
        tokio::fs::create_dir_all(directory).await.map_err(failed)?;
        let file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        let mut out = std::io::BufWriter::with_capacity(CHUNK, file);
        self.pull(reference, digest, max, |chunk| std::io::Write::write_all(&mut out, chunk).map_err(failed)).await?;
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_data().map_err(failed)?;
        file.persist(to).map_err(|error| failed(error.error))?;
        Ok(())
    }

    pub(super) async fn upload(
        &self,
        reference: &Reference,
        repository: &str,
        digest: &Digest,
        source: &BlobSource,
    ) -> Result<(), RegistryError> {
        let text = format!("{repository}@{digest}");
        let attempt = self.attempt(&text, "push");
        let _turn = self.uploads.acquire().await;
        let digest_text = digest.to_string();
        let pushed = match source {
            BlobSource::Bytes(bytes) => self.client.push_blob(reference, bytes.clone(), &digest_text).await,
            BlobSource::File(path) => {
                let failed = |source| RegistryError::File { path: path.clone(), digest: *digest, source };
                let file = tokio::fs::File::open(path).await.map_err(failed)?;
                let size = file.metadata().await.map_err(failed)?.len();
                let pieces = stream::try_unfold(file, |mut file| async move {
                    let mut piece = vec![0; CHUNK];
                    let read = file.read(&mut piece).await?;
                    piece.truncate(read);
                    Ok((read > 0).then(|| (piece.into(), file)))
                });
                self.client.push_blob_stream(reference, pieces, &digest_text, Some(size)).await
            }
        };
        pushed.map(drop).map_err(|error| attempt.library(error))
    }

    pub(super) async fn put_manifest(
        &self,
        target: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let text = target.whole();
        let attempt = self.attempt(&text, "push");
        let media_type = HeaderValue::from_str(media_type).map_err(|_| attempt.content("its media type is no text"))?;
        self.client
            .push_manifest_raw(target, bytes.to_vec(), media_type)
            .await
            .map(drop)
            .map_err(|error| attempt.library(error))
    }

    fn attempt<'a>(&'a self, reference: &'a str, verb: &'static str) -> Attempt<'a> {
        Attempt { registry: &self.name, reference, verb }
    }
}

/// The error that a response means; of its text only the beginning is read.
async fn refusal(attempt: Attempt<'_>, mut response: Response) -> RegistryError {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let text = match response.chunk().await {
        Ok(Some(chunk)) => String::from_utf8_lossy(&chunk[..chunk.len().min(1000)]).into_owned(),
        _ => String::new(),
    };
    attempt.status(status, text.trim(), retry_after)
}

fn digest_header(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// True for a registry on this machine.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registries_on_this_machine_are_on_loopback() {
        for (registry, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("ghcr.io", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
