//! The gateway of a cluster: instances are objects of a real API server, and what stands for their pods listens where
//! their status says.

use tokio::net::TcpListener;
use workshop::adapters::cluster::{Changed, Cluster, InstancePart, Keys, Mirror};
use workshop::crd::API_VERSION;
use workshop::domain::token::Role;
use workshop::pipeline::workspace::InstanceView;

use super::hostile::{answer_once, answers, assert_harmless_but_cookie};
use super::*;
use crate::support::cluster::{SYSTEM, cluster};

const HOUR: Duration = Duration::from_secs(3600);
const PUBLIC: &str = "https://class.example";

/// A replica with the controller's rights, and an administrator who plays the operator.
struct Replica {
    namespace: String,
    template: String,
    admin: Cluster,
    mirror: Mirror,
    workspaces: Workspaces,
    gateway: Gateway,
    owner: OwnerKey,
    stop: CancellationToken,
    _state: TempDir,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replica {
    /// A replica with a namespace and a workshop of its own.
    async fn start(prefix: &str) -> Self {
        let namespace = cluster().create_namespace(prefix);
        let template = format!("first-{namespace}");
        cluster().apply(&json!({
            "apiVersion": API_VERSION, "kind": "WorkspaceTemplate", "metadata": { "name": template },
            "spec": {
                "defaults": {},
                "steps": [{ "id": "one", "title": "One", "imageTag": "registry.example/a/b:one" }],
                "artifact": { "digest": format!("sha256:{}", "0".repeat(64)), "size": 1 },
            },
        }));
        Self::of(namespace, template).await
    }

    /// Another replica of the same controller.
    async fn another(&self) -> Self {
        Self::of(self.namespace.clone(), self.template.clone()).await
    }

    async fn of(namespace: String, template: String) -> Self {
        let admin = Cluster::connect(Some(&cluster().admin()), None, None).await.unwrap();
        let client = Cluster::connect(Some(&cluster().controller()), None, Some(SYSTEM)).await.unwrap();
        let Keys { signing, owner } = client.read_or_make_keys(SYSTEM).await.unwrap();
        let (stop, state) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        let mirror = client.mirror(stop.clone());
        let workspaces = Workspaces::open_cluster(client, Some(mirror.clone()), Some(signing), state.path());
        let owner = OwnerKey::from_text(&owner).unwrap();
        let listener = server::listen(Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let settings = Settings {
            workspaces: workspaces.clone(),
            logs: None,
            owner: owner.clone(),
            person: "owner".into(),
            stop: stop.clone(),
        };
        let place = Place::new(listener.local_addr().unwrap(), Some(PUBLIC.parse().unwrap()));
        let gateway = Gateway::new(settings, place);
        tokio::spawn(server::serve(gateway.clone(), listener));
        tokio::time::timeout(PATIENCE, mirror.listed()).await.expect("the instances are listed");
        Self { namespace, template, admin, mirror, workspaces, gateway, owner, stop, _state: state }
    }

    async fn instance(&self, name: &str) -> InstanceView {
        let request = json!({ "template": self.template, "name": name, "owner": name, "namespace": self.namespace });
        self.workspaces.create(&serde_json::from_value(request).unwrap()).await.unwrap().remove(0)
    }

    /// Writes a part of the status as the operator does, and waits until this replica knows.
    async fn set_status(&self, view: &InstanceView, status: Value) -> Value {
        let object = self.admin.read_instance(&self.namespace, &view.name).await.unwrap().unwrap();
        let version = object.metadata.resource_version.unwrap();
        let patch = json!({ "status": status });
        let part = InstancePart::Status;
        let written = self.admin.patch_instance(&self.namespace, &view.name, &version, part, &patch, "operator").await;
        let written = written.unwrap();
        let version = written["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        self.until("the status", |replica| {
            let known = replica.mirror.instance_by_uid(&view.uid)?;
            (known.metadata.resource_version.as_deref() == Some(&*version)).then_some(())
        })
        .await;
        written
    }

    async fn until<T>(&self, what: &str, mut known: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changes = self.mirror.changes();
        let waiting = async {
            loop {
                if let Some(value) = known(self) {
                    return value;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"))
    }

    /// Says that the instance runs, and where its pod is reached.
    async fn run(&self, view: &InstanceView, address: SocketAddr) {
        let run = json!({
            "step": "one", "fingerprint": "f", "artifactDigest": format!("sha256:{}", "0".repeat(64)),
            "since": "2026-01-01T00:00:00Z", "readyAt": "2026-01-01T00:00:00Z", "address": address.to_string(),
        });
        self.set_status(view, json!({ "phase": "Running", "run": run })).await;
    }

    /// An instance whose pod answers with these routes.
    async fn serve(&self, name: &str, routes: axum::Router) -> InstanceView {
        let view = self.instance(name).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.run(&view, listener.local_addr().unwrap()).await;
        let stop = self.stop.clone();
        tokio::spawn(async move {
            axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap();
        });
        view
    }

    fn sign(&self, uid: &str, role: Role) -> String {
        self.workspaces.sign(uid, "somebody", role, HOUR).unwrap()
    }

    fn owner_cookie(&self) -> String {
        format!("{}={}", self.owner.cookie_name(), self.owner.cookie())
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask_at(self.gateway.listening(), Method::GET, path, headers, Body::empty()).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        ask_at(self.gateway.listening(), Method::POST, path, &headers, body.to_string()).await
    }
}

fn yes() -> axum::Router {
    axum::Router::new()
        .fallback(async |request: axum::extract::Request| axum::Json(json!({ "path": request.uri().path() })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_a_cluster_opens_to_its_own_token_and_to_the_owner_at_any_replica() {
    let replica = Replica::start("gate").await;
    let (alice, bob) = (replica.serve("alice", yes()).await, replica.serve("bob", yes()).await);
    let other = replica.another().await;
    assert_eq!(alice.reference, format!("{}.alice", replica.namespace));
    assert_eq!(alice.url, format!("{PUBLIC}/w/{}/", alice.reference));
    let no_time = replica.workspaces.sign(&alice.uid, "x", Role::Learner, Duration::ZERO).unwrap();
    let cookie = |token: &str| ("cookie", format!("workshop_token={token}"));
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let rows = [
        ("nothing", ("accept", "*/*".to_owned()), 401),
        ("its cookie", cookie(&replica.sign(&alice.uid, Role::Learner)), 200),
        ("its token", bearer(&replica.sign(&alice.uid, Role::Learner)), 200),
        ("its token from another replica", bearer(&other.sign(&alice.uid, Role::Instructor)), 200),
        ("the workspace itself", bearer(&replica.sign(&alice.uid, Role::Workspace)), 401),
        ("the token of another instance", bearer(&replica.sign(&bob.uid, Role::Instructor)), 401),
        ("an expired token", cookie(&no_time), 401),
        ("the owner", ("cookie", replica.owner_cookie()), 200),
        ("the owner by another replica", ("cookie", other.owner_cookie()), 200),
        (
            "the owner's key as a cookie",
            ("cookie", format!("{}={}", replica.owner.cookie_name(), replica.owner.text())),
            401,
        ),
    ];
    let below = format!("/w/{}", alice.reference);
    for (who, (name, value), expected) in &rows {
        let headers = [(*name, value.as_str())];
        for gateway in [&replica, &other] {
            for path in ["api/v1/state", "gateway/v1/state", ""] {
                let answer = gateway.get(&format!("{below}/{path}"), &headers).await;
                assert_eq!(answer.status.as_u16(), *expected, "{who} at {path}: {}", answer.body);
            }
            let is_owner = who.starts_with("the owner") && *expected == 200;
            // A name alone leads to no instance, whatever the controller's own namespace is.
            for path in ["/w/alice/api/v1/state", "/w/none.alice/api/v1/state", &format!("{below}.x/api/v1/state")] {
                let unknown = gateway.get(path, &headers).await;
                assert_eq!(unknown.status.as_u16(), if is_owner { 404 } else { 401 }, "{who} at {path}");
            }
            let control = gateway.get("/control/v1/instances", &headers).await;
            assert_eq!(control.status.as_u16(), if is_owner { 200 } else { 401 }, "{who}");
        }
    }
    let owner = replica.owner_cookie();
    let passed = replica.get(&format!("{below}/api/v1/steps/one"), &[("cookie", &owner)]).await.json();
    assert_eq!(passed["path"], format!("{below}/api/v1/steps/one"));
    let listed = other.get("/control/v1/instances", &[("cookie", &owner)]).await.json();
    let references: Vec<_> = listed["instances"].as_array().unwrap().iter().map(|view| &view["reference"]).collect();
    assert!(references.contains(&&json!(alice.reference)) && references.contains(&&json!(bob.reference)));
    let path = format!("/control/v1/instances/{}/open", bob.reference);
    let opened = replica.post(&path, &[("cookie", &owner)], json!({})).await;
    let opened = opened.json()["url"].as_str().unwrap().to_owned();
    let token = opened.strip_prefix(&format!("{}#token=", bob.url)).expect("the public address");
    let cookie = format!("workshop_token={token}");
    let answer = other.get(&format!("/w/{}/api/v1/state", bob.reference), &[("cookie", &cookie)]).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_pod_answers_runs_in_a_browser() {
    let replica = Replica::start("hostile").await;
    let cookie = replica.owner_cookie();
    for (index, (what, bytes, expected)) in answers().into_iter().enumerate() {
        let view = replica.instance(&format!("w{index}")).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        replica.run(&view, listener.local_addr().unwrap()).await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_once(stream, bytes.clone(), false));
            }
        });
        let headers = [("cookie", cookie.as_str()), ("sec-fetch-mode", "navigate"), ("accept", "text/html")];
        let answer = replica.get(&format!("/w/{}/api/v1/steps/x", view.reference), &headers).await;
        assert_eq!(answer.status.as_u16(), expected, "{what}: {}", answer.body);
        assert_harmless_but_cookie(&answer, what);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_sleeps_wakes_when_somebody_comes_or_does_something() {
    let replica = Replica::start("sleep").await;
    let owner = replica.owner_cookie();
    let headers = [("cookie", owner.as_str())];
    let sleep = json!({ "phase": "Suspended", "asleep": { "since": "2026-01-01T00:00:00Z", "cause": "Idle" } });
    let used = |view: &InstanceView| {
        let known = replica.mirror.instance_by_uid(&view.uid).unwrap();
        known.status.as_ref().and_then(|status| status.last_activity_at.clone())
    };
    for (index, (method, path, wakes)) in [
        (Method::GET, "", true),
        (Method::GET, "api/v1/state", false),
        (Method::GET, "gateway/v1/state", false),
        (Method::POST, "api/v1/validate", true),
        (Method::POST, "gateway/v1/resume", true),
    ]
    .into_iter()
    .enumerate()
    {
        let view = replica.instance(&format!("w{index}")).await;
        replica.set_status(&view, sleep.clone()).await;
        let path = format!("/w/{}/{path}", view.reference);
        let answer = ask_at(replica.gateway.listening(), method, &path, &headers, Body::empty()).await;
        if path.contains("/api/") {
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "WorkspaceSuspended"), "{path}");
        }
        assert_eq!(used(&view).is_some(), wakes, "{path}: {}", answer.status);
    }
    // What somebody put to sleep is not woken by a visit.
    let view = replica.instance("held").await;
    replica.workspaces.suspend(&view.reference).await.unwrap();
    replica.set_status(&view, json!({ "phase": "Suspended" })).await;
    replica.get(&format!("/w/{}/", view.reference), &headers).await;
    let kept = replica.admin.read_instance(&replica.namespace, "held").await.unwrap().unwrap();
    assert_eq!(kept.spec.suspended, Some(true));
    replica.post(&format!("/w/{}/gateway/v1/resume", view.reference), &headers, json!({})).await;
    let woken = replica.admin.read_instance(&replica.namespace, "held").await.unwrap().unwrap();
    assert_eq!(woken.spec.suspended, Some(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_reached_a_moment_later_is_waited_for_and_one_that_is_not_is_told_of() {
    let replica = Replica::start("late").await;
    let owner = replica.owner_cookie();
    let headers = [("cookie", owner.as_str())];
    let view = replica.instance("late").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    replica.run(&view, address).await;
    let path = format!("/w/{}/api/v1/state", view.reference);

    let mut looked = replica.mirror.subscribe();
    let gone = replica.get(&path, &headers).await;
    assert_eq!((gone.status.as_u16(), gone.code().as_str()), (503, "WorkspaceUnavailable"));
    let mut told = false;
    while let Ok(change) = looked.try_recv() {
        told |= change == Changed::Instance(view.uid.clone());
    }
    assert!(told, "the operator is asked to look");

    let waiting = replica.get(&path, &headers);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "it waits");
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(axum::serve(listener, yes()).into_future());
    assert_eq!(waiting.await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_a_service_can_have_is_an_address() {
    let replica = Replica::start("address").await;
    let view = replica.instance("w").await;
    for (address, expected) in [
        ("10.96.0.7:7681", true),
        ("[fd00::7]:7681", true),
        ("169.254.169.254:80", false),
        ("[fe80::1]:80", false),
        ("[::ffff:169.254.169.254]:80", false),
        ("0.0.0.0:80", false),
        ("224.0.0.1:80", false),
        ("255.255.255.255:80", false),
        ("workspace:7681", false),
    ] {
        let run = json!({
            "step": "one", "fingerprint": "f", "artifactDigest": "x", "since": "2026-01-01T00:00:00Z", "address": address,
        });
        replica.set_status(&view, json!({ "phase": "Running", "run": run })).await;
        assert_eq!(!replica.workspaces.addresses(&view.uid).is_empty(), expected, "{address}");
        replica.set_status(&view, json!({ "phase": "Transitioning" })).await;
        assert_eq!(replica.workspaces.addresses(&view.uid), [], "{address} while it does not run");
    }
}

/// The kubelet may take seconds to end what is replaced; whoever is in it is sent away at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_and_event_streams_end_when_another_container_takes_the_workspaces_place() {
    use axum::response::sse::{Event, KeepAlive, Sse};
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let replica = Replica::start("replaced").await;
    // It goes on whatever happens.
    let socket = async |upgrade: axum::extract::WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                let _ = socket.send(message).await;
            }
        })
    };
    let stream = async || {
        let begin = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Event::default().data("here"))]);
        Sse::new(begin.chain(futures_util::stream::pending())).keep_alive(KeepAlive::default())
    };
    let routes = axum::Router::new()
        .route("/w/{name}/ws", axum::routing::any(socket))
        .route("/w/{name}/api/v1/events", axum::routing::get(stream));
    let view = replica.serve("w", routes).await;
    let token = replica.sign(&view.uid, Role::Learner);
    let below = format!("{}/w/{}", replica.gateway.listening(), view.reference);
    let mut asked = format!("ws://{below}/ws").into_client_request().unwrap();
    asked.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let (mut terminal, _) = tokio_tungstenite::connect_async(asked).await.unwrap();
    let events = reqwest::Client::new().get(format!("http://{below}/api/v1/events")).bearer_auth(&token).send();
    let mut events = events.await.unwrap().bytes_stream();
    assert_eq!(events.next().await.unwrap().unwrap(), "data: here\n\n");

    // What is only told of it changes nothing.
    replica.set_status(&view, json!({ "epoch": 7, "message": "a word" })).await;
    terminal.send("still here".into()).await.unwrap();
    assert_eq!(terminal.next().await.unwrap().unwrap().into_text().unwrap(), "still here");
    let run = json!({ "step": "two", "since": "2026-01-01T00:00:09Z", "address": null, "readyAt": null });
    replica.set_status(&view, json!({ "phase": "Transitioning", "run": run })).await;
    let ended = async {
        while terminal.next().await.is_some_and(|message| message.is_ok()) {}
        while events.next().await.is_some() {}
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("both end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_tls_cookies_are_secure_and_only_the_public_origin_changes_things() {
    let replica = Replica::start("public").await;
    let key = json!({ "key": replica.owner.text() });
    for (host, origin, expected) in [
        ("class.example", "https://class.example", 204),
        ("class.example", "http://class.example", 403),
        ("class.example", "https://evil.example", 403),
        ("evil.example", "https://evil.example", 421),
        ("class.example:8082", "https://class.example:8082", 421),
    ] {
        let answer = replica.post("/session", &[("host", host), ("origin", origin)], key.clone()).await;
        assert_eq!(answer.status.as_u16(), expected, "{origin} at {host}: {}", answer.body);
        if expected == 204 {
            let set = answer.header("set-cookie").unwrap();
            assert!(set.contains("; Secure") && set.contains("; HttpOnly"), "{set}");
        }
    }
    // Whoever forwards a port to it has no TLS.
    let host = replica.gateway.listening().to_string();
    let answer = replica.post("/session", &[("origin", &format!("http://{host}"))], key.clone()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(!answer.header("set-cookie").unwrap().contains("Secure"));
}
