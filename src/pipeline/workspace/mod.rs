//! Operations on instances: what people, the gateway and the management API may ask for. One writer of specs.
//!
//! It reads and writes objects and answers at once; what has to run for it is the operator's, which is woken by the
//! change. The objects are in the embedded store (local mode) or in a cluster; which of both is `end`'s matter.

mod cluster_end;
mod create;
mod end;
mod error;
mod operate;
pub mod record;
mod session;
mod subscriptions;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

pub use cluster_end::{ARTIFACT_FILE, CUSTOM_STATE, artifact_config_map};
pub use create::CreateRequest;
pub use end::{mark_deleted, template};
pub use error::{Class, Error};
pub use session::SessionError;
pub use view::{InstanceView, ProgressView, StepView, TemplateView};

use crate::adapters::cluster::{Changed, Cluster, Mirror};
use crate::adapters::store::{Store, UnitState, read_or_make_signing_key};
use crate::crd::{WorkspaceInstance, WorkspaceTemplate, conditions};
use crate::domain::container::Address;
use crate::domain::digest::Digest;
use crate::domain::object::{Kind, ObjectKey};
use crate::domain::token::{Claims, Role, SigningKey, VerifyKey};
use cluster_end::ClusterEnd;
use end::{End, Held};
use subscriptions::Subscriptions;
use view::Parts;

/// The namespace of all instances in local mode.
pub const NAMESPACE: &str = "default";

/// Brings the artifact of this digest, which the instance is pinned to, into the state directory; else says why not.
pub type Bring = Arc<dyn Fn(Arc<WorkspaceInstance>, Digest) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Operations on instances; cheap to clone.
///
/// Where an operation takes a reference, that is what [`InstanceView::reference`] says: the name in local mode, and
/// `<namespace>.<name>` in a cluster, where a name alone is one of the default namespace.
#[derive(Clone)]
pub struct Workspaces {
    inner: Arc<Inner>,
}

struct Inner {
    end: End,
    state: PathBuf,
    /// Absent for a single command of somebody who may not read it.
    key: Option<SigningKey>,
    /// Where the backends of running workspaces answer, by uid; told by the local operator.
    addresses: RwLock<BTreeMap<String, Address>>,
    /// Where the gateway answers, without a slash at the end.
    base: RwLock<String>,
    /// Names of workshops by their artifact's digest.
    names: Mutex<BTreeMap<String, String>>,
    subscriptions: Arc<Subscriptions>,
    bring: OnceLock<Bring>,
}

impl fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspaces").field("state", &self.inner.state).finish_non_exhaustive()
    }
}

impl Workspaces {
    /// The workspaces of a state directory; its signing key is made where there is none.
    pub fn open(store: Arc<Store>, state: &Path) -> Result<Self, Error> {
        let key = read_or_make_signing_key(state)?;
        Ok(Self::new(End::Store(store), Some(key), state))
    }

    /// The workspaces of a cluster. With a mirror reads cost no request and changes are seen; without one, for a single
    /// command, the server is asked each time. Artifacts are looked for in `state` first.
    #[must_use]
    pub fn open_cluster(cluster: Cluster, mirror: Option<Mirror>, key: Option<SigningKey>, state: &Path) -> Self {
        let end = ClusterEnd { cluster, mirror, still: watch::Sender::new(0) };
        Self::new(End::Cluster(Box::new(end)), key, state)
    }

    fn new(end: End, key: Option<SigningKey>, state: &Path) -> Self {
        let inner = Inner {
            end,
            state: state.to_owned(),
            key,
            addresses: RwLock::default(),
            base: RwLock::default(),
            names: Mutex::default(),
            subscriptions: Arc::default(),
            bring: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The workshops that workspaces are made of, and those that failed before they became one.
    pub async fn templates(&self) -> Result<Vec<TemplateView>, Error> {
        let (templates, counts) = (self.inner.end.templates().await?, self.inner.end.counts().await?);
        let units = self.inner.end.units().await?;
        let mut views = Vec::new();
        for template in templates {
            let id = template.metadata.name.clone().unwrap_or_default();
            let unit = units.iter().find(|unit| unit.id.as_deref() == Some(id.as_str()));
            let problem = self.problem(&template);
            let steps = template.spec.steps.iter();
            views.push(TemplateView {
                name: self.display_name(&template).await?.unwrap_or_else(|| id.clone()),
                steps: steps.map(|step| StepView { id: step.id.clone(), title: step.title.clone() }).collect(),
                ready: problem.is_none(),
                message: problem
                    .or_else(|| unit.filter(|unit| unit.state != UnitState::Ready).map(|unit| unit.message.clone())),
                instances: counts.get(&id).copied().unwrap_or_default(),
                id,
            });
        }
        for unit in units.iter().filter(|unit| unit.state != UnitState::Ready) {
            let id = unit.id.clone().unwrap_or_else(|| unit.path.clone());
            if !views.iter().any(|view| view.id == id) {
                let message = Some(unit.message.clone());
                views.push(TemplateView {
                    name: id.clone(),
                    id,
                    steps: Vec::new(),
                    ready: false,
                    message,
                    instances: 0,
                });
            }
        }
        Ok(views)
    }

    /// All instances, by namespace and name.
    pub async fn list(&self) -> Result<Vec<InstanceView>, Error> {
        self.list_in(None).await
    }

    /// The instances of a namespace, or of all.
    pub async fn list_in(&self, namespace: Option<&str>) -> Result<Vec<InstanceView>, Error> {
        let instances = self.inner.end.instances(namespace).await?;
        let mut templates = BTreeMap::new();
        for instance in instances.iter().filter(|instance| !is_pinned(instance)) {
            let name = &instance.spec.template_ref.name;
            if !templates.contains_key(name) {
                templates.insert(name.clone(), self.template(name).await?);
            }
        }
        let (base, now) = (self.base(), Timestamp::now());
        let view = |instance: &Held| {
            let template = templates.get(&instance.spec.template_ref.name).and_then(Option::as_deref);
            Parts::new(instance, template).view(&self.inner.end.reference(instance), &base, now)
        };
        Ok(instances.iter().map(view).collect())
    }

    /// The instance of this reference.
    pub async fn get(&self, reference: &str) -> Result<Option<InstanceView>, Error> {
        self.view_of(self.inner.end.instance(reference).await?).await
    }

    /// The instance with this uid.
    pub async fn by_uid(&self, uid: &str) -> Result<Option<InstanceView>, Error> {
        self.view_of(self.inner.end.instance_by_uid(uid).await?).await
    }

    /// Counts changes of instances and templates, and tells of each.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        match &self.inner.end {
            End::Store(store) => store.changes(),
            End::Cluster(cluster) => cluster.mirror.as_ref().map_or_else(|| cluster.still.subscribe(), Mirror::changes),
        }
    }

    /// Counts changes of the instance with this uid, and tells of each; others wake nobody. Must be called inside a
    /// tokio runtime.
    #[must_use]
    pub fn watch_instance(&self, uid: &str) -> watch::Receiver<u64> {
        self.inner.subscriptions.subscribe(uid, || match &self.inner.end {
            End::Store(store) => Some(store.subscribe()),
            End::Cluster(cluster) => cluster.mirror.as_ref().map(changed_instances),
        })
    }

    /// Where the backend of a running instance answers, the best way first; none while it does not run.
    #[must_use]
    pub fn addresses(&self, uid: &str) -> Vec<Address> {
        match &self.inner.end {
            End::Cluster(cluster) => cluster.addresses(uid, Timestamp::now()),
            End::Store(_) => {
                let addresses = self.inner.addresses.read().unwrap_or_else(PoisonError::into_inner);
                addresses.get(uid).cloned().into_iter().collect()
            }
        }
    }

    /// The best of [`Self::addresses`].
    #[must_use]
    pub fn address(&self, uid: &str) -> Option<Address> {
        self.addresses(uid).into_iter().next()
    }

    /// Which start of an instance is wished to run in a cluster; another one of it is another machine. On this machine a
    /// container ends before another one begins.
    #[must_use]
    pub fn run(&self, uid: &str) -> Option<String> {
        match &self.inner.end {
            End::Cluster(cluster) => cluster.run(uid),
            End::Store(_) => None,
        }
    }

    /// Says where the backend of an instance answers, or that it does not any more; the operator's to say.
    pub fn set_address(&self, uid: &str, address: Option<Address>) {
        let mut addresses = self.inner.addresses.write().unwrap_or_else(PoisonError::into_inner);
        match address {
            Some(address) => addresses.insert(uid.to_owned(), address),
            None => addresses.remove(uid),
        };
    }

    /// Says that the backend of a running instance could not be reached, so that the operator of a cluster looks; the
    /// local one watches what it runs.
    pub fn nudge(&self, uid: &str) {
        if let End::Cluster(cluster) = &self.inner.end
            && let Some(mirror) = &cluster.mirror
        {
            mirror.nudge(uid);
        }
    }

    /// Says where the gateway answers, e.g. `http://127.0.0.1:8080`, for the addresses in views.
    pub fn set_base(&self, base: &str) {
        base.trim_end_matches('/').clone_into(&mut self.inner.base.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn base(&self) -> String {
        self.inner.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn key(&self) -> Result<&SigningKey, Error> {
        let help = "ask who runs the platform for the right to read its Secret";
        let error = || Error::refused("NoKey", "the key that signs tokens may not be read here", help);
        self.inner.key.as_ref().ok_or_else(error)
    }

    /// The key that verifies the tokens of these workspaces; an error only for a command that may not read it.
    pub fn verify_key(&self) -> Result<VerifyKey, Error> {
        Ok(self.key()?.verify_key())
    }

    /// A token for `subject` in the instance with this uid, valid for `span`; an error only for a command that may not
    /// read the key.
    pub fn sign(&self, uid: &str, subject: &str, role: Role, span: std::time::Duration) -> Result<String, Error> {
        let now = Timestamp::now().as_second();
        let exp = now.saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims { aud: uid.to_owned(), sub: subject.to_owned(), role, generation: 0, iat: now, exp };
        Ok(self.key()?.sign(&claims))
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.inner.state
    }

    /// The objects themselves, for the local operator; none in a cluster.
    #[must_use]
    pub fn store(&self) -> Option<&Arc<Store>> {
        match &self.inner.end {
            End::Store(store) => Some(store),
            End::Cluster(_) => None,
        }
    }

    /// Says how an artifact is brought that neither the state directory nor the cluster has; said once, at the start.
    pub fn bring_artifacts_by(&self, bring: Bring) {
        // A second way would not be another one: who serves decides once.
        let _ = self.inner.bring.set(bring);
    }

    /// The file of the artifact with this digest.
    #[must_use]
    pub fn artifact_path(&self, digest: &str) -> Option<PathBuf> {
        let digest: Digest = digest.parse().ok()?;
        Some(crate::pipeline::sync::artifact_path(&self.inner.state, digest))
    }

    /// Why no workspace can be made of `template`, if so.
    ///
    /// In a cluster this is what the operator says. The artifact's file is not asked for there: only the replica that
    /// brought the workshop in has it, and its ConfigMaps in the namespaces of workspaces outlive it.
    #[must_use]
    pub fn problem(&self, template: &WorkspaceTemplate) -> Option<String> {
        if template.spec.steps.is_empty() {
            return Some("it has no steps".to_owned());
        }
        if matches!(self.inner.end, End::Cluster(_)) {
            let status = template.status.as_ref()?;
            let ready = conditions::get(&status.conditions, conditions::READY)?;
            return (ready.status == "False").then(|| ready.message.clone());
        }
        let digest = &template.spec.artifact.digest;
        if !self.artifact_path(digest).is_some_and(|path| path.is_file()) {
            return Some(format!("its artifact {digest} is not in the state directory"));
        }
        None
    }

    /// The workshop's name for people, which only the artifact has; a replica without its file does not know it.
    async fn display_name(&self, template: &WorkspaceTemplate) -> Result<Option<String>, Error> {
        let digest = &template.spec.artifact.digest;
        let known = self.inner.names.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        let path = self.artifact_path(digest).filter(|path| path.is_file());
        let (None, Some(path)) = (&known, path) else { return Ok(known) };
        let read = end::aside(move || crate::adapters::artifact::read(&path).ok()).await?;
        let name = read.map(|read| read.definition.name);
        if let Some(name) = &name {
            let mut names = self.inner.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.insert(digest.clone(), name.clone());
        }
        Ok(name)
    }

    async fn view_of(&self, held: Option<Held>) -> Result<Option<InstanceView>, Error> {
        match held {
            Some(held) => Ok(Some(self.view(&held).await?)),
            None => Ok(None),
        }
    }

    async fn view(&self, instance: &WorkspaceInstance) -> Result<InstanceView, Error> {
        let template = self.template_of(instance).await?;
        let reference = self.inner.end.reference(instance);
        Ok(Parts::new(instance, template.as_deref()).view(&reference, &self.base(), Timestamp::now()))
    }

    /// The template of an instance, where the instance has not its own pin yet.
    async fn template_of(&self, instance: &WorkspaceInstance) -> Result<Option<Arc<WorkspaceTemplate>>, Error> {
        if is_pinned(instance) {
            return Ok(None);
        }
        self.template(&instance.spec.template_ref.name).await
    }

    /// The template of this name.
    pub async fn template(&self, name: &str) -> Result<Option<Arc<WorkspaceTemplate>>, Error> {
        self.inner.end.template(name).await
    }

    /// The instance of this reference, which has to be there.
    async fn held(&self, reference: &str) -> Result<Held, Error> {
        self.inner.end.instance(reference).await?.ok_or_else(|| Error::no_instance(reference))
    }
}

fn is_pinned(instance: &WorkspaceInstance) -> bool {
    instance.status.as_ref().is_some_and(|status| status.pinned.is_some())
}

/// The uids of instances that change in a mirror.
fn changed_instances(mirror: &Mirror) -> mpsc::UnboundedReceiver<String> {
    let mut changes = mirror.subscribe();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            if let Changed::Instance(uid) = change
                && sender.send(uid).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// The key of an instance of local mode.
#[must_use]
pub fn key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::WorkspaceInstance, namespace: Some(NAMESPACE.to_owned()), name: name.to_owned() }
}

#[cfg(test)]
mod tests;
