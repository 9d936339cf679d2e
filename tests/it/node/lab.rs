//! A learner's own part of the cluster.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use super::{Course, Seat};
use crate::support::node::{Node, PATIENCE, node};
use crate::support::wait::wait_for;

/// Lets pods reach the API server, which listens on loopback, by its Service; gives the port of the way there.
fn open_api_server(node: &Node) -> u16 {
    let server = node.cluster.env("APISERVER").trim_start_matches("https://").to_owned();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(inner) = TcpStream::connect(&server) else { continue };
            let pairs = [(stream.try_clone(), inner.try_clone()), (Ok(inner), Ok(stream))];
            for (from, to) in pairs {
                let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 << 10];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    node.cluster.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [node.cluster.env("MACHINE_FROM_PODS")], "conditions": { "ready": true },
        }],
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    }));
    port
}

#[test]
fn a_learner_works_in_a_namespace_of_their_own_and_in_no_other() {
    let node = node();
    open_api_server(node);
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
