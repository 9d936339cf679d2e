//! A Kubernetes cluster: our kinds as JSON objects, events, leases and Secrets by name.
//!
//! Says what exists and carries out single requests; what should exist is decided by the plan.

mod api_servers;
mod around;
mod config_maps;
mod error;
mod events;
mod instances;
mod lease;
mod logs;
mod mirror;
mod objects;
mod repositories;
mod secrets;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub use around::{NamespaceEvent, Part, PodSet};
pub use config_maps::ConfigMap;
pub use error::{Cause, Error};
pub use events::Severity;
pub use instances::{InstancePart, difference};
pub use lease::{DURATION as LEASE_DURATION, Leadership, Lease, PERIOD as LEASE_PERIOD};
pub use mirror::{Changed, Mirror};
pub use secrets::{KEYS, Keys};
pub use watch::{OwnedEvent, RepositoryEvent};

/// How long a single request may take; watches are not bound by it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a cluster; clones share it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    server: String,
    recorder: kube::runtime::events::Recorder,
    config: Arc<Config>,
}

impl Cluster {
    /// The cluster of `kubeconfig` and `context`, else of `KUBECONFIG` or `~/.kube/config`, else the one this pod
    /// runs in. Sends nothing yet.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        namespace: Option<&str>,
    ) -> Result<Self, Error> {
        // The tests call this without the program's main, which does the same; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = read_config(kubeconfig, context).await?;
        let configure = |reason: String| Error::Configure { reason };
        config.headers.push((
            "user-agent".parse().map_err(|error| configure(format!("the User-Agent is no header: {error}")))?,
            concat!("workshop/", env!("CARGO_PKG_VERSION"))
                .parse()
                .map_err(|error| configure(format!("the User-Agent is no header: {error}")))?,
        ));
        let namespace = namespace.map_or_else(|| config.default_namespace.clone(), str::to_owned);
        Self::with(Arc::new(config), namespace)
    }

    /// The same cluster by a connection that shares nothing with this one: for a runtime of its own.
    pub fn connect_again(&self) -> Result<Self, Error> {
        Self::with(Arc::clone(&self.config), self.namespace.clone())
    }

    fn with(config: Arc<Config>, namespace: String) -> Result<Self, Error> {
        let server = config.cluster_url.to_string();
        let client =
            Client::try_from((*config).clone()).map_err(|error| Error::Configure { reason: error.to_string() })?;
        let recorder = kube::runtime::events::Recorder::new(client.clone(), crate::crd::labels::FIELD_MANAGER.into());
        Ok(Self { client, namespace, server, recorder, config })
    }

    /// The namespace of `--namespace`, else of the context, else of the pod.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Runs one request of the client library with the time limit of all requests.
    async fn call<T>(&self, attempt: &str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
        match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| Error::from_kube(attempt, error)),
            Err(_) => Err(Error::timed_out(attempt, REQUEST_TIMEOUT)),
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

async fn read_config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, Error> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let configure = |reason: String| Error::Configure { reason };
    if let Some(path) = kubeconfig {
        let file = Kubeconfig::read_from(path).map_err(|error| configure(error.to_string()))?;
        return Config::from_custom_kubeconfig(file, &options).await.map_err(|error| configure(error.to_string()));
    }
    match Config::from_kubeconfig(&options).await {
        Ok(config) => Ok(config),
        // A context that somebody names is in a kubeconfig, never in a pod.
        Err(error) if context.is_some() => Err(configure(error.to_string())),
        Err(outside) => Config::incluster()
            .map_err(|inside| configure(format!("{outside}; and this is no pod of a cluster either: {inside}"))),
    }
}
