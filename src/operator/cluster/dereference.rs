//! First beat: what is there of an instance's workspace. It asks as little as it can and changes only lost rights.

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::build::{NAME, Subject};
use super::look::{CALM, Look, Stop};
use super::outcome::Problem;
use super::seen::{Made, address_of, made_of, pod_of, seen_of};
use crate::adapters::cluster;
use crate::crd::conditions::Reason;
use crate::crd::{WorkspaceInstance, labels};
use crate::domain::lifecycle::Seen;

/// A namespace that takes longer than this to go is said to hang.
const HANGS_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// What is there of an instance's workspace.
pub(super) struct Found {
    pub seen: Seen,
    /// Where the pod of the last start answers, where it was asked for.
    pub pod: Option<SocketAddr>,
    /// What its Deployment was made of; none where there is none.
    pub made: Option<Made>,
    /// The cluster was asked; else it is what was remembered.
    pub is_fresh: bool,
    /// The namespace, where it was asked for.
    pub namespace: Option<Namespace>,
    /// The learner's own namespace, where it was asked for.
    pub lab: Option<Namespace>,
}

impl Found {
    /// This, asked for now, and nothing known besides.
    fn of(seen: Seen) -> Self {
        Self { seen, pod: None, made: None, is_fresh: true, namespace: None, lab: None }
    }
}

impl Look {
    /// What is there. Where nothing changed since nothing was to do, nobody is asked.
    pub(super) async fn dereference(
        &mut self,
        instance: &WorkspaceInstance,
        subject: &Subject,
        now: Timestamp,
    ) -> Result<Found, Stop> {
        let nothing = Found::of(Seen::Nothing);
        let (cluster, room) = (&self.shared.settings.cluster, subject.room());
        if instance.metadata.deletion_timestamp.is_some() {
            let own = |namespace: &Namespace| is_own(namespace, &self.uid);
            let namespace = cluster.read_namespace(&room).await?.filter(own);
            let lab = cluster.read_namespace(&subject.lab()).await?.filter(own);
            let seen = if namespace.is_some() || lab.is_some() {
                Seen::Ended { fingerprint: String::new(), reason: String::new() }
            } else {
                Seen::Nothing
            };
            return Ok(Found { namespace, lab, ..Found::of(seen) });
        }
        let status = instance.status.as_ref();
        if status.is_none_or(|status| status.namespace.is_none()) {
            return Ok(nothing);
        }
        let epoch = status.and_then(|status| status.epoch);
        let is_nudged = std::mem::take(&mut self.nudge.is_due);
        if let Some(calm) =
            self.memory.calm.as_ref().filter(|calm| !is_nudged && calm.epoch == epoch && calm.at.elapsed() < CALM)
        {
            let made = Some(calm.made.clone());
            return Ok(Found { made, is_fresh: false, ..Found::of(calm.seen.clone()) });
        }
        let read = async {
            let deployment = cluster.read_deployment(&room, NAME).await?;
            let pods = match &deployment {
                Some(_) => cluster.list_pods(&room, NAME).await?,
                None => Vec::new(),
            };
            Ok::<_, cluster::Error>((deployment, pods))
        };
        match read.await {
            // What runs there is a predecessor's of the same name, whose namespace is on its way out.
            Ok((Some(deployment), _)) if !is_of(&deployment.metadata, &self.uid) => {
                match cluster.read_namespace(&room).await? {
                    Some(namespace) if !is_own(&namespace, &self.uid) => {
                        Err(super::apply::taken(&namespace, &room).into())
                    }
                    _ => Ok(nothing),
                }
            }
            Ok((deployment, pods)) => Ok(Found {
                pod: deployment.as_ref().and_then(|deployment| pod_of(deployment, &pods)).and_then(address_of),
                made: deployment.as_ref().map(made_of),
                ..Found::of(seen_of(deployment.as_ref(), &pods, self.nudge.answered.as_deref(), now))
            }),
            // Rights end with the namespace that gave them.
            Err(cluster::Error::Forbidden { attempt, missing }) => match cluster.read_namespace(&room).await? {
                None => Ok(nothing),
                Some(namespace) if is_own(&namespace, &self.uid) => {
                    if is_leaving(&namespace) {
                        let why = "its namespace is being removed by somebody; a new one is made after that";
                        return Err(Problem::waiting(Reason::Progressing, why).into());
                    }
                    if self.bind(subject).await? {
                        return Err(Problem::waiting(Reason::Progressing, "its rights were given back").into());
                    }
                    Err(cluster::Error::Forbidden { attempt, missing }.into())
                }
                Some(namespace) => Err(super::apply::taken(&namespace, &room).into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// What a namespace that does not go away waits for.
pub(super) fn hanging(namespace: &Namespace, now: Timestamp) -> Option<String> {
    let since = namespace.metadata.deletion_timestamp.as_ref()?.0;
    if now.duration_since(since) < HANGS_AFTER {
        return None;
    }
    let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
    let waits: Vec<&str> = conditions
        .into_iter()
        .flatten()
        .filter(|condition| condition.status == "True")
        .filter_map(|condition| condition.message.as_deref())
        .collect();
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let why = if waits.is_empty() { "the cluster does not say for what".to_owned() } else { waits.join("; ") };
    Some(format!("its namespace \"{name}\" is being removed and waits: {why}"))
}

pub(super) fn is_own(namespace: &Namespace, uid: &str) -> bool {
    is_of(&namespace.metadata, uid)
}

/// Whether an object is of the instance with this uid.
fn is_of(metadata: &ObjectMeta, uid: &str) -> bool {
    let labels = metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(labels::INSTANCE_UID)).is_some_and(|owner| owner == uid)
}

pub(super) fn is_leaving(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}
