//! The operator against a runtime that only pretends: real sockets answer, no container runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, put};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Containers, Listener, Settings, run};
use crate::adapters::store::Store;
use crate::crd::labels;
use crate::domain::container::{Address, Found, FoundState, WorkspaceSpec};
use crate::domain::digest::Digest;
use crate::domain::management::Phase;
use crate::pipeline::workspace::{CreateRequest, InstanceView, Workspaces};

/// A runtime that pretends.
#[derive(Clone, Default)]
struct Pretended(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    directory: PathBuf,
    running: BTreeMap<String, (Found, Option<JoinHandle<()>>)>,
    /// What was asked: `start NAME STEP`, `stop`, `preview BYTES`.
    asked: Vec<String>,
    missing_images: Vec<String>,
    silent_steps: Vec<String>,
    count: usize,
}

impl Pretended {
    /// What was asked since the last time. An operator that is not sure what a backend has hands over the texts once
    /// more; the first artifact's change nothing, so they do not count.
    fn asked(&self) -> String {
        let mut asked = std::mem::take(&mut self.0.lock().unwrap().asked);
        asked.retain(|what| what != "preview texts");
        asked.join(", ")
    }

    /// Whether this was asked since what was asked was last taken.
    fn was_asked(&self, what: &str) -> bool {
        self.0.lock().unwrap().asked.iter().any(|asked| asked == what)
    }

    fn running(&self) -> usize {
        self.0.lock().unwrap().running.len()
    }

    /// Its only container ends.
    fn kill(&self) {
        for (found, server) in self.0.lock().unwrap().running.values_mut() {
            found.state = FoundState::Exited { code: Some(137) };
            server.take().unwrap().abort();
        }
    }
}

impl Containers for Pretended {
    async fn prepare(&self, image: &str) -> Result<(), String> {
        let missing = &self.0.lock().unwrap().missing_images;
        if missing.iter().any(|missing| image.contains(missing)) { Err(format!("no image {image}")) } else { Ok(()) }
    }

    async fn start(&self, spec: &WorkspaceSpec, fingerprint: &str) -> Result<Found, String> {
        self.prepare(&spec.image).await?;
        assert!(spec.artifact.is_file() && !spec.token.is_empty());
        let (path, is_silent) = {
            let mut inner = self.0.lock().unwrap();
            assert!(!inner.running.contains_key(&spec.uid), "two containers of one instance");
            inner.asked.push(format!("start {} {}", spec.name, spec.step));
            inner.count += 1;
            (inner.directory.join(format!("{}.sock", inner.count)), inner.silent_steps.contains(&spec.step))
        };
        let listener = UnixListener::bind(&path).unwrap();
        let preview = {
            let inner = Arc::clone(&self.0);
            async move |body: Bytes| {
                let text = String::from_utf8_lossy(&body).into_owned();
                inner.lock().unwrap().asked.push(format!("preview {text}"));
            }
        };
        let mut router = Router::new().route(&format!("/w/{}/api/v1/artifact", spec.name), put(preview));
        if !is_silent {
            router = router.route("/readyz", get(async || "ready"));
        }
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let found = Found {
            uid: spec.uid.clone(),
            step: spec.step.clone(),
            generation_label: fingerprint.to_owned(),
            state: FoundState::Running,
            address: Some(Address::Unix(path)),
            started_at: Some(jiff::Timestamp::now()),
        };
        self.0.lock().unwrap().running.insert(spec.uid.clone(), (found.clone(), Some(server)));
        Ok(found)
    }

    async fn stop(&self, uid: &str, _grace: Duration) -> Result<(), String> {
        let mut inner = self.0.lock().unwrap();
        if let Some((_, server)) = inner.running.remove(uid) {
            inner.asked.push("stop".into());
            server.into_iter().for_each(|server| server.abort());
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Found>, String> {
        Ok(self.0.lock().unwrap().running.values().map(|(found, _)| found.clone()).collect())
    }

    async fn last_words(&self, _uid: &str) -> String {
        "out of memory".into()
    }
}

struct World {
    state: tempfile::TempDir,
    workspaces: Workspaces,
    runtime: Pretended,
    stop: CancellationToken,
    operator: Option<JoinHandle<()>>,
    /// Held by all that an operator started and did not end yet.
    listener: Listener,
}

/// Puts an artifact of this text into the state directory and gives its digest.
fn artifact(state: &Path, text: &str) -> String {
    let digest = Digest::of(text.as_bytes());
    std::fs::create_dir_all(state.join("artifacts")).unwrap();
    std::fs::write(state.join("artifacts").join(format!("{}.db", digest.hex())), text).unwrap();
    digest.to_string()
}

fn template(artifact: &str, images: [char; 2]) -> Value {
    let step = |id: &str, image: char| {
        let digest = format!("sha256:{}", image.to_string().repeat(64));
        json!({"id": id, "title": id, "imageTag": format!("first:{id}"), "imageDigest": digest})
    };
    json!({
        "apiVersion": crate::crd::API_VERSION, "kind": "WorkspaceTemplate",
        "metadata": {"name": "first", "annotations": {(labels::UNIT_KEY): artifact}},
        "spec": {
            "defaults": {"lifecycle": {"persist": "1Gi"}},
            "steps": [step("one", images[0]), step("two", images[1])],
            "artifact": {"digest": artifact, "size": 5},
        },
    })
}

impl World {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(state.path()).unwrap());
        let digest = artifact(state.path(), "texts");
        store.apply_object(&template(&digest, ['a', 'b']), labels::OWNER).unwrap();
        let workspaces = Workspaces::open(store, state.path()).unwrap();
        let runtime = Pretended::default();
        runtime.0.lock().unwrap().directory = state.path().to_owned();
        let mut world = Self {
            state,
            workspaces,
            runtime,
            stop: CancellationToken::new(),
            operator: None,
            listener: Arc::new(|_, _| {}),
        };
        world.operate();
        world
    }

    fn operate(&mut self) {
        self.operate_at(None);
    }

    /// Operates with the management API at this address.
    fn operate_at(&mut self, management_url: Option<&str>) {
        self.stop = CancellationToken::new();
        self.operator = Some(tokio::spawn(run(Settings {
            workspaces: self.workspaces.clone(),
            store: self.workspaces.store().unwrap().clone(),
            runtime: self.runtime.clone(),
            management_socket: None,
            management_url: management_url.map(str::to_owned),
            stop: self.stop.clone(),
            listener: Arc::clone(&self.listener),
        })));
    }

    async fn create(&self, owner: &str) -> InstanceView {
        let request = CreateRequest { template: "first".into(), owner: owner.into(), ..CreateRequest::default() };
        self.workspaces.create(&request).await.unwrap().remove(0)
    }

    /// Waits until the instance is as it should be.
    #[track_caller]
    fn until<'a>(
        &'a self,
        name: &'a str,
        holds: impl Fn(&InstanceView) -> bool + 'a,
    ) -> impl Future<Output = InstanceView> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let view = self.workspaces.get(name).await.unwrap();
                if let Some(view) = view.as_ref().filter(|view| holds(view)) {
                    return view.clone();
                }
                assert!(Instant::now() < deadline, "{caller}: {view:#?}, asked {}", self.runtime.asked());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// Waits until the instance was started at this step, since what was asked was last taken, and answers. What is in
    /// between may be over before anybody looks.
    #[track_caller]
    fn until_started<'a>(&'a self, name: &'a str, step: &'a str) -> impl Future<Output = InstanceView> + 'a {
        self.until(name, move |view| {
            self.runtime.was_asked(&format!("start {name} {step}"))
                && runs(step)(view)
                && self.workspaces.address(&view.uid).is_some()
        })
    }

    /// Ends the operator as a crash does, with all its tasks.
    async fn crash(&mut self) {
        let crashed = self.operator.take().unwrap();
        crashed.abort();
        assert!(crashed.await.unwrap_err().is_cancelled());
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&self.listener) > 1 {
            assert!(Instant::now() < deadline, "a task of the operator outlives it");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[track_caller]
    fn asked(&self, expected: &str) {
        assert_eq!(self.runtime.asked(), expected);
    }
}

fn runs(step: &str) -> impl Fn(&InstanceView) -> bool {
    move |view| (view.phase, view.step.as_str()) == (Phase::Running, step) && view.started_at.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_goes_through_its_life() {
    let world = World::new();
    let made = world.create("ada").await;
    assert_eq!((made.name.as_str(), made.step.as_str(), made.phase), ("first-ada", "one", Phase::Pending));
    let view = world.until("first-ada", runs("one")).await;
    assert!(world.workspaces.address(&view.uid).is_some());
    world.asked("start first-ada one");

    let start = Instant::now();
    world.workspaces.goto("first-ada", "two").await.unwrap();
    world.until("first-ada", |view| runs("two")(view) && world.workspaces.address(&view.uid).is_some()).await;
    eprintln!("a step switch costs the operator {:?}", start.elapsed());
    world.asked("stop, start first-ada two");

    world.workspaces.reset("first-ada").await.unwrap();
    world.until_started("first-ada", "two").await;
    world.asked("stop, start first-ada two");

    assert!(world.workspaces.suspend("first-ada").await.unwrap().suspended);
    world.until("first-ada", |view| view.phase == Phase::Suspended).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.runtime.running() > 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(world.workspaces.address(&view.uid), None);
    world.asked("stop");
    world.workspaces.touch(&view.uid, jiff::Timestamp::now()).await.unwrap();
    world.workspaces.resume("first-ada").await.unwrap();
    world.until("first-ada", runs("two")).await;
    world.asked("start first-ada two");

    let persist = world.state.path().join("persist").join(&view.uid);
    assert!(persist.is_dir());
    world.workspaces.delete("first-ada").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.workspaces.get("first-ada").await.unwrap().is_some() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.asked("stop");
    assert!(!persist.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_image_is_missing_leaves_the_running_one_alone() {
    let world = World::new();
    world.runtime.0.lock().unwrap().missing_images.push("first:two".into());
    world.create("ada").await;
    let view = world.until("first-ada", runs("one")).await;
    world.asked("start first-ada one");
    world.workspaces.goto("first-ada", "two").await.unwrap();
    let back = world.until("first-ada", |view| runs("one")(view) && view.message.is_some()).await;
    assert!(
        back.message.as_ref().unwrap().contains("step \"two\" did not start (no image first:two@sha256:b"),
        "{back:?}"
    );
    assert!(world.workspaces.address(&view.uid).is_some());
    world.asked("");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_for_the_management_api_elsewhere_is_started_anew() {
    let mut world = World::new();
    world.crash().await;
    world.operate_at(Some("http://host:1"));
    let uid = world.create("ada").await.uid;
    world.until("first-ada", runs("one")).await;
    world.runtime.asked();
    for (url, expected) in [("http://host:1", ""), ("http://host:2", "stop, start first-ada one")] {
        world.crash().await;
        world.workspaces.set_address(&uid, None);
        world.operate_at(Some(url));
        let deadline = Instant::now() + Duration::from_secs(20);
        // Running at once: only the address says that the new operator has looked.
        let is_done = || expected.is_empty() || world.runtime.was_asked("start first-ada one");
        while world.workspaces.address(&uid).is_none() || !is_done() {
            assert!(Instant::now() < deadline, "{}", world.runtime.asked());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        world.asked(expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_is_started_again_at_its_step() {
    let world = World::new();
    world.create("ada").await;
    world.until("first-ada", runs("one")).await;
    world.workspaces.goto("first-ada", "two").await.unwrap();
    world.until("first-ada", runs("two")).await;
    world.runtime.asked();
    world.runtime.kill();
    world.until_started("first-ada", "two").await;
    world.asked("stop, start first-ada two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_adopted_after_a_crash_and_ended_with_the_program() {
    let mut world = World::new();
    let mut names = Vec::new();
    for owner in ["ada", "bob", "cem"] {
        names.push(world.create(owner).await.name);
    }
    for name in &names {
        world.until(name, runs("one")).await;
    }
    world.crash().await;
    let store = world.workspaces.store().unwrap();
    // Meanwhile one is deleted without its operator, and another one's container is lost.
    let gone = store.object(&crate::pipeline::workspace::key("first-bob")).unwrap().unwrap();
    store.delete_object(&gone.key, &gone.uid).unwrap();
    let lost = world.workspaces.get("first-cem").await.unwrap().unwrap().uid;
    world.runtime.stop(&lost, Duration::ZERO).await.unwrap();
    world.workspaces.set_address(&lost, None);
    world.runtime.asked();
    let kept = world.workspaces.get("first-ada").await.unwrap().unwrap().uid;
    world.workspaces.set_address(&kept, None);
    world.operate();
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.runtime.running() != 2 || [&kept, &lost].into_iter().any(|uid| world.workspaces.address(uid).is_none())
    {
        assert!(Instant::now() < deadline, "{}", world.runtime.asked());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut asked: Vec<String> = world.runtime.asked().split(", ").map(str::to_owned).collect();
    asked.sort();
    assert_eq!(asked, ["start first-cem one", "stop"], "the adopted one is left alone");

    world.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), world.operator.take().unwrap()).await.unwrap().unwrap();
    assert_eq!((world.runtime.running(), world.workspaces.address(&kept)), (0, None));
    let view = world.workspaces.get("first-ada").await.unwrap().unwrap();
    assert_eq!(view.phase, Phase::Pending, "what ended is not shown as running");
    world.operate();
    world.until("first-ada", runs("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_texts_reach_who_works_and_new_images_wait() {
    let world = World::new();
    world.create("ada").await;
    world.until("first-ada", runs("one")).await;
    world.asked("start first-ada one");
    let apply = |text: &str, images| {
        let digest = artifact(world.state.path(), text);
        world.workspaces.store().unwrap().apply_object(&template(&digest, images), labels::OWNER).unwrap();
    };
    apply("better", ['a', 'b']);
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.runtime.0.lock().unwrap().asked.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.asked("preview better");
    apply("other", ['c', 'b']);
    world.until("first-ada", |view| view.update_available).await;
    world.asked("");
    world.workspaces.update("first-ada").await.unwrap();
    world.until("first-ada", |view| runs("one")(view) && !view.update_available).await;
    world.asked("stop, start first-ada one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_class_is_started_at_once() {
    let world = World::new();
    let request = CreateRequest {
        template: "first".into(),
        count: Some(40),
        prefix: Some("student".into()),
        ..CreateRequest::default()
    };
    let start = Instant::now();
    let made = world.workspaces.create(&request).await.unwrap();
    for view in &made {
        world.until(&view.name, runs("one")).await;
    }
    eprintln!("40 instances cost the operator {:?}", start.elapsed());
    assert_eq!((made.len(), world.runtime.running()), (40, 40));
    let clash = world.workspaces.create(&request).await.unwrap_err();
    assert!(clash.to_string().contains("\"student-01\"") && clash.to_string().contains("35 more"), "{clash}");
}
