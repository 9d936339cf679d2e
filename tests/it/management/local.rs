//! The suite against the implementation of local mode, over TCP and over a Unix socket.

use std::sync::Arc;

use serde_json::json;
use workshop::adapters::store::{Store, read_or_make_signing_key};
use workshop::crd::{API_VERSION, labels};
use workshop::domain::container::Address;
use workshop::domain::digest::Digest;
use workshop::gateway::management::{document, routes};
use workshop::pipeline::workspace::{CreateRequest, Workspaces, key};

use super::suite::{self, Target};

const ARTIFACT: &[u8] = b"SQLite format 3\0, as far as this suite looks";

/// Two instances that run, without anything that runs.
async fn arrange(state: &std::path::Path) -> (Workspaces, Vec<String>) {
    let digest = Digest::of(ARTIFACT);
    std::fs::create_dir_all(state.join("artifacts")).unwrap();
    std::fs::write(state.join("artifacts").join(format!("{}.db", digest.hex())), ARTIFACT).unwrap();
    let store = Arc::new(Store::open(state).unwrap());
    let step = |id: &str| json!({"id": id, "title": id, "imageTag": format!("first:{id}")});
    let template = json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceTemplate", "metadata": {"name": "first"},
        "spec": {
            "defaults": {"lifecycle": {"ttl": "1h"}},
            "steps": [step("one"), step("two")],
            "artifact": {"digest": digest.to_string(), "size": ARTIFACT.len()},
        },
    });
    store.apply_object(&template, labels::OWNER).unwrap();
    let workspaces = Workspaces::open(Arc::clone(&store), state).unwrap();
    let now = jiff::Timestamp::now();
    let minutes = |minutes: i64| (now + jiff::SignedDuration::from_mins(minutes)).to_string();
    let mut uids = Vec::new();
    for owner in ["ada", "bob"] {
        let request = CreateRequest { template: "first".into(), owner: owner.into(), ..CreateRequest::default() };
        let made = workspaces.create(&request).await.unwrap().remove(0);
        let status = json!({
            "phase": "Running", "currentStep": "one", "startedAt": minutes(-57), "expiresAt": minutes(3),
            "pinned": {
                "unitKey": "u", "artifactDigest": digest.to_string(), "artifactSize": ARTIFACT.len(),
                "defaults": {"lifecycle": {"ttl": "1h"}},
                "steps": [{"id": "one", "imageTag": "first:one"}, {"id": "two", "imageTag": "first:two"}],
            },
        });
        let written = store.change_object(&key(&made.name), |object, _| {
            object["status"] = status;
            Ok::<_, workshop::adapters::store::Error>(())
        });
        written.unwrap();
        uids.push(made.uid);
    }
    (workspaces, uids)
}

async fn check(is_unix: bool) {
    let state = tempfile::tempdir().unwrap();
    let (workspaces, uids) = arrange(state.path()).await;
    let router = routes(workspaces);
    let address = if is_unix {
        let path = state.path().join("api.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Address::Unix(path)
    } else {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Address::Tcp(address)
    };
    let target = Target {
        address,
        key: read_or_make_signing_key(state.path()).unwrap(),
        uid: uids[0].clone(),
        other: uids[1].clone(),
        steps: vec!["one".into(), "two".into()],
        artifact: (Digest::of(ARTIFACT).to_string(), ARTIFACT.to_vec()),
    };
    suite::run(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_management_api_conforms_over_tcp() {
    check(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_management_api_conforms_over_a_unix_socket() {
    check(true).await;
}

#[test]
fn the_document_names_a_token_for_everything() {
    let document = serde_json::to_value(document()).unwrap();
    assert_eq!(document["security"], json!([{"token": []}]));
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    assert_eq!(document["paths"].as_object().unwrap().len(), 8);
}
