//! The controller with one repository of 1,000 workshops: one-file commits, unchanged polls, memory.
//!
//! The workshops have no recipe, so what is measured is Git, import, plan, apply and status.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use workshop::adapters::cluster::Cluster;
use workshop::crd::{Kind, WorkshopRepository, labels};

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod fixture;
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;
#[allow(dead_code, missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "the support of the tests")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use report::{Report, quantile, resident, show};
use support::cluster::{CONTROLLER, Moment, SYSTEM, TestCluster, cluster};
use support::git::GitServer;

const WORKSHOPS: usize = 1000;
const STEPS: usize = 3;
const COMMITS: usize = 40;
const POLLS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    let server = cluster();
    let client = Cluster::connect(Some(&server.admin()), None, None).await.expect("a client");
    let repositories = repositories(server).await;
    let state = tempfile::tempdir().expect("a temporary directory");
    let git = GitServer::start();
    let repository = git.create("followed");
    fixture::write_repository(repository.work_tree(), "followed", WORKSHOPS, STEPS);
    repository.commit("Workshops");
    repository.push();
    let controller = Controller::start(server, state.path());
    let mut report = Report::new("The controller, one repository of 1,000 workshops");

    let start = Instant::now();
    server.apply(&manifest(&git.url("followed"), "1h"));
    wait_for_revision(&client, &repository.head()).await;
    report.row("from the WorkshopRepository to all applied", show(start.elapsed()), "", "");

    let mut durations = Vec::new();
    // The first three are not counted: caches fill, and the mirror gets its first small packs.
    for commit in 0..COMMITS + 3 {
        let path = format!("workshops/followed-{}/export/steps/step-1/content.md", (commit * 37) % WORKSHOPS);
        repository.write(&path, &format!("# Changed\n\nFor the {commit}th time.\n"));
        let revision = repository.commit("Change one file");
        repository.push();
        let start = Instant::now();
        request_reconcile(&repositories, &commit.to_string()).await;
        wait_for_revision(&client, &revision).await;
        if commit >= 3 {
            durations.push(start.elapsed());
        }
    }
    let beside = "from the annotation to lastAppliedRevision";
    report.row("one-file commit, p50", show(quantile(&mut durations, 0.5)), beside, "");
    report.row("one-file commit, p95", show(quantile(&mut durations, 0.95)), beside, "< 300 ms");

    // Polls by the interval, counted where they arrive.
    server.apply(&manifest(&git.url("followed"), "1s"));
    let settled = git.requests().posts + 3;
    wait_until("the first polls", || git.requests().posts >= settled).await;
    let (requests, mark, cpu) = (git.requests(), Moment::now(), controller.cpu());
    wait_until("more polls", || git.requests().posts >= requests.posts + POLLS).await;
    let (asked, used) = (git.requests(), controller.cpu() - cpu);
    let polls = asked.posts - requests.posts;
    let calls = server.calls_since(mark, CONTROLLER);
    // The lease of a controller is renewed by time, whether there is anything to do or not.
    let writes = calls.iter().filter(|call| call.is_write() && call.resource != "leases").count();
    let reads =
        calls.iter().filter(|call| ["get", "list"].contains(&call.verb.as_str()) && call.resource != "leases").count();
    report.row(
        &format!("{polls} unchanged polls"),
        format!("CPU {} each, the HTTP requests included", show(used / u32::try_from(polls).expect("few"))),
        format!("{} GET and {polls} POST to Git, {writes} API writes, {reads} API reads", asked.gets - requests.gets),
        "1 ls-refs, 0 writes, CPU < 1 ms besides the network",
    );
    let (now, highest) = resident(controller.0.id());
    report.row("memory of the controller", format!("{now:.0} MiB, at most {highest:.0} MiB"), "", "< 64 MiB");
}

fn manifest(url: &str, interval: &str) -> Value {
    json!({
        "apiVersion": "workshop.platform/v1alpha1",
        "kind": "WorkshopRepository",
        "metadata": { "name": "followed", "namespace": "default" },
        "spec": { "url": url, "interval": interval },
    })
}

/// A client for what a webhook would do; starting kubectl takes longer than what is measured.
async fn repositories(server: &TestCluster) -> Api<WorkshopRepository> {
    let kubeconfig = kube::config::Kubeconfig::read_from(server.admin()).expect("a kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    Api::namespaced(kube::Client::try_from(config).expect("a client"), "default")
}

async fn request_reconcile(repositories: &Api<WorkshopRepository>, value: &str) {
    let patch = json!({ "metadata": { "annotations": { (labels::REQUESTED_AT): value } } });
    repositories.patch("followed", &PatchParams::default(), &Patch::Merge(patch)).await.expect("annotated");
}

async fn wait_for_revision(client: &Cluster, commit: &str) {
    let start = Instant::now();
    loop {
        let found = client.get_of(Kind::WorkshopRepository, Some("default"), "followed").await.expect("an answer");
        let revision = found.as_ref().and_then(|object| object.pointer("/status/lastAppliedRevision")?.as_str());
        if revision.is_some_and(|revision| revision.ends_with(commit)) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "waited for {commit}: {}", found.unwrap_or_default()["status"]);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The controller's process.
struct Controller(Child);

impl Controller {
    /// `workshop controller` as the user with the rights of the manifests.
    fn start(server: &TestCluster, state: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command
            .args(["controller", "--namespace", SYSTEM, "--state"])
            .arg(state)
            .env("KUBECONFIG", server.controller());
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("workshop starts"))
    }

    /// Processor time that it has used.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        // The 14th and 15th fields of the line, in hundredths of a second on every Linux that we know.
        let ticks: u64 = [11, 12].iter().map(|index| fields[*index].parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
