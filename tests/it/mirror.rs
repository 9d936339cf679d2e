//! The mirror of instances and templates, and the writes to instances, against a real API server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use workshop::adapters::cluster::{Changed, Cluster, ConfigMap, Error, InstancePart, Mirror};
use workshop::crd::{API_VERSION, WorkspaceInstance, labels};
use workshop::domain::object::{Kind, ObjectKey};

use crate::support::cluster::{CONTROLLER, SYSTEM, TestCluster, cluster};

const PATIENCE: Duration = Duration::from_secs(60);

fn instance(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceInstance",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "templateRef": { "name": "mirrored" }, "owner": "ada" },
    })
}

fn template(name: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceTemplate", "metadata": { "name": name },
        "spec": {
            "defaults": {},
            "steps": [{ "id": "one", "title": "One", "imageTag": "registry.example/a/b:one" }],
            "artifact": { "digest": format!("sha256:{}", "0".repeat(64)), "size": 1 },
        },
    })
}

async fn client(cluster: &TestCluster) -> Cluster {
    Cluster::connect(Some(&cluster.controller()), None, Some(SYSTEM)).await.unwrap()
}

async fn until(mirror: &Mirror, what: &str, holds: impl Fn(&Mirror) -> bool) {
    let mut changes = mirror.changes();
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds(mirror) {
            changes.changed().await.unwrap();
        }
    });
    waited.await.unwrap_or_else(|_| panic!("the mirror never had {what}: {:?}", mirror.instances()));
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mirror_follows_what_is_made_changed_and_deleted() {
    let client = client(cluster()).await;
    let namespace = cluster().create_namespace("mirror");
    let stop = CancellationToken::new();
    let before = client.create_instance(&instance(&namespace, "before"), "test").await.unwrap().unwrap();
    let mirror = client.mirror(stop.clone());
    mirror.listed().await;
    let mut changes = mirror.subscribe();
    assert_eq!(changes.recv().await, Some(Changed::Listed), "who comes later is told that all is known");
    let uid = before["metadata"]["uid"].as_str().unwrap();
    let known = mirror.instance_by_uid(uid).unwrap();
    assert_eq!(known.spec.owner, "ada");
    assert!(known.metadata.managed_fields.is_none());
    assert_eq!(mirror.instance(&namespace, "before").unwrap(), known);
    assert!(mirror.instance(&namespace, "after").is_none() && mirror.instance("default", "before").is_none());

    client.apply(&template("mirrored"), labels::FIELD_MANAGER, false).await.unwrap();
    until(&mirror, "the template", |mirror| mirror.template("mirrored").is_some()).await;
    assert!(mirror.templates().iter().any(|template| template.metadata.name.as_deref() == Some("mirrored")));

    let patch = json!({"spec": {"hold": true}});
    client.patch_instance(&namespace, "before", version(&before), InstancePart::Wish, &patch, "test").await.unwrap();
    until(&mirror, "the change", |mirror| mirror.instance_by_uid(uid).unwrap().spec.hold == Some(true)).await;

    // What a write gave is there at once, and nothing older comes after it.
    let made = client.create_instance(&instance(&namespace, "after"), "test").await.unwrap().unwrap();
    let made: WorkspaceInstance = serde_json::from_value(made).unwrap();
    mirror.learn(made.clone());
    assert_eq!(mirror.instance(&namespace, "after").unwrap().metadata.uid, made.metadata.uid);

    let key = ObjectKey { kind: Kind::WorkspaceInstance, namespace: Some(namespace.clone()), name: "after".into() };
    client.delete(&key, made.metadata.uid.as_deref().unwrap()).await.unwrap();
    until(&mirror, "the end", |mirror| mirror.instance(&namespace, "after").is_none()).await;
    mirror.learn(made.clone());
    assert!(mirror.instance(&namespace, "after").is_none(), "a late answer brings nothing back");

    let gone = Changed::Instance(made.metadata.uid.unwrap());
    let told = tokio::time::timeout(PATIENCE, async {
        while changes.recv().await.unwrap() != Changed::Template("mirrored".into()) {}
        while changes.recv().await.unwrap() != gone {}
    });
    told.await.expect("each change is told");
    mirror.nudge(uid);
    let nudged = tokio::time::timeout(PATIENCE, async {
        while changes.recv().await.unwrap() != Changed::Instance(uid.into()) {}
    });
    nudged.await.expect("a nudge is told");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_comes_late_is_waited_for_and_what_cannot_be_read_blinds_nobody() {
    let own = TestCluster::start("mirror");
    let client = client(&own).await;
    own.kubectl(&["delete", "crd", "workspacetemplates.workshop.platform", "--wait"]);
    let stop = CancellationToken::new();
    let mirror = client.mirror(stop.clone());
    client.create_instance(&instance("default", "fine"), "test").await.unwrap().unwrap();
    until(&mirror, "the instance", |mirror| mirror.instance("default", "fine").is_some()).await;
    assert!(!mirror.is_listed());
    own.kubectl(&["apply", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/crds")]);
    tokio::time::timeout(PATIENCE, mirror.listed()).await.expect("the late kind is listed");

    // A definition of another version of the program lets through what this one cannot read.
    let loose = json!([{ "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }]);
    let crd = "workspaceinstances.workshop.platform";
    let fields = json!([{ "op": "remove", "path": "/spec/versions/0/selectableFields" }]);
    own.kubectl(&["patch", "crd", crd, "--type=json", "-p", &fields.to_string()]);
    own.kubectl(&["patch", "crd", crd, "--type=json", "-p", &loose.to_string()]);
    let mut odd = instance("default", "odd");
    odd["spec"]["owner"] = json!({ "name": "ada" });
    let odd = crate::support::wait::wait_for("the loose definition", PATIENCE, || {
        let said = own.try_kubectl(&["create", "-o", "json", "-f", "-"], Some(&odd.to_string()));
        said.ok.then_some(said.out)
    });
    assert!(odd.contains("uid"));
    own.kubectl(&["patch", "wsi", "fine", "--type=merge", "-p", r#"{"spec":{"owner":["none"]}}"#]);
    client.create_instance(&instance("default", "last"), "test").await.unwrap().unwrap();
    until(&mirror, "the one after it", |mirror| mirror.instance("default", "last").is_some()).await;
    assert!(mirror.instance("default", "odd").is_none());
    assert_eq!(mirror.instance("default", "fine").unwrap().spec.owner, "ada", "what was last read of it stays");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_changed_only_as_it_was_read() {
    let client = client(cluster()).await;
    let namespace = cluster().create_namespace("writes");
    let manifest = instance(&namespace, "a");
    let first = client.create_instance(&manifest, labels::WORKSPACE_MANAGER).await.unwrap().unwrap();
    assert!(client.create_instance(&manifest, "other").await.unwrap().is_none(), "a name is taken once");
    let error = client.create_instance(&instance("no-such-namespace", "a"), "test").await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");

    let change = async |version: &str, part, patch: Value| {
        client.patch_instance(&namespace, "a", version, part, &patch, labels::WORKSPACE_MANAGER).await
    };
    let second = change(version(&first), InstancePart::Status, json!({"status": {"epoch": 1}})).await.unwrap();
    assert_eq!(second["status"]["epoch"], 1);
    let old = change(version(&first), InstancePart::Status, json!({"status": {"epoch": 7}})).await.unwrap_err();
    assert!(matches!(old, Error::Stale { .. }), "{old}");
    let old = change(version(&first), InstancePart::Wish, json!({"spec": {"hold": true}})).await.unwrap_err();
    assert!(matches!(old, Error::Stale { .. }), "{old}");
    let third = change(version(&second), InstancePart::Wish, json!({"spec": {"currentStep": "two"}})).await.unwrap();
    let wrong = change(version(&third), InstancePart::Wish, json!({"spec": {"currentStep": "No"}})).await.unwrap_err();
    assert!(matches!(wrong, Error::Invalid { .. }), "{wrong}");

    let read = client.read_instance(&namespace, "a").await.unwrap().unwrap();
    assert_eq!((read.spec.current_step.as_deref(), read.status.unwrap().epoch), (Some("two"), Some(1)));
    assert!(client.read_instance(&namespace, "none").await.unwrap().is_none());
    let gone =
        client.patch_instance(&namespace, "none", "1", InstancePart::Status, &json!({"status": {}}), "test").await;
    assert!(matches!(gone, Err(Error::Missing { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_map_is_changed_only_as_it_was_read() {
    let client = client(cluster()).await;
    let namespace = cluster().create_namespace("maps");
    let forbidden = client.read_config_map(&namespace, "custom-state").await;
    assert!(matches!(forbidden, Err(Error::Forbidden { .. })), "the rights are per namespace: {forbidden:?}");
    let user = format!("--user={CONTROLLER}");
    cluster().kubectl(&[
        "create",
        "rolebinding",
        "w",
        "-n",
        &namespace,
        "--clusterrole=workshop-instance-manager",
        &user,
    ]);
    let mut first = None;
    // A binding counts an instant after it was made.
    let start = std::time::Instant::now();
    while first.is_none() {
        first = client.read_config_map(&namespace, "custom-state").await.ok();
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(first, Some(None));
    let entries = |entries: &[(&str, &str)]| ConfigMap {
        data: entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..ConfigMap::default()
    };
    let write = async |before: Option<&ConfigMap>, after: &ConfigMap| {
        client.write_config_map(&namespace, "custom-state", before, after, "test").await
    };
    write(None, &entries(&[("a", "1"), ("b", "ü\u{1}")])).await.unwrap();
    let again = write(None, &entries(&[])).await.unwrap_err();
    assert!(matches!(again, Error::Stale { .. }), "{again}");
    let read = async || client.read_config_map(&namespace, "custom-state").await.unwrap().unwrap();
    let before = read().await;
    assert_eq!(before.data, entries(&[("a", "1"), ("b", "ü\u{1}")]).data);
    write(Some(&before), &entries(&[("b", "2"), ("c", "")])).await.unwrap();
    assert_eq!(read().await.data, entries(&[("b", "2"), ("c", "")]).data);
    let old = write(Some(&before), &entries(&[])).await.unwrap_err();
    assert!(matches!(old, Error::Stale { .. }), "{old}");
}
