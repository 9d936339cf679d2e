//! A cluster of the learner's own while it comes up, sleeps and wakes; its pods are simulated, so the test plays the part
//! of what would run in them.

use base64::Engine as _;
use serde_json::{Value, json};

use super::PATIENCE;
use crate::support::chart::{path_with_helm, write_chart};
use crate::support::crowd::{Crowd, NAMESPACE, STEPS, WORKSHOP, names, runs};

/// The parts of vcluster's chart that matter here; the Secret with the kubeconfig is what runs in it to make.
const SET: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: 1
  serviceName: cluster
  selector: {matchLabels: {app: vcluster, release: cluster}}
  template:
    metadata:
      labels: {app: vcluster, release: cluster}
      annotations: {claim: {{ toJson .Values.controlPlane.statefulSet.persistence.volumeClaim | quote }}}
    spec: {containers: [{name: syncer, image: registry.example/vcluster:1}]}
";

#[test]
fn a_learners_own_cluster_is_waited_for_and_sleeps_and_wakes_with_the_workspace() {
    let chart = tempfile::tempdir().unwrap();
    write_chart(chart.path(), &[("set.yaml", SET)]);
    let crowd = Crowd::start_with("own-cluster", 2, |command| {
        command.arg("--vcluster-chart").arg(chart.path()).env("PATH", path_with_helm());
    });
    let cluster = &crowd.cluster;
    let allow = "workshop.platform/allow-overrides=cluster,resources";
    cluster.kubectl(&["annotate", "workspacetemplate", WORKSHOP, allow]);
    for volume in ["volume-1", "volume-2"] {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": volume },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/nowhere" },
            },
        }));
    }
    let [kept, lost] = [names("kept", 1), names("lost", 1)];
    let overrides = |persist: Value| {
        let lifecycle = if persist.is_null() { json!({}) } else { json!({ "persist": persist }) };
        json!({ "overrides": { "cluster": { "mode": "per-workspace" }, "lifecycle": lifecycle } })
    };
    crowd.create(&kept, &overrides(json!("1Gi")));
    crowd.create(&lost, &overrides(Value::Null));

    // It says what is missing, is told so, and then runs.
    let said = |names: &[String], what: &str| {
        crowd.until(&format!("{names:?} to say {what}"), PATIENCE, || {
            let instance = crowd.of(names).pop();
            let message = instance.and_then(|found| found.status.as_ref().and_then(|status| status.message.clone()));
            message.is_some_and(|message| message.contains(what))
        });
    };
    let lab = |names: &[String]| {
        let status = crowd.of(names)[0].status.clone().unwrap();
        format!("{}-lab", status.namespace.unwrap())
    };
    let export = |names: &[String], server: &str| {
        let config = json!({ "clusters": [{ "name": "c", "cluster": { "server": server } }] }).to_string();
        let data = json!({ "config": base64::engine::general_purpose::STANDARD.encode(config) });
        let metadata = json!({ "name": "vc-cluster", "namespace": lab(names) });
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data }));
    };
    for seat in [&kept, &lost] {
        said(seat, "with its kubeconfig is not there yet");
    }
    export(&kept, "https://localhost:8443");
    said(&kept, "exportKubeConfig.server");
    for seat in [&kept, &lost] {
        export(seat, "https://cluster.example:443");
        // What a person mended is looked at when they say so.
        crowd.patch(seat, &json!({ "metadata": { "annotations": { "example.org/note": "mended" } } }));
        crowd.wait_running(seat, STEPS[0], PATIENCE);
    }
    let set = |names: &[String]| cluster.get(&["statefulset", "cluster", "-n", &lab(names)]).unwrap();
    let claim = |names: &[String]| set(names)["spec"]["template"]["metadata"]["annotations"]["claim"].clone();
    assert_eq!(claim(&kept), r#"{"enabled":true,"size":"1Gi"}"#);
    assert_eq!(claim(&lost), r#"{"enabled":false}"#);
    let home = crowd.of(&kept)[0].status.clone().unwrap().namespace.unwrap();
    let copy = cluster.get(&["secret", "workspace-kubeconfig", "-n", &home]).expect("the copy for the workspace");
    assert!(copy["data"]["config"].is_string());

    // A pod that the learner started in it has nobody else who would end it.
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "learners", "namespace": lab(&kept) },
        "spec": { "containers": [{ "name": "c", "image": "registry.example/any:1" }] },
    }));
    for seat in [&kept, &lost] {
        crowd.patch(seat, &json!({ "spec": { "suspended": true } }));
    }
    let pods = |names: &[String]| {
        let list = cluster.get(&["pods", "-n", &lab(names)]).unwrap_or_default();
        list["items"].as_array().map_or(0, Vec::len)
    };
    crowd.until("the cluster with a volume to sleep", PATIENCE, || {
        set(&kept)["spec"]["replicas"] == 0 && pods(&kept) == 0
    });
    crowd.until("the other workspace to sleep", PATIENCE, || {
        crowd.of(&lost)[0].status.as_ref().is_some_and(|status| status.run.is_none())
    });
    assert_eq!((&set(&lost)["spec"]["replicas"], pods(&lost)), (&json!(1), 1), "what has no volume would be lost");
    for seat in [&kept, &lost] {
        crowd.patch(seat, &json!({ "spec": { "suspended": false } }));
        crowd.wait_running(seat, STEPS[0], PATIENCE);
        assert_eq!(set(seat)["status"]["readyReplicas"], 1);
    }

    // Another kind of cluster is another lab: nothing of the one stays in the other.
    let identity = |names: &[String]| {
        let there = cluster.get(&["namespace", &lab(names)]).unwrap_or_default();
        let is_leaving = there["metadata"]["deletionTimestamp"].is_string();
        there["metadata"]["uid"].as_str().filter(|_| !is_leaving).map(str::to_owned)
    };
    let has = |kind: &str, name: &str| cluster.get(&[kind, name, "-n", &lab(&kept)]).is_some();
    let first = identity(&kept);
    let mode = |mode: &str| json!({ "spec": { "overrides": { "cluster": { "mode": mode } } } });
    crowd.patch(&kept, &mode("shared"));
    crowd.until("a lab for the learner", PATIENCE, || has("rolebinding", "workshop-learner"));
    crowd.wait_running(&kept, STEPS[0], PATIENCE);
    let second = identity(&kept);
    assert!(second.is_some() && second != first, "{first:?} {second:?}");
    assert!(!has("statefulset", "cluster") && !has("secret", "vc-cluster"));
    crowd.patch(&kept, &mode("per-workspace"));
    said(&kept, "with its kubeconfig is not there yet");
    assert!(identity(&kept).is_some_and(|third| Some(third) != second));
    assert!(has("statefulset", "cluster") && !has("rolebinding", "workshop-learner"));
    export(&kept, "https://cluster.example:443");
    crowd.patch(&kept, &json!({ "metadata": { "annotations": { "example.org/note": "exported" } } }));
    crowd.wait_running(&kept, STEPS[0], PATIENCE);

    let labs = [lab(&kept), lab(&lost)];
    crowd.delete(&kept);
    crowd.delete(&lost);
    crowd.until("everything of them to be gone", PATIENCE, || {
        crowd.mirror.instances().is_empty() && labs.iter().all(|lab| cluster.get(&["namespace", lab]).is_none())
    });
}

#[test]
fn without_a_chart_it_is_refused_and_says_what_the_administrator_can_do() {
    let crowd = Crowd::start("no-chart", 1);
    let allow = "workshop.platform/allow-overrides=cluster";
    crowd.cluster.kubectl(&["annotate", "workspacetemplate", WORKSHOP, allow]);
    let seat = names("seat", 1);
    crowd.create(&seat, &json!({ "overrides": { "cluster": { "mode": "per-workspace" } } }));
    crowd.until("it to be refused", PATIENCE, || {
        let Some(instance) = crowd.mirror.instance(NAMESPACE, &seat[0]) else { return false };
        let conditions = instance.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        !runs(&instance, STEPS[0])
            && ready.is_some_and(|ready| ready.reason == "Unsupported" && ready.message.contains("--vcluster-chart"))
    });
    // A change of mind is enough.
    crowd.patch(&seat, &json!({ "spec": { "overrides": null } }));
    crowd.wait_running(&seat, STEPS[0], PATIENCE);
}
