//! The definitions on a real API server: what they refuse, what `kubectl explain` says, and that our own checks in
//! Rust refuse the same things at the same fields.

use serde_json::{Value, json};
use workshop::crd::{API_VERSION, validate};

use crate::support::cluster::{SYSTEM, cluster};

fn repository(spec: Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "WorkshopRepository",
        "metadata": { "name": "row", "namespace": SYSTEM }, "spec": spec,
    })
}

fn digest() -> String {
    format!("sha256:{}", "0".repeat(64))
}

fn template(name: &str, change: impl Fn(&mut Value)) -> Value {
    let mut spec = json!({
        "defaults": {},
        "steps": [{ "id": "one", "title": "One", "imageTag": "registry.example/a/b:one", "imageDigest": digest() }],
        "artifact": { "digest": digest(), "size": 4096 },
    });
    change(&mut spec);
    json!({ "apiVersion": API_VERSION, "kind": "WorkspaceTemplate", "metadata": { "name": name }, "spec": spec })
}

fn instance(change: impl Fn(&mut Value)) -> Value {
    let mut spec = json!({ "templateRef": { "name": "row" }, "owner": "ada" });
    change(&mut spec);
    json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceInstance",
        "metadata": { "name": "row", "namespace": SYSTEM }, "spec": spec,
    })
}

/// `field` is where both must refuse it; none where both must take it.
fn check(manifest: &Value, field: Option<&str>) {
    let said = cluster().try_kubectl(&["apply", "--dry-run=server", "-f", "-"], Some(&manifest.to_string()));
    let violations = validate(manifest, None);
    match field {
        None => {
            assert!(said.ok, "the API server refuses {manifest}: {}", said.err);
            assert!(violations.is_empty(), "we refuse {manifest}: {violations:?}");
        }
        Some(field) => {
            assert!(!said.ok, "the API server takes {manifest}");
            assert!(said.err.contains(field), "the API server names no {field}: {}", said.err);
            // What is of the wrong type is one mistake of the whole spec on our side.
            let ours = |violation: &&workshop::crd::Violation| violation.field == field || violation.field == "spec";
            assert!(violations.iter().any(|violation| ours(&violation)), "we say {violations:?} of {manifest}");
        }
    }
}

#[test]
fn repositories_that_make_no_sense_are_refused_by_the_server_and_by_us() {
    let url = "https://git.example/team/workshops.git";
    let ok = [
        json!({ "url": url }),
        json!({ "url": "ssh://git@git.example/team/workshops.git" }),
        json!({ "url": "git@git.example:team/workshops.git" }),
        json!({ "url": "file:///srv/workshops" }),
        json!({ "url": url, "ref": { "branch": "main" } }),
        json!({ "url": url, "ref": { "branch": "main", "commit": "0".repeat(40) } }),
        json!({ "url": url, "ref": { "semver": ">=1.2.0 <2.0.0" } }),
        json!({ "url": url, "interval": "1s", "timeout": "1h30m", "retryInterval": "90s" }),
        json!({ "url": url, "pruneBudget": 0 }),
        json!({ "url": url, "pruneBudget": "100%" }),
        json!({ "url": url, "paths": ["linux", "net/dns", "a..b"] }),
        json!({ "url": url, "compile": { "registry": "127.0.0.1:5000/team", "network": false, "timeout": "10m" } }),
        json!({ "url": url, "compile": { "mode": "Inline", "registry": "registry.example" } }),
        json!({ "url": url, "approval": "Manual", "deletionPolicy": "MirrorPrune" }),
    ];
    for spec in ok {
        check(&repository(spec), None);
    }
    let refused = [
        (json!({}), "spec.url"),
        (json!({ "url": "" }), "spec.url"),
        (json!({ "url": "workshops" }), "spec.url"),
        (json!({ "url": "ftp://git.example/a" }), "spec.url"),
        (json!({ "url": "https://git.example/a b" }), "spec.url"),
        (json!({ "url": "https://user:word@git.example/a" }), "spec.url"),
        (json!({ "url": url, "ref": { "branch": "a", "tag": "b" } }), "spec.ref"),
        (json!({ "url": url, "ref": { "tag": "v1", "commit": "0".repeat(40) } }), "spec.ref"),
        (json!({ "url": url, "ref": { "commit": "abc" } }), "spec.ref.commit"),
        (json!({ "url": url, "ref": { "name": "main" } }), "spec.ref.name"),
        (json!({ "url": url, "interval": "500ms" }), "spec.interval"),
        (json!({ "url": url, "interval": "soon" }), "spec.interval"),
        (json!({ "url": url, "interval": "999999999h" }), "spec.interval"),
        (json!({ "url": url, "retryInterval": "0s" }), "spec.retryInterval"),
        (json!({ "url": url, "pruneBudget": -1 }), "spec.pruneBudget"),
        (json!({ "url": url, "pruneBudget": "101%" }), "spec.pruneBudget"),
        (json!({ "url": url, "pruneBudget": "half" }), "spec.pruneBudget"),
        (json!({ "url": url, "paths": ["../other"] }), "spec.paths"),
        (json!({ "url": url, "paths": ["/etc"] }), "spec.paths"),
        (json!({ "url": url, "compile": { "registry": "https://registry.example" } }), "spec.compile.registry"),
        (json!({ "url": url, "compile": { "pullRegistry": "registry.example/Team" } }), "spec.compile.pullRegistry"),
        (json!({ "url": url, "compile": { "timeout": "0s" } }), "spec.compile.timeout"),
        (json!({ "url": url, "approval": "Maybe" }), "spec.approval"),
        (json!({ "url": url, "prune": "yes" }), "spec.prune"),
    ];
    for (spec, field) in refused {
        check(&repository(spec), Some(field));
    }
}

#[test]
fn templates_that_make_no_sense_are_refused_by_the_server_and_by_us() {
    let long = "a".repeat(41);
    check(&template("row", |_| {}), None);
    check(&template("0-9", |spec| spec["steps"][0]["imageDigest"] = Value::Null).without_nulls(), None);
    check(&template(&"a".repeat(40), |_| {}), None);
    // A rule about the name stands at the root of the definition, so the server names no field.
    let said =
        cluster().try_kubectl(&["apply", "--dry-run=server", "-f", "-"], Some(&template(&long, |_| {}).to_string()));
    assert!(!said.ok && said.err.contains("a template is named by its workshop's id"), "{}", said.err);
    assert_eq!(validate(&template(&long, |_| {}), None)[0].field, "metadata.name");
    type Row = (fn(&mut Value), &'static str);
    let refused: [Row; 11] = [
        (|spec| spec["steps"] = json!([]), "spec.steps"),
        (|spec| spec["steps"] = json!([spec["steps"][0], spec["steps"][0]]), "spec.steps"),
        (|spec| spec["steps"][0]["id"] = json!("One"), "spec.steps[0].id"),
        (|spec| spec["steps"][0]["title"] = json!(""), "spec.steps[0].title"),
        (|spec| spec["steps"][0]["imageTag"] = json!("a b"), "spec.steps[0].imageTag"),
        (|spec| spec["steps"][0]["imageDigest"] = json!("sha256:12"), "spec.steps[0].imageDigest"),
        (|spec| spec["artifact"]["size"] = json!(33_554_433), "spec.artifact.size"),
        (|spec| spec["artifact"]["digest"] = json!("sha512:00"), "spec.artifact.digest"),
        (|spec| spec["defaults"] = json!({ "resources": { "cpu": "0" } }), "spec.defaults.resources.cpu"),
        (|spec| spec["defaults"] = json!({ "lifecycle": { "ttl": "long" } }), "spec.defaults.lifecycle.ttl"),
        (|spec| spec["imagePullSecret"] = json!({ "namespace": "", "name": "a" }), "spec.imagePullSecret.namespace"),
    ];
    for (change, field) in refused {
        check(&template("row", change), Some(field));
    }
}

#[test]
fn instances_that_make_no_sense_are_refused_by_the_server_and_by_us() {
    check(&instance(|_| {}), None);
    check(
        &instance(|spec| {
            spec["overrides"] = json!({
                "resources": { "cpu": "1.5", "memory": "1Gi" },
                "network": { "egress": [{ "cidr": "10.0.0.0/8", "ports": [443] }, { "cidr": "fd00::/8" }] },
                "isolation": { "mode": "team", "user": "root" },
            });
            spec["expiresAt"] = json!("2030-01-31T12:00:00Z");
        }),
        None,
    );
    type Row = (fn(&mut Value), &'static str);
    let refused: [Row; 9] = [
        (|spec| spec["owner"] = json!(""), "spec.owner"),
        (|spec| spec["templateRef"]["name"] = json!(""), "spec.templateRef.name"),
        (|spec| spec["currentStep"] = json!("Step One"), "spec.currentStep"),
        (|spec| spec["expiresAt"] = json!("tomorrow"), "spec.expiresAt"),
        (|spec| spec["overrides"] = json!({ "resources": { "memory": "lots" } }), "spec.overrides.resources.memory"),
        (|spec| spec["overrides"] = json!({ "isolation": { "mode": "crowd" } }), "spec.overrides.isolation.mode"),
        (
            |spec| spec["overrides"] = json!({ "network": { "egress": [{ "cidr": "10.0.0.0/33" }] } }),
            "spec.overrides.network.egress[0].cidr",
        ),
        (
            |spec| spec["overrides"] = json!({ "network": { "egress": [{ "cidr": "10.0.0.0/8", "ports": [0] }] } }),
            "spec.overrides.network.egress[0].ports[0]",
        ),
        (|spec| spec["members"] = json!([""]), "spec.members[0]"),
    ];
    for (change, field) in refused {
        check(&instance(change), Some(field));
    }
}

#[test]
fn an_instance_never_changes_its_template() {
    let cluster = cluster();
    let namespace = cluster.create_namespace("immutable");
    let mut manifest = instance(|_| {});
    manifest["metadata"]["namespace"] = json!(namespace);
    cluster.apply(&manifest);
    let old = manifest.clone();
    manifest["spec"]["templateRef"]["name"] = json!("other");
    let said = cluster.try_kubectl(&["apply", "-f", "-"], Some(&manifest.to_string()));
    assert!(!said.ok && said.err.contains("cannot be changed"), "{}", said.err);
    assert_eq!(validate(&manifest, Some(&old))[0].field, "spec.templateRef");
}

#[test]
fn fields_have_the_defaults_that_we_read_from_nothing() {
    let cluster = cluster();
    let namespace = cluster.create_namespace("defaults");
    let mut manifest = repository(json!({ "url": "https://git.example/a.git", "suspend": true }));
    manifest["metadata"]["namespace"] = json!(namespace);
    cluster.apply(&manifest);
    let stored = cluster.get(&["workshoprepository", "row", "-n", &namespace]).expect("it was applied");
    let ours: workshop::crd::WorkshopRepository = serde_json::from_value(manifest).unwrap();
    let theirs: workshop::crd::WorkshopRepository = serde_json::from_value(stored).unwrap();
    assert_eq!(ours.spec, theirs.spec);
    assert_eq!((theirs.spec.interval.as_str(), theirs.spec.prune, theirs.spec.compile.network), ("1m", true, true));
}

#[test]
fn kubectl_explains_every_field() {
    let cluster = cluster();
    let text = cluster.kubectl(&["explain", "workshoprepository.spec.url"]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("Without a password; that belongs into the Secret of secretRef"), "{text}");
    for kind in ["workshoprepository", "workspacetemplate", "workspaceinstance"] {
        let text = cluster.kubectl(&["explain", "--recursive", &format!("{kind}.spec")]);
        assert!(!text.contains("<no description>"), "{text}");
    }
}

#[test]
fn the_printed_definitions_are_those_that_are_installed() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_workshop")).arg("crds").output().expect("workshop");
    assert!(printed.status.success());
    let said = cluster().try_kubectl(&["apply", "-f", "-"], Some(&String::from_utf8(printed.stdout).unwrap()));
    assert!(said.ok, "{}", said.err);
    assert_eq!(said.out.matches("unchanged").count(), 3, "{}", said.out);
    assert!(said.err.is_empty(), "the API server warns: {}", said.err);
}

#[test]
fn lists_of_all_kinds_show_their_columns_by_short_name_and_category() {
    let cluster = cluster();
    let namespace = cluster.create_namespace("columns");
    let mut manifest = instance(|_| {});
    manifest["metadata"]["namespace"] = json!(namespace);
    cluster.apply(&manifest);
    let text = cluster.kubectl(&["get", "wsi", "-n", &namespace]);
    assert!(text.starts_with("NAME   TEMPLATE   OWNER   STEP   PHASE   READY   AGE"), "{text}");
    assert!(
        cluster.kubectl(&["get", "workshop", "-n", &namespace]).contains("workspaceinstance.workshop.platform/row")
    );
}

trait WithoutNulls {
    fn without_nulls(self) -> Self;
}

impl WithoutNulls for Value {
    fn without_nulls(mut self) -> Self {
        fn clean(value: &mut Value) {
            match value {
                Value::Object(map) => {
                    map.retain(|_, value| !value.is_null());
                    map.values_mut().for_each(clean);
                }
                Value::Array(items) => items.iter_mut().for_each(clean),
                _ => {}
            }
        }
        clean(&mut self);
        self
    }
}
