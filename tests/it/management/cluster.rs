//! The suite against the implementation of a cluster: a real API server, and two replicas that answer in turn.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;
use workshop::adapters::cluster::InstancePart;
use workshop::domain::container::Address;
use workshop::domain::digest::Digest;
use workshop::domain::management::Snapshot;
use workshop::domain::token::SigningKey;
use workshop::gateway::management::routes;
use workshop::pipeline::workspace::{Bring, CUSTOM_STATE, Class, CreateRequest, Error, Workspaces};

use super::suite::{self, Target};
use super::world::{ARTIFACT, PATIENCE, World, connect, serve_in_turn};
use crate::support::cluster::{Call, Moment, cluster};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_management_api_of_a_cluster_conforms_whichever_replica_answers() {
    let world = World::start("conforms").await;
    world.put_artifact("ada");
    let target = Target {
        address: serve_in_turn(&world).await,
        key: SigningKey::from_pkcs8(world.key.to_pkcs8()).unwrap(),
        uid: world.uids[0].clone(),
        other: world.uids[1].clone(),
        steps: vec!["one".into(), "two".into()],
        artifact: (Digest::of(ARTIFACT).to_string(), ARTIFACT.to_vec()),
    };
    suite::run(&target).await;
}

fn snapshot(epoch: u64, sequence: u64, status: &str, note: &str) -> Snapshot {
    let steps = json!([{"step": "one", "status": status, "startedAt": "2026-01-01T00:00:00Z", "completedAt": null}]);
    let value = json!({"epoch": epoch, "sequence": sequence, "steps": steps, "customState": {"note": note}});
    serde_json::from_value(value).unwrap()
}

/// Asks as a backend does: again where the answer is that it may succeed later, as on a machine that does much else.
async fn until_done(ask: impl AsyncFn() -> Result<(), Error>) {
    let start = Instant::now();
    while let Err(error) = ask().await {
        assert!(error.class() == Class::Unavailable && start.elapsed() < PATIENCE, "{error}");
    }
}

fn check_stale<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Refused, "StaleEpoch"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_refuses_the_epoch_that_another_replica_made_stale() {
    let world = World::start("epochs").await;
    let ([first, second], uid) = (&world.replicas, &world.uids[0]);
    let older = first.claim(uid).await.unwrap().epoch;
    first.write_progress(uid, &snapshot(older, 1, "active", "first")).await.unwrap();
    let session = second.claim(uid).await.unwrap();
    assert_eq!((session.epoch, session.custom_state["note"].as_str()), (older + 1, "first"));
    assert_eq!(session.progress.steps[0].step, "one");
    for replica in &world.replicas {
        check_stale(replica.write_progress(uid, &snapshot(older, 2, "completed", "late")).await);
        check_stale(replica.request_step(uid, older, "two").await);
        check_stale(replica.request_reset(uid, older).await);
    }
    first.write_progress(uid, &snapshot(older + 1, 5, "active", "second")).await.unwrap();
    check_stale(second.write_progress(uid, &snapshot(older + 1, 4, "active", "late")).await);
    let kept = second.claim(uid).await.unwrap();
    assert_eq!(kept.custom_state["note"], "second");
    // Of many at once each gets an epoch of its own.
    let claims = (0..12).map(|index| world.replicas[index % 2].claim(uid));
    let mut epochs: Vec<u64> = Vec::new();
    for claimed in futures_util::future::join_all(claims).await {
        match claimed {
            Ok(session) => epochs.push(session.epoch),
            // So many at once may be more than one is tried for; then nothing was taken.
            Err(error) => assert_eq!(error.code(), "Busy", "{error}"),
        }
    }
    epochs.sort_unstable();
    let expected: Vec<u64> = (kept.epoch + 1..=kept.epoch + epochs.len() as u64).collect();
    assert_eq!(epochs, expected);
    assert!(epochs.len() >= 6, "{epochs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_a_backend_and_an_operator_that_write_at_once() {
    let world = Arc::new(World::start("conflicts").await);
    let (name, uid) = (world.name("ada"), world.uids[0].clone());
    let epoch = world.replicas[0].claim(&uid).await.unwrap().epoch;
    let is_over = Arc::new(AtomicBool::new(false));
    let operator = tokio::spawn({
        let (world, name, is_over) = (Arc::clone(&world), name.clone(), Arc::clone(&is_over));
        async move {
            let (mut written, mut refused) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                let read = world.object(&name).await;
                let version = read.metadata.resource_version.unwrap();
                let count = read.status.unwrap().restarts.map_or(0, |restarts| restarts.count) + 1;
                let restarts =
                    json!({"count": count, "first": "2026-01-01T00:00:00Z", "fingerprint": "f", "reason": "r"});
                let patch = json!({"status": {"restarts": restarts}});
                let (client, namespace) = (&world.client, &world.namespace);
                match client.patch_instance(namespace, &name, &version, InstancePart::Status, &patch, "test").await {
                    Ok(_) => written += 1,
                    Err(_) => refused += 1,
                }
                // As an operator does: now and then, not without a pause.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            (written, refused)
        }
    });
    let steps = ["one", "two"];
    for sequence in 1..=40_u64 {
        let replica = &world.replicas[sequence as usize % 2];
        let status = if sequence % 2 == 0 { "active" } else { "completed" };
        let snapshot = snapshot(epoch, sequence, status, &sequence.to_string());
        until_done(async || replica.write_progress(&uid, &snapshot).await).await;
        until_done(async || replica.request_step(&uid, epoch, steps[sequence as usize % 2]).await).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let (written, refused) = operator.await.unwrap();
    let object = world.object(&name).await;
    let status = object.status.unwrap();
    assert!(written > 0, "nobody wrote at the same time");
    assert_eq!(status.restarts.map(|restarts| restarts.count), Some(written), "{refused} were refused");
    assert_eq!((status.epoch, status.sequence), (i64::try_from(epoch).ok(), Some(40)));
    assert_eq!(status.progress[0].status, workshop::crd::instance::ProgressStatus::Active);
    assert_eq!(object.spec.current_step.as_deref(), Some("one"));
    let state = world.client.read_config_map(&format!("ws-{}-ada", world.namespace), CUSTOM_STATE).await.unwrap();
    assert_eq!(state.unwrap().data["note"], "40");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_costs_one_write_and_none_where_nothing_changes() {
    let world = World::start("writes").await;
    let (one, uid) = (&world.replicas[0], &world.uids[0]);
    let check = async |what: &str, since: Moment, writes: usize| {
        let calls = world.calls(since).await;
        let found: Vec<&Call> = calls.iter().filter(|call| call.is_write()).collect();
        assert_eq!(found.len(), writes, "{what}: {calls:?}");
        assert!(found.iter().all(|call| call.code < 300), "{what}: {found:?}");
        Moment::now()
    };
    let since = Moment::now();
    let epoch = one.claim(uid).await.unwrap().epoch;
    let since = check("a claim", since, 1).await;
    one.write_progress(uid, &snapshot(epoch, 1, "active", "a")).await.unwrap();
    let since = check("rows and the first custom state", since, 2).await;
    one.write_progress(uid, &snapshot(epoch, 1, "active", "a")).await.unwrap();
    one.write_progress(uid, &snapshot(epoch, 2, "active", "a")).await.unwrap();
    let since = check("the same again", since, 0).await;
    one.write_progress(uid, &snapshot(epoch, 3, "completed", "a")).await.unwrap();
    let since = check("rows alone", since, 1).await;
    one.write_progress(uid, &snapshot(epoch, 4, "completed", "b")).await.unwrap();
    let since = check("custom state alone", since, 1).await;
    one.request_step(uid, epoch, "two").await.unwrap();
    let since = check("a step", since, 1).await;
    one.request_step(uid, epoch, "two").await.unwrap();
    let since = check("the same step", since, 0).await;
    one.request_reset(uid, epoch).await.unwrap();
    let since = check("a reset", since, 1).await;
    one.touch(uid, jiff::Timestamp::now()).await.unwrap();
    let since = check("use", since, 1).await;
    one.touch(uid, jiff::Timestamp::now()).await.unwrap();
    let since = check("use just after", since, 0).await;
    one.request_extension(uid, None).await.unwrap();
    let since = check("more time", since, 1).await;

    // Waiting costs nothing, whatever happens to others, and a change of this one is read once.
    let told = one.told(uid).await.unwrap();
    let since_wait = check("being told", since, 0).await;
    let waiting = tokio::spawn({
        let (one, uid, version) = (one.clone(), uid.clone(), told.version.clone());
        async move { one.told_after(&uid, Some(&version), Duration::from_secs(25)).await.unwrap() }
    });
    for index in 0..5 {
        let patch = json!({"status": {"message": format!("{index}")}});
        world.patch(&world.name("bob"), InstancePart::Status, patch).await;
    }
    let name = world.name("ada");
    let calls = world.calls(since_wait).await;
    assert!(calls.iter().all(|call| call.name.as_ref() != Some(&name)), "{calls:?}");
    assert!(!waiting.is_finished());
    world.replicas[1].request_step(uid, epoch, "one").await.unwrap();
    let changed = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(changed.step, "one");
}

/// Between the program and the API server, so that the server can be away.
struct Line {
    target: String,
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<AbortOnDropHandle<()>>>>,
    address: std::net::SocketAddr,
}

impl Line {
    async fn to(target: &str) -> Self {
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let line = Self { target: target.to_owned(), is_cut: Arc::default(), open: Arc::default(), address };
        let (target, is_cut, open) = (line.target.clone(), Arc::clone(&line.is_cut), Arc::clone(&line.open));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = front.accept().await {
                if is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                let target = target.clone();
                let passing = tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                open.lock().unwrap().push(AbortOnDropHandle::new(passing));
            }
        });
        line
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
        self.open.lock().unwrap().clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_is_told_as_something_to_try_again() {
    let world = World::start("away").await;
    let config = std::fs::read_to_string(cluster().controller()).unwrap();
    let server = config.lines().find(|line| line.contains("server:")).unwrap();
    let line = Line::to(server.rsplit_once("https://").unwrap().1.trim()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    std::fs::write(&path, config.replace(server, &format!("    server: https://{}", line.address))).unwrap();
    let client = connect(&path, &world.namespace).await;
    let mirror = client.mirror(world.stop.clone());
    let key = || SigningKey::from_pkcs8(world.key.to_pkcs8()).unwrap();
    let replica = Workspaces::open_cluster(client, Some(mirror.clone()), Some(key()), directory.path());
    let uid = &world.uids[0];
    mirror.listed().await;
    let epoch = replica.claim(uid).await.unwrap().epoch;
    let told = replica.told(uid).await.unwrap();

    line.cut(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let router = routes(replica.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let span = Duration::from_secs(60);
    let token = replica.sign(uid, "w", workshop::domain::token::Role::Workspace, span).unwrap();
    let ask = async |method: &str, path: &str, body: Value| {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("/management/v1/instances/{uid}{path}"))
            .header("host", "management")
            .header("authorization", format!("Bearer {token}"))
            .body(axum::body::Body::from(body.to_string()))
            .unwrap();
        let (status, bytes) = workshop::pipeline::upstream::fetch(&address, request, PATIENCE).await.unwrap();
        (status.as_u16(), serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
    };
    for (method, path, body) in [
        ("POST", "/sessions", json!({})),
        ("PUT", "/progress", json!(snapshot(epoch, 1, "active", "kept"))),
        ("POST", "/step", json!({"step": "two", "epoch": epoch})),
        ("GET", "", json!({})),
    ] {
        let (status, answer) = ask(method, path, body).await;
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("ClusterUnavailable")), "{path}: {answer}");
        assert!(answer["error"]["help"].is_string() && !answer.to_string().contains("127.0.0.1"), "{answer}");
    }
    // What is known is told all the same: a wait goes on, and pages show what they showed.
    let start = Instant::now();
    let waited = replica.told_after(uid, Some(&told.version), Duration::from_secs(1)).await.unwrap();
    assert_eq!((waited.version, start.elapsed() >= Duration::from_millis(900)), (told.version, true));
    assert!(replica.by_uid(uid).await.unwrap().is_some());

    line.cut(false);
    let (status, _) = ask("PUT", "/progress", json!(snapshot(epoch, 1, "active", "kept"))).await;
    assert_eq!(status, 204, "the same again succeeds");
    // Also what others wrote meanwhile comes in again.
    let patch = json!({"status": {"message": "afterwards"}});
    world.patch(&world.name("ada"), InstancePart::Status, patch).await;
    let mut changes = mirror.changes();
    let seen = tokio::time::timeout(PATIENCE, async {
        while replica.by_uid(uid).await.unwrap().unwrap().message.as_deref() != Some("afterwards") {
            changes.changed().await.unwrap();
        }
    });
    seen.await.expect("the mirror goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_comes_from_the_directory_the_namespace_or_a_neighbour() {
    let world = World::start("artifacts").await;
    let (one, digest) = (&world.replicas[0], Digest::of(ARTIFACT));
    let fetch = async || one.artifact(&world.uids[0], &digest.to_string()).await;
    let away = fetch().await.unwrap_err();
    assert_eq!((away.class(), away.code()), (Class::Unavailable, "ArtifactAway"), "{away}");
    assert!(away.help().is_some());
    // Another replica brings it from outside, and has it from then on.
    let other = &world.replicas[1];
    let path = other.artifact_path(&digest.to_string()).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let bring: Bring = Arc::new({
        let asked = Arc::clone(&asked);
        move |instance, wanted| {
            let (path, turn) = (path.clone(), asked.fetch_add(1, Ordering::Relaxed));
            Box::pin(async move {
                assert_eq!((instance.spec.owner.as_str(), wanted), ("ada", digest));
                if turn == 0 {
                    return Err("the registry is away".to_owned());
                }
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, ARTIFACT).map_err(|error| error.to_string())
            })
        }
    });
    other.bring_artifacts_by(bring);
    let away = other.artifact(&world.uids[0], &digest.to_string()).await.unwrap_err();
    assert!(away.code() == "ArtifactAway" && away.to_string().ends_with(": the registry is away"), "{away}");
    for _ in 0..2 {
        assert_eq!(other.artifact(&world.uids[0], &digest.to_string()).await.unwrap(), ARTIFACT);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2, "what was brought is kept");
    world.put_artifact("bob");
    assert_eq!(fetch().await.unwrap(), ARTIFACT, "a neighbour has it");
    world.put_artifact("ada");
    let since = Moment::now();
    assert_eq!(fetch().await.unwrap(), ARTIFACT);
    let calls = world.calls(since).await;
    assert_eq!(calls.len(), 1, "its own namespace is asked first: {calls:?}");
    let path = one.artifact_path(&digest.to_string()).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, ARTIFACT).unwrap();
    let since = Moment::now();
    assert_eq!(fetch().await.unwrap(), ARTIFACT);
    assert!(world.calls(since).await.is_empty());
    let other = one.artifact(&world.uids[0], &Digest::of(b"other").to_string()).await.unwrap_err();
    assert_eq!(other.code(), "NoSuchArtifact");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_ask_a_cluster_as_they_ask_a_machine() {
    let world = World::start("people").await;
    let ([one, other], ada) = (&world.replicas, world.name("ada"));
    one.set_base("https://workshops.example/");
    let reference = format!("{}.{ada}", world.namespace);
    let view = one.get(&reference).await.unwrap().unwrap();
    assert_eq!((view.reference.as_str(), view.namespace.as_str()), (reference.as_str(), world.namespace.as_str()));
    assert_eq!(view.url, format!("https://workshops.example/w/{reference}/"));
    assert_eq!(one.get(&ada).await.unwrap().unwrap().uid, view.uid, "a name alone is of the default namespace");
    assert!(one.get(&format!("default.{ada}")).await.unwrap().is_none());

    // Its address is that of its Service, and only while it runs.
    assert_eq!(one.address(&view.uid), None);
    let run = json!({"step": "one", "fingerprint": "f", "artifactDigest": "d", "since": "2026-01-01T00:00:00Z",
        "address": "10.0.0.7:7681"});
    world.patch(&ada, InstancePart::Status, json!({"status": {"run": run}})).await;
    let address = Address::Tcp("10.0.0.7:7681".parse().unwrap());
    world.until("the address", async |one| one.address(&view.uid).as_ref() == Some(&address)).await;
    world.patch(&ada, InstancePart::Status, json!({"status": {"phase": "Transitioning"}})).await;
    world.until("its end", async |one| one.address(&view.uid).is_none()).await;

    // A command of its own has no mirror and no key.
    let client = connect(&cluster().controller(), &world.namespace).await;
    let command = Workspaces::open_cluster(client, None, None, Path::new("/nonexistent"));
    assert_eq!(command.list_in(Some(&world.namespace)).await.unwrap().len(), 2);
    assert_eq!(command.goto(&reference, "two").await.unwrap().step, "two");
    other.goto(&reference, "one").await.unwrap();
    assert_eq!(other.get(&reference).await.unwrap().unwrap().step, "one", "who wrote it reads it at once");
    assert_eq!(command.goto(&reference, "nine").await.unwrap_err().code(), "NoSuchStep");
    assert!(command.suspend(&reference).await.unwrap().suspended);
    assert!(!command.resume(&reference).await.unwrap().suspended);
    assert!(command.hold(&reference, true).await.unwrap().hold);
    let before = world.object(&ada).await.status.unwrap().expires_at.unwrap();
    let longer = command.extend(&reference, Some(Duration::from_secs(90))).await.unwrap();
    let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    assert!(moment(&longer) > moment(&before));
    assert_eq!(
        command.get(&reference).await.unwrap().unwrap().expires_at.map(|end| moment(&end)),
        Some(moment(&longer))
    );
    assert_eq!(
        command.sign(&view.uid, "x", workshop::domain::token::Role::Learner, PATIENCE).unwrap_err().code(),
        "NoKey"
    );

    let class = CreateRequest {
        template: world.namespace.clone(),
        count: Some(20),
        prefix: Some("student".into()),
        ..CreateRequest::default()
    };
    let made = command.create(&class).await.unwrap();
    let names: Vec<&str> = made.iter().map(|view| view.name.as_str()).collect();
    assert_eq!((names.len(), names[0], names[19]), (20, "student-01", "student-20"));
    assert_eq!(command.create(&class).await.unwrap_err().code(), "NameTaken");
    let nowhere = CreateRequest { namespace: Some("no-such-namespace".into()), ..class.clone() };
    let error = command.create(&nowhere).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::NotFound, "NoSuchNamespace"), "{error}");
    let unknown = CreateRequest { template: "no-such-template".into(), ..class };
    assert_eq!(command.create(&unknown).await.unwrap_err().code(), "NoSuchWorkshop");

    command.delete(&made[0].reference).await.unwrap();
    command.delete(&made[0].reference).await.unwrap();
    let phase = command.get(&made[0].reference).await.unwrap().unwrap().phase;
    assert_eq!(phase, workshop::domain::management::Phase::Terminating, "the operator takes it away");
    assert_eq!(command.goto(&made[0].reference, "two").await.unwrap_err().code(), "Terminating");
    assert_eq!(command.delete("none").await.unwrap_err().code(), "NoSuchInstance");
    let templates = one.templates().await.unwrap();
    let shown = templates.iter().find(|view| view.id == world.namespace).unwrap();
    assert!(shown.ready && shown.instances >= 2, "{shown:?}");
}
