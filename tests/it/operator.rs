//! The local operator with the native runtime and the real backend: one instance through its whole life.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::Request;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workshop::adapters::store::Store;
use workshop::crd::{API_VERSION, labels};
use workshop::domain::digest::Digest;
use workshop::domain::lifecycle::Reason;
use workshop::domain::management::Phase;
use workshop::domain::token::Role;
use workshop::gateway::management::routes;
use workshop::operator::local::{Settings, run};
use workshop::pipeline::runtime_end::{RuntimeChoice, RuntimeEnd};
use workshop::pipeline::upstream::fetch;
use workshop::pipeline::workspace::{CreateRequest, InstanceView, Workspaces, key};

use crate::runtime::fixture::Compiled;

struct Local {
    compiled: Compiled,
    workspaces: Workspaces,
    runtime: RuntimeEnd,
    stop: CancellationToken,
    operator: JoinHandle<()>,
    told: Told,
}

/// What people were told, in order.
type Told = Arc<Mutex<Vec<Reason>>>;

fn operate(workspaces: &Workspaces, runtime: &RuntimeEnd, stop: &CancellationToken, told: &Told) -> JoinHandle<()> {
    let told = Arc::clone(told);
    tokio::spawn(run(Settings {
        workspaces: workspaces.clone(),
        store: workspaces.store().unwrap().clone(),
        runtime: runtime.clone(),
        management_socket: Some(workspaces.state().join("management/api.sock")),
        management_url: None,
        stop: stop.clone(),
        listener: Arc::new(move |name, event| {
            eprintln!("{name}: {:?}: {}", event.reason, event.message);
            told.lock().unwrap().push(event.reason);
        }),
    }))
}

/// The compiled workshop as a template, and the management API where containers find it.
async fn arrange() -> Local {
    let compiled = Compiled::new();
    let state = compiled.workshop.state.clone();
    let artifact = std::fs::read(state.join("artifact.db")).unwrap();
    let digest = Digest::of(&artifact);
    std::fs::create_dir_all(state.join("artifacts")).unwrap();
    std::fs::write(state.join("artifacts").join(format!("{}.db", digest.hex())), &artifact).unwrap();
    let step = |id: &str, image: &str| json!({"id": id, "title": id, "imageTag": format!("team/w:{id}"), "imageDigest": image});
    let template = json!({
        "apiVersion": API_VERSION, "kind": "WorkspaceTemplate", "metadata": {"name": "w"},
        "spec": {
            "defaults": {"network": {"egress": []}},
            "steps": [step("one", &compiled.images[0]), step("two", &compiled.images[1])],
            "artifact": {"digest": digest.to_string(), "size": artifact.len()},
        },
    });
    let store = Arc::new(Store::open(&state).unwrap());
    store.apply_object(&template, labels::OWNER).unwrap();
    let workspaces = Workspaces::open(store, &state).unwrap();
    std::fs::create_dir_all(state.join("management")).unwrap();
    let listener = tokio::net::UnixListener::bind(state.join("management/api.sock")).unwrap();
    let router = routes(workspaces.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let runtime = compiled.runtime(RuntimeChoice::Native).await;
    let stop = CancellationToken::new();
    let told = Told::default();
    let operator = operate(&workspaces, &runtime, &stop, &told);
    Local { compiled, workspaces, runtime, stop, operator, told }
}

impl Local {
    async fn until(&self, what: &str, holds: impl Fn(Option<&InstanceView>) -> bool) -> Option<InstanceView> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let view = self.workspaces.get("w-ada").await.unwrap();
            if holds(view.as_ref()) {
                return view;
            }
            assert!(Instant::now() < deadline, "waited for {what}: {view:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn runs(&self, step: &str) -> InstanceView {
        let runs = |view: Option<&InstanceView>| {
            view.is_some_and(|view| {
                (view.phase, view.step.as_str()) == (Phase::Running, step)
                    && self.workspaces.address(&view.uid).is_some()
            })
        };
        self.until(&format!("step {step} to run"), runs).await.unwrap()
    }

    /// Asks the backend as its learner.
    async fn ask(&self, uid: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let address = self.workspaces.address(uid).expect("it runs");
        let token = self.workspaces.sign(uid, "ada", Role::Learner, Duration::from_secs(60)).unwrap();
        let request = Request::builder()
            .method(method)
            .uri(format!("/w/w-ada/api/v1/{path}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .unwrap();
        let (status, bytes) = fetch(&address, request, Duration::from_secs(20)).await.unwrap();
        (status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    fn status(&self) -> Value {
        self.workspaces.store().unwrap().object(&key("w-ada")).unwrap().unwrap().manifest["status"].clone()
    }

    fn kill_container(&self, uid: &str) {
        let id = Digest::of(uid.as_bytes()).hex()[..8].to_owned();
        let root = self.compiled.workshop.state.join("workspaces/runc");
        let output = std::process::Command::new("runc").arg("--root").arg(&root).args(["kill", &id, "KILL"]).output();
        assert!(output.unwrap().status.success());
    }
}

fn workspaces_left(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state.join("workspaces/runc")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_on_the_native_runtime_and_keeps_its_progress() {
    let mut local = arrange().await;
    let request = CreateRequest { template: "w".into(), owner: "ada".into(), ..CreateRequest::default() };
    let start = Instant::now();
    let uid = local.workspaces.create(&request).await.unwrap().remove(0).uid;
    local.runs("one").await;
    eprintln!("from create to ready: {:?}", start.elapsed());
    // A backend answers before it has asked its management API; it acts as one that has only after that.
    local.until("the claim", |_| local.status()["epoch"] == 1).await;

    // The learner skips on: the machine changes under them, what they did stays.
    let start = Instant::now();
    let (status, answer) = local.ask(&uid, "POST", "navigate", &json!({"action": "skip"})).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(answer["transition"], true, "{answer}");
    local.runs("two").await;
    eprintln!("from the wish for a step to ready: {:?}", start.elapsed());
    local.until("the next claim", |_| local.status()["epoch"] == 2).await;
    local.until("progress to be kept", |_| !local.status()["progress"].is_null()).await;
    let (_, steps) = local.ask(&uid, "GET", "steps", &Value::Null).await;
    let row = &steps["steps"][0];
    assert_eq!((&row["id"], row["status"] == "completed" || row["skipped"] == true), (&json!("one"), true), "{steps}");

    let before = local.status()["run"]["since"].clone();
    local.workspaces.reset("w-ada").await.unwrap();
    local.runs("two").await;
    assert_ne!(local.status()["run"]["since"], before);

    // Killed from outside, it is back at the same step.
    local.kill_container(&uid);
    local.until("the death to be seen", |view| view.unwrap().phase != Phase::Running).await;
    local.runs("two").await;

    // An operator that is gone leaves it running, and the next one adopts it.
    let run = local.status()["run"].clone();
    local.operator.abort();
    let _ = (&mut local.operator).await;
    local.workspaces.set_address(&uid, None);
    assert_eq!(local.runtime.list().await.unwrap().len(), 1);
    local.operator = operate(&local.workspaces, &local.runtime, &local.stop, &local.told);
    local.runs("two").await;
    assert_eq!(local.status()["run"], run, "it is the same container");

    local.workspaces.suspend("w-ada").await.unwrap();
    local.until("sleep", |view| view.unwrap().phase == Phase::Suspended).await;
    while !local.runtime.list().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    local.workspaces.resume("w-ada").await.unwrap();
    local.runs("two").await;

    // Its time is over: it is told first, then deleted, and nothing of it is left.
    let told = Arc::clone(&local.told);
    told.lock().unwrap().clear();
    let written = local.workspaces.store().unwrap().change_object(&key("w-ada"), |object, _| {
        object["spec"]["overrides"] = json!({ "lifecycle": { "ttl": "1s" } });
        object["spec"]["expiresAt"] = "2026-01-01T00:00:00Z".into();
        Ok::<_, workshop::adapters::store::Error>(())
    });
    written.unwrap();
    local.until("its end", |view| view.is_none()).await;
    assert_eq!(*told.lock().unwrap(), [Reason::Expiring, Reason::Expired]);
    assert_eq!(workspaces_left(&local.compiled.workshop.state), Vec::<String>::new());

    // The program's end is the end of what it runs.
    local.workspaces.create(&request).await.unwrap();
    local.runs("one").await;
    local.stop.cancel();
    tokio::time::timeout(Duration::from_secs(8), &mut local.operator).await.unwrap().unwrap();
    assert_eq!(workspaces_left(&local.compiled.workshop.state), Vec::<String>::new());
}
