//! Artifacts on this replica: in the state directory, else brought from beside the images in their registry.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::adapters::cluster::Cluster;
use crate::adapters::registry::{Credentials, Registries, RegistryOptions};
use crate::crd::template::ImagePullSecret;
use crate::domain::chain;
use crate::domain::digest::Digest;
use crate::pipeline::share_artifact::pull_shared;
use crate::pipeline::sync::artifact_path;

/// After a failure so long is waited before the registry is asked again.
const REST: Duration = Duration::from_secs(15);
/// The entry of a Secret to pull with.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// The artifacts of one replica.
pub struct Artifacts {
    state: PathBuf,
    credentials: Credentials,
    /// One is brought at a time; when and why the last try for each failed.
    failed: Mutex<HashMap<Digest, (Instant, String)>>,
}

impl Artifacts {
    /// Those in this state directory; registries are told these credentials.
    #[must_use]
    pub fn new(state: PathBuf, credentials: Credentials) -> Self {
        Self { state, credentials, failed: Mutex::default() }
    }

    /// The file of this artifact; brought where it is not here. Else why it cannot be had.
    pub async fn file(
        &self,
        cluster: &Cluster,
        digest: &str,
        image: Option<&str>,
        pull: Option<&ImagePullSecret>,
    ) -> Result<PathBuf, String> {
        let digest: Digest = digest.parse().map_err(|_| format!("its artifact \"{digest}\" is no digest"))?;
        let path = artifact_path(&self.state, digest);
        if path.is_file() {
            return Ok(path);
        }
        let mut failed = self.failed.lock().await;
        if path.is_file() {
            return Ok(path);
        }
        failed.retain(|_, (when, _)| when.elapsed() < REST);
        if let Some((_, why)) = failed.get(&digest) {
            return Err(why.clone());
        }
        match self.bring(cluster, digest, image, pull).await {
            Ok(()) => Ok(path),
            Err(why) => {
                let why =
                    format!("its artifact {digest} is neither in the state directory nor beside its images: {why}");
                failed.insert(digest, (Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn bring(
        &self,
        cluster: &Cluster,
        digest: Digest,
        image: Option<&str>,
        pull: Option<&ImagePullSecret>,
    ) -> Result<(), String> {
        let image = image.ok_or("it has no images")?;
        let mut credentials = self.credentials.clone();
        if let Some(pull) = pull {
            let entries = cluster.read_secret(&pull.namespace, &pull.name).await.map_err(|error| error.to_string())?;
            if let Some(config) = entries.as_ref().and_then(|entries| entries.get(DOCKER_CONFIG)) {
                credentials = credentials.with_pull_secret(config).map_err(|error| error.to_string())?;
            }
        }
        let registries = Registries::new(RegistryOptions { credentials, ..RegistryOptions::default() });
        pull_shared(&registries, image, digest, &self.state).await.map_err(|error| chain::line(&error))
    }
}
