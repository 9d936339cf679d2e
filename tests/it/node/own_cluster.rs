//! A cluster of the learner's own: a real API server and etcd in a pod of their lab, made of a chart that keeps to what
//! vcluster's does (the chart itself cannot be had everywhere).

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::json;

use super::{Course, Seat};
use crate::support::chart::{built, write_chart};
use crate::support::files::run;
use crate::support::node::{Node, PATIENCE, node};
use crate::support::wait::wait_for;

/// Where the learner's API server is: names of Services are not resolved on this node.
const ADDRESS: &str = "10.245.200.7";

/// What the chart's account may do; vcluster's own, and so what `manifests/` has to let the operator grant.
const RULES: &str = r#"
- apiGroups: [""]
  resources: [configmaps, secrets, services, pods, pods/attach, pods/portforward, pods/exec, persistentvolumeclaims]
  verbs: [create, delete, patch, update, get, list, watch]
- apiGroups: [""]
  resources: [pods/status, pods/ephemeralcontainers]
  verbs: [patch, update]
- apiGroups: [apps]
  resources: [statefulsets, replicasets, deployments]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [endpoints, events, pods/log]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [endpoints]
  verbs: [create, delete, patch, update]
"#;

/// Pushes an image that holds nothing but the two programs; gives its name.
fn push_image(node: &Node) -> String {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    std::fs::create_dir_all(at("root/bin")).unwrap();
    for program in ["etcd", "kube-apiserver"] {
        std::fs::copy(built("control", program), at("root/bin").join(program)).unwrap();
    }
    let name = format!("{}/own-cluster:1", node.registry.host());
    let archive = at("image.tar");
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/image-archive");
    run(Command::new(pack).arg(at("root")).arg(&archive).arg("own-cluster:1"));
    node.registry.push_archive(&archive, &name);
    name
}

/// Writes the chart of a cluster that is one pod of this image.
fn write_own_chart(directory: &Path, image: &str) {
    let keys = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| run(Command::new("openssl").current_dir(keys.path()).args(arguments));
    let name = format!("subjectAltName=IP:{ADDRESS}");
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=own"];
    openssl(&[new.as_slice(), &["-addext", &name, "-keyout", "tls.key", "-out", "tls.crt"]].concat());
    openssl(&["rsa", "-in", "tls.key", "-pubout", "-out", "accounts.pub"]);
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let file = |name: &str| encode(&std::fs::read(keys.path().join(name)).unwrap());
    let token = "the-learners-token";
    let tokens = encode(format!("{token},learner,learner,system:masters\n").as_bytes());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "own",
        "clusters": [{ "name": "own", "cluster": {
            "server": format!("https://{ADDRESS}:443"), "certificate-authority-data": file("tls.crt"),
        } }],
        "users": [{ "name": "own", "user": { "token": token } }],
        "contexts": [{ "name": "own", "context": { "cluster": "own", "user": "own" } }],
    });
    let account = format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: vc-cluster}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: vc-cluster}}\nrules:{RULES}---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: vc-cluster}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: vc-cluster}}\n\
         subjects: [{{kind: ServiceAccount, name: vc-cluster, namespace: {{{{ .Release.Namespace }}}}}}]\n"
    );
    let secrets = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: vc-{{{{ .Release.Name }}}}\n  annotations:\n    \
         told: {{{{ .Values.exportKubeConfig.server | quote }}}}\n\
         data: {{config: {}}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\n\
         data: {{tls.crt: {}, tls.key: {}, accounts.pub: {}, tokens.csv: {tokens}}}\n",
        encode(kubeconfig.to_string().as_bytes()),
        file("tls.crt"),
        file("tls.key"),
        file("accounts.pub"),
    );
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: cluster}}\nspec:\n  clusterIP: {ADDRESS}\n  \
         selector: {{release: cluster}}\n  ports: [{{port: 443, targetPort: 8443}}]\n"
    );
    let set = format!(
        r#"apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {{{{ .Release.Name }}}}}}
spec:
  replicas: 1
  serviceName: cluster
  selector: {{matchLabels: {{app: vcluster, release: {{{{ .Release.Name }}}}}}}}
  template:
    metadata: {{labels: {{app: vcluster, release: {{{{ .Release.Name }}}}}}}}
    spec:
      serviceAccountName: vc-cluster
      terminationGracePeriodSeconds: 1
      containers:
      - name: etcd
        image: {image}
        command: [/bin/etcd, --data-dir=/data, --unsafe-no-fsync]
        resources: {{limits: {{cpu: 500m, memory: 512Mi}}, requests: {{cpu: 10m, memory: 32Mi}}}}
        volumeMounts: [{{name: data, mountPath: /data}}]
      - name: apiserver
        image: {image}
        env: [{{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}]
        command:
        - /bin/kube-apiserver
        - --etcd-servers=http://127.0.0.1:2379
        - --secure-port=8443
        - --advertise-address=$(POD_IP)
        - --endpoint-reconciler-type=none
        - --cert-dir=/data
        - --tls-cert-file=/keys/tls.crt
        - --tls-private-key-file=/keys/tls.key
        - --token-auth-file=/keys/tokens.csv
        - --service-account-issuer=https://kubernetes.default.svc
        - --service-account-key-file=/keys/accounts.pub
        - --service-account-signing-key-file=/keys/tls.key
        - --authorization-mode=RBAC
        - --service-cluster-ip-range=10.96.0.0/16
        readinessProbe: {{httpGet: {{scheme: HTTPS, path: /readyz, port: 8443}}, periodSeconds: 1}}
        resources: {{limits: {{cpu: "2", memory: 1Gi}}, requests: {{cpu: 10m, memory: 64Mi}}}}
        volumeMounts: [{{name: data, mountPath: /data}}, {{name: keys, mountPath: /keys, readOnly: true}}]
      volumes:
      - {{name: data, emptyDir: {{}}}}
      - {{name: keys, secret: {{secretName: keys}}}}
"#
    );
    write_chart(
        directory,
        &[("account.yaml", &account), ("secrets.yaml", &secrets), ("service.yaml", &service), ("set.yaml", &set)],
    );
}

#[test]
fn a_learner_rules_a_cluster_of_their_own_and_has_no_rights_in_the_one_around() {
    let node = node();
    write_own_chart(&node.chart(), &push_image(node));
    let course = Course::write("own-cluster", "cluster: {mode: per-workspace}\nlifecycle: {idleSuspend: false}\n");
    course.publish();
    let (seat, mut learner) = Seat::running("own-cluster", "ada", json!({}));
    let (home, reference) = (seat.home(), seat.reference());
    let lab = format!("{home}-lab");
    let exported = node.cluster.get(&["secret", "-n", &lab, "vc-cluster"]).expect("what the chart made");
    let told = format!("https://cluster.{lab}.svc:443");
    assert_eq!(exported["metadata"]["annotations"]["told"], told.as_str(), "the chart is told how it is reached");

    seat.bring_kubectl();
    let line = "kubectl create namespace mine; kubectl get namespace mine kube-system -o name";
    learner.type_line(&reference, line, "namespace/kube-system\r\n");
    learner.type_line(&reference, "kubectl auth can-i '*' '*' --all-namespaces", "yes\r\n");
    assert!(node.cluster.get(&["namespace", "mine"]).is_none(), "what they make is in their cluster");
    let output = learner.type_line(
        &reference,
        "ls /var/run/secrets/kubernetes.io 2>&1; cat /workshop/cluster/config; echo loo\"\"ked",
        "looked",
    );
    assert!(output.contains("No such file") && output.contains("Permission denied"), "{output}");

    // Another step is another machine, and the same cluster.
    let uid = || node.cluster.get(&["pod", "-n", &lab, "cluster-0"]).map(|pod| pod["metadata"]["uid"].clone());
    let before = uid();
    seat.patch(&json!({ "spec": { "currentStep": "two" } }));
    seat.wait("Running", "two");
    seat.bring_kubectl();
    learner.type_line(&reference, "kubectl get namespace mine -o name", "namespace/mine\r\n");
    assert_eq!(uid(), before);

    node.cluster.kubectl(&["delete", "workspaceinstance", "-n", &seat.namespace, &seat.name, "--wait=false"]);
    seat.wait_gone(&home);
    wait_for("the lab to be gone", PATIENCE, || node.cluster.get(&["namespace", &lab]).is_none().then_some(()));
}
