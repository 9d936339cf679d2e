//! Fourth beat, where a workshop gives each learner a cluster of their own: its chart applied in the lab, waited for,
//! put to sleep with the workspace and woken with it.
//!
//! What it is made of is the chart's; what bounds it, and what the workspace gets of it, is built in `build`.

use k8s_openapi::api::core::v1::Pod;

use super::build::own_cluster::{
    CONFIG, EXPORTED, RELEASE, RELEASE_LABEL, build_kubeconfig, problem_of_kubeconfig, values,
};
use super::build::{Object, Subject};
use super::look::{Look, Stop};
use super::outcome::Problem;
use super::seen::trouble;
use crate::adapters::cluster::{self, Part, PodSet};
use crate::adapters::provisioner::{Provisioner, ProvisionerError, Release};
use crate::crd::conditions::Reason;
use crate::domain::chain;
use crate::domain::lifecycle::Start;

impl Look {
    /// The chart of learners' clusters, where the administrator gave one.
    pub(super) fn provisioner(&self) -> Result<&Provisioner, Problem> {
        self.shared.settings.provisioner.as_ref().ok_or_else(|| {
            let why = "its workshop wants a cluster for each workspace (cluster.mode: per-workspace), and this controller has no chart to make one of: start it with --vcluster-chart, or use cluster.mode: shared";
            Problem::person(Reason::Unsupported, why)
        })
    }

    /// Makes the cluster in the lab of this workspace, or brings it to what its chart is now. One without a volume stays
    /// as it is: of another chart it would be another one, and empty.
    pub(super) async fn apply_cluster(&self, subject: &Subject, start: &Start) -> Result<(), Stop> {
        let (cluster, provisioner, lab) = (&self.shared.settings.cluster, self.provisioner()?, subject.lab());
        let there = self.patiently(|| cluster.list_pod_sets(&lab)).await?;
        let has_volume = start.settings.lifecycle.persist.is_some();
        // What is made without a volume is a Deployment.
        let is_kept = has_volume && there.iter().all(|set| set.part == Part::StatefulSet);
        if !there.is_empty() && !is_kept {
            return self.wake_cluster(&there, &lab).await;
        }
        let values = values(subject, start, &provisioner.chart().values);
        let kubernetes = self.shared.kubernetes.as_deref();
        let release = Release { name: RELEASE, namespace: &lab, values: &values, kubernetes };
        let unusable = |why: String| Problem::outside(Reason::ClusterUnusable, why);
        let objects = match provisioner.render(&release).await {
            Ok(objects) => objects,
            Err(ProvisionerError::Busy) => {
                return Err(
                    Problem::waiting(Reason::Progressing, "its own cluster waits: others are made first").into()
                );
            }
            Err(error) => return Err(unusable(chain::line(&error)).into()),
        };
        for manifest in &objects {
            let part = Part::of(manifest).ok_or_else(|| unusable(format!("{} is not known", manifest["kind"])))?;
            match cluster.apply_part(part, &lab, manifest).await {
                // Its volume cannot become larger, for one thing: it goes on as it was made.
                Err(error @ cluster::Error::Invalid { .. }) if part == Part::StatefulSet && !there.is_empty() => {
                    tracing::warn!(%error, namespace = lab, "a learner's cluster stays as it was made");
                    self.wake_cluster(&there, &lab).await?;
                }
                // The right may be on its way.
                Err(cluster::Error::Forbidden { .. }) => {
                    self.patiently(|| cluster.apply_part(part, &lab, manifest)).await?;
                }
                applied => drop(applied?),
            }
        }
        Ok(())
    }

    /// Starts what sleeps of it.
    async fn wake_cluster(&self, sets: &[PodSet], lab: &str) -> Result<(), Stop> {
        for set in sets.iter().filter(|set| set.wanted == 0) {
            self.shared.settings.cluster.scale(set.part, lab, &set.name, 1).await?;
        }
        Ok(())
    }

    /// The learner's way into their cluster, once all of it is ready; until then what is waited for.
    pub(super) async fn read_kubeconfig(&self, subject: &Subject) -> Result<Object, Stop> {
        let (cluster, lab) = (&self.shared.settings.cluster, subject.lab());
        let sets = self.patiently(|| cluster.list_pod_sets(&lab)).await?;
        if let Some(late) = sets.iter().find(|set| set.ready < set.wanted.max(1)) {
            let mut pods = cluster.list_all_pods(&lab).await?;
            pods.retain(is_of_chart);
            return Err(match trouble(&pods) {
                Some(why) => {
                    Problem::outside(Reason::ClusterUnusable, format!("its own cluster does not start: {why}"))
                }
                None => {
                    let (kind, name) = (late.part.kind(), &late.name);
                    let why = format!("its own cluster starts: {kind} \"{name}\" is not ready");
                    Problem::waiting(Reason::Progressing, why)
                }
            }
            .into());
        }
        let exported = self.patiently(|| cluster.read_secret(&lab, EXPORTED)).await?;
        let Some(kubeconfig) = exported.and_then(|mut entries| entries.remove(CONFIG)) else {
            let why =
                format!("its own cluster starts: the Secret \"{lab}/{EXPORTED}\" with its kubeconfig is not there yet");
            return Err(Problem::waiting(Reason::Progressing, why).into());
        };
        match problem_of_kubeconfig(&kubeconfig) {
            Some(why) => {
                Err(Problem::person(Reason::ClusterUnusable, format!("its own cluster cannot be used: {why}")).into())
            }
            None => Ok(build_kubeconfig(subject, &kubeconfig)),
        }
    }

    /// Ends what runs in the lab; what the cluster keeps on its volume stays. Its own pods end first: while they run, they
    /// put back what is taken from the learner's.
    pub(super) async fn rest_cluster(&self, subject: &Subject) -> Result<(), Stop> {
        let (cluster, lab) = (&self.shared.settings.cluster, subject.lab());
        let sets = match cluster.list_pod_sets(&lab).await {
            Ok(sets) => sets,
            // It was never made, or it is gone, and with it the rights.
            Err(cluster::Error::Forbidden { .. } | cluster::Error::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for set in sets.iter().filter(|set| set.wanted > 0) {
            cluster.scale(set.part, &lab, &set.name, 0).await?;
        }
        let pods = cluster.list_all_pods(&lab).await?;
        if pods.iter().any(is_of_chart) {
            return Err(Problem::waiting(Reason::Progressing, "it goes to sleep once its own cluster has ended").into());
        }
        // The pods that the learner started in it have nobody any more who would end them.
        if pods.is_empty() { Ok(()) } else { Ok(cluster.delete_pods(&lab).await?) }
    }
}

/// A pod that runs the cluster, not one that runs in it.
fn is_of_chart(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(RELEASE_LABEL)).is_some_and(|release| release == RELEASE)
}
