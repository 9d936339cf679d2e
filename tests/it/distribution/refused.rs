//! What is no artifact, too large, damaged or without its images: each told as what it is, nothing half done.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use workshop::adapters::registry::{BlobSource, Registries, RegistryOptions};
use workshop::domain::digest::Digest;

use super::{Published, text};
use crate::support::registry::Registry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DATABASE: &str = "application/vnd.workshop-platform.artifact.v1+sqlite3";

/// The reference, the database, what is done to the manifest, and what is said about it.
type Case<'a> = (&'a str, &'a [u8], fn(&mut Value), &'a str);

/// Puts these layers under a tag as an artifact, whatever they are.
async fn put(reference: &str, change: impl FnOnce(&mut Value), database: &[u8]) {
    // Another test may have installed it already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registries = Registries::new(RegistryOptions::default());
    let (repository, tag) = reference.rsplit_once(':').unwrap();
    let config = serde_json::to_vec(&json!({
        "id": "first", "name": "First", "version": "v1", "contentDigest": Digest::of(b"other"),
    }))
    .unwrap();
    let mut descriptors = BTreeMap::new();
    for (name, media_type, bytes) in [
        ("config", "application/vnd.workshop-platform.artifact.config.v1+json", config.as_slice()),
        ("database", DATABASE, database),
    ] {
        let digest = Digest::of(bytes);
        let source = BlobSource::Bytes(bytes.to_vec());
        registries.push_blob(repository, &digest, &source, None).await.unwrap();
        descriptors.insert(name, json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }));
    }
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.workshop-platform.artifact.v1",
        "config": descriptors["config"],
        "layers": [descriptors["database"]],
    });
    change(&mut manifest);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    registries.push_manifest(repository, &[tag.to_owned()], MANIFEST, &bytes).await.unwrap();
}

#[tokio::test]
async fn what_is_no_artifact_is_not_pulled() {
    let published = Published::new();
    let out = text(&published.path("out.db"));
    std::fs::write(&out, "mine").unwrap();
    let pull = |name: &str, code: i32, expected: &str| {
        let reference = published.reference(name);
        published.refused(&["artifact", "pull", &reference, "-o", &out], code, expected);
        published.refused(&["run", &format!("oci://{reference}")], code, expected);
        assert_eq!(std::fs::read(&out).unwrap(), b"mine", "{name}");
    };
    pull("team/first:one", 1, "is of the type \"application/vnd.oci.image.config.v1+json\", not an artifact");
    pull("team/first:none", 3, "there is no artifact");
    pull("No:Name", 2, "is no image reference");

    let file = std::fs::read(published.file()).unwrap();
    let cases: [Case<'_>; 6] = [
        ("x/type:1", &file, |it| it["artifactType"] = "application/spdx".into(), "of the type \"application/spdx\""),
        ("x/layer:1", &file, |it| it["layers"][0]["mediaType"] = "text/html".into(), "media type \"text/html\""),
        ("x/large:1", &file, |it| it["layers"][0]["size"] = (64 << 20).into(), "has a database of 67108864 bytes"),
        ("x/short:1", &file, |it| it["layers"][0]["size"] = 100.into(), "is larger than 100 bytes"),
        ("x/text:1", b"not a database", |_| (), "is no artifact: it is no SQLite file"),
        ("x/other:1", &file, |_| (), "its description is that of another file"),
    ];
    for (name, database, change, expected) in cases {
        put(&published.reference(name), change, database).await;
        // What is too long is found by the transport, and could be the network's doing.
        pull(name, if name == "x/short:1" { 3 } else { 1 }, expected);
    }
    assert_eq!(std::fs::read_dir(published.path("state/runs")).unwrap().count(), 0, "nothing is left of a failed run");
}

#[test]
fn what_must_not_be_in_a_registry_is_not_pushed() {
    let published = Published::new();
    let file = text(&published.file());
    let push = |source: &str, name: &str, code: i32, expected: &str| {
        published.refused(&["artifact", "push", source, &published.reference(name)], code, expected);
    };
    push(&file, "team/first:one", 4, "is taken by something else");
    push(&file, &format!("a/b@{}", Digest::of(b"")), 2, "names a digest");
    push(&text(&published.path("none.db")), "a/b:1", 3, "failed to open");
    push(&text(&published.path("workshop/step-spec.yaml")), "a/b:1", 1, "it is no SQLite file");
    push(&text(&published.path("state")), "a/b:1", 1, "is no workshop");

    std::fs::write(published.path("wrong.yaml"), "version: v1\nlifecycel: {}\n").unwrap();
    let wrong = text(&published.path("wrong.yaml"));
    let reference = published.reference("a/b:1");
    published.refused(&["artifact", "push", &file, &reference, "--workspace", &wrong], 1, "did you mean `lifecycle`");

    let large = published.path("large.db");
    std::fs::copy(published.file(), &large).unwrap();
    std::fs::File::options().write(true).open(&large).unwrap().set_len((32 << 20) + 1).unwrap();
    push(&text(&large), "a/b:1", 1, "more than the 33554432 that an artifact may have");

    let rows = "INSERT INTO custom_state VALUES ('x', 'note', 'mine')";
    let done = Command::new("sqlite3").arg(published.file()).arg(rows).status().expect("sqlite3 (hack/deps test)");
    assert!(done.success());
    push(&file, "a/b:1", 1, "holds the progress and notes of workspaces");
    assert!(published.registry.manifest_writes().keys().all(|path| !path.contains("/a/b/")));
}

#[test]
fn images_that_are_nowhere_are_named() {
    let published = Published::new();
    let workshop = text(&published.path("workshop"));
    let empty = Registry::start();
    let reference = published.reference("artifacts/first");
    let push = ["artifact", "push", &workshop, &reference, "--registry", &empty.host()];
    published.refused(&push, 1, &format!("step one (\"{}/team/first:one\")", empty.host()));
    published.json(&[&push[..], &["--without-images"]].concat());
    let image = format!("the image \"{}/team/first:one\" of the artifact is neither on this machine", empty.host());
    published.refused(&["run", &format!("oci://{reference}"), "--registry", &empty.host()], 3, &image);
}

#[test]
fn a_registry_that_wants_a_login_says_so() {
    let published = Published::new();
    let registry = Registry::start_with_login();
    let reference = format!("{}/a/b:1", registry.host());
    let file = text(&published.file());
    let expected = "wants a login";
    published.refused(&["artifact", "push", &file, &reference], 3, expected);
    published.refused(&["run", &format!("oci://{reference}")], 3, expected);
}
