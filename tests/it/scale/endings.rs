//! How workspaces end: what hangs holds up nobody else, and at the end nothing is left and nobody else's is touched.

use serde_json::{Value, json};

use super::PATIENCE;
use crate::support::crowd::{Crowd, STEPS, names, phase_and_step};
use workshop::crd::instance::Phase;

/// Puts something into the namespace of an instance that keeps it from ending; gives the namespace.
fn hold_up(crowd: &Crowd, name: &String) -> String {
    let instance = crowd.of(std::slice::from_ref(name)).pop().unwrap();
    let namespace = instance.status.as_ref().and_then(|status| status.namespace.clone()).unwrap();
    crowd.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "held-up", "namespace": namespace, "finalizers": ["example.org/held-up"] },
    }));
    namespace
}

/// Keeps the Deployment there too, as it is on a cluster that is slow to take it away.
fn hold_up_deployment(crowd: &Crowd, namespace: &str) {
    let patch = r#"{"metadata":{"finalizers":["example.org/held-up"]}}"#;
    crowd.cluster.kubectl(&["patch", "deployment", "workspace", "-n", namespace, "--type=merge", "-p", patch]);
}

fn let_go(crowd: &Crowd, namespace: &str) {
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    crowd
        .cluster
        .try_kubectl(&["patch", "deployment", "workspace", "-n", namespace, "--type=merge", "-p", patch], None);
    crowd.cluster.kubectl(&["patch", "configmap", "held-up", "-n", namespace, "--type=merge", "-p", patch]);
}

fn namespace_object(crowd: &Crowd, name: &str) -> Option<Value> {
    crowd.cluster.get(&["namespace", name])
}

pub fn a_namespace_that_does_not_end_holds_up_only_its_own(crowd: &Crowd) {
    let stuck = names("stuck", 3);
    let free = names("free", 10);
    let all: Vec<String> = [stuck.clone(), free.clone()].concat();
    crowd.create(&all, &json!({}));
    crowd.wait_running(&all, STEPS[0], PATIENCE);
    let namespaces: Vec<String> = stuck.iter().map(|name| hold_up(crowd, name)).collect();
    crowd.delete(&all);
    crowd.wait_gone(&free, PATIENCE);
    for (instance, namespace) in crowd.of(&stuck).iter().zip(&namespaces) {
        assert_eq!(phase_and_step(instance).0, Some(Phase::Terminating), "{:?}", instance.status);
        assert!(instance.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty()));
        assert_eq!(namespace_object(crowd, namespace).unwrap()["status"]["phase"], "Terminating");
    }
    assert_eq!(crowd.of(&stuck).len(), stuck.len(), "what is not gone is not forgotten");
    for namespace in &namespaces {
        let_go(crowd, namespace);
    }
    crowd.wait_gone(&stuck, PATIENCE);
    for namespace in &namespaces {
        assert!(namespace_object(crowd, namespace).is_none(), "the instance goes after its namespace");
    }
}

/// Somebody takes the finalizer away by force, so that the namespace of the old one is still ending when a new one of
/// the same name wants it.
pub fn an_instance_made_anew_waits_for_the_old_namespace(crowd: &Crowd) {
    let anew = names("anew", 1);
    crowd.create(&anew, &json!({}));
    crowd.wait_running(&anew, STEPS[0], PATIENCE);
    let namespace = hold_up(crowd, &anew[0]);
    hold_up_deployment(crowd, &namespace);
    crowd.delete(&anew);
    crowd.until("the namespace to be ending", PATIENCE, || {
        namespace_object(crowd, &namespace).is_some_and(|object| object["status"]["phase"] == "Terminating")
    });
    crowd.patch(&anew, &json!({ "metadata": { "finalizers": null } }));
    crowd.wait_gone(&anew, PATIENCE);
    crowd.create(&anew, &json!({}));
    crowd.until("the new one to say what it waits for", PATIENCE, || {
        crowd.of(&anew).iter().any(|instance| {
            let status = instance.status.as_ref();
            let text = serde_json::to_string(&status.map(|status| (&status.message, &status.conditions))).unwrap();
            status.is_some_and(|status| status.phase != Some(Phase::Running)) && text.contains(&namespace)
        })
    });
    let_go(crowd, &namespace);
    crowd.wait_running(&anew, STEPS[0], PATIENCE);
    let uid = crowd.of(&anew)[0].metadata.uid.clone().unwrap();
    let owner =
        namespace_object(crowd, &namespace).unwrap()["metadata"]["labels"]["workshop.platform/instance-uid"].clone();
    assert_eq!(owner, uid.as_str());
    crowd.delete(&anew);
    crowd.wait_gone(&anew, PATIENCE);
}

pub fn everything_of_all_is_gone_and_nothing_else(crowd: &Crowd, seats: &[String]) {
    // Looks like a workspace's, and is not: it has another's uid.
    crowd.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": "ws-stranger-0123456789",
            "labels": { "app.kubernetes.io/part-of": "workshop", "workshop.platform/instance-uid": "somebody-else" },
        },
    }));
    crowd.delete(seats);
    crowd.until("all instances to be gone", PATIENCE, || crowd.mirror.instances().is_empty());
    let left = crowd.namespaces();
    assert_eq!(left, ["ws-stranger-0123456789"], "what is ours is gone, what is not stays");
    let left = crowd.cluster.get(&["rolebindings", "-A"]).unwrap();
    let of_workspaces =
        |item: &&Value| item["metadata"]["namespace"].as_str().is_some_and(|namespace| namespace.starts_with("ws-"));
    let left: Vec<_> = left["items"].as_array().unwrap().iter().filter(of_workspaces).collect();
    assert!(left.is_empty(), "{left:?}");
}
