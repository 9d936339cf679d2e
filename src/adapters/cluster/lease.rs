//! Leadership by a coordination.k8s.io Lease: one writer, the others wait.
//!
//! Time is taken from this machine's monotonic clock only: a lease is free when it was not renewed while we watched
//! for its whole duration, whatever the holder's clock says.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;

use super::{Cluster, Error};

/// How long a holder that went silent keeps the lease.
pub const DURATION: Duration = Duration::from_secs(15);

/// How often the holder renews and the others look.
pub const PERIOD: Duration = Duration::from_secs(3);

/// Whether this process leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// It does, until this long after now unless it is renewed.
    Held,
    /// Another does.
    Elsewhere {
        /// Who, in its own words.
        holder: String,
    },
}

/// A claim on one Lease object.
#[derive(Debug)]
pub struct Lease {
    name: String,
    identity: String,
    /// What the lease looked like when it last changed, and when we saw that.
    seen: Option<(String, Instant)>,
}

impl Lease {
    /// A claim of `identity` on the lease `name`; two processes must never have one identity at a time.
    #[must_use]
    pub fn new(name: &str, identity: &str) -> Self {
        Self { name: name.to_owned(), identity: identity.to_owned(), seen: None }
    }

    /// Takes the lease where it is free, renews it where it is ours.
    pub async fn acquire(&mut self, cluster: &Cluster) -> Result<Leadership, Error> {
        let attempt = format!("take the Lease \"{}/{}\"", cluster.namespace, self.name);
        let leases: Api<Object> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let Some(current) = cluster.call(&attempt, leases.get_opt(&self.name)).await? else {
            let object = Object {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.claim(None)),
            };
            return match cluster.call(&attempt, leases.create(&PostParams::default(), &object)).await {
                Ok(_) => Ok(Leadership::Held),
                // Somebody else was faster.
                Err(Error::Stale { .. }) => Ok(Leadership::Elsewhere { holder: String::new() }),
                Err(error) => Err(error),
            };
        };
        let holder = current.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.has_expired(&current) {
            return Ok(Leadership::Elsewhere { holder });
        }
        let object = Object { spec: Some(self.claim(current.spec.as_ref())), ..current };
        match cluster.call(&attempt, leases.replace(&self.name, &PostParams::default(), &object)).await {
            Ok(_) => Ok(Leadership::Held),
            Err(Error::Stale { .. }) => Ok(Leadership::Elsewhere { holder }),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, so that the next one need not wait.
    pub async fn release(&self, cluster: &Cluster) -> Result<(), Error> {
        let attempt = format!("give back the Lease \"{}/{}\"", cluster.namespace, self.name);
        let leases: Api<Object> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let Some(mut current) = cluster.call(&attempt, leases.get_opt(&self.name)).await? else { return Ok(()) };
        let Some(spec) = current.spec.as_mut() else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        match cluster.call(&attempt, leases.replace(&self.name, &PostParams::default(), &current)).await {
            Ok(_) | Err(Error::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn has_expired(&mut self, current: &Object) -> bool {
        let version = current.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= DURATION,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn claim(&self, current: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_ours = current.and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity);
        let transitions = current.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: current
                .filter(|_| is_ours)
                .and_then(|spec| spec.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if is_ours || current.is_none() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }
}
