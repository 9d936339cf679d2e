//! What a workspace's program printed, as its pod keeps it.
//!
//! It finds the pod and passes bytes on; nothing is kept.

use std::io;

use futures_util::{AsyncBufReadExt as _, Stream, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use tokio_util::bytes::Bytes;

use super::{Cluster, Error};

/// Selects the pods of a workspace in its namespace.
const SELECTOR: &str = "app.kubernetes.io/name=workspace";
/// Their container.
const CONTAINER: &str = "workspace";

impl Cluster {
    /// The log of the newest workspace pod in this namespace, to its end or, with `follow`, until the pod ends; none
    /// where there is no pod.
    pub async fn workspace_log(
        &self,
        namespace: &str,
        follow: bool,
    ) -> Result<Option<impl Stream<Item = io::Result<Bytes>> + Send + 'static>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let attempt = format!("find the pod in \"{namespace}\"");
        let found = self.call(&attempt, pods.list(&ListParams::default().labels(SELECTOR))).await?;
        let newest = found.items.into_iter().max_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let Some(name) = newest.and_then(|pod| pod.metadata.name) else { return Ok(None) };
        let attempt = format!("read the log of the pod \"{namespace}/{name}\"");
        let parameters = LogParams { container: Some(CONTAINER.to_owned()), follow, ..LogParams::default() };
        let reader = self.call(&attempt, pods.log_stream(&name, &parameters)).await?;
        Ok(Some(stream::try_unfold(Box::pin(reader), async |mut reader| {
            let bytes = Bytes::copy_from_slice(reader.fill_buf().await?);
            reader.consume_unpin(bytes.len());
            Ok((!bytes.is_empty()).then_some((bytes, reader)))
        })))
    }
}
