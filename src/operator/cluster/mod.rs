//! The operator of a cluster: makes namespaces, policies, pods and services of instances, and keeps them right.
//!
//! A look at one instance has five beats (`look`): dereference, validate, build, apply, status. What a failure leads to
//! is decided in `outcome` alone, what is due when in `engine`, what the life of an instance is in `domain::lifecycle`.

mod apply;
mod artifacts;
pub mod build;
mod dereference;
mod drift;
mod engine;
mod look;
mod metrics;
mod outcome;
mod own_cluster;
mod pods;
mod seen;
mod status;
mod templates;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use artifacts::Artifacts;
pub use metrics::Metrics;

use crate::adapters::cluster::{Cluster, Mirror};
use crate::adapters::provisioner::Provisioner;
use crate::domain::token::SigningKey;
use build::Surroundings;

/// What the operator works with.
pub struct Settings {
    /// The cluster.
    pub cluster: Cluster,
    /// Its instances and templates.
    pub mirror: Mirror,
    /// The key that signs workspaces' own tokens.
    pub key: Arc<SigningKey>,
    /// The management API as pods reach it; none: backends run alone.
    pub management_url: Option<String>,
    /// The gateway as people reach it, without a slash at the end.
    pub gateway_url: Option<String>,
    /// Pods get user namespaces of their own.
    pub user_namespaces: bool,
    /// Makes learners' own clusters; none where the administrator gave no chart.
    pub provisioner: Option<Provisioner>,
    /// Artifacts, also those that another replica or an author brought in.
    pub artifacts: Arc<Artifacts>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What all looks share.
struct Shared {
    settings: Arc<Settings>,
    around: Surroundings,
    /// The API server's version, where charts are rendered for it.
    kubernetes: Option<String>,
}

/// Keeps workspaces as instances ask until `stop` is cancelled; what runs goes on then.
pub async fn run(settings: Arc<Settings>, stop: CancellationToken) {
    let Some(operator) = own_name(&settings.cluster, &stop).await else { return };
    let around = Surroundings {
        management_url: settings.management_url.clone(),
        verify_key: settings.key.verify_key().to_string(),
        system: settings.cluster.namespace().to_owned(),
        operator,
        user_namespaces: settings.user_namespaces,
        api_servers: api_servers(&settings.cluster).await,
        chart: settings.provisioner.as_ref().map(|provisioner| provisioner.chart().identity()),
    };
    let kubernetes = match &settings.provisioner {
        // Helm has a guess of its own where the server does not say.
        Some(_) => settings.cluster.read_version().await.ok(),
        None => None,
    };
    let shared = Arc::new(Shared { settings, around, kubernetes });
    tokio::join!(engine::run(Arc::clone(&shared), stop.clone()), templates::run(shared, stop));
}

/// Where the API server is; workspaces with a lab may reach it there.
async fn api_servers(cluster: &Cluster) -> Vec<std::net::SocketAddr> {
    cluster.read_api_servers().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "where the API server is remains unknown: network policies let no lab's learner reach it");
        Vec::new()
    })
}

/// Who this program is, for the role bindings it makes; asked until the API server answers.
async fn own_name(cluster: &Cluster, stop: &CancellationToken) -> Option<String> {
    loop {
        match cluster.read_own_name().await {
            Ok(name) => return Some(name),
            Err(error) => tracing::warn!(%error, "waiting to know who this program is to the API server"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = stop.cancelled() => return None,
        }
    }
}
