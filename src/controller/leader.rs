//! One writer: work goes on only while this process holds the lease.
//!
//! The lease is renewed on a thread of its own with a connection of its own: behind the work of a whole class on a
//! processor that others use too, a renewal came seconds late, and whoever leads would have stopped for being busy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Error, GRACE, Shared};
use crate::adapters::cluster::{Cluster, LEASE_DURATION, LEASE_PERIOD, Leadership, Lease};

/// The name of the Lease object, for which `manifests/` gives the right.
const LEASE: &str = "workshop-controller";

/// Without a renewal for this long the work stops; the last of it has ended before anybody else may begin.
const STOP_AFTER: Duration = Duration::from_secs(9);
const _: () = assert!(STOP_AFTER.as_secs() + GRACE.as_secs() < LEASE_DURATION.as_secs());

/// Waits for the lease, runs `work` while it is held, and again after it was lost; ends when `stop` is cancelled.
pub(super) async fn lead<W>(
    shared: &Arc<Shared>,
    identity: &str,
    stop: &CancellationToken,
    work: impl Fn(CancellationToken) -> W,
) -> Result<(), Error>
where
    W: Future<Output = ()>,
{
    let mut lease = Lease::new(LEASE, identity);
    loop {
        if !wait_until_held(shared, &mut lease, stop).await? {
            return Ok(());
        }
        tracing::info!(identity, "this process leads");
        shared.metrics.set_leading(true);
        let ending = stop.child_token();
        let kept = keep_apart(&shared.cluster, lease, &ending);
        work(ending.clone()).await;
        // The thread ends after `ending`, which is what ends the work; a claim that broke down is made anew.
        lease = kept.await.unwrap_or_else(|_| Lease::new(LEASE, identity));
        shared.metrics.set_leading(false);
        if stop.is_cancelled() {
            if let Err(error) = lease.release(&shared.cluster).await {
                tracing::warn!(%error, "the lease was not given back; it runs out by itself");
            }
            return Ok(());
        }
        tracing::warn!("the lease was lost; all work has stopped");
    }
}

/// True once the lease is held; false when it is time to end.
async fn wait_until_held(shared: &Shared, lease: &mut Lease, stop: &CancellationToken) -> Result<bool, Error> {
    let mut said = None;
    loop {
        let waiting_for = match lease.acquire(&shared.cluster).await {
            Ok(Leadership::Held) => return Ok(true),
            Ok(Leadership::Elsewhere { holder }) => format!("\"{holder}\" leads"),
            Err(error) if error.is_transient() => error.to_string(),
            Err(error) => return Err(Error::Lead(error)),
        };
        if said.as_ref() != Some(&waiting_for) {
            tracing::warn!("waiting to lead: {waiting_for}");
            said = Some(waiting_for);
        }
        tokio::select! {
            () = tokio::time::sleep(LEASE_PERIOD) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

/// Renews on another thread until the lease is lost or `ending` is cancelled, and cancels that; gives the claim back.
fn keep_apart(cluster: &Cluster, lease: Lease, ending: &CancellationToken) -> oneshot::Receiver<Lease> {
    let (sender, receiver) = oneshot::channel();
    let (cluster, ending) = (cluster.clone(), ending.clone());
    let keeper = move || {
        // Also where this thread breaks down.
        let ending = ending.drop_guard();
        let mut lease = lease;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                match cluster.connect_again() {
                    Ok(own) => keep(&own, &mut lease, ending.token()).await,
                    Err(error) => tracing::error!(%error, "the lease cannot be renewed"),
                }
            }),
            Err(error) => tracing::error!(%error, "the lease cannot be renewed"),
        }
        let _ = sender.send(lease);
    };
    if let Err(error) = std::thread::Builder::new().name("lease".to_owned()).spawn(keeper) {
        // The closure is dropped, and with it everything that waits for it ends.
        tracing::error!(%error, "the thread that renews the lease cannot be started");
    }
    receiver
}

/// Renews until the lease is lost or `ending` is cancelled.
async fn keep(cluster: &Cluster, lease: &mut Lease, ending: &CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LEASE_PERIOD) => {}
            () = ending.cancelled() => return,
        }
        let left = STOP_AFTER.saturating_sub(renewed.elapsed());
        match tokio::time::timeout(left, lease.acquire(cluster)).await {
            Ok(Ok(Leadership::Held)) => renewed = Instant::now(),
            Ok(Ok(Leadership::Elsewhere { holder })) => {
                tracing::error!(holder, "another process took the lease");
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be renewed"),
            Err(_) => {}
        }
        if renewed.elapsed() >= STOP_AFTER {
            return;
        }
    }
}
