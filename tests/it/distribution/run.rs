//! An artifact goes to the registry and comes back as it was; with the registry alone it runs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Published, text};
use crate::support::learner::Learner;
use crate::support::local::PATIENCE;
use crate::support::wait::wait_for;

#[test]
fn an_artifact_comes_back_byte_for_byte_and_is_the_same_every_time() {
    let published = Published::new();
    let (file, settings) = (text(&published.file()), text(&published.path("workshop/workspace.yaml")));
    let reference = published.reference("artifacts/first:v1");
    let push = ["artifact", "push", &file, &reference, "--workspace", &settings];
    let pushed = published.json(&push);
    assert_eq!(pushed["id"], "first");
    assert_eq!(pushed["workspace"], true);
    assert_eq!(published.json(&push), pushed, "nothing of the clock is in it");

    let (out, came) = (text(&published.path("out/pulled.db")), text(&published.path("pulled.yaml")));
    let oci = format!("oci://{reference}");
    let pulled = published.json(&["artifact", "pull", &oci, "-o", &out, "--workspace", &came]);
    assert_eq!(pulled["digest"], pushed["digest"]);
    assert_eq!(pulled["contentDigest"], pushed["contentDigest"]);
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&file).unwrap());
    assert_eq!(std::fs::read(&came).unwrap(), std::fs::read(&settings).unwrap());

    // By digest, and by the name that other tools know.
    let by_digest = format!("{}@{}", published.reference("artifacts/first"), pushed["digest"].as_str().unwrap());
    assert_eq!(published.json(&["artifact", "pull", &by_digest, "-o", &out])["digest"], pushed["digest"]);
    let output = std::process::Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")])
        .output()
        .expect("skopeo (hack/deps test)");
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.workshop-platform.artifact.v1");

    // A directory is pushed with the digests that its images have: the same artifact.
    let (workshop, other) = (text(&published.path("workshop")), published.reference("artifacts/directory"));
    let registry = published.registry.host();
    let of_directory = published.json(&["artifact", "push", &workshop, &other, "--registry", &registry]);
    assert_eq!(of_directory["digest"], pushed["digest"]);
}

/// `workshop run` in the foreground; killed where a test fails.
struct Foreground(Child);

impl Foreground {
    /// Starts it on the native runtime and reads what it says once the workspace is made.
    fn start(published: &Published, state: &str, arguments: &[&str]) -> (Self, Value) {
        let listen = ["--runtime", "native", "--listen", "127.0.0.1:0", "--output", "json"];
        let mut child =
            published.command(state, &[&["run"], arguments, &listen].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let foreground = Self(child);
        // The document is printed over several lines.
        let mut document = String::new();
        loop {
            assert!(stdout.read_line(&mut document).unwrap() > 0, "run ended: {document}");
            if let Ok(said) = serde_json::from_str(&document) {
                return (foreground, said);
            }
        }
    }

    /// Ends it as Ctrl-C does.
    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = wait_for("run to end", PATIENCE, || self.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.0.wait();
    }
}

#[test]
fn a_registry_is_enough_to_run_a_workshop() {
    let published = Published::new();
    let (workshop, reference) = (text(&published.path("workshop")), published.reference("artifacts/first"));
    let registry = published.registry.host();
    published.json(&["artifact", "push", &workshop, &reference, "--registry", &registry]);

    // A state that has never seen the workshop.
    let source = format!("oci://{reference}");
    let (foreground, said) = Foreground::start(&published, "elsewhere", &[&source, "two"]);
    assert_eq!((&said["workshop"], &said["runtime"]), (&json!("first"), &json!("native")));
    let url = said["url"].as_str().unwrap();
    let (base, token) = url.split_once("/w/first/#token=").unwrap_or_else(|| panic!("{url}"));
    let mut learner = Learner::stranger(base);
    wait_for("the workspace to let its learner in", PATIENCE, || {
        let answer = learner.post("/w/first/session", &json!({ "token": token }));
        (answer.status == 204).then_some(())
    });
    let state = learner.api("first", &Method::GET, "state", None);
    assert_eq!(state["step"], "two", "{state:#}");
    // As its workspace.yaml says, and with the first step's files.
    learner.type_line("first", "id -u; cat /srv/plan", "amber");

    foreground.end();
    assert_eq!(std::fs::read_dir(published.path("elsewhere/runs")).unwrap().count(), 0);
}

/// The processes whose environment names this instance.
fn processes_of(uid: &str) -> usize {
    let environment = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("environ")).ok();
    let needle = format!("WORKSHOP_INSTANCE={uid}");
    let names_it = |bytes: &Vec<u8>| bytes.split(|byte| *byte == 0).any(|variable| variable == needle.as_bytes());
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(environment).filter(names_it).count()
}

#[test]
fn the_next_run_takes_away_what_a_killed_one_left() {
    let published = Published::new();
    let file = text(&published.file());
    let (mut killed, said) = Foreground::start(&published, "state", &[&file]);
    let token = said["url"].as_str().unwrap().split_once("#token=").unwrap().1;
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let uid = serde_json::from_slice::<Value>(&claims).unwrap()["aud"].as_str().unwrap().to_owned();
    wait_for("the workspace to run", PATIENCE, || (processes_of(&uid) > 0).then_some(()));
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert!(processes_of(&uid) > 0, "it outlives the program");
    let runs = || std::fs::read_dir(published.path("state/runs")).unwrap().count();
    assert_eq!(runs(), 1);

    // Another source, so that the directory is not simply used again.
    let other = text(&published.path("other.db"));
    std::fs::copy(&file, &other).unwrap();
    let (next, _) = Foreground::start(&published, "state", &[&other]);
    wait_for("the old workspace to end", PATIENCE, || (processes_of(&uid) == 0).then_some(()));
    assert_eq!(runs(), 1, "the new one's");
    next.end();
    assert_eq!(runs(), 0);
}
