//! Operations on instances: what people, the gateway and the management API may ask for. One writer of specs.
//!
//! It reads and writes objects and answers at once; what has to run for it is the operator's, which is woken by the
//! change. The objects are in the embedded store (local mode).

mod create;
mod error;
mod operate;
pub mod record;
mod session;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::watch;

pub use create::CreateRequest;
pub use error::{Class, Error};
pub use session::SessionError;
pub use view::{InstanceView, ProgressView, StepView, TemplateView};

use crate::adapters::store::{Store, UnitState, read_or_make_signing_key};
use crate::crd::{WorkspaceInstance, WorkspaceTemplate};
use crate::domain::container::Address;
use crate::domain::digest::Digest;
use crate::domain::object::{Kind, Live, ObjectKey};
use crate::domain::token::{Claims, Role, SigningKey, VerifyKey};
use view::Parts;

/// The namespace of all instances in local mode.
pub const NAMESPACE: &str = "default";

/// Operations on instances; cheap to clone.
#[derive(Clone)]
pub struct Workspaces {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    state: PathBuf,
    key: SigningKey,
    /// Where the backends of running workspaces answer, by uid.
    addresses: RwLock<BTreeMap<String, Address>>,
    /// Where the gateway answers, without a slash at the end.
    base: RwLock<String>,
    /// Names of workshops by their artifact's digest.
    names: Mutex<BTreeMap<String, String>>,
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
        let (addresses, base, names) = (RwLock::default(), RwLock::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { store, state: state.to_owned(), key, addresses, base, names }) })
    }

    /// The workshops that workspaces are made of, and those that failed before they became one.
    pub fn templates(&self) -> Result<Vec<TemplateView>, Error> {
        let objects = self.inner.store.list_objects(None)?;
        let mut units = Vec::new();
        for (owner, _) in self.inner.store.sources()? {
            units.extend(self.inner.store.units(&owner)?);
        }
        let mut views = Vec::new();
        for live in objects.iter().filter(|live| live.key.kind == Kind::WorkspaceTemplate) {
            let template = read_template(live)?;
            let id = live.key.name.clone();
            let of_it = |object: &&Live| object.text("/spec/templateRef/name") == Some(id.as_str());
            let unit = units.iter().find(|unit| unit.id.as_deref() == Some(id.as_str()));
            let problem = self.problem(&template);
            let steps = template.spec.steps.iter();
            views.push(TemplateView {
                name: self.display_name(&template).unwrap_or_else(|| id.clone()),
                steps: steps.map(|step| StepView { id: step.id.clone(), title: step.title.clone() }).collect(),
                ready: problem.is_none(),
                message: problem
                    .or_else(|| unit.filter(|unit| unit.state != UnitState::Ready).map(|unit| unit.message.clone())),
                instances: objects.iter().filter(of_it).count(),
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

    /// All instances, by name.
    pub fn list(&self) -> Result<Vec<InstanceView>, Error> {
        let objects = self.inner.store.list_objects(None)?;
        let mut templates = BTreeMap::new();
        for live in objects.iter().filter(|live| live.key.kind == Kind::WorkspaceTemplate) {
            templates.insert(live.key.name.as_str(), read_template(live)?);
        }
        let (base, now) = (self.base(), Timestamp::now());
        let instances = objects.iter().filter(|live| live.key.kind == Kind::WorkspaceInstance);
        instances
            .map(|live| {
                let instance = read_instance(live)?;
                let template = templates.get(instance.spec.template_ref.name.as_str());
                Ok(Parts::new(&instance, template).view(&base, now))
            })
            .collect()
    }

    /// The instance of this name.
    pub fn get(&self, name: &str) -> Result<Option<InstanceView>, Error> {
        self.inner.store.object(&key(name))?.map(|live| self.view(&live)).transpose()
    }

    /// The instance with this uid.
    pub fn by_uid(&self, uid: &str) -> Result<Option<InstanceView>, Error> {
        self.live_by_uid(uid)?.map(|live| self.view(&live)).transpose()
    }

    /// Counts changes of instances and templates, and tells of each.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.store.changes()
    }

    /// Where the backend of a running instance answers.
    #[must_use]
    pub fn address(&self, uid: &str) -> Option<Address> {
        self.inner.addresses.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Says where the backend of an instance answers, or that it does not any more; the operator's to say.
    pub fn set_address(&self, uid: &str, address: Option<Address>) {
        let mut addresses = self.inner.addresses.write().unwrap_or_else(PoisonError::into_inner);
        match address {
            Some(address) => addresses.insert(uid.to_owned(), address),
            None => addresses.remove(uid),
        };
    }

    /// Says where the gateway answers, e.g. `http://127.0.0.1:8080`, for the addresses in views.
    pub fn set_base(&self, base: &str) {
        base.trim_end_matches('/').clone_into(&mut self.inner.base.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn base(&self) -> String {
        self.inner.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that verifies this directory's tokens.
    #[must_use]
    pub fn verify_key(&self) -> VerifyKey {
        self.inner.key.verify_key()
    }

    /// A token for `subject` in the instance with this uid, valid for `span`.
    #[must_use]
    pub fn sign(&self, uid: &str, subject: &str, role: Role, span: std::time::Duration) -> String {
        let now = Timestamp::now().as_second();
        let exp = now.saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims { aud: uid.to_owned(), sub: subject.to_owned(), role, generation: 0, iat: now, exp };
        self.inner.key.sign(&claims)
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.inner.state
    }

    /// The objects themselves, for the operator.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// The file of the artifact with this digest.
    #[must_use]
    pub fn artifact_path(&self, digest: &str) -> Option<PathBuf> {
        let digest: Digest = digest.parse().ok()?;
        Some(crate::pipeline::sync::artifact_path(&self.inner.state, digest))
    }

    /// Why no workspace can be made of `template`, if so.
    #[must_use]
    pub fn problem(&self, template: &WorkspaceTemplate) -> Option<String> {
        if template.spec.steps.is_empty() {
            return Some("it has no steps".to_owned());
        }
        let digest = &template.spec.artifact.digest;
        if !self.artifact_path(digest).is_some_and(|path| path.is_file()) {
            return Some(format!("its artifact {digest} is not in the state directory"));
        }
        None
    }

    /// The workshop's name for people, which only the artifact has.
    fn display_name(&self, template: &WorkspaceTemplate) -> Option<String> {
        let digest = &template.spec.artifact.digest;
        let mut names = self.inner.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(digest) {
            return Some(name.clone());
        }
        let name = crate::adapters::artifact::read(&self.artifact_path(digest)?).ok()?.definition.name;
        names.insert(digest.clone(), name.clone());
        Some(name)
    }

    fn view(&self, live: &Live) -> Result<InstanceView, Error> {
        let instance = read_instance(live)?;
        let template = self.template_of(&instance)?;
        Ok(Parts::new(&instance, template.as_ref()).view(&self.base(), Timestamp::now()))
    }

    /// The template of an instance, where the instance has not its own pin yet.
    fn template_of(&self, instance: &WorkspaceInstance) -> Result<Option<WorkspaceTemplate>, Error> {
        if instance.status.as_ref().is_some_and(|status| status.pinned.is_some()) {
            return Ok(None);
        }
        self.template(&instance.spec.template_ref.name)
    }

    /// The template of this name.
    pub fn template(&self, name: &str) -> Result<Option<WorkspaceTemplate>, Error> {
        let key = ObjectKey { kind: Kind::WorkspaceTemplate, namespace: None, name: name.to_owned() };
        self.inner.store.object(&key)?.map(|live| read_template(&live)).transpose()
    }

    fn live_by_uid(&self, uid: &str) -> Result<Option<Live>, Error> {
        let live = self.inner.store.object_by_uid(uid)?;
        Ok(live.filter(|live| live.key.kind == Kind::WorkspaceInstance))
    }
}

/// The key of an instance of local mode.
#[must_use]
pub fn key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::WorkspaceInstance, namespace: Some(NAMESPACE.to_owned()), name: name.to_owned() }
}

fn read_instance(live: &Live) -> Result<WorkspaceInstance, Error> {
    record::read_instance(live).map_err(|source| Error::Unreadable { name: live.key.name.clone(), source })
}

fn read_template(live: &Live) -> Result<WorkspaceTemplate, Error> {
    serde_json::from_value(live.manifest.clone())
        .map_err(|source| Error::Unreadable { name: live.key.name.clone(), source })
}

#[cfg(test)]
mod tests;
