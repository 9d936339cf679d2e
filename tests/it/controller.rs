//! `workshop controller` on a real API server, with exactly the rights in `manifests/`: everything about it that needs
//! no images. One controller follows all repositories of a cluster, so the scenes play one after the other.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use workshop::crd::{API_VERSION, labels};

use crate::support::cluster::{CONTROLLER, Call, Moment, TestCluster, condition};
use crate::support::controller::Controller;
use crate::support::git::{Fault, GitServer, Repository};
use crate::support::platform::platform_directory;
use crate::support::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_controller_keeps_repositories_and_says_how_they_are() {
    let scene = Scene::start();
    a_workshop_becomes_a_template_and_its_rosters_instances(&scene);
    a_request_is_handled_once_and_echoed(&scene);
    a_suspended_repository_is_left_alone(&scene);
    a_spec_that_asks_too_much_stalls(&scene);
    a_missing_branch_is_waited_for(&scene);
    credentials_are_read_by_name_where_somebody_allowed_it(&scene);
    a_local_path_is_followed_without_polling(&scene);
    what_a_repository_made_goes_or_stays_with_it_as_it_says(&scene);
    somebody_who_keeps_changing_an_object_is_named_and_left_alone(&scene);
    a_plan_waits_for_its_approval(&scene);
    a_newer_commit_never_waits_behind_an_older_one(&scene);
    health_and_metrics_are_served(&scene);
    kinds_that_vanish_are_waited_for(&scene);
    another_controller_waits_for_the_lease_and_takes_over(scene);
}

/// A cluster with a controller, and a Git server.
struct Scene {
    cluster: TestCluster,
    git: GitServer,
    controller: Controller,
    _state: tempfile::TempDir,
    namespace: String,
}

/// A controller with a state directory of its own.
fn start_controller(cluster: &TestCluster) -> (Controller, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let controller = Controller::start(cluster, &state.path().join("controller"), |command| {
        command.arg("--platform").arg(platform_directory());
    });
    (controller, state)
}

impl Scene {
    fn start() -> Self {
        let cluster = TestCluster::start("controller");
        let namespace = cluster.create_namespace("team");
        let (controller, state) = start_controller(&cluster);
        Self { git: GitServer::start(), controller, _state: state, namespace, cluster }
    }

    /// A repository on the Git server with one workshop that needs no images.
    fn repository(&self, name: &str) -> Repository {
        let repository = self.git.create(name);
        write_workshop(&repository, name, "one");
        repository.commit("first");
        repository.push();
        repository
    }

    /// Applies a WorkshopRepository that follows it.
    fn follow(&self, name: &str, spec: Value) {
        let mut manifest = json!({
            "apiVersion": API_VERSION, "kind": "WorkshopRepository",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": { "url": self.git.url(name), "interval": "1s" },
        });
        manifest["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.cluster.apply(&manifest);
    }

    fn object(&self, name: &str) -> Option<Value> {
        self.cluster.get(&["workshoprepository", name, "-n", &self.namespace])
    }

    /// Waits until the condition is of this status and reason; gives the whole object.
    fn wait_condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> Value {
        let last = std::cell::RefCell::new(Value::Null);
        let waiting = std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("{name} has {kind}={status} {reason}"), PATIENCE, || {
                let object = self.object(name)?;
                let found = condition(&object, kind)?;
                let is_so = found["status"] == status && found["reason"] == reason;
                last.replace(object["status"].clone());
                is_so.then_some(object)
            })
        });
        std::panic::catch_unwind(waiting).unwrap_or_else(|panic| {
            eprintln!("the last status of {name}: {:#}", last.borrow());
            std::panic::resume_unwind(panic)
        })
    }

    /// Waits until the repository is Ready at its head.
    fn wait_ready(&self, name: &str, repository: &Repository) -> Value {
        let head = repository.head();
        wait_for(&format!("{name} is Ready at {head}"), PATIENCE, || {
            let object = self.object(name)?;
            let is_ready = condition(&object, "Ready")?["status"] == "True";
            let revision = object.pointer("/status/lastAppliedRevision")?.as_str()?;
            (is_ready && revision.ends_with(&format!("@sha1:{head}"))).then_some(object)
        })
    }

    fn template(&self, name: &str) -> Option<Value> {
        self.cluster.get(&["workspacetemplate", name])
    }

    fn annotate(&self, name: &str, annotation: &str) {
        self.cluster.kubectl(&[
            "annotate",
            "--overwrite",
            "workshoprepository",
            name,
            "-n",
            &self.namespace,
            annotation,
        ]);
    }

    fn patch(&self, name: &str, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        self.cluster.kubectl(&[
            "patch",
            "workshoprepository",
            name,
            "-n",
            &self.namespace,
            "--type=merge",
            "-p",
            &patch,
        ]);
    }

    fn title(&self, name: &str) -> Option<String> {
        Some(self.template(name)?.pointer("/spec/steps/0/title")?.as_str()?.to_owned())
    }
}

fn write_workshop(repository: &Repository, id: &str, title: &str) {
    let at = |path: &str| format!("{id}/{path}");
    repository.write(
        &at("export/workshop.yaml"),
        &format!("schema: 1\nid: {id}\nname: {id}\nversion: v1\ncreatedAt: 1970-01-01T00:00:00Z\nsteps:\n- one\n"),
    );
    repository.write(
        &at("export/steps/one/step.yaml"),
        &format!("title: {title}\nimageTag: registry.example/team/{id}:one\n"),
    );
}

fn message(object: &Value, kind: &str) -> String {
    condition(object, kind).unwrap_or_default()["message"].as_str().unwrap_or_default().to_owned()
}

fn a_workshop_becomes_a_template_and_its_rosters_instances(scene: &Scene) {
    let repository = scene.repository("alpha");
    repository.write("alpha/roster.yaml", "instances:\n- owner: Ada\n  step: one\n");
    repository.commit("a roster");
    repository.push();
    scene.follow("alpha", json!({}));
    let object = scene.wait_ready("alpha", &repository);
    assert_eq!(object["status"]["counts"], json!({ "workshops": 1, "ready": 1, "failed": 0 }));
    assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"]);
    assert!(condition(&object, "Reconciling").is_none() && condition(&object, "Stalled").is_none());
    assert!(object.pointer("/metadata/finalizers").is_none(), "Orphan needs none");

    let template = scene.template("alpha").expect("its template");
    assert_eq!(template["metadata"]["labels"][labels::OWNER], object["metadata"]["uid"]);
    assert_eq!(template["metadata"]["annotations"][labels::PATH], "alpha");
    let instance =
        scene.cluster.get(&["workspaceinstance", "alpha-ada", "-n", &scene.namespace]).expect("its instance");
    assert_eq!(instance["spec"]["currentStep"], "one");

    let events = scene.cluster.kubectl(&["get", "events.events.k8s.io", "-n", &scene.namespace, "-o", "json"]);
    let events: Value = serde_json::from_str(&events).unwrap();
    let reasons: Vec<&Value> = events["items"].as_array().unwrap().iter().map(|event| &event["reason"]).collect();
    assert!(reasons.contains(&&json!("Succeeded")), "{reasons:?}");
}

fn a_request_is_handled_once_and_echoed(scene: &Scene) {
    scene.annotate("alpha", &format!("{}=first", labels::REQUESTED_AT));
    wait_for("the request is echoed", PATIENCE, || {
        (scene.object("alpha")?["status"]["lastHandledReconcileAt"] == "first").then_some(())
    });
    // A watch begins with a list, which an API server that has just learned the kinds may have put off by seconds.
    wait_for("the controller watches what it made", PATIENCE, || {
        let calls = scene.cluster.calls_since(Moment::FIRST, CONTROLLER);
        let is_watched = |kind: &str| calls.iter().any(|call| call.verb == "watch" && call.resource == kind);
        ["workspacetemplates", "workspaceinstances"].into_iter().all(is_watched).then_some(())
    });
    // Nothing else is written about a repository at which nothing is new, however often it is looked at.
    let before = scene.object("alpha").unwrap()["metadata"]["resourceVersion"].clone();
    let mark = Moment::now();
    let requests = scene.git.requests();
    wait_for("three more looks at the repository", PATIENCE, || {
        (scene.git.requests().posts >= requests.posts + 3).then_some(())
    });
    assert!(
        !scene.cluster.calls_since(Moment::FIRST, CONTROLLER).is_empty(),
        "the audit log counts the controller's calls"
    );
    let calls = scene.cluster.calls_since(mark, CONTROLLER);
    let is_other = |call: &&Call| call.resource != "leases" && call.verb != "watch" && !call.is_of_workspaces();
    let others: Vec<_> = calls.iter().filter(is_other).collect();
    assert!(others.is_empty(), "an unchanged poll costs API calls since {mark:?}: {others:?}");
    assert_eq!(scene.object("alpha").unwrap()["metadata"]["resourceVersion"], before);
}

fn a_suspended_repository_is_left_alone(scene: &Scene) {
    let repository = scene.repository("beta");
    scene.follow("beta", json!({}));
    scene.wait_ready("beta", &repository);
    scene.patch("beta", &json!({ "suspend": true }));
    scene.wait_condition("beta", "Ready", "True", "Suspended");
    write_workshop(&repository, "beta", "two");
    repository.commit("second");
    repository.push();
    scene.annotate("beta", &format!("{}=asleep", labels::REQUESTED_AT));
    let requests = scene.git.requests();
    wait_for("the others are looked at meanwhile", PATIENCE, || {
        (scene.git.requests().posts >= requests.posts + 3).then_some(())
    });
    assert_eq!(scene.title("beta").as_deref(), Some("one"));
    scene.patch("beta", &json!({ "suspend": false }));
    scene.wait_ready("beta", &repository);
    assert_eq!(scene.title("beta").as_deref(), Some("two"));
}

fn a_spec_that_asks_too_much_stalls(scene: &Scene) {
    let repository = scene.repository("gamma");
    scene.follow("gamma", json!({ "verify": { "secretRef": { "name": "keys" } } }));
    let object = scene.wait_condition("gamma", "Stalled", "True", "Unsupported");
    assert!(message(&object, "Ready").contains("spec.verify"), "{}", message(&object, "Ready"));
    assert!(scene.template("gamma").is_none());
    scene.patch("gamma", &json!({ "verify": null, "ref": { "semver": "not a range" } }));
    scene.wait_condition("gamma", "Stalled", "True", "InvalidSpec");
    scene.patch("gamma", &json!({ "ref": null }));
    let object = scene.wait_ready("gamma", &repository);
    assert!(condition(&object, "Stalled").is_none());
}

fn a_missing_branch_is_waited_for(scene: &Scene) {
    let repository = scene.repository("delta");
    scene.follow("delta", json!({ "ref": { "branch": "next" } }));
    let object = scene.wait_condition("delta", "Stalled", "True", "RevisionNotFound");
    assert!(message(&object, "Ready").contains("\"next\""), "{}", message(&object, "Ready"));
    repository.git(&["push", "--quiet", "origin", "HEAD:refs/heads/next"]);
    let object = scene.wait_ready("delta", &repository);
    assert!(object["status"]["lastAppliedRevision"].as_str().unwrap().starts_with("next@sha1:"));
}

fn credentials_are_read_by_name_where_somebody_allowed_it(scene: &Scene) {
    let repository = scene.repository("epsilon");
    scene.git.set_fault(Some(Fault::Login { user: "git".into(), password: "word".into() }));
    scene.follow("epsilon", json!({ "secretRef": { "name": "login" }, "retryInterval": "1s" }));
    let object = scene.wait_condition("epsilon", "Ready", "False", "Forbidden");
    assert!(message(&object, "Ready").contains("workshop-repository-manager"), "{}", message(&object, "Ready"));
    scene.cluster.kubectl(&[
        "create",
        "rolebinding",
        "workshop",
        "-n",
        &scene.namespace,
        "--clusterrole=workshop-repository-manager",
        &format!("--user={CONTROLLER}"),
    ]);
    scene.wait_condition("epsilon", "Ready", "False", "SecretUnusable");
    let secret = |password: &str| {
        let literal = format!("--from-literal=password={password}");
        let made = scene.cluster.kubectl(&[
            "create",
            "secret",
            "generic",
            "login",
            "-n",
            &scene.namespace,
            "--dry-run=client",
            "-o",
            "json",
            "--from-literal=username=git",
            &literal,
        ]);
        scene.cluster.apply(&serde_json::from_str(&made).unwrap());
    };
    secret("wrong");
    let object = scene.wait_condition("epsilon", "Ready", "False", "AuthenticationFailed");
    assert!(!object.to_string().contains("wrong"), "a password is in the status");
    secret("word");
    scene.wait_ready("epsilon", &repository);
    scene.git.set_fault(None);
    scene.wait_condition("alpha", "Ready", "True", "Succeeded");
}

fn a_local_path_is_followed_without_polling(scene: &Scene) {
    let repository = scene.repository("zeta");
    let url = format!("file://{}", repository.bare().display());
    scene.follow("zeta", json!({ "url": url, "ref": { "branch": "main" }, "interval": "1h" }));
    scene.wait_ready("zeta", &repository);
    write_workshop(&repository, "zeta", "two");
    repository.commit("second");
    repository.push();
    scene.wait_ready("zeta", &repository);
    assert_eq!(scene.title("zeta").as_deref(), Some("two"));
}

fn what_a_repository_made_goes_or_stays_with_it_as_it_says(scene: &Scene) {
    let repository = scene.repository("eta");
    scene.follow("eta", json!({ "deletionPolicy": "Delete" }));
    let object = scene.wait_ready("eta", &repository);
    assert_eq!(object["metadata"]["finalizers"], json!([labels::FINALIZER]));
    scene.cluster.kubectl(&["delete", "workshoprepository", "eta", "-n", &scene.namespace, "--timeout=30s"]);
    assert!(scene.template("eta").is_none(), "Delete leaves nothing");

    scene.cluster.kubectl(&["delete", "workshoprepository", "beta", "-n", &scene.namespace, "--timeout=30s"]);
    assert!(scene.template("beta").is_some(), "Orphan leaves everything");
    // Whoever comes later does not get what belongs to another.
    scene.follow("beta", json!({}));
    let object = scene.wait_condition("beta", "Ready", "False", "WorkshopsFailed");
    assert_eq!(object["status"]["notReady"][0]["reason"], "OwnedByAnother", "{object:#}");
    scene.cluster.kubectl(&["delete", "workshoprepository", "beta", "-n", &scene.namespace, "--timeout=30s"]);
}

fn somebody_who_keeps_changing_an_object_is_named_and_left_alone(scene: &Scene) {
    for round in 1..=3 {
        let patch =
            json!({ "spec": { "steps": [{ "id": "one", "title": format!("mine {round}"), "imageTag": "a/b:one" }] } });
        scene.cluster.kubectl(&[
            "patch",
            "workspacetemplate",
            "delta",
            "--type=merge",
            "--field-manager=stubborn",
            "-p",
            &patch.to_string(),
        ]);
        if round < 3 {
            wait_for("the title is put back", PATIENCE, || (scene.title("delta")? == "one").then_some(()));
            // The record of who changed what knows whole seconds only.
            wait_for("the next second", PATIENCE, || {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let stamp = scene.template("delta")?["metadata"]["managedFields"].to_string();
                let moment = workshop_time(now);
                (!stamp.contains(&moment)).then_some(())
            });
        }
    }
    let object = scene.wait_condition("delta", "Ready", "False", "DriftFought");
    assert!(message(&object, "Ready").contains("\"stubborn\""), "{}", message(&object, "Ready"));
    assert_eq!(scene.title("delta").as_deref(), Some("mine 3"));
    scene.annotate("delta", &format!("{}=enough", labels::REQUESTED_AT));
    scene.wait_condition("delta", "Ready", "True", "Succeeded");
    assert_eq!(scene.title("delta").as_deref(), Some("one"));
}

/// The second as it stands in an object's record.
fn workshop_time(seconds: u64) -> String {
    jiff::Timestamp::from_second(seconds as i64).unwrap().to_string()
}

fn a_plan_waits_for_its_approval(scene: &Scene) {
    let repository = scene.repository("theta");
    scene.follow("theta", json!({ "approval": "Manual" }));
    let object = scene.wait_condition("theta", "Ready", "False", "ApprovalRequired");
    assert!(scene.template("theta").is_none());
    let hash = object["status"]["pendingPlan"].as_str().expect("the plan's hash").to_owned();
    scene.annotate("theta", &format!("{}={hash}", labels::APPROVE));
    let object = scene.wait_ready("theta", &repository);
    assert!(object["status"].get("pendingPlan").is_none(), "{object:#}");
    assert!(scene.template("theta").is_some());
}

fn a_newer_commit_never_waits_behind_an_older_one(scene: &Scene) {
    // A registry that accepts and never answers keeps the first commit busy.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let repository = scene.git.create("kappa");
    repository.write(
        "kappa/step-spec.yaml",
        &format!(
            "version: v1\nworkshop:\n  name: kappa\n  image: {address}/kappa\nbase:\n  image: {address}/base:1\nsteps:\n- id: one\n  title: One\n"
        ),
    );
    let stuck = repository.commit("stuck");
    repository.push();
    scene.follow("kappa", json!({}));
    let object = scene.wait_condition("kappa", "Reconciling", "True", "Progressing");
    assert!(object["status"]["lastAttemptedRevision"].as_str().unwrap().ends_with(&stuck), "{object:#}");
    std::fs::remove_file(repository.work_tree().join("kappa/step-spec.yaml")).unwrap();
    write_workshop(&repository, "kappa", "free");
    repository.commit("free");
    repository.push();
    scene.controller.wait_for_log("overtook");
    scene.wait_ready("kappa", &repository);
    assert_eq!(scene.title("kappa").as_deref(), Some("free"));
}

fn health_and_metrics_are_served(scene: &Scene) {
    let log = scene.controller.log();
    let address = log.split("health and metrics on http://").nth(1).unwrap().split(',').next().unwrap();
    let get = |path: &str| {
        let output =
            Command::new("curl").args(["-sS", "-w", " %{http_code}", &format!("http://{address}{path}")]).output();
        String::from_utf8(output.expect("curl (Debian package curl)").stdout).unwrap()
    };
    assert_eq!(get("/healthz"), "ok\n 200");
    assert_eq!(get("/readyz"), "ok\n 200");
    let metrics = get("/metrics");
    assert!(
        metrics.contains("workshop_leading 1") && metrics.contains("workshop_syncs_total{result=\"Succeeded\"}"),
        "{metrics}"
    );
    assert!(
        metrics.contains("workshop_instances{phase=") && metrics.contains("workshop_reconcile_seconds_bucket"),
        "the operator's are among them: {metrics}"
    );
}

fn kinds_that_vanish_are_waited_for(scene: &Scene) {
    scene.cluster.kubectl(&["delete", "crd", "workspacetemplates.workshop.platform", "--timeout=60s"]);
    scene.controller.wait_for_log("waiting for the kind workspacetemplates");
    let printed = Command::new(env!("CARGO_BIN_EXE_workshop")).arg("crds").output().unwrap();
    let said = scene.cluster.try_kubectl(&["apply", "-f", "-"], Some(&String::from_utf8(printed.stdout).unwrap()));
    assert!(said.ok, "{}", said.err);
    // Everything that was in the kind is made again without anybody asking.
    wait_for("the templates are back", PATIENCE, || {
        scene.cluster.try_kubectl(&["get", "workspacetemplate", "alpha"], None).ok.then_some(())
    });
}

fn another_controller_waits_for_the_lease_and_takes_over(scene: Scene) {
    let (second, _state) = start_controller(&scene.cluster);
    second.wait_for_log("waiting to lead");
    scene.controller.terminate();
    second.wait_for_log("this process leads");
    let repository = scene.repository("iota");
    scene.follow("iota", json!({}));
    scene.wait_ready("iota", &repository);
}
