//! One writer: work goes on only while this process holds the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Error, Shared};
use crate::adapters::cluster::{LEASE_DURATION, LEASE_PERIOD, Leadership, Lease};

/// The name of the Lease object, for which `manifests/` gives the right.
const LEASE: &str = "workshop-controller";

/// Without a renewal for this long the work stops, well before anybody else may begin.
const STOP_AFTER: Duration = Duration::from_secs(10);
const _: () = assert!(STOP_AFTER.as_secs() + 2 < LEASE_DURATION.as_secs());

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
        tokio::join!(work(ending.clone()), async {
            keep(shared, &mut lease, &ending).await;
            ending.cancel();
        });
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

/// Renews until the lease is lost or `ending` is cancelled.
async fn keep(shared: &Shared, lease: &mut Lease, ending: &CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LEASE_PERIOD) => {}
            () = ending.cancelled() => return,
        }
        let left = STOP_AFTER.saturating_sub(renewed.elapsed());
        match tokio::time::timeout(left, lease.acquire(&shared.cluster)).await {
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
