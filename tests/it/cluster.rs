//! The cluster adapter against a real API server: what it reads, writes and says when it may not.

use serde_json::{Value, json};
use workshop::adapters::cluster::{Cluster, Error, Leadership, Lease};
use workshop::crd::{API_VERSION, labels};
use workshop::domain::object::{Kind, Live, ObjectKey};

use crate::support::cluster::{CONTROLLER, Moment, SYSTEM, cluster};

fn template(name: &str, owner: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceTemplate",
        "metadata": { "name": name, "labels": { (labels::OWNER): owner, (labels::WORKSHOP): name } },
        "spec": {
            "defaults": {},
            "steps": [{ "id": "one", "title": "One", "imageTag": "registry.example/a/b:one" }],
            "artifact": { "digest": format!("sha256:{}", "0".repeat(64)), "size": 1 },
        },
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::WorkspaceTemplate, namespace: None, name: name.into() }
}

async fn nobody() -> Cluster {
    Cluster::connect(Some(&cluster().nobody()), None, None).await.unwrap()
}

async fn controller() -> Cluster {
    Cluster::connect(Some(&cluster().controller()), None, Some(SYSTEM)).await.unwrap()
}

#[tokio::test]
async fn objects_are_applied_listed_by_owner_and_deleted_with_the_controllers_rights() {
    let client = controller().await;
    let applied = client.apply(&template("adapter-a", "owner-a"), labels::FIELD_MANAGER, false).await.unwrap();
    client.apply(&template("adapter-b", "owner-b"), labels::FIELD_MANAGER, false).await.unwrap();
    let names = |objects: Vec<Live>| objects.into_iter().map(|live| live.key.name).collect::<Vec<_>>();
    assert_eq!(names(client.list_owned(Kind::WorkspaceTemplate, "owner-a").await.unwrap()), ["adapter-a"]);
    let owners = client.list_owners(Kind::WorkspaceTemplate).await.unwrap();
    assert_eq!(owners.get(&key("adapter-b")), Some(&Some("owner-b".to_owned())));
    assert_eq!(client.get(&key("adapter-a")).await.unwrap().unwrap().uid, applied.uid);
    assert!(client.get(&key("adapter-none")).await.unwrap().is_none());

    let error = client.delete(&key("adapter-a"), "another-uid").await.unwrap_err();
    assert!(matches!(error, Error::Stale { .. }), "{error}");
    client.delete(&key("adapter-a"), &applied.uid).await.unwrap();
    client.delete(&key("adapter-a"), &applied.uid).await.unwrap();
    assert!(client.get(&key("adapter-a")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_conflict_names_the_other_manager_and_force_takes_the_field() {
    let client = controller().await;
    let mut manifest = template("adapter-conflict", "owner-c");
    client.apply(&manifest, "somebody-else", false).await.unwrap();
    manifest["spec"]["artifact"]["size"] = json!(2);
    match client.apply(&manifest, labels::FIELD_MANAGER, false).await.unwrap_err() {
        Error::Conflict { managers, fields, .. } => {
            assert_eq!((managers, fields), (vec!["somebody-else".to_owned()], vec!["spec.artifact.size".to_owned()]));
        }
        error => panic!("{error}"),
    }
    client.apply_dry_run(&manifest, labels::FIELD_MANAGER, true).await.unwrap();
    assert_eq!(client.get(&key("adapter-conflict")).await.unwrap().unwrap().manifest["spec"]["artifact"]["size"], 1);
    let live = client.apply(&manifest, labels::FIELD_MANAGER, true).await.unwrap();
    assert_eq!(live.manifest["spec"]["artifact"]["size"], 2);
}

#[tokio::test]
async fn keys_are_made_once_for_all_replicas_and_told_to_nobody_else() {
    let namespace = cluster().create_namespace("keys");
    let admin = Cluster::connect(Some(&cluster().admin()), None, None).await.unwrap();
    assert!(admin.read_keys(&namespace).await.unwrap().is_none());
    let makers = (0..8).map(|_| admin.read_or_make_keys(&namespace));
    let made = futures_util::future::join_all(makers).await;
    let owners: Vec<String> = made.iter().map(|keys| keys.as_ref().unwrap().owner.clone()).collect();
    assert!(owners.iter().all(|owner| *owner == owners[0] && owner.len() == 43), "all have the same");
    let kept = admin.read_keys(&namespace).await.unwrap().unwrap();
    assert_eq!(kept.signing.verify_key(), made[7].as_ref().unwrap().signing.verify_key());

    // With the rights of the manifests, in the controller's own namespace and nowhere else.
    let client = controller().await;
    client.read_or_make_keys(SYSTEM).await.unwrap();
    for (who, place) in [(&client, namespace.as_str()), (&nobody().await, SYSTEM)] {
        let error = who.read_or_make_keys(place).await.unwrap_err();
        assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    }

    // What somebody broke is told of and kept.
    let broken = cluster().create_namespace("keys");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "workshop-keys", "namespace": broken },
        "stringData": { "owner-key": "x" },
    });
    cluster().apply(&secret);
    let error = admin.read_or_make_keys(&broken).await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    assert!(cluster().get(&["secret", "workshop-keys", "-n", &broken]).unwrap()["data"].get("signing-key").is_none());
}

#[tokio::test]
async fn refusals_say_what_is_wrong_or_missing() {
    let client = controller().await;
    let mut manifest = template("adapter-invalid", "owner-d");
    manifest["spec"]["steps"][0]["id"] = json!("One");
    let error = client.apply(&manifest, labels::FIELD_MANAGER, false).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid { causes, .. } if causes[0].field == "spec.steps[0].id"), "{error}");
    manifest["spec"]["unknown"] = json!(1);
    let error = client.apply(&manifest, labels::FIELD_MANAGER, false).await.unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");

    let nobody = nobody().await;
    let error = nobody.list_owned(Kind::WorkspaceTemplate, "owner-a").await.unwrap_err();
    assert!(
        error.to_string().ends_with(
            "not allowed: User \"nobody\" cannot list resource \"workspacetemplates\" in API group \"workshop.platform\" at the cluster scope"
        ),
        "{error}"
    );
    let missing = json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceInstance",
        "metadata": { "name": "a", "namespace": "no-such-namespace" },
        "spec": { "templateRef": { "name": "a" }, "owner": "ada" },
    });
    let error = client.apply(&missing, labels::FIELD_MANAGER, false).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(error.to_string().contains("no-such-namespace"), "{error}");

    let error = client.read_secret(SYSTEM, "any").await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "Secrets need a binding by the administrator: {error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_cannot_be_reached_and_a_cluster_without_our_kinds_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(cluster().admin()).unwrap();
    let server = config.lines().find(|line| line.contains("server:")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = directory.path().join("config");
    std::fs::write(&path, config.replace(server, &format!("    server: https://127.0.0.1:{port}"))).unwrap();
    let error = Cluster::connect(Some(&path), None, None).await.unwrap().get(&key("a")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_transient(), "{error}");

    let error = Cluster::connect(Some(&directory.path().join("none")), None, None).await.unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[tokio::test]
async fn every_request_says_which_program_sent_it() {
    let mark = Moment::now();
    let client = controller().await;
    client.get(&key("adapter-agent")).await.unwrap();
    let expected = concat!("workshop/", env!("CARGO_PKG_VERSION"));
    let calls = crate::support::wait::wait_for("the audit line", std::time::Duration::from_secs(60), || {
        let mut calls = cluster().calls_since(mark, CONTROLLER);
        calls.retain(|call| call.name.as_deref() == Some("adapter-agent"));
        (!calls.is_empty()).then_some(calls)
    });
    assert!(calls.iter().all(|call| call.user_agent == expected), "{calls:?}");
}

#[tokio::test]
async fn a_lease_has_one_holder_and_passes_on_when_it_is_given_back() {
    // The rights are for the lease of this name only, so this test is the only one to use it here.
    let client = Cluster::connect(Some(&cluster().admin()), None, Some("default")).await.unwrap();
    let mut first = Lease::new("lease-test", "first");
    let mut second = Lease::new("lease-test", "second");
    assert_eq!(first.acquire(&client).await.unwrap(), Leadership::Held);
    assert_eq!(first.acquire(&client).await.unwrap(), Leadership::Held);
    assert_eq!(second.acquire(&client).await.unwrap(), Leadership::Elsewhere { holder: "first".into() });
    second.release(&client).await.unwrap();
    assert_eq!(second.acquire(&client).await.unwrap(), Leadership::Elsewhere { holder: "first".into() });
    first.release(&client).await.unwrap();
    assert_eq!(second.acquire(&client).await.unwrap(), Leadership::Held);
    // The same identity after a crash: nobody needs to wait.
    assert_eq!(Lease::new("lease-test", "second").acquire(&client).await.unwrap(), Leadership::Held);
}
