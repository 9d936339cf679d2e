//! Sync into a real API server: first sync beside the server's own rate, an unchanged poll, a one-file commit,
//! and what the controller takes.
//!
//! The workshops have no recipe, so what is measured is Git, import, plan and apply; compile has its own benchmark.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use workshop::adapters::cluster::Cluster;
use workshop::crd::{Kind, WorkshopRepository, labels};
use workshop::domain::object::Live;

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod fixture;
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;
#[allow(dead_code, missing_docs, clippy::unwrap_used, reason = "the support of the tests")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use report::{Report, quantile, resident, show, time};
use support::git::{GitServer, Repository};

const SIZES: [usize; 3] = [10, 100, 1000];
const STEPS: usize = 3;
const COMMITS: usize = 40;
const POLLS: usize = 20;
/// As many as the pipeline sends at once.
const CONCURRENCY: usize = 16;
const DEADLINE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    let server = TestCluster::start();
    let cluster = Cluster::connect(Some(&server.kubeconfig()), None, None).await.expect("a cluster");
    let crds = Command::new(env!("CARGO_BIN_EXE_workshop")).arg("crds").output().expect("workshop starts").stdout;
    server.kubectl_apply(&String::from_utf8_lossy(&crds));
    let state = tempfile::tempdir().expect("a temporary directory");
    let git = GitServer::start();

    first_sync(&server, &cluster, &git, state.path()).await;
    with_the_controller(&server, &cluster, &git, state.path()).await;
}

/// First sync of repositories of several sizes, each beside raw applies of the same objects by the same client.
async fn first_sync(server: &TestCluster, cluster: &Cluster, git: &GitServer, state: &Path) {
    let mut report = Report::new(&format!("First sync into the API server, {STEPS} steps a workshop, no recipe"));
    for size in SIZES {
        let name = format!("first-{size}");
        let repository = repository(git, &name, size);
        drop(repository);
        let sync = || {
            let mut command = server.workshop(state);
            command.args(["sync", &git.url(&name), "--cluster", "--once", "--output", "json"]);
            must(&mut command)
        };
        let (_, ours) = time(sync);
        let owned = owned_by_prefix(cluster, &name).await;
        assert_eq!(owned.len(), size, "all workshops are templates");

        let raw = raw_rate(cluster, &owned).await;
        let rate = |duration: Duration| owned.len() as f64 / duration.as_secs_f64();
        report.row(
            &format!("{size} workshops"),
            format!("{} ({:.0}/s)", show(ours), rate(ours)),
            format!("raw applies {} ({:.0}/s): {:.0} %", show(raw), rate(raw), 100.0 * rate(ours) / rate(raw)),
            if size == 1000 { "≥ 80 % at 1,000" } else { "" },
        );
        let (requests, writes) = (git.requests(), server.writes());
        let (_, again) = time(sync);
        let asked = git.requests();
        report.row(
            &format!("{size} workshops, the same again"),
            show(again),
            format!(
                "{} GET and {} POST to Git, {} API writes",
                asked.gets - requests.gets,
                asked.posts - requests.posts,
                server.writes() - writes
            ),
            "1 ls-refs, 0 writes",
        );
    }
}

/// The controller at 1,000 workshops: memory, unchanged polls, one-file commits.
async fn with_the_controller(server: &TestCluster, cluster: &Cluster, git: &GitServer, state: &Path) {
    let mut report = Report::new("The controller, one repository of 1,000 workshops");
    let size = SIZES[SIZES.len() - 1];
    let repository = repository(git, "followed", size);
    let controller = server.start_controller(&state.join("controller"));
    server.kubectl_apply(
        &json!({
            "apiVersion": "workshop.platform/v1alpha1", "kind": "WorkshopRepository",
            "metadata": { "name": "followed", "namespace": "default" },
            "spec": { "url": git.url("followed"), "interval": "1h" },
        })
        .to_string(),
    );
    let (_, first) = {
        let start = Instant::now();
        wait_for_revision(cluster, &repository.head()).await;
        ((), start.elapsed())
    };
    report.row("from kubectl apply to applied", show(first), "", "");

    let client = server.client().await;
    // Some commits before any is measured: the mirror's first fetch makes it a repository of several packs.
    let mut durations = Vec::new();
    for commit in 0..COMMITS + 3 {
        let path = format!("workshops/followed-{}/export/steps/step-1/content.md", (commit * 37) % size);
        repository.write(&path, &format!("# Changed\n\nFor the {commit}th time.\n"));
        let revision = repository.commit("Change one file");
        repository.push();
        let start = Instant::now();
        request_reconcile(&client, &commit.to_string()).await;
        wait_for_revision(cluster, &revision).await;
        if commit >= 3 {
            durations.push(start.elapsed());
        }
    }
    report.row("one-file commit, p50", show(quantile(&mut durations, 0.5)), "annotation to lastAppliedRevision", "");
    report.row(
        "one-file commit, p95",
        show(quantile(&mut durations, 0.95)),
        "annotation to lastAppliedRevision",
        "< 300 ms",
    );

    // Polls by the interval, counted where they arrive.
    server.kubectl_apply(
        &json!({
            "apiVersion": "workshop.platform/v1alpha1", "kind": "WorkshopRepository",
            "metadata": { "name": "followed", "namespace": "default" },
            "spec": { "url": git.url("followed"), "interval": "1s" },
        })
        .to_string(),
    );
    let settle = git.requests().posts + 3;
    wait_until("the first polls", || git.requests().posts >= settle).await;
    let (requests, writes, cpu) = (git.requests(), server.writes(), controller.cpu());
    wait_until("more polls", || git.requests().posts >= requests.posts + POLLS).await;
    let (asked, written, used) = (git.requests(), server.writes() - writes, controller.cpu() - cpu);
    let polls = asked.posts - requests.posts;
    report.row(
        &format!("unchanged poll, {polls} of them"),
        format!("CPU {} each", show(used / u32::try_from(polls).expect("few"))),
        format!("{} GET and {polls} POST to Git, {written} API writes in all", asked.gets - requests.gets),
        "1 ls-refs, 0 writes, CPU < 1 ms besides the network",
    );
    let (now, highest) = resident(controller.0.id());
    report.row("memory of the controller", format!("{now:.0} MiB, at most {highest:.0} MiB"), "", "< 64 MiB");
}

/// Commits `size` workshops and pushes them.
fn repository(git: &GitServer, name: &str, size: usize) -> Repository {
    let repository = git.create(name);
    for index in 0..size {
        let id = format!("{name}-{index}");
        fixture::write_export_only(&repository.work_tree().join("workshops").join(&id), &id, STEPS);
    }
    repository.commit("Workshops");
    repository.push();
    repository
}

/// The templates whose names begin so.
async fn owned_by_prefix(cluster: &Cluster, prefix: &str) -> Vec<Live> {
    let all = cluster.list(Kind::WorkspaceTemplate, None, None).await.expect("a list");
    let prefix = format!("{prefix}-");
    all.into_iter().filter_map(Live::from_manifest).filter(|live| live.key.name.starts_with(&prefix)).collect()
}

/// Applies the same objects under other names, as fast as the same client can.
async fn raw_rate(cluster: &Cluster, objects: &[Live]) -> Duration {
    let manifests: Vec<Value> = objects
        .iter()
        .map(|live| {
            let metadata = &live.manifest["metadata"];
            let mut labels_of = metadata["labels"].clone();
            labels_of[labels::OWNER] = "raw".into();
            json!({
                "apiVersion": live.manifest["apiVersion"],
                "kind": live.manifest["kind"],
                "metadata": {
                    "name": format!("raw-{}", live.key.name),
                    "labels": labels_of,
                    "annotations": metadata["annotations"],
                },
                "spec": live.manifest["spec"],
            })
        })
        .collect();
    let start = Instant::now();
    stream::iter(&manifests)
        .map(|manifest| cluster.apply(manifest, labels::FIELD_MANAGER, false))
        .buffer_unordered(CONCURRENCY)
        .try_collect::<Vec<Live>>()
        .await
        .expect("applies");
    start.elapsed()
}

/// What a webhook would do.
async fn request_reconcile(client: &kube::Client, value: &str) {
    let repositories: Api<WorkshopRepository> = Api::namespaced(client.clone(), "default");
    let patch = json!({ "metadata": { "annotations": { (labels::REQUESTED_AT): value } } });
    repositories.patch("followed", &PatchParams::default(), &Patch::Merge(patch)).await.expect("annotated");
}

async fn wait_for_revision(cluster: &Cluster, commit: &str) {
    let start = Instant::now();
    loop {
        let found = cluster.get_of(Kind::WorkshopRepository, Some("default"), "followed").await.expect("an answer");
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

fn must(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The Kubernetes of hack/control-plane; it ends with this program.
struct TestCluster {
    directory: PathBuf,
    values: BTreeMap<String, String>,
    _parent: tempfile::TempDir,
}

impl TestCluster {
    fn start() -> Self {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("cluster");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/control-plane/control-plane");
        let mut command = Command::new(script);
        command.arg("up").arg(&directory).arg("--until-exit-of").arg(std::process::id().to_string());
        must(command.stdin(Stdio::null()));
        let text = std::fs::read_to_string(directory.join("env")).expect("control-plane writes it");
        let values = text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        Self { directory, values, _parent: parent }
    }

    fn kubeconfig(&self) -> PathBuf {
        PathBuf::from(&self.values["KUBECONFIG"])
    }

    fn workshop(&self, state: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command.arg("--state").arg(state).env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null());
        command
    }

    fn kubectl_apply(&self, text: &str) {
        let file = self.directory.join("apply.yaml");
        std::fs::write(&file, text).expect("a file");
        must(self.kubectl().args(["apply", "--server-side", "-f"]).arg(&file));
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.values["KUBECTL"]);
        command.env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null());
        command
    }

    /// A client of its own: starting kubectl takes longer than what is measured.
    async fn client(&self) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig()).expect("a kubeconfig");
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
        kube::Client::try_from(config).expect("a client")
    }

    fn start_controller(&self, state: &Path) -> Controller {
        let log = std::fs::File::create(self.directory.join("controller.log")).expect("a file");
        Controller(self.workshop(state).arg("controller").stdout(Stdio::null()).stderr(log).spawn().expect("it starts"))
    }

    /// Writes of custom resources and their status so far, by anyone.
    fn writes(&self) -> usize {
        let text = std::fs::read_to_string(&self.values["AUDIT_LOG"]).expect("an audit log");
        let is_write = |line: &&str| {
            let Ok(record) = serde_json::from_str::<Value>(line) else { return false };
            record["objectRef"]["apiGroup"] == "workshop.platform"
                && ["create", "update", "patch", "delete"].contains(&record["verb"].as_str().unwrap_or_default())
        };
        text.lines().filter(is_write).count()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/control-plane/control-plane");
        let _ = Command::new(script).arg("down").arg(&self.directory).output();
    }
}

/// The controller's process.
struct Controller(Child);

impl Controller {
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
