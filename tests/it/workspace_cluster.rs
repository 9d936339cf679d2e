//! `workshop workspace --cluster` as a script uses it: the same results and exit codes as on one machine, with the
//! rights of the user and nothing more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use workshop::adapters::cluster::Cluster;
use workshop::crd::{API_VERSION, labels};

use crate::support::cluster::cluster;
use crate::support::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

/// A class: a namespace of the cluster, a workshop, and kubeconfigs of its people.
struct Class {
    namespace: String,
    template: String,
    state: TempDir,
}

impl Class {
    fn new(prefix: &str) -> Self {
        let namespace = cluster().create_namespace(prefix);
        let template = format!("git-{namespace}");
        cluster().apply(&json!({
            "apiVersion": API_VERSION, "kind": "WorkspaceTemplate",
            "metadata": { "name": template, "labels": { (labels::OWNER): "o", (labels::WORKSHOP): template } },
            "spec": {
                "defaults": {},
                "steps": [
                    { "id": "one", "title": "One", "imageTag": "registry.example/a/b:one" },
                    { "id": "two", "title": "Two", "imageTag": "registry.example/a/b:two" },
                ],
                "artifact": { "digest": format!("sha256:{}", "0".repeat(64)), "size": 1 },
            },
        }));
        Self { namespace, template, state: tempfile::tempdir().unwrap() }
    }

    /// The kubeconfig of a user with these rights in the namespace and these on templates.
    fn user(&self, name: &str, instances: &[&str], status: &[&str], templates: &[&str]) -> PathBuf {
        let user = format!("{name}-{}", self.namespace);
        let rule = |resource: &str, verbs: &[&str]| json!({ "apiGroups": ["workshop.platform"], "resources": [resource], "verbs": verbs });
        let mut rules = Vec::new();
        for (resource, verbs) in [("workspaceinstances", instances), ("workspaceinstances/status", status)] {
            if !verbs.is_empty() {
                rules.push(rule(resource, verbs));
            }
        }
        let rbac = "rbac.authorization.k8s.io";
        let mut objects = vec![("Role", "RoleBinding", Some(&self.namespace), rules)];
        if !templates.is_empty() {
            objects.push(("ClusterRole", "ClusterRoleBinding", None, vec![rule("workspacetemplates", templates)]));
        }
        for (kind, binding, namespace, rules) in objects {
            let metadata = json!({ "name": user, "namespace": namespace });
            let version = format!("{rbac}/v1");
            cluster().apply(&json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules }));
            cluster().apply(&json!({
                "apiVersion": version, "kind": binding, "metadata": metadata,
                "roleRef": { "apiGroup": rbac, "kind": kind, "name": user },
                "subjects": [{ "apiGroup": rbac, "kind": "User", "name": user }],
            }));
        }
        self.kubeconfig_of(&user)
    }

    /// The kubeconfig of a user; the administrator stands in for them.
    fn kubeconfig_of(&self, user: &str) -> PathBuf {
        let text = cluster().kubectl(&["config", "view", "--raw", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&text).unwrap();
        for entry in config["users"].as_array_mut().unwrap() {
            entry["user"]["as"] = user.into();
        }
        let path = self.state.path().join(format!("{user}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Somebody who runs classes here: the rights that docs/operator.md names.
    fn teacher(&self) -> PathBuf {
        self.user("teacher", &["get", "list", "create", "patch", "delete"], &["patch"], &["get", "list"])
    }

    /// What the program printed: exit code, standard output, standard error.
    fn run(&self, kubeconfig: &Path, arguments: &[&str]) -> (i32, String, String) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_workshop"))
            .args(["--color", "never", "--state"])
            .arg(self.state.path())
            .args(["-n", &self.namespace, "--kubeconfig"])
            .arg(kubeconfig)
            .args(["workspace", "--cluster"])
            .args(arguments)
            .env("USER", "ada")
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn json_of(&self, kubeconfig: &Path, arguments: &[&str]) -> Value {
        let (code, out, error) = self.run(kubeconfig, &[arguments, &["--output", "json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {error}");
        serde_json::from_str(&out).unwrap_or_else(|failure| panic!("{failure}: {out}"))
    }

    fn instance(&self, name: &str) -> Value {
        cluster().get(&["workspaceinstance", name, "-n", &self.namespace]).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let all = cluster().get(&["workspaceinstances", "-n", &self.namespace]).unwrap();
        let living =
            all["items"].as_array().unwrap().iter().filter(|item| item["metadata"]["deletionTimestamp"].is_null());
        living.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    fn set_status(&self, name: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let place = ["-n", &self.namespace, "--subresource=status", "--type=merge", "-p", &patch];
        cluster().kubectl(&[&["patch", "workspaceinstance", name][..], &place].concat());
    }
}

/// The status of an instance whose time runs.
fn running() -> Value {
    json!({ "phase": "Running", "startedAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-01-01T04:00:00Z" })
}

#[test]
fn verbs_do_in_a_cluster_what_they_do_here() {
    let class = Class::new("verbs");
    let teacher = class.teacher();
    let template = class.template.as_str();
    let name = format!("{template}-ada");
    let (code, out, error) = class.run(&teacher, &["create", "--template", template]);
    assert_eq!((code, out.trim()), (0, name.as_str()), "{error}");
    let listed = class.json_of(&teacher, &["list"]);
    let view = &listed["instances"][0];
    assert_eq!((&view["name"], &view["owner"], &view["step"]), (&json!(name), &json!("ada"), &json!("one")));
    assert_eq!(view["reference"], format!("{}.{name}", class.namespace));
    assert_eq!((&view["url"], listed["instances"].as_array().unwrap().len()), (&Value::Null, 1));
    let admin = cluster().admin();
    let (_, table, _) = class.run(&admin, &["list", "-A"]);
    assert!(table.starts_with("NAMESPACE ") && table.contains(&format!("{}  ", class.namespace)), "{table}");

    let moved = class.json_of(&teacher, &["goto", &name, "two"]);
    assert_eq!((&moved["instance"]["step"], &moved["pending"]), (&json!("two"), &json!(false)));
    class.json_of(&teacher, &["suspend", &name]);
    assert_eq!(class.instance(&name)["spec"]["suspended"], true);
    class.json_of(&teacher, &["resume", &name]);
    class.json_of(&teacher, &["reset", &name]);
    class.json_of(&teacher, &["update", &name]);
    let now = class.instance(&name);
    assert_eq!((&now["spec"]["currentStep"], &now["spec"]["suspended"]), (&json!("two"), &json!(false)));
    assert!(
        now["spec"]["resetRequest"].is_string() && now["metadata"]["annotations"][labels::UPDATE].is_string(),
        "{now}"
    );

    for (arguments, expected) in [
        (&["goto", &name, "nowhere"][..], 1),
        (&["reset", "nobody"], 1),
        (&["delete", "../nobody"], 1),
        (&["open", "nobody"], 1),
        (&["logs", "nobody"], 1),
        (&["create", "--template", "unknown"], 1),
        (&["create", "--template", template, "No Name"], 2),
        (&["create", "--template", template], 4),
        (&["create", "--template", template, "x", "--step", "nowhere"], 1),
        (&["extend", &name], 4),
        (&["open", &name], 3),
        (&["delete"], 2),
    ] {
        let (code, _, error) = class.run(&teacher, arguments);
        assert_eq!(code, expected, "{arguments:?}: {error}");
        assert!(error.starts_with("error: "), "{arguments:?}: {error}");
    }

    class.set_status(&name, &running());
    let end = class.json_of(&teacher, &["extend", &name, "--by", "2h"])["expiresAt"].clone();
    assert_eq!(class.instance(&name)["spec"]["expiresAt"], end);
    assert_eq!(class.json_of(&teacher, &["delete", &name])["deleted"], json!([name]));
    assert_eq!(class.names(), Vec::<String>::new());
}

#[test]
fn a_class_is_made_in_one_go_and_all_of_it_or_nothing() {
    let class = Class::new("class");
    let teacher = class.teacher();
    let template = class.template.as_str();
    let seats = ["create", "--template", template, "--count", "30", "--prefix"];
    let (code, out, error) = class.run(&teacher, &[&seats[..], &["student-"]].concat());
    assert_eq!(code, 0, "{error}");
    let made: Vec<String> = (1..=30).map(|number| format!("student-{number:02}")).collect();
    assert_eq!(
        (out.lines().collect::<Vec<_>>(), class.names()),
        (made.iter().map(String::as_str).collect(), made.clone())
    );
    let (code, _, error) = class.run(&teacher, &[&seats[..], &["student-"]].concat());
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("\"student-01\"") && error.contains("25 more"), "{error}");

    // One of the next class is refused when some of it are made already.
    let policy = format!("no-seat-17-{}", class.namespace);
    cluster().apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": policy },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["workshop.platform"], "apiVersions": ["*"], "operations": ["CREATE"],
                "resources": ["workspaceinstances"],
            }] },
            "validations": [{ "expression": "!object.metadata.name.endsWith('17')", "message": "seat 17 is broken" }],
        },
    }));
    cluster().apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": policy },
        "spec": {
            "policyName": policy, "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": class.namespace } } },
        },
    }));
    let trial = json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceInstance",
        "metadata": { "name": "trial-17", "namespace": class.namespace },
        "spec": { "templateRef": { "name": template }, "owner": "x" },
    });
    wait_for("the policy to be in force", PATIENCE, || {
        let said = cluster().try_kubectl(&["create", "--dry-run=server", "-f", "-"], Some(&trial.to_string()));
        (!said.ok && said.err.contains("seat 17 is broken")).then_some(())
    });
    let (code, out, error) = class.run(&teacher, &[&seats[..], &["pupil-"]].concat());
    assert_eq!((code, out.as_str()), (2, ""), "{error}");
    assert!(error.contains("seat 17 is broken"), "{error}");
    assert_eq!(class.names(), made, "what was made of it is taken back");
}

#[test]
fn who_lacks_a_right_is_told_which() {
    let class = Class::new("forbidden");
    let template = class.template.as_str();
    let (code, _, error) = class.run(&class.teacher(), &["create", "--template", template, "there"]);
    assert_eq!(code, 0, "{error}");
    let stranger = class.kubeconfig_of("stranger");
    let reader = class.user("reader", &["get", "list"], &[], &["get", "list"]);
    let writer = class.user("writer", &["get", "list", "patch"], &[], &["get", "list"]);
    class.set_status("there", &running());
    for (who, arguments, right) in [
        (&stranger, &["list"][..], "cannot list resource \"workspaceinstances\""),
        (&stranger, &["list", "-A"], "cannot list resource \"workspaceinstances\""),
        (&stranger, &["delete", "there"], "cannot get resource \"workspaceinstances\""),
        (&stranger, &["create", "--template", template], "cannot get resource \"workspacetemplates\""),
        (&reader, &["list", "-A"], "at the cluster scope"),
        (&reader, &["create", "--template", template], "cannot create resource \"workspaceinstances\""),
        (&reader, &["goto", "there", "two"], "cannot patch resource \"workspaceinstances\""),
        (&reader, &["delete", "there"], "cannot delete resource \"workspaceinstances\""),
        (&reader, &["logs", "there"], "cannot list resource \"pods\""),
        (&reader, &["open"], "cannot get resource \"secrets\""),
        (&writer, &["resume", "there"], "cannot patch resource \"workspaceinstances/status\""),
    ] {
        let (code, out, error) = class.run(who, arguments);
        assert_eq!((code, out.as_str()), (3, ""), "{arguments:?}: {error}");
        assert!(error.contains("not allowed") && error.contains(right), "{arguments:?}: {error}");
    }
    assert_eq!(class.names(), ["there"]);
    // To move one elsewhere is to write its spec, and nothing else.
    for arguments in [["goto", "there", "two"].as_slice(), &["reset", "there"]] {
        let (code, _, error) = class.run(&writer, arguments);
        assert_eq!(code, 0, "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn an_address_has_a_token_where_the_key_may_be_read() {
    let class = Class::new("open");
    let admin = cluster().admin();
    let (code, _, error) = class.run(&admin, &["create", "seat", "--template", &class.template]);
    assert_eq!(code, 0, "{error}");
    let url = format!("https://class.example/w/{}.seat/", class.namespace);
    class.set_status("seat", &json!({ "accessEndpoints": [{ "name": "web", "url": url }] }));
    assert_eq!(class.json_of(&admin, &["list"])["instances"][0]["url"], url);

    // Nobody made keys in this namespace yet.
    let here = ["--system-namespace", &class.namespace];
    let (code, out, error) = class.run(&admin, &[&["open", "seat"][..], &here].concat());
    assert_eq!((code, out.trim()), (0, url.as_str()), "{error}");
    assert!(error.contains("without a token"), "{error}");
    let (code, _, error) = class.run(&admin, &[&["open"][..], &here].concat());
    assert_eq!(code, 3, "{error}");

    let client = Cluster::connect(Some(&admin), None, None).await.unwrap();
    let keys = client.read_or_make_keys(&class.namespace).await.unwrap();
    let (code, out, error) = class.run(&admin, &[&["open", "seat"][..], &here].concat());
    assert_eq!(code, 0, "{error}");
    let token = out.trim().strip_prefix(&format!("{url}#token=")).expect("a token in the fragment");
    let uid = class.instance("seat")["metadata"]["uid"].as_str().unwrap().to_owned();
    let verified = keys.signing.verify_key().verify(token, &uid, 0, jiff::Timestamp::now().as_second());
    assert_eq!(verified.unwrap().sub, "ada");
    assert!(!error.contains(token));
    let elsewhere = ["--gateway-url", "http://localhost:8082"];
    let (_, out, _) = class.run(&admin, &[&["open", "seat"][..], &here, &elsewhere].concat());
    assert!(out.starts_with(&format!("http://localhost:8082/w/{}.seat/#token=", class.namespace)), "{out}");
    let (code, out, error) = class.run(&admin, &[&["open"][..], &here, &elsewhere].concat());
    assert_eq!((code, out.trim()), (0, format!("http://localhost:8082/#key={}", keys.owner).as_str()), "{error}");

    let reader = class.user("reader", &["get", "list"], &[], &["get", "list"]);
    let (code, out, error) = class.run(&reader, &[&["open", "seat"][..], &here].concat());
    assert_eq!((code, out.trim()), (0, url.as_str()), "{error}");
    assert!(error.contains("without a token") && error.contains("cannot get resource \"secrets\""), "{error}");
}
