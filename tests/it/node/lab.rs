//! A learner's own part of the cluster.

use serde_json::json;

use super::{Course, Seat};
use crate::support::node::{PATIENCE, node};
use crate::support::wait::wait_for;

#[test]
fn a_learner_works_in_a_namespace_of_their_own_and_in_no_other() {
    let node = node();
    node.open_api_server();
    let course = Course::write("lab", "cluster: {mode: shared}\nlifecycle: {idleSuspend: false}\n");
    course.publish();
    let (seat, mut learner) = Seat::running("lab", "ada", json!({}));
    let (home, reference) = (seat.home(), seat.reference());
    let lab = format!("{home}-lab");
    seat.bring_kubectl();
    let ask = |learner: &mut crate::support::learner::Learner, line: &str, expected: &str| {
        learner.type_line(&reference, line, expected)
    };
    ask(
        &mut learner,
        "kubectl create configmap mine --from-literal=a=b; kubectl get cm mine -o name",
        "configmap/mine\r\n",
    );
    assert!(node.cluster.get(&["configmap", "-n", &lab, "mine"]).is_some(), "it is in the lab");
    for (line, expected) in [
        (format!("kubectl get secrets -n {home}"), "cannot list resource"),
        ("kubectl get namespaces".to_owned(), "cannot list resource"),
        ("kubectl create rolebinding x --clusterrole=cluster-admin --user=me".to_owned(), "cannot create resource"),
        ("kubectl delete resourcequota --all".to_owned(), "cannot delete resource"),
        ("kubectl run p --image=i --overrides='{\"spec\":{\"hostNetwork\":true}}'".to_owned(), "violates PodSecurity"),
        ("kubectl create service nodeport x --tcp=80; echo sa\"\"id".to_owned(), "exceeded quota"),
    ] {
        ask(&mut learner, &line, expected);
    }
    let output = ask(&mut learner, "ls -l /workshop/kube; cat /workshop/cluster/token; echo loo\"\"ked", "looked");
    assert!(output.contains("Permission denied"), "what is mounted is the backend's: {output}");

    node.cluster.kubectl(&["delete", "workspaceinstance", "-n", &seat.namespace, &seat.name, "--wait=false"]);
    seat.wait_gone(&home);
    wait_for("the lab to be gone", PATIENCE, || node.cluster.get(&["namespace", &lab]).is_none().then_some(()));
}
