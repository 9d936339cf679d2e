//! The pods of one instance that moves: what happens to them, and the moment from which a new one answers.
//!
//! The kubelet finds out that a backend is ready with its next probe and tells it through the API server; a learner waits
//! for that. So whoever follows a pod asks its backend besides, from the moment its container runs. What follows from
//! the answer is decided elsewhere, and where the operator reaches no pods, the kubelet's word is as good.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::OptionFuture;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::seen::begun;
use crate::domain::container::Address;
use crate::pipeline::upstream;

/// How long an answer may take.
const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// The pause after the first question, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Something about the pods of the instance with this uid.
pub(super) struct PodNews {
    pub uid: String,
    /// The container whose backend answered that it is ready.
    pub answered: Option<String>,
}

/// Tells all that happens to `pods`, and the answer of each new container, until nobody listens.
pub(super) async fn follow_pods(
    pods: impl Stream<Item = Option<Pod>> + Send,
    uid: String,
    sender: mpsc::UnboundedSender<PodNews>,
) {
    tokio::pin!(pods);
    // The container that is asked or has answered.
    let mut asked: Option<String> = None;
    let mut answer = OptionFuture::from(None);
    loop {
        let answered = tokio::select! {
            pod = pods.next() => {
                let Some(pod) = pod else { return };
                if let Some((container, address)) = pod.as_ref().and_then(begun)
                    && asked.as_ref() != Some(&container)
                {
                    asked = Some(container);
                    answer = Some(Box::pin(answers(address))).into();
                }
                None
            }
            Some(()) = &mut answer => {
                answer = None.into();
                asked.clone()
            }
        };
        if sender.send(PodNews { uid: uid.clone(), answered }).is_err() {
            return;
        }
    }
}

/// Waits until the backend at `address` says that it is ready.
async fn answers(address: SocketAddr) {
    let address = Address::Tcp(address);
    let mut pause = PAUSE.0;
    while !upstream::is_ready(&address, PROBE_WITHIN).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSE.1);
    }
}
