//! Fourth beat: what a decision asks for, made so in the cluster. It decides nothing.
//!
//! The Deployment comes last and carries the identity of what was applied before it: where that is the same, a step
//! switch is one request.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::build::{
    Carried, NAME, Secrets, Subject, Workload, artifact_name, build_artifact, build_deployment, build_lab,
    build_namespace, build_surroundings, has_lab, has_own_cluster, surroundings_digest,
};
use super::dereference::{Found, is_leaving, is_own};
use super::look::{Look, Stop, key_of};
use super::outcome::Problem;
use crate::adapters::cluster::{self, Part};
use crate::crd::conditions::Reason;
use crate::crd::{WorkspaceInstance, WorkspaceTemplate, labels};
use crate::domain::lifecycle::Start;
use crate::domain::object::{Kind, ObjectKey};
use crate::domain::token::{Claims, Role};
use crate::domain::workspace::{ClusterMode, Workspace};
use crate::failpoint;
use crate::pipeline::workspace::record::moment_text;

/// How long a workspace's own token is valid.
const TOKEN_SPAN: i64 = 366 * 24 * 3600;
/// How long the authoriser may take to notice a new binding.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before a request is tried again for that.
const FIRST: Duration = Duration::from_millis(20);

impl Look {
    /// Makes sure that the namespace is there and ours, and that the operator may work in it.
    async fn enter(&self, subject: &Subject) -> Result<(), Stop> {
        let (cluster, room) = (&self.shared.settings.cluster, subject.room());
        let [namespace, _] = build_namespace(subject, &self.shared.around);
        if !cluster.create_part(Part::Namespace, "", &namespace.manifest).await? {
            match cluster.read_namespace(&room).await? {
                Some(there) if !is_own(&there, &self.uid) => return Err(taken(&there, &room).into()),
                Some(there) if is_leaving(&there) => {
                    let why = format!("its namespace \"{room}\" is being removed; a new one is made after that");
                    return Err(Problem::waiting(Reason::Progressing, why).into());
                }
                Some(_) => {}
                None => return Err(Problem::waiting(Reason::Progressing, "its namespace went away").into()),
            }
        }
        self.bind(subject).await.map(drop)
    }

    /// Binds the operator's role in the namespace; false where that was so already.
    pub(super) async fn bind(&self, subject: &Subject) -> Result<bool, Stop> {
        let [_, binding] = build_namespace(subject, &self.shared.around);
        match self.shared.settings.cluster.create_part(Part::RoleBinding, &subject.room(), &binding.manifest).await {
            Ok(is_new) => Ok(is_new),
            // A user with rights of its own needs no role; one without is told by the next request.
            Err(cluster::Error::Forbidden { .. } | cluster::Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies what a start needs.
    pub(super) async fn start(
        &mut self,
        subject: &Subject,
        found: &Found,
        start: &Start,
        since: Timestamp,
        template: Option<&WorkspaceTemplate>,
    ) -> Result<(), Stop> {
        let is_with_cluster = has_own_cluster(start);
        if is_with_cluster {
            self.provisioner()?;
        }
        let shared = Arc::clone(&self.shared);
        let (settings, around, room) = (&shared.settings, &shared.around, subject.room());
        let is_new = found.made.is_none();
        let made = found.made.clone().unwrap_or_default();
        let pull = template.and_then(|template| template.spec.image_pull_secret.as_ref());
        let has_pull = if template.is_some() { pull.is_some() } else { made.has_pull };
        let artifact = artifact_name(&start.artifact);
        let digest = surroundings_digest(subject, around, start, has_pull);
        let identity = |way: &str| format!("{digest}.{artifact}.{way}");
        let known = ["carried", "fetched"].into_iter().find(|way| made.surroundings == identity(way));
        // A look that had to wait for the learner's cluster has applied all of this already.
        let is_prepared = self.memory.prepared.as_ref() == Some(&digest);
        if known.is_none() && !is_prepared {
            if is_new {
                self.enter(subject).await?;
                failpoint::reached("operator-after-namespace");
            }
            let secrets = Secrets {
                token: self.token(),
                pull: match pull {
                    Some(pull) => Some(self.read_pull_secret(&pull.namespace, &pull.name).await?),
                    None => None,
                },
            };
            for object in build_surroundings(subject, around, start, &secrets) {
                self.patiently(|| settings.cluster.apply_part(object.part, &room, &object.manifest)).await?;
                failpoint::reached("operator-mid-surroundings");
            }
            if !is_with_cluster {
                self.set_lab(subject, found, start).await?;
            }
        }
        if is_with_cluster {
            // One that wakes has a cluster that sleeps, and somebody may have taken the lab away.
            let is_settled = known.is_some() && made.replicas > 0 && self.has_room_for_cluster(subject).await?;
            if !is_settled && !is_prepared {
                self.set_lab(subject, found, start).await?;
                self.apply_cluster(subject, start).await?;
                self.memory.prepared = Some(digest.clone());
            }
            let kubeconfig = self.read_kubeconfig(subject).await?;
            self.patiently(|| settings.cluster.apply_part(kubeconfig.part, &room, &kubeconfig.manifest)).await?;
            self.memory.prepared = None;
        }
        let way = match known {
            Some(way) => way,
            None if self.carry(subject, start, template).await? => "carried",
            None => "fetched",
        };
        failpoint::reached("operator-after-surroundings");
        let workload = Workload {
            subject,
            around,
            start,
            attempt: &moment_text(since),
            surroundings: &identity(way),
            is_carried: way == "carried",
            has_pull,
        };
        let deployment = build_deployment(&workload);
        self.patiently(|| settings.cluster.apply_part(Part::Deployment, &room, &deployment)).await?;
        failpoint::reached("operator-after-deployment");
        if let Some(old) = made.artifact.filter(|old| *old != artifact) {
            settings.cluster.delete_part(Part::ConfigMap, &room, &old, None).await?;
        }
        Ok(())
    }

    /// Whether the lab is there to stay.
    async fn has_room_for_cluster(&self, subject: &Subject) -> Result<bool, Stop> {
        let lab = self.shared.settings.cluster.read_namespace(&subject.lab()).await?;
        Ok(lab.is_some_and(|lab| is_own(&lab, &self.uid) && !is_leaving(&lab)))
    }

    /// Makes the namespace that the learner may use, or takes away the one that they might before.
    async fn set_lab(&self, subject: &Subject, found: &Found, start: &Start) -> Result<(), Stop> {
        if found.made.is_none() && !has_lab(start) {
            return Ok(());
        }
        let (settings, lab) = (&self.shared.settings, subject.lab());
        let there = settings.cluster.read_namespace(&lab).await?;
        if there.as_ref().is_some_and(|there| !is_own(there, &self.uid)) {
            return if has_lab(start) { Err(taken(&there.unwrap_or_default(), &lab).into()) } else { Ok(()) };
        }
        if !has_lab(start) {
            return self.remove(there.as_ref(), &lab).await;
        }
        // What the learner could do with one, and what runs in it, has no place in the other.
        let is_other = |lab: &Namespace| {
            let labels = lab.metadata.labels.as_ref().and_then(|labels| labels.get(labels::CLUSTER_MODE));
            labels.is_some_and(|mode| json!(start.settings.cluster.mode) != mode.as_str())
        };
        if there.as_ref().is_some_and(|there| is_leaving(there) || is_other(there)) {
            self.remove(there.as_ref(), &lab).await?;
            let why = format!("its namespace \"{lab}\" is being removed; a new one is made after that");
            return Err(Problem::waiting(Reason::Progressing, why).into());
        }
        for object in build_lab(subject, &self.shared.around, start) {
            match object.part {
                Part::Namespace => settings.cluster.create_part(object.part, "", &object.manifest).await.map(drop)?,
                // Role bindings are the operator's to make everywhere.
                Part::RoleBinding => {
                    settings.cluster.create_part(object.part, &lab, &object.manifest).await.map(drop)?;
                }
                part => {
                    self.patiently(|| settings.cluster.apply_part(part, &lab, &object.manifest)).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes a namespace that is ours, unless that goes on already.
    async fn remove(&self, namespace: Option<&Namespace>, name: &str) -> Result<(), Stop> {
        let Some(namespace) = namespace.filter(|namespace| is_own(namespace, &self.uid) && !is_leaving(namespace))
        else {
            return Ok(());
        };
        let cluster = &self.shared.settings.cluster;
        match cluster.delete_part(Part::Namespace, "", name, namespace.metadata.uid.as_deref()).await {
            // It is another one by now, or somebody else deletes it too: the next look sees.
            Ok(()) | Err(cluster::Error::Stale { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the artifact beside the pod; false where the backend has to fetch it.
    async fn carry(
        &self,
        subject: &Subject,
        start: &Start,
        template: Option<&WorkspaceTemplate>,
    ) -> Result<bool, Stop> {
        let (settings, room) = (&self.shared.settings, subject.room());
        let digest = start.artifact.as_str();
        let pull = template.and_then(|template| template.spec.image_pull_secret.as_ref());
        let had = settings.artifacts.file(&settings.cluster, digest, Some(&start.image), pull).await;
        let read = match had {
            Ok(path) => tokio::fs::read(&path).await.map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(why) => {
                let map = artifact_name(digest);
                if self.patiently(|| settings.cluster.has_part(Part::ConfigMap, &room, &map)).await? {
                    return Ok(true);
                }
                return Err(Problem::outside(Reason::TemplateUnusable, why).into());
            }
        };
        let (owner, name) = (subject.clone(), digest.to_owned());
        let built = tokio::task::spawn_blocking(move || build_artifact(&owner, &name, &bytes)).await;
        let carried = match built {
            Ok(Ok(carried)) => carried,
            Ok(Err(error)) => return Err(Problem::outside(Reason::LocalFailure, error.to_string()).into()),
            Err(error) => return Err(Problem::outside(Reason::LocalFailure, error.to_string()).into()),
        };
        match carried {
            Carried::ConfigMap(map) => {
                self.patiently(|| settings.cluster.create_part(Part::ConfigMap, &room, &map)).await?;
                Ok(true)
            }
            Carried::Fetched if settings.management_url.is_none() => {
                let why =
                    "its artifact is larger than a ConfigMap may be, and without --management-url nothing can fetch it";
                Err(Problem::person(Reason::Unsupported, why).into())
            }
            Carried::Fetched => Ok(false),
        }
    }

    async fn read_pull_secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<std::collections::BTreeMap<String, Vec<u8>>, Stop> {
        let unusable = |why: String| Stop::Problem(Problem::outside(Reason::SecretUnusable, why));
        match self.shared.settings.cluster.read_secret(namespace, name).await {
            Ok(Some(entries)) => Ok(entries),
            Ok(None) => Err(unusable(format!("the Secret \"{namespace}/{name}\" to pull images with is not there"))),
            Err(error @ cluster::Error::Forbidden { .. }) => Err(unusable(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends what runs: all of it where the instance is deleted, else its pods. A learner's own cluster sleeps with the
    /// workspace where it has a volume; what is in one without would be lost.
    pub(super) async fn stop(
        &mut self,
        instance: &WorkspaceInstance,
        subject: &Subject,
        found: &Found,
        settings: Option<&Workspace>,
    ) -> Result<(), Stop> {
        self.memory.prepared = None;
        let (cluster, room) = (&self.shared.settings.cluster, subject.room());
        if instance.metadata.deletion_timestamp.is_none() {
            // First: once nothing runs of the workspace, nobody looks for what it had.
            if settings.is_some_and(sleeps_with_cluster) {
                self.rest_cluster(subject).await?;
            }
            cluster.scale(Part::Deployment, &room, NAME, 0).await?;
            return Ok(());
        }
        self.remove(found.namespace.as_ref(), &room).await?;
        failpoint::reached("operator-after-removal");
        self.remove(found.lab.as_ref(), &subject.lab()).await
    }

    /// Deletes the instance itself.
    pub(super) async fn delete(&self, instance: &WorkspaceInstance) -> Result<(), Stop> {
        let (namespace, name) = key_of(instance);
        let key =
            ObjectKey { kind: Kind::WorkspaceInstance, namespace: Some(namespace.to_owned()), name: name.to_owned() };
        Ok(self.shared.settings.cluster.delete(&key, &self.uid).await?)
    }

    /// The workspace's own token.
    pub(super) fn token(&self) -> String {
        let now = Timestamp::now().as_second();
        self.shared.settings.key.sign(&Claims {
            aud: self.uid.clone(),
            sub: "workspace".to_owned(),
            role: Role::Workspace,
            generation: 0,
            iat: now,
            exp: now.saturating_add(TOKEN_SPAN),
        })
    }

    /// Tries again for a while where a right is missing: the binding that gives it may be new.
    pub(super) async fn patiently<T, F>(&self, request: impl Fn() -> F) -> Result<T, Stop>
    where
        F: Future<Output = Result<T, cluster::Error>>,
    {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut pause = FIRST;
        loop {
            match request().await {
                Err(cluster::Error::Forbidden { .. }) if tokio::time::Instant::now() + pause < until => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(error) => return Err(error.into()),
                Ok(answer) => return Ok(answer),
            }
        }
    }
}

/// Whether a learner's own cluster sleeps with the workspace.
pub(super) fn sleeps_with_cluster(settings: &Workspace) -> bool {
    settings.cluster.mode == ClusterMode::PerWorkspace && settings.lifecycle.persist.is_some()
}

/// A namespace that is in the way.
pub(super) fn taken(namespace: &Namespace, room: &str) -> Problem {
    if is_leaving(namespace) {
        let why = format!("it waits for the namespace \"{room}\" of its predecessor to go away");
        return Problem::waiting(Reason::Progressing, why);
    }
    let why = format!("the namespace \"{room}\" that it needs belongs to somebody else and is left alone");
    Problem::person(Reason::NamespaceTaken, why)
}
