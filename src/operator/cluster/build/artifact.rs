//! The artifact on its way into the pod: a ConfigMap named by its digest, or nothing where it is too large for one.

use base64::Engine as _;
use serde_json::Value;

use super::{Subject, labels_of, object};
use crate::adapters::cluster::Part;
use crate::pipeline::workspace::ARTIFACT_FILE;

/// The most compressed bytes that a ConfigMap carries; larger artifacts are fetched from the management API.
pub const MAX_CARRIED: usize = 512 * 1024;

/// Compression of the kind that a registry would use: these are texts that are written once.
const LEVEL: i32 = 9;

/// How an artifact comes into the pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Carried {
    /// In this ConfigMap.
    ConfigMap(Value),
    /// The backend fetches it: it is larger than a ConfigMap may be.
    Fetched,
}

/// The name of the ConfigMap that carries the artifact of this digest.
#[must_use]
pub fn artifact_name(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    format!("artifact-{}", &hex[..hex.len().min(16)])
}

/// How the artifact in `bytes` is carried.
pub fn build_artifact(subject: &Subject, digest: &str, bytes: &[u8]) -> std::io::Result<Carried> {
    let packed = zstd::bulk::compress(bytes, LEVEL)?;
    if packed.len() > MAX_CARRIED {
        return Ok(Carried::Fetched);
    }
    let mut map = object(Part::ConfigMap, &artifact_name(digest));
    map["metadata"]["labels"] = labels_of(subject);
    map["immutable"] = true.into();
    let text = base64::engine::general_purpose::STANDARD.encode(packed);
    map["binaryData"] = serde_json::json!({ ARTIFACT_FILE: text });
    Ok(Carried::ConfigMap(map))
}
