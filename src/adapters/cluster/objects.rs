//! Objects of our kinds, as JSON: list by owner, get, server-side apply, status, patch and delete.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, ValidationDirective};
use kube::core::Request;
use kube::core::params::GetParams;
use serde_json::Value;

use super::{Cluster, Error};
use crate::crd::{API_VERSION, GROUP, Kind, VERSION, labels};
use crate::domain::object::{Kind as OwnedKind, Live, ObjectKey};

/// How many objects come in one answer to a list.
const PAGE: u32 = 500;

/// How an object is applied.
#[derive(Debug, Clone, Copy)]
pub struct Apply<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// Take fields from other managers; only for objects that carry our owner label.
    pub force: bool,
    /// Let the server check and compute everything, and write nothing.
    pub dry_run: bool,
}

impl Default for Apply<'_> {
    fn default() -> Self {
        Self { manager: labels::FIELD_MANAGER, force: false, dry_run: false }
    }
}

impl Cluster {
    /// The objects of the kinds a sync makes that carry this owner label, over all namespaces, in the order of
    /// applying; all owners' where none is named.
    pub async fn list_owned(&self, owner: Option<&str>) -> Result<Vec<Live>, Error> {
        let selector = owner.map_or_else(|| labels::OWNER.to_owned(), |owner| format!("{}={owner}", labels::OWNER));
        let mut objects = Vec::new();
        for kind in OwnedKind::ALL {
            let manifests = self.list(kind.into(), None, Some(&selector)).await?;
            objects.extend(manifests.into_iter().filter_map(Live::from_manifest));
        }
        objects.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(objects)
    }

    /// The objects of one kind, in all namespaces or in one, with their `kind` and `apiVersion` filled in.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        label_selector: Option<&str>,
    ) -> Result<Vec<Value>, Error> {
        let attempt = format!("list {}", kind.plural());
        let mut parameters = ListParams { limit: Some(PAGE), ..ListParams::default() };
        parameters.label_selector = label_selector.map(str::to_owned);
        let mut items = Vec::new();
        loop {
            let request = Request::new(path(kind, namespace))
                .list(&parameters)
                .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
            let mut page: Value = self.call(&attempt, self.client.request(request)).await?;
            if let Some(Value::Array(objects)) = page.get_mut("items").map(Value::take) {
                // Items of a list do not say what they are.
                items.extend(objects.into_iter().map(|mut object| {
                    object["apiVersion"] = API_VERSION.into();
                    object["kind"] = kind.name().into();
                    object
                }));
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token.to_owned()),
                _ => return Ok(items),
            }
        }
    }

    /// The object of this key.
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Live>, Error> {
        let found = self.get_of(key.kind.into(), key.namespace.as_deref(), &key.name).await?;
        Ok(found.and_then(Live::from_manifest))
    }

    /// The object of one of our kinds by name.
    pub async fn get_of(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Result<Option<Value>, Error> {
        let attempt = format!("read {kind} \"{name}\"");
        let request = Request::new(path(kind, namespace))
            .get(name, &GetParams::default())
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        match self.call(&attempt, self.client.request(request)).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Server-side apply of the manifest; gives the object as it is now.
    pub async fn apply(&self, key: &ObjectKey, manifest: &Value, how: Apply<'_>) -> Result<Live, Error> {
        let attempt = format!("{} {key}", if how.dry_run { "check" } else { "apply" });
        let parameters = PatchParams {
            dry_run: how.dry_run,
            force: how.force,
            field_manager: Some(how.manager.to_owned()),
            // A field that the installed definition does not have is a mistake to tell, not to drop.
            field_validation: Some(ValidationDirective::Strict),
        };
        let object = self.patch(&attempt, &Target::of(key), &parameters, &Patch::Apply(manifest)).await?;
        Live::from_manifest(object).ok_or_else(|| Error::Answer { attempt, source: "the object has no name".into() })
    }

    /// Merges `patch` into the object: removes fields that others set and nobody wishes.
    pub async fn merge(&self, key: &ObjectKey, patch: &Value) -> Result<Live, Error> {
        let attempt = format!("patch {key}");
        let parameters =
            PatchParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let object = self.patch(&attempt, &Target::of(key), &parameters, &Patch::Merge(patch)).await?;
        Live::from_manifest(object).ok_or_else(|| Error::Answer { attempt, source: "the object has no name".into() })
    }

    /// Deletes the object, if it still is the one with this uid; false when it is gone already.
    pub async fn delete(&self, key: &ObjectKey, uid: &str) -> Result<bool, Error> {
        let attempt = format!("delete {key}");
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { resource_version: None, uid: Some(uid.to_owned()) }),
            ..DeleteParams::background()
        };
        let request = Request::new(path(key.kind.into(), key.namespace.as_deref()))
            .delete(&key.name, &parameters)
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        match self.call(&attempt, self.client.request::<Value>(request)).await {
            Ok(_) => Ok(true),
            Err(Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn patch(
        &self,
        attempt: &str,
        target: &Target<'_>,
        parameters: &PatchParams,
        patch: &Patch<&Value>,
    ) -> Result<Value, Error> {
        let request = Request::new(path(target.kind, target.namespace));
        let request = match target.subresource {
            None => request.patch(target.name, parameters, patch),
            Some(subresource) => request.patch_subresource(subresource, target.name, parameters, patch),
        }
        .map_err(|error| Error::from_kube(attempt, kube::Error::BuildRequest(error)))?;
        self.call(attempt, self.client.request(request)).await
    }
}

/// What a patch is for.
pub(super) struct Target<'a> {
    pub kind: Kind,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
    pub subresource: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn of(key: &'a ObjectKey) -> Self {
        Self { kind: key.kind.into(), namespace: key.namespace.as_deref(), name: &key.name, subresource: None }
    }
}

impl From<OwnedKind> for Kind {
    fn from(kind: OwnedKind) -> Self {
        match kind {
            OwnedKind::WorkspaceTemplate => Self::WorkspaceTemplate,
            OwnedKind::WorkspaceInstance => Self::WorkspaceInstance,
        }
    }
}

fn path(kind: Kind, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if kind.is_namespaced() => {
            format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{}", kind.plural())
        }
        _ => format!("/apis/{GROUP}/{VERSION}/{}", kind.plural()),
    }
}
