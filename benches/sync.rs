//! First sync into a real API server beside the rate at which that server takes raw applies, and the same sync again.
//!
//! The workshops have no recipe, so what is measured is Git, import, plan and apply; compile has its own benchmark.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use workshop::adapters::cluster::Cluster;
use workshop::crd::{Kind, labels};
use workshop::domain::object::Live;

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod fixture;
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;
#[allow(dead_code, missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "the support of the tests")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use report::{Report, show, time};
use support::cluster::{Moment, TestCluster, cluster};
use support::git::GitServer;

const SIZES: [usize; 3] = [10, 100, 1000];
const STEPS: usize = 3;
/// As many as the pipeline sends at once.
const CONCURRENCY: usize = 16;

#[tokio::main]
async fn main() {
    let server = cluster();
    let client = Cluster::connect(Some(&server.admin()), None, None).await.expect("a client");
    // A server answers 429 with "retry after one second" to the first list of a kind it has just begun to serve.
    for kind in [Kind::WorkspaceTemplate, Kind::WorkspaceInstance] {
        client.list(kind, None, None).await.expect("a list");
    }
    let state = tempfile::tempdir().expect("a temporary directory");
    let git = GitServer::start();

    let mut report = Report::new(&format!("First sync into the API server, {STEPS} steps a workshop, no recipe"));
    for size in SIZES {
        let name = format!("first-{size}");
        let repository = git.create(&name);
        fixture::write_repository(repository.work_tree(), &name, size, STEPS);
        repository.commit("Workshops");
        repository.push();
        let sync = || sync(server, &git.url(&name), state.path());
        let ((), ours) = time(sync);
        let made = templates(&client, &name).await;
        assert_eq!(made.len(), size, "all workshops are templates");

        let raw = raw_applies(&client, &made).await;
        let rate = |duration: Duration| made.len() as f64 / duration.as_secs_f64();
        report.row(
            &format!("{size} workshops"),
            format!("{} ({:.0}/s)", show(ours), rate(ours)),
            format!("raw applies {} ({:.0}/s): {:.0} %", show(raw), rate(raw), 100.0 * rate(ours) / rate(raw)),
            if size == 1000 { "≥ 80 % at 1,000" } else { "" },
        );
        let (requests, mark) = (git.requests(), Moment::now());
        let ((), again) = time(sync);
        let asked = git.requests();
        let calls = server.calls_since(mark, "admin");
        let (writes, reads): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.is_write());
        report.row(
            &format!("{size} workshops, the same again in a new process"),
            show(again),
            format!(
                "{} GET and {} POST to Git, {} API writes, {} API reads",
                asked.gets - requests.gets,
                asked.posts - requests.posts,
                writes.len(),
                reads.len()
            ),
            "1 ls-refs, 0 writes",
        );
    }
}

/// `workshop sync --cluster` as an administrator.
fn sync(server: &TestCluster, url: &str, state: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_workshop"))
        .args(["sync", url, "--cluster", "--once", "--output", "json", "--state"])
        .arg(state)
        .env("KUBECONFIG", server.admin())
        .output()
        .expect("workshop starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The templates whose names begin so.
async fn templates(client: &Cluster, prefix: &str) -> Vec<Live> {
    let all = client.list(Kind::WorkspaceTemplate, None, None).await.expect("a list");
    let prefix = format!("{prefix}-");
    all.into_iter().filter_map(Live::from_manifest).filter(|live| live.key.name.starts_with(&prefix)).collect()
}

/// Applies the same objects under other names, as fast as the same client can.
async fn raw_applies(client: &Cluster, objects: &[Live]) -> Duration {
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
        .map(|manifest| client.apply(manifest, labels::FIELD_MANAGER, false))
        .buffer_unordered(CONCURRENCY)
        .try_collect::<Vec<Live>>()
        .await
        .expect("applies");
    start.elapsed()
}
