//! The conformance suite: what every implementation of the management API answers, whoever keeps the instances.
//!
//! It knows an address, a key and two instances, and nothing of what is behind; each answer is held against the OpenAPI
//! document.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use workshop::domain::container::Address;
use workshop::domain::token::{Claims, Role, SigningKey};
use workshop::pipeline::upstream::fetch;

/// An implementation under test, with two instances that run.
pub struct Target {
    /// Where it answers.
    pub address: Address,
    /// Signs the tokens that it takes.
    pub key: SigningKey,
    /// The instance that is worked on: at its first step, never claimed, its end near enough to be extended.
    pub uid: String,
    /// Another one, which stays as it is.
    pub other: String,
    /// The steps of the first one; at least two.
    pub steps: Vec<String>,
    /// The digest and the bytes of its artifact.
    pub artifact: (String, Vec<u8>),
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
enum Who {
    Workspace,
    Nobody,
    Garbage,
    OtherWorkspace,
    Learner,
    Instructor,
    Expired,
    OtherKey,
}

/// One row: who asks what, and what is answered. `$` words are put in, see [`Run::fill`].
struct Row(&'static str, Who, &'static str, &'static str, &'static str, u16, &'static str);

const fn row(
    name: &'static str,
    who: Who,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    code: &'static str,
) -> Row {
    Row(name, who, method, path, body, status, code)
}

/// Every path, for the questions that are equal for all.
const PATHS: [(&str, &str, &str); 8] = [
    ("GET", "", ""),
    ("POST", "/sessions", ""),
    ("PUT", "/progress", r#"{"epoch":1,"sequence":1,"steps":[],"customState":{}}"#),
    ("POST", "/step", r#"{"step":"$STEP2","epoch":1}"#),
    ("POST", "/reset", r#"{"epoch":1}"#),
    ("POST", "/activity", r#"{"at":"2026-01-01T00:00:00Z"}"#),
    ("POST", "/extend", "{}"),
    ("GET", "/artifact/$DIGEST", ""),
];

const STRANGERS: [(Who, u16, &str); 7] = [
    (Who::Nobody, 401, "Unauthorized"),
    (Who::Garbage, 401, "Unauthorized"),
    (Who::Expired, 401, "Unauthorized"),
    (Who::OtherKey, 401, "Unauthorized"),
    (Who::OtherWorkspace, 403, "Forbidden"),
    (Who::Learner, 403, "Forbidden"),
    (Who::Instructor, 403, "Forbidden"),
];

const WE: Who = Who::Workspace;

/// The rows in their order: later ones build on what earlier ones left.
const ROWS: &[Row] = &[
    row("the instance is told", WE, "GET", "", "", 200, ""),
    row("an unknown path is refused", WE, "GET", "/secrets", "", 404, "NoSuchPath"),
    row("an unknown method is refused", WE, "DELETE", "", "", 405, "MethodNotAllowed"),
    row(
        "progress before a claim is stale",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":1,"sequence":1,"steps":[],"customState":{}}"#,
        409,
        "StaleEpoch",
    ),
    row("a backend claims", WE, "POST", "/sessions", "", 200, ""),
    row(
        "progress is kept",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$EPOCH,"sequence":1,"steps":[{"step":"$STEP1","status":"completed","startedAt":"2026-01-01T00:00:00Z","completedAt":"2026-01-01T00:01:00Z","skipped":false},{"step":"$STEP2","status":"active","startedAt":null,"completedAt":null,"skipped":true}],"customState":{"notes":"näh","quiz.1":"42"}}"#,
        204,
        "",
    ),
    row(
        "the same again is taken",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$EPOCH,"sequence":1,"steps":[{"step":"$STEP1","status":"completed","startedAt":"2026-01-01T00:00:00Z","completedAt":"2026-01-01T00:01:00Z","skipped":false},{"step":"$STEP2","status":"active","startedAt":null,"completedAt":null,"skipped":true}],"customState":{"notes":"näh","quiz.1":"42"}}"#,
        204,
        "",
    ),
    row(
        "an older snapshot is stale",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$EPOCH,"sequence":0,"steps":[],"customState":{}}"#,
        409,
        "StaleEpoch",
    ),
    row(
        "an epoch nobody gave is refused",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":999,"sequence":9,"steps":[],"customState":{}}"#,
        409,
        "StaleEpoch",
    ),
    row("a body of another shape is refused", WE, "PUT", "/progress", r#"{"epoch":"one"}"#, 400, "Invalid"),
    row("no JSON is refused", WE, "PUT", "/progress", "{", 400, "Invalid"),
    row(
        "a key that is no plain name is refused",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$EPOCH,"sequence":2,"steps":[],"customState":{"../x":"1"}}"#,
        400,
        "Invalid",
    ),
    row(
        "two rows of one step are refused",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$EPOCH,"sequence":2,"steps":[{"step":"a","status":"active","startedAt":null,"completedAt":null},{"step":"a","status":"active","startedAt":null,"completedAt":null}],"customState":{}}"#,
        400,
        "Invalid",
    ),
    row(
        "a moment that is none is refused",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$EPOCH,"sequence":2,"steps":[{"step":"a","status":"active","startedAt":"yesterday","completedAt":null}],"customState":{}}"#,
        400,
        "Invalid",
    ),
    row(
        "a status that is none is refused",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$EPOCH,"sequence":2,"steps":[{"step":"a","status":"done","startedAt":null,"completedAt":null}],"customState":{}}"#,
        400,
        "Invalid",
    ),
    row("the next backend claims", WE, "POST", "/sessions", "", 200, ""),
    row(
        "the one before is stale",
        WE,
        "PUT",
        "/progress",
        r#"{"epoch":$BEFORE,"sequence":7,"steps":[],"customState":{}}"#,
        409,
        "StaleEpoch",
    ),
    row("a stale one moves nothing", WE, "POST", "/step", r#"{"step":"$STEP2","epoch":$BEFORE}"#, 409, "StaleEpoch"),
    row("a stale one resets nothing", WE, "POST", "/reset", r#"{"epoch":$BEFORE}"#, 409, "StaleEpoch"),
    row(
        "a step that is none is told so",
        WE,
        "POST",
        "/step",
        r#"{"step":"nowhere","epoch":$EPOCH}"#,
        404,
        "NoSuchStep",
    ),
    row("a step without an epoch is refused", WE, "POST", "/step", r#"{"step":"$STEP2"}"#, 400, "Invalid"),
    row("a step is under way", WE, "POST", "/step", r#"{"step":"$STEP2","epoch":$EPOCH}"#, 202, ""),
    row("a reset is under way", WE, "POST", "/reset", r#"{"epoch":$EPOCH}"#, 202, ""),
    row("use counts", WE, "POST", "/activity", r#"{"at":"2026-01-01T00:00:00Z"}"#, 204, ""),
    row("use at no moment is refused", WE, "POST", "/activity", r#"{"at":"now"}"#, 400, "Invalid"),
    row("more time is given", WE, "POST", "/extend", r#"{"seconds":600}"#, 200, ""),
    row("an empty body asks for as much as there is", WE, "POST", "/extend", "", 200, ""),
    row("more time of another shape is refused", WE, "POST", "/extend", r#"{"seconds":"many"}"#, 400, "Invalid"),
    row("a reset without an epoch is refused", WE, "POST", "/reset", "{}", 400, "Invalid"),
    row("the artifact is given", WE, "GET", "/artifact/$DIGEST", "", 200, ""),
    row(
        "another artifact is not",
        WE,
        "GET",
        "/artifact/sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "",
        404,
        "NoSuchArtifact",
    ),
    row("no digest is not one", WE, "GET", "/artifact/..%2F..%2Fstore.db", "", 404, "NoSuchArtifact"),
];

struct Answer {
    status: StatusCode,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
}

struct Run<'t> {
    target: &'t Target,
    document: Value,
    epoch: u64,
    /// Operations and statuses that were seen.
    seen: BTreeSet<(String, u16)>,
}

/// Runs the whole suite; panics where an answer is not as it should be.
pub async fn run(target: &Target) {
    let mut run = Run { target, document: Value::Null, epoch: 0, seen: BTreeSet::new() };
    let document = run.send(None, "GET", "/management/v1/openapi.json", Vec::new()).await;
    assert_eq!(document.status, 200, "the document is there for everybody");
    run.document = document.json();
    assert!(run.document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for (method, path, body) in PATHS {
        for (who, status, code) in STRANGERS {
            run.check(&Row("a stranger is refused", who, method, path, body, status, code)).await;
        }
    }
    run.unknown_instance().await;
    for row in ROWS {
        run.check(row).await;
    }
    run.large_bodies().await;
    run.what_was_kept().await;
    run.limit_of_time().await;
    run.waiting().await;
    run.nothing_of_others().await;
    run.every_operation_was_tried();
}

impl Run<'_> {
    fn fill(&self, text: &str) -> String {
        text.replace("$EPOCH", &self.epoch.to_string())
            .replace("$BEFORE", &self.epoch.saturating_sub(1).to_string())
            .replace("$STEP1", &self.target.steps[0])
            .replace("$STEP2", &self.target.steps[1])
            .replace("$DIGEST", &self.target.artifact.0)
    }

    fn token(&self, who: Who, uid: &str) -> Option<String> {
        let now = jiff::Timestamp::now().as_second();
        let claims = Claims {
            aud: uid.to_owned(),
            sub: "suite".into(),
            role: Role::Workspace,
            generation: 0,
            iat: now,
            exp: now + 60,
        };
        let key = &self.target.key;
        Some(match who {
            Who::Nobody => return None,
            Who::Garbage => "a.b.c".into(),
            Who::Workspace => key.sign(&claims),
            Who::OtherWorkspace => key.sign(&Claims { aud: self.target.other.clone(), ..claims }),
            Who::Learner => key.sign(&Claims { role: Role::Learner, ..claims }),
            Who::Instructor => key.sign(&Claims { role: Role::Instructor, ..claims }),
            Who::Expired => key.sign(&Claims { iat: now - 100, exp: now - 10, ..claims }),
            Who::OtherKey => SigningKey::generate().sign(&claims),
        })
    }

    async fn send(&self, token: Option<String>, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "management");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        let (status, bytes) = fetch(&self.target.address, request, Duration::from_secs(40)).await.unwrap();
        Answer { status, bytes }
    }

    /// Asks as the workspace itself.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let uid = &self.target.uid;
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let path = format!("/management/v1/instances/{uid}{path}");
        self.send(self.token(Who::Workspace, uid), method, &path, body).await
    }

    async fn check(&mut self, Row(name, who, method, path, body, status, code): &Row) {
        let uid = &self.target.uid;
        let full = format!("/management/v1/instances/{uid}{}", self.fill(path));
        let answer = self.send(self.token(*who, uid), method, &full, self.fill(body).into_bytes()).await;
        let shown = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.status, *status, "{name}: {who:?} {method} {path} {body}: {shown}");
        let said = answer.json();
        if code.is_empty() {
            assert_eq!(said.get("error"), None, "{name}: {shown}");
        } else {
            assert_eq!(said["error"]["code"], *code, "{name}: {who:?} {method} {path} {body}: {shown}");
            let message = said["error"]["message"].as_str().unwrap();
            assert!(!message.is_empty(), "{name}");
        }
        if *path == "/sessions" && *status == 200 {
            let epoch = said["epoch"].as_u64().unwrap();
            assert!(epoch > self.epoch, "{name}: {shown}");
            self.epoch = epoch;
        }
        if path.starts_with("/artifact/$") && *status == 200 {
            assert_eq!(answer.bytes, self.target.artifact.1);
        }
        self.hold_against_document(method, path, &answer);
    }

    /// Holds an answer against the document: its status is named, and its body is of the schema.
    fn hold_against_document(&mut self, method: &str, path: &str, answer: &Answer) {
        let path = if path.starts_with("/artifact/") { "/artifact/{digest}" } else { path };
        let path = path.split('?').next().unwrap_or_default();
        let known = format!("/management/v1/instances/{{uid}}{path}");
        let operation = &self.document["paths"][&known][method.to_lowercase()];
        if operation.is_null() {
            return assert!([404, 405].contains(&answer.status.as_u16()), "{method} {known} is not in the document");
        }
        self.seen.insert((operation["operationId"].as_str().unwrap().to_owned(), answer.status.as_u16()));
        let response = &operation["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{method} {known} may not answer {}", answer.status);
        let content = &response["content"];
        let Some(schema) = content["application/json"].get("schema") else {
            let is_empty = content.is_null() && answer.bytes.is_empty();
            return assert!(is_empty || content.is_object(), "{method} {known} has a body that nobody described");
        };
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        let problems: Vec<String> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&answer.json())
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{method} {known}: {problems:?} in {}", answer.json());
    }

    async fn unknown_instance(&mut self) {
        for (method, path, body) in PATHS {
            let uid = "00000000-0000-0000-0000-000000000000";
            let full = format!("/management/v1/instances/{uid}{}", self.fill(path));
            let token = self.token(Who::Workspace, uid);
            let answer = self.send(token, method, &full, self.fill(body).into_bytes()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
                (404, Some("NoSuchInstance"))
            );
            self.hold_against_document(method, path, &answer);
        }
    }

    async fn large_bodies(&mut self) {
        // Whoever answers before all was sent may close the connection: either is a refusal.
        let huge = json!({"epoch": self.epoch, "sequence": 3, "steps": [], "customState": {"a": "x".repeat(3 << 20)}});
        let uid = &self.target.uid;
        let request = Request::builder()
            .method("PUT")
            .uri(format!("/management/v1/instances/{uid}/progress"))
            .header("host", "management")
            .header("authorization", format!("Bearer {}", self.token(Who::Workspace, uid).unwrap()))
            .body(Body::from(huge.to_string()))
            .unwrap();
        if let Ok((status, bytes)) = fetch(&self.target.address, request, Duration::from_secs(40)).await {
            let answer = Answer { status, bytes };
            assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_str()), (413, Some("TooLarge")));
            self.hold_against_document("PUT", "/progress", &answer);
        }
        let of = |entries: usize, bytes: usize| {
            let state: serde_json::Map<String, Value> =
                (0..entries).map(|index| (format!("k{index}"), "\u{1}".repeat(bytes).into())).collect();
            json!({"epoch": self.epoch, "sequence": 3, "steps": [], "customState": state})
        };
        for (entries, bytes, status) in [(65, 1, 400), (1, 4097, 400), (64, 4096, 204)] {
            let answer = self.ask("PUT", "/progress", &of(entries, bytes)).await;
            assert_eq!(answer.status, status, "{entries} entries of {bytes} bytes");
        }
        let rows: Vec<Value> = (0..201)
            .map(|index| json!({"step": format!("s{index}"), "status": "pending", "startedAt": null, "completedAt": null}))
            .collect();
        let many = json!({"epoch": self.epoch, "sequence": 4, "steps": rows, "customState": {}});
        assert_eq!(self.ask("PUT", "/progress", &many).await.status, 400);
    }

    /// What one backend sent is what the next one is given.
    async fn what_was_kept(&mut self) {
        let steps = json!([{"step": self.target.steps[0], "status": "completed", "startedAt": "2026-01-01T00:00:00Z",
            "completedAt": "2026-01-01T00:01:00Z", "skipped": true}]);
        let state = json!({"notes": "a\n'ü'", "answer": ""});
        let sent = json!({"epoch": self.epoch, "sequence": 9, "steps": steps, "customState": state});
        assert_eq!(self.ask("PUT", "/progress", &sent).await.status, 204);
        let session = self.ask("POST", "/sessions", &Value::Null).await.json();
        self.epoch = session["epoch"].as_u64().unwrap();
        assert_eq!((&session["progress"]["steps"], &session["customState"]), (&steps, &state));
        // A new epoch counts its snapshots anew.
        let again = json!({"epoch": self.epoch, "sequence": 1, "steps": steps, "customState": state});
        assert_eq!(self.ask("PUT", "/progress", &again).await.status, 204);
    }

    /// A learner cannot extend for ever; each time is told truly.
    async fn limit_of_time(&mut self) {
        let mut last = String::new();
        for _ in 0..20 {
            let answer = self.ask("POST", "/extend", &json!({"seconds": 1_000_000})).await;
            self.hold_against_document("POST", "/extend", &answer);
            if answer.status == 403 {
                assert_eq!(answer.json()["error"]["code"], "ExtendRefused");
                let told = self.ask("GET", "", &Value::Null).await.json();
                let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
                assert_eq!(moment(told["expiresAt"].as_str().unwrap()), moment(&last));
                return;
            }
            let end = answer.json()["expiresAt"].as_str().unwrap().to_owned();
            assert!(last.is_empty() || end > last, "{end} after {last}");
            last = end;
        }
        panic!("time is given without end: {last}");
    }

    /// Waiting for a change ends when there is one, and else after its time.
    async fn waiting(&mut self) {
        let told = self.ask("GET", "", &Value::Null).await.json();
        let version = told["version"].as_str().unwrap().to_owned();
        let start = Instant::now();
        let same = self.ask("GET", &format!("?version={version}&wait=1"), &Value::Null).await;
        assert!(start.elapsed() >= Duration::from_millis(900), "it did not wait");
        assert_eq!(same.json()["version"], version.as_str());
        // What changes nothing of the instance wakes nobody's version: progress is not part of it.
        let kept = json!({"epoch": self.epoch, "sequence": 5, "steps": [], "customState": {}});
        assert_eq!(self.ask("PUT", "/progress", &kept).await.status, 204);
        assert_eq!(self.ask("GET", "", &Value::Null).await.json()["version"], version.as_str());
        let wished = if told["step"] == self.target.steps[0].as_str() { 1 } else { 0 };
        let path = format!("?version={version}&wait=25");
        let start = Instant::now();
        let request = json!({"step": self.target.steps[wished], "epoch": self.epoch});
        let (changed, asked) = tokio::join!(self.ask("GET", &path, &Value::Null), async {
            // The other request is on its way first; in either order the answer is the new step.
            tokio::task::yield_now().await;
            self.ask("POST", "/step", &request).await
        });
        assert_eq!((asked.status.as_u16(), changed.status.as_u16()), (202, 200));
        assert_eq!(changed.json()["step"], self.target.steps[wished].as_str());
        assert!(start.elapsed() < Duration::from_secs(10), "it waited {:?} for a change", start.elapsed());
        self.hold_against_document("GET", "", &changed);
        // An older version than the known one is answered at once.
        let start = Instant::now();
        assert_eq!(self.ask("GET", "?version=older&wait=25", &Value::Null).await.status, 200);
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    /// All of this left the other instance as it was.
    async fn nothing_of_others(&mut self) {
        let uid = &self.target.other;
        let path = format!("/management/v1/instances/{uid}/sessions");
        let session = self.send(self.token(Who::Workspace, uid), "POST", &path, Vec::new()).await.json();
        assert_eq!(
            (&session["epoch"], &session["progress"]["steps"], &session["customState"]),
            (&json!(1), &json!([]), &json!({}))
        );
        assert_eq!(session["instance"]["step"], self.target.steps[0].as_str());
    }

    /// What the document promises was asked for, and each operation succeeded once.
    fn every_operation_was_tried(&self) {
        let paths = self.document["paths"].as_object().unwrap();
        for operation in paths.values().flat_map(|path| path.as_object().unwrap().values()) {
            let id = operation["operationId"].as_str().unwrap();
            for status in operation["responses"].as_object().unwrap().keys() {
                let status: u16 = status.parse().unwrap();
                // An instance that is being deleted cannot be arranged for everybody.
                let is_rare = status == 409 && !["write_progress", "request_step", "request_reset"].contains(&id);
                // Nor can it that something outside does not answer.
                let is_rare = is_rare || status == 413 || status == 503;
                assert!(is_rare || self.seen.contains(&(id.to_owned(), status)), "{id} never answered {status}");
            }
        }
    }
}
