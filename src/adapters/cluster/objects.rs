//! Objects of our kinds, as JSON: list by owner, get, server-side apply, status, patch and delete.

use std::collections::BTreeMap;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, ValidationDirective};
use kube::core::Request;
use kube::core::params::GetParams;
use serde_json::Value;

use super::{Cluster, Error};
use crate::crd::{API_VERSION, GROUP, Kind, VERSION, labels};
use crate::domain::object::{Kind as OwnedKind, Live, ObjectKey, key_of};

/// How many objects come in one answer to a list.
const PAGE: u32 = 500;

/// What a list gives of each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Metadata,
}

impl Cluster {
    /// The objects of one kind that carry this owner label, over all namespaces.
    pub async fn list_owned(&self, kind: OwnedKind, owner: &str) -> Result<Vec<Live>, Error> {
        let selector = format!("{}={owner}", labels::OWNER);
        let manifests = self.list(kind.into(), None, Some(&selector)).await?;
        Ok(manifests.into_iter().filter_map(Live::from_manifest).collect())
    }

    /// All objects of one kind with the owner label they carry; only their metadata is asked for.
    pub async fn list_owners(&self, kind: OwnedKind) -> Result<BTreeMap<ObjectKey, Option<String>>, Error> {
        let manifests = self.list_pages(kind.into(), None, None, Part::Metadata).await?;
        Ok(manifests
            .into_iter()
            .filter_map(Live::from_manifest)
            .map(|live| {
                let owner = live.label(labels::OWNER).map(str::to_owned);
                (live.key, owner)
            })
            .collect())
    }

    /// The objects of one kind, in all namespaces or in one, with their `kind` and `apiVersion` filled in.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        label_selector: Option<&str>,
    ) -> Result<Vec<Value>, Error> {
        self.list_pages(kind, namespace, label_selector, Part::Whole).await
    }

    async fn list_pages(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        label_selector: Option<&str>,
        part: Part,
    ) -> Result<Vec<Value>, Error> {
        let attempt = format!("list {}", kind.plural());
        let mut parameters = ListParams { limit: Some(PAGE), ..ListParams::default() };
        parameters.label_selector = label_selector.map(str::to_owned);
        let mut items = Vec::new();
        loop {
            let request = Request::new(path(kind, namespace));
            let request = match part {
                Part::Whole => request.list(&parameters),
                Part::Metadata => request.list_metadata(&parameters),
            }
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

    /// Server-side apply of the manifest; gives the object as it is now. `force` takes fields from other managers and
    /// is only for objects that carry our owner label.
    pub async fn apply(&self, manifest: &Value, manager: &str, force: bool) -> Result<Live, Error> {
        self.apply_with(manifest, manager, force, false).await
    }

    /// Lets the server check a manifest and compute what an apply would give; nothing is written.
    pub async fn apply_dry_run(&self, manifest: &Value, manager: &str, force: bool) -> Result<Live, Error> {
        self.apply_with(manifest, manager, force, true).await
    }

    async fn apply_with(&self, manifest: &Value, manager: &str, force: bool, dry_run: bool) -> Result<Live, Error> {
        let key = key_of(manifest).ok_or_else(|| Error::Answer {
            attempt: "apply an object".to_owned(),
            source: "it has no name or is of no kind of ours".into(),
        })?;
        let attempt = format!("{} {key}", if dry_run { "check" } else { "apply" });
        let parameters = PatchParams {
            dry_run,
            force,
            field_manager: Some(manager.to_owned()),
            // A field that the installed definition does not have is a mistake to tell, not to drop.
            field_validation: Some(ValidationDirective::Strict),
        };
        let object = self.patch(&attempt, &Target::of(&key), &parameters, &Patch::Apply(manifest)).await?;
        Live::from_manifest(object).ok_or_else(|| Error::Answer { attempt, source: "the object has no name".into() })
    }

    /// Merges `patch` into the object: removes fields that others set and nobody wishes.
    pub async fn merge_patch(&self, key: &ObjectKey, patch: &Value) -> Result<(), Error> {
        let attempt = format!("patch {key}");
        let parameters =
            PatchParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.patch(&attempt, &Target::of(key), &parameters, &Patch::Merge(patch)).await.map(drop)
    }

    /// Deletes the object, if it still is the one with this uid; one that is gone already is fine.
    pub async fn delete(&self, key: &ObjectKey, uid: &str) -> Result<(), Error> {
        let attempt = format!("delete {key}");
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { resource_version: None, uid: Some(uid.to_owned()) }),
            ..DeleteParams::background()
        };
        let request = Request::new(path(key.kind.into(), key.namespace.as_deref()))
            .delete(&key.name, &parameters)
            .map_err(|error| Error::from_kube(&attempt, kube::Error::BuildRequest(error)))?;
        match self.call(&attempt, self.client.request::<Value>(request)).await {
            Ok(_) | Err(Error::Missing { .. }) => Ok(()),
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

pub(super) fn path(kind: Kind, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if kind.is_namespaced() => {
            format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{}", kind.plural())
        }
        _ => format!("/apis/{GROUP}/{VERSION}/{}", kind.plural()),
    }
}
