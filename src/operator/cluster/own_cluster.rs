//! Fourth beat, where a workshop gives each learner a cluster of their own: its chart applied in the lab, waited for,
//! put to sleep with the workspace and woken with it.
//!
//! What it is made of is the chart's; what bounds it, and what the workspace gets of it, is built in `build`.

use super::build::own_cluster::{CONFIG, EXPORTED, RELEASE, build_kubeconfig, problem_of_kubeconfig, values};
use super::build::{Object, Subject};
use super::look::{Look, Stop};
use super::outcome::Problem;
use super::seen::trouble;
use crate::adapters::cluster::{self, Part};
use crate::adapters::provisioner::{Provisioner, Release};
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

    /// Renders the chart for this workspace and applies it in its lab.
    pub(super) async fn apply_cluster(&self, subject: &Subject, start: &Start) -> Result<(), Stop> {
        let (provisioner, lab) = (self.provisioner()?, subject.lab());
        let values = values(subject, start, &provisioner.chart().values);
        let kubernetes = self.shared.kubernetes.as_deref();
        let release = Release { name: RELEASE, namespace: &lab, values: &values, kubernetes };
        let unusable = |why: String| Problem::outside(Reason::ClusterUnusable, why);
        let objects = provisioner.render(&release).await.map_err(|error| unusable(chain::line(&error)))?;
        for manifest in &objects {
            let part = Part::of(manifest).ok_or_else(|| unusable(format!("{} is not known", manifest["kind"])))?;
            self.patiently(|| self.shared.settings.cluster.apply_part(part, &lab, manifest)).await?;
        }
        Ok(())
    }

    /// The learner's way into their cluster, once all of it is ready; until then what is waited for.
    pub(super) async fn read_kubeconfig(&self, subject: &Subject) -> Result<Object, Stop> {
        let (cluster, lab) = (&self.shared.settings.cluster, subject.lab());
        let sets = self.patiently(|| cluster.list_pod_sets(&lab)).await?;
        if let Some(late) = sets.iter().find(|set| set.ready < set.wanted) {
            let why = trouble(&cluster.list_all_pods(&lab).await?);
            return Err(match why {
                Some(why) => {
                    Problem::outside(Reason::ClusterUnusable, format!("its own cluster does not start: {why}"))
                }
                None => {
                    let (kind, name) = (late.part.kind(), &late.name);
                    Problem::waiting(
                        Reason::Progressing,
                        format!("its own cluster starts: {kind} \"{name}\" is not ready"),
                    )
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

    /// Ends what runs in the lab; what the cluster keeps on its volume stays.
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
        // The pods that the learner started in it have nobody any more who would end them.
        Ok(cluster.delete_pods(&lab).await?)
    }
}
