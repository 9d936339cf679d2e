//! Workspaces in pods of a real node, as a learner meets them: from the wish for a workspace or a step to a shell that
//! answers, beside what the node itself takes to exchange a container.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use workshop::crd::WorkspaceInstance;

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;
#[allow(dead_code, missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "the support of the tests")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use report::{Report, quantile, show};
use support::course::{Course, Seat};
use support::node::node;

const SWITCHES: usize = 20;
const STARTS: usize = 10;

fn main() {
    let mut report = Report::new("The operator on a real node");
    let course = Course::write("bench", "lifecycle: {idleSuspend: false}\n");
    let template = course.publish();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(node().cluster.admin()).expect("the kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.expect("a configuration")).expect("a client")
    });

    // The first pulls the images.
    let (seat, mut learner) = Seat::running("bench", "first", json!({}));
    for step in ["two", "one"] {
        seat.patch(&json!({ "spec": { "currentStep": step } }));
        learner.type_line(&seat.reference(), "cat /etc/step; echo", &format!("{step}\r\n"));
    }
    let mut switches = Vec::new();
    let instances: Api<WorkspaceInstance> = Api::namespaced(client.clone(), &seat.namespace);
    for round in 0..SWITCHES {
        let step = ["two", "one"][round % 2];
        let patch = Patch::Merge(json!({ "spec": { "currentStep": step } }));
        let start = Instant::now();
        runtime.block_on(instances.patch(&seat.name, &PatchParams::default(), &patch)).expect("patched");
        learner.type_line(&seat.reference(), "cat /etc/step; echo", &format!("{step}\r\n"));
        switches.push(start.elapsed());
    }
    let mut swaps = swap_bare(&client, &runtime, &template, &seat.namespace);
    let beside = format!(
        "a Deployment that only sleeps: p50 {}, p95 {}",
        show(quantile(&mut swaps, 0.5)),
        show(quantile(&mut swaps, 0.95))
    );
    report.row(
        &format!("step switch to an answering shell, {SWITCHES} times"),
        both(&mut switches),
        beside,
        "p95 < 1.5 s",
    );

    let mut starts = Vec::new();
    for number in 0..STARTS {
        let start = Instant::now();
        let seat = Seat::create("bench", &format!("next-{number}"), json!({}));
        seat.wait("Running", "one");
        seat.enter().type_line(&seat.reference(), "cat /etc/step; echo", "one\r\n");
        starts.push(start.elapsed());
    }
    report.row(&format!("a new workspace to an answering shell, {STARTS} times"), both(&mut starts), "", "");
}

fn both(durations: &mut [Duration]) -> String {
    format!("p50 {}, p95 {}", show(quantile(durations, 0.5)), show(quantile(durations, 0.95)))
}

/// Exchanges the container of a Deployment of the same images, whose program only sleeps; from the patch until the new
/// pod is ready.
fn swap_bare(
    client: &kube::Client,
    runtime: &tokio::runtime::Runtime,
    template: &Value,
    namespace: &str,
) -> Vec<Duration> {
    let image = |step: usize| {
        let step = &template["spec"]["steps"][step];
        format!("{}@{}", step["imageTag"].as_str().expect("a tag"), step["imageDigest"].as_str().expect("a digest"))
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let labels = json!({ "app": "bare" });
    let container = |image: String| json!({ "name": "c", "image": image, "command": ["/bin/sleep", "1000000"] });
    let bare = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "bare" },
        "spec": {
            "selector": { "matchLabels": labels }, "strategy": { "type": "Recreate" },
            "template": { "metadata": { "labels": labels }, "spec": {
                "terminationGracePeriodSeconds": 0, "containers": [container(image(0))],
            } },
        },
    });
    let ready = async || loop {
        let found = deployments.get("bare").await.expect("the Deployment");
        let status = found.status.unwrap_or_default();
        let is_new = status.observed_generation == found.metadata.generation && status.updated_replicas == Some(1);
        if is_new && status.ready_replicas == Some(1) && status.replicas == Some(1) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    runtime.block_on(async {
        let bare = serde_json::from_value(bare).expect("a Deployment");
        deployments.create(&PostParams::default(), &bare).await.expect("created");
        ready().await;
        let mut swaps = Vec::new();
        for round in 0..SWITCHES {
            let spec = json!({ "containers": [container(image((round + 1) % 2))] });
            let patch = Patch::Strategic(json!({ "spec": { "template": { "spec": spec } } }));
            let start = Instant::now();
            deployments.patch("bare", &PatchParams::default(), &patch).await.expect("patched");
            ready().await;
            swaps.push(start.elapsed());
        }
        swaps
    })
}
