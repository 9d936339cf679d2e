//! What separates a workspace from the machine and from others.

use serde_json::json;

use super::{Course, Seat, condition};
use crate::support::node::node;

#[test]
fn a_workspace_runs_in_the_runtime_class_that_its_workshop_names() {
    node().cluster.apply(&json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": { "name": "plain" },
        "handler": "runc",
    }));
    let course = Course::write("confined", "isolation: {runtimeClass: plain}\n");
    course.publish();
    let (seat, mut learner) = Seat::running("confined", "ada", json!({}));
    let pods = node().cluster.get(&["pods", "-n", &seat.home()]).unwrap();
    assert_eq!(pods["items"][0]["spec"]["runtimeClassName"], "plain", "{pods:#}");
    learner.type_line(&seat.reference(), "echo insi\"\"de", "inside");
}

#[test]
fn a_runtime_class_that_the_cluster_lacks_is_said_on_the_instance() {
    let course = Course::write("unconfined", "isolation: {runtimeClass: not-there}\n");
    course.publish();
    let seat = Seat::create("unconfined", "ada", json!({}));
    let said = seat.wait_for("say that its runtime class is missing", |object| {
        let ready = condition(object, "Ready")?;
        let message = ready["message"].as_str()?.to_owned();
        (ready["status"] == "False" && message.contains("not-there")).then_some(message)
    });
    assert!(said.contains("RuntimeClass"), "{said}");
}

#[test]
fn a_learner_in_a_pod_gets_at_nothing_that_is_not_theirs() {
    let course = Course::write("curious", "");
    course.publish();
    let (seat, mut learner) = Seat::running("curious", "ada", json!({}));
    let tried = "for f in /workshop/state/workshop.db /workshop/secret/token /workshop/artifact/workshop.db.zst \
                 /workshop/.goss/goss.yaml /proc/1/environ; do cat $f >/dev/null 2>&1 && echo rea\"\"d $f; done; \
                 ls /var/run/secrets/kubernetes.io >/dev/null 2>&1 && echo rea\"\"d account; \
                 kill -9 1 2>/dev/null && echo kil\"\"led; \
                 for p in $(pidof workshop-backend); do kill -9 $p 2>/dev/null && echo kil\"\"led; \
                 cat /proc/$p/environ >/dev/null 2>&1 && echo rea\"\"d-env; done; \
                 env | grep KUBERNETES_ && echo rea\"\"d-env; grep -i -E 'CapBnd|NoNewPrivs' /proc/self/status; \
                 id -u; echo tri\"\"ed";
    let output = learner.type_line(&seat.reference(), tried, "tried\r\n");
    assert!(output.contains("1000\r\n") && output.contains("NoNewPrivs:\t1"), "{output}");
    for loot in ["read /", "read account", "killed", "read-env"] {
        assert!(!output.contains(loot), "{output}");
    }
    let home = seat.home();
    let namespace = node().cluster.get(&["namespace", &home]).unwrap();
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "baseline", "{namespace:#}");
    for kind in ["resourcequota", "limitrange", "networkpolicy", "serviceaccount", "secret", "service", "deployment"] {
        let list = node().cluster.get(&[kind, "-n", &home]).unwrap();
        assert!(!list["items"].as_array().unwrap().is_empty(), "there is no {kind} in {home}");
    }
    let policy = node().cluster.get(&["networkpolicy", "-n", &home]).unwrap();
    let kinds = &policy["items"][0]["spec"]["policyTypes"];
    assert_eq!(kinds, &json!(["Ingress", "Egress"]), "{policy:#}");
}
