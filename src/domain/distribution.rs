//! An artifact in a registry: an OCI artifact of its own media types, as bytes that are the same every time.
//!
//! What the file in it means is the artifact adapter's matter, how it travels the pipeline's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::definition::Definition;
use super::digest::Digest;
use super::image::{Descriptor, INDEX, MANIFEST, canonical_json};

/// The artifact's type.
pub const ARTIFACT: &str = "application/vnd.workshop-platform.artifact.v1";
/// Media type of what describes it.
pub const CONFIG: &str = "application/vnd.workshop-platform.artifact.config.v1+json";
/// Media type of the SQLite file.
pub const DATABASE: &str = "application/vnd.workshop-platform.artifact.v1+sqlite3";
/// Media type of its `workspace.yaml`.
pub const WORKSPACE: &str = "application/vnd.workshop-platform.workspace.v1+yaml";

/// The largest SQLite file, in bytes.
pub const MAX_DATABASE: u64 = 32 << 20;
/// The largest `workspace.yaml`, in bytes.
pub const MAX_WORKSPACE: u64 = 1 << 20;
/// The largest description, in bytes.
pub const MAX_CONFIG: u64 = 64 << 10;

const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";

/// Why a manifest is no artifact of ours; reads as the rest of a sentence that begins with the reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDistributed {
    /// No manifest that could be read.
    #[error("has no manifest that this program reads ({0})")]
    Manifest(String),
    /// Something of another type.
    #[error("is of the type \"{0}\", not an artifact of a workshop (\"{ARTIFACT}\")")]
    Type(String),
    /// A layer of a type that nobody asked for.
    #[error("has a layer of the media type \"{0}\", which no artifact of a workshop has")]
    Layer(String),
    /// A layer is missing or there more than once.
    #[error("has {count} layers of the media type \"{media_type}\" where {due} is due")]
    Count {
        /// The type.
        media_type: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        due: &'static str,
    },
    /// A part beyond its limit.
    #[error("has a {part} of {size} bytes, more than the {max} that it may have")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
}

/// What describes the artifact, so that it can be known without its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The workshop's id.
    pub id: String,
    /// Its display name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The identity of the definition rows.
    pub content_digest: Digest,
}

/// The bytes to push: blobs first, the manifest last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Blobs with their digests: description, SQLite file and, where there is one, `workspace.yaml`.
    pub blobs: Vec<(Digest, Vec<u8>)>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

/// What a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The description.
    pub config: Descriptor,
    /// The SQLite file.
    pub database: Descriptor,
    /// Its `workspace.yaml`.
    pub workspace: Option<Descriptor>,
}

/// The artifact's manifest and blobs; nothing in them says when or where they were made.
#[must_use]
pub fn build_distribution(definition: &Definition, database: Vec<u8>, workspace: Option<Vec<u8>>) -> Distribution {
    let id = definition.id.to_string();
    let description = Description {
        id: id.clone(),
        name: definition.name.clone(),
        version: definition.version.clone(),
        content_digest: definition.content_digest(),
    };
    let mut blobs = Vec::new();
    let mut part = |media_type: &str, title: Option<String>, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: bytes.len() as u64,
            annotations: title.map(|title| (TITLE.to_owned(), title)).into_iter().collect(),
        };
        blobs.push((digest, bytes));
        descriptor
    };
    let config = part(CONFIG, None, canonical_json(&description));
    // Titles are the names under which other tools save the layers.
    let mut layers = vec![part(DATABASE, Some(format!("{id}.db")), database)];
    layers.extend(workspace.map(|bytes| part(WORKSPACE, Some("workspace.yaml".to_owned()), bytes)));
    let annotations = BTreeMap::from([(TITLE, &description.name), (VERSION, &description.version)]);
    let manifest = canonical_json(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": config,
        "layers": layers,
        "annotations": annotations,
    }));
    Distribution { blobs, manifest }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// Reads the manifest of an artifact, which may come from a stranger.
pub fn parse_distribution(manifest: &[u8]) -> Result<Parts, NotDistributed> {
    let shape: Shape = serde_json::from_slice(manifest).map_err(|error| NotDistributed::Manifest(error.to_string()))?;
    let config = match (shape.media_type.as_deref(), shape.artifact_type, shape.config) {
        (Some(MANIFEST) | None, Some(kind), Some(config)) if kind == ARTIFACT && config.media_type == CONFIG => config,
        // Registries that drop what they do not know leave the config's type.
        (Some(MANIFEST) | None, None, Some(config)) if config.media_type == CONFIG => config,
        (Some(other), _, None) => return Err(NotDistributed::Type(other.to_owned())),
        (_, Some(kind), _) if kind != ARTIFACT => return Err(NotDistributed::Type(kind)),
        (_, _, Some(config)) => return Err(NotDistributed::Type(config.media_type)),
        (None, _, None) => return Err(NotDistributed::Type(INDEX.to_owned())),
    };
    if let Some(foreign) = shape.layers.iter().find(|layer| ![DATABASE, WORKSPACE].contains(&&*layer.media_type)) {
        return Err(NotDistributed::Layer(foreign.media_type.clone()));
    }
    let (mut databases, mut workspaces): (Vec<_>, Vec<_>) =
        shape.layers.into_iter().partition(|layer| layer.media_type == DATABASE);
    if databases.len() != 1 {
        return Err(NotDistributed::Count { media_type: DATABASE, count: databases.len(), due: "one" });
    }
    if workspaces.len() > 1 {
        return Err(NotDistributed::Count { media_type: WORKSPACE, count: workspaces.len(), due: "at most one" });
    }
    let parts = Parts { config, database: databases.remove(0), workspace: workspaces.pop() };
    let sizes = [
        ("description", Some(&parts.config), MAX_CONFIG),
        ("database", Some(&parts.database), MAX_DATABASE),
        ("workspace.yaml", parts.workspace.as_ref(), MAX_WORKSPACE),
    ];
    for (part, descriptor, max) in sizes {
        if let Some(Descriptor { size, .. }) = descriptor.filter(|descriptor| descriptor.size > max) {
            return Err(NotDistributed::TooLarge { part, size: *size, max });
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::domain::names::WorkshopId;

    fn definition() -> Definition {
        Definition {
            id: WorkshopId::parse("first").unwrap(),
            name: "First steps".into(),
            version: "v3".into(),
            created_at: "1970-01-01T00:00:00Z".into(),
            steps: Vec::new(),
        }
    }

    fn manifest(workspace: bool) -> Vec<u8> {
        build_distribution(&definition(), b"file".to_vec(), workspace.then(|| b"version: v1\n".to_vec())).manifest
    }

    #[test]
    fn the_manifest_is_the_same_every_time_and_reads_back() {
        let distribution = build_distribution(&definition(), b"file".to_vec(), Some(b"version: v1\n".to_vec()));
        assert_eq!(distribution.manifest, manifest(true));
        let parts = parse_distribution(&distribution.manifest).unwrap();
        let named = [Some(&parts.config), Some(&parts.database), parts.workspace.as_ref()];
        let named: Vec<_> = named.into_iter().flatten().map(|part| (part.digest, part.size)).collect();
        let pushed: Vec<_> = distribution.blobs.iter().map(|(digest, bytes)| (*digest, bytes.len() as u64)).collect();
        assert_eq!(named, pushed);
        assert_eq!(parts.database.annotations[TITLE], "first.db");
        assert_eq!(parse_distribution(&manifest(false)).unwrap().workspace, None);
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Value), expected: &str) {
        let mut changed: Value = serde_json::from_slice(&manifest(true)).unwrap();
        change(&mut changed);
        let error = parse_distribution(changed.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_artifact_is_refused_by_what_it_is() {
        refused(|it| it["artifactType"] = "application/spdx+json".into(), "is of the type \"application/spdx+json\"");
        let image = "application/vnd.oci.image.config.v1+json";
        refused(|it| it["config"]["mediaType"] = image.into(), image);
        refused(|it| *it = json!({ "mediaType": INDEX, "manifests": [] }), INDEX);
        refused(|it| *it = json!({ "manifests": [] }), INDEX);
        refused(|it| *it = json!([]), "has no manifest that this program reads");
        refused(|it| it["layers"][1]["mediaType"] = "text/html".into(), "media type \"text/html\"");
        refused(|it| it["layers"] = json!([]), "has 0 layers");
        refused(|it| it["layers"][1]["mediaType"] = DATABASE.into(), "has 2 layers");
        refused(|it| it["layers"][0]["digest"] = "sha256:zz".into(), "has no manifest that this program reads");
    }

    #[test]
    fn parts_beyond_their_limit_are_refused_before_they_are_fetched() {
        refused(|it| it["layers"][0]["size"] = (MAX_DATABASE + 1).into(), "has a database of 33554433 bytes");
        refused(|it| it["layers"][1]["size"] = (MAX_WORKSPACE + 1).into(), "has a workspace.yaml of 1048577 bytes");
        refused(|it| it["config"]["size"] = (MAX_CONFIG + 1).into(), "has a description of 65537 bytes");
    }

    proptest! {
        #[test]
        fn no_manifest_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_distribution(&bytes);
        }
    }
}
