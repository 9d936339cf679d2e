//! Secrets, one at a time and by name: never listed, never watched, never kept.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::{Cluster, Error};

impl Cluster {
    /// The entries of a Secret; none when it does not exist.
    pub async fn read_secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let attempt = format!("read the Secret \"{namespace}/{name}\"");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = self.call(&attempt, secrets.get_opt(name)).await?;
        Ok(secret
            .map(|secret| secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()))
    }
}
