//! The operator with 1,000 workspaces on simulated nodes: how fast, how many writes, how much memory.
//!
//! Nothing runs in the pods, so what is measured is the operator, the API server and the cluster's own controllers, all
//! on the same processors.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use workshop::crd::instance::Phase;

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;
#[allow(dead_code, missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "the support of the tests")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use report::{Report, quantile, resident, show};
use support::cluster::Moment;
use support::crowd::{CONCURRENCY, Crowd, NAMESPACE, STEPS, names, phase_and_step};

/// Instances that run, and those whose steps are switched one after the other.
const INSTANCES: usize = 1000;
const SWITCHES: usize = 100;
/// How many instances there are when memory is read.
const TOTALS: [usize; 2] = [1000, 10_000];
const PATIENCE: Duration = Duration::from_secs(900);

fn main() {
    // Fewer that run are for a machine with little time.
    let instances = std::env::var("WORKSHOP_SCALE").map_or(INSTANCES, |text| text.parse().expect("a number"));
    let crowd = Crowd::start("operator", 5);
    let seats = names("seat", instances);
    let mut report = Report::new(&format!("The operator, {instances} workspaces on simulated nodes"));

    let (mark, start) = (Moment::now(), Instant::now());
    crowd.create(&seats, &json!({}));
    crowd.wait_running(&seats, STEPS[0], PATIENCE);
    let took = start.elapsed();
    let writes: usize = crowd.writes_since(mark).values().sum();
    let (raw_writes, raw) = write_raw(&crowd, &seats);
    report.row(
        &format!("{instances} instances at once, until all run"),
        format!("{} ({:.0} instances/s, {:.0} writes/s)", show(took), rate(instances, took), rate(writes, took)),
        format!(
            "raw applies of the same objects {} ({:.0}/s, {:.0} writes/s)",
            show(raw),
            rate(instances, raw),
            rate(raw_writes, raw)
        ),
        "",
    );
    report.row("API writes per instance created", per(writes, instances), "", "< 15");
    report_memory(&mut report, &crowd, &format!("{instances} running instances"));

    let (mark, start) = (Moment::now(), Instant::now());
    crowd.go_to(&seats, STEPS[1]);
    crowd.wait_running(&seats, STEPS[1], PATIENCE);
    let took = start.elapsed();
    let writes: usize = crowd.writes_since(mark).values().sum();
    let switched = format!("{} ({:.0}/s)", show(took), rate(instances, took));
    report.row(&format!("{instances} step switches at once, until all run"), switched, "", "");
    report.row("API writes per step switch", per(writes, instances), "", "< 6");

    let mut latencies = switch_one_by_one(&crowd, &seats[..SWITCHES.min(instances)]);
    let beside = |raw: Duration| format!("a patch of the Deployment itself {}", show(raw));
    for (name, share) in [("p50", 0.5), ("p95", 0.95)] {
        report.row(
            &format!("from the patch of the instance to the changed Deployment, {name}"),
            show(quantile(&mut latencies.changed, share)),
            beside(quantile(&mut latencies.raw, share)),
            "< 50 ms",
        );
    }
    let (p50, p95) = (quantile(&mut latencies.running, 0.5), quantile(&mut latencies.running, 0.95));
    report.row(
        "from the patch of the instance to Running in the new step",
        format!("p50 {}, p95 {}", show(p50), show(p95)),
        "",
        "",
    );

    let mut there = instances;
    for all in TOTALS.into_iter().filter(|all| *all > instances) {
        let calm = names(&format!("calm-{all}"), all - there);
        there = all;
        crowd.create(&calm, &json!({ "suspended": true }));
        crowd.until("all calm instances to be suspended", PATIENCE, || {
            calm.iter().all(|name| {
                let found = crowd.mirror.instance(NAMESPACE, name);
                found.is_some_and(|found| phase_and_step(&found).0 == Some(Phase::Suspended))
            })
        });
        report_memory(&mut report, &crowd, &format!("{all} instances, all but {instances} suspended"));
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn per(writes: usize, instances: usize) -> String {
    format!("{:.1}", writes as f64 / instances as f64)
}

fn report_memory(report: &mut Report, crowd: &Crowd, what: &str) {
    let (now, highest) = resident(crowd.controller.pid());
    report.row(&format!("memory of the controller, {what}"), format!("{now:.0} MiB, at most {highest:.0} MiB"), "", "");
}

/// Kinds in the namespace of an instance, as kubectl names them, with their group and version.
const KINDS: [(&str, &str, &str, &str); 9] = [
    ("rolebindings", "RoleBinding", "rbac.authorization.k8s.io", "v1"),
    ("resourcequotas", "ResourceQuota", "", "v1"),
    ("limitranges", "LimitRange", "", "v1"),
    ("serviceaccounts", "ServiceAccount", "", "v1"),
    ("configmaps", "ConfigMap", "", "v1"),
    ("secrets", "Secret", "", "v1"),
    ("networkpolicies", "NetworkPolicy", "networking.k8s.io", "v1"),
    ("services", "Service", "", "v1"),
    ("deployments", "Deployment", "apps", "v1"),
];

/// Applies what the operator made for one instance to as many fresh namespaces, with as many requests at once; gives
/// how many writes that were and how long they took.
fn write_raw(crowd: &Crowd, seats: &[String]) -> (usize, Duration) {
    let one = crowd.of(&seats[..1]).pop().expect("the first instance");
    let source = one.status.as_ref().and_then(|status| status.namespace.clone()).expect("its namespace");
    let namespace = crowd.cluster.get(&["namespace", &source]).expect("its namespace");
    let security = "pod-security.kubernetes.io/enforce";
    // Without our labels: it is nobody's workspace.
    let labels = json!({ (security): namespace["metadata"]["labels"][security] });
    let mut objects = Vec::new();
    for (plural, kind, group, version) in KINDS {
        let found = crowd.cluster.get(&[plural, "-n", &source]).expect("a list");
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        for item in found["items"].as_array().expect("a list") {
            let name = item["metadata"]["name"].as_str().expect("a name");
            // Made by the cluster itself in every namespace.
            if name != "default" && name != "kube-root-ca.crt" {
                objects.push((resource.clone(), bare(item)));
            }
        }
    }
    assert!(objects.len() >= KINDS.len(), "the operator made {} objects only", objects.len());
    let parameters = PatchParams::apply("raw").force();
    let write = async |index: usize| {
        let name = format!("raw-{index}");
        let namespaces: Api<DynamicObject> =
            Api::all_with(crowd.client.clone(), &ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace")));
        let manifest = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
        });
        namespaces.patch(&name, &parameters, &Patch::Apply(&manifest)).await.expect("a namespace");
        for (resource, object) in &objects {
            let api: Api<DynamicObject> = Api::namespaced_with(crowd.client.clone(), &name, resource);
            let object_name = object["metadata"]["name"].as_str().expect("a name");
            api.patch(object_name, &parameters, &Patch::Apply(object)).await.expect("applied");
        }
    };
    let start = Instant::now();
    crowd
        .runtime
        .block_on(stream::iter(0..seats.len()).map(write).buffer_unordered(CONCURRENCY).for_each(async |()| {}));
    (seats.len() * (objects.len() + 1), start.elapsed())
}

/// An object without what the server added.
fn bare(item: &Value) -> Value {
    let mut object = item.clone();
    let metadata = &item["metadata"];
    object["metadata"] =
        json!({ "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"] });
    let map = object.as_object_mut().expect("an object");
    map.remove("status");
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
    }
    object
}

/// How long single switches took.
#[derive(Default)]
struct Latencies {
    /// From the patch of the instance until a watch shows the changed Deployment.
    changed: Vec<Duration>,
    /// Until the instance is Running.
    running: Vec<Duration>,
    /// From a patch of the Deployment itself until a watch shows it.
    raw: Vec<Duration>,
}

/// Switches one after the other in a cluster that has nothing else to do.
fn switch_one_by_one(crowd: &Crowd, seats: &[String]) -> Latencies {
    let mut seen = crowd.runtime.block_on(watch_deployments(crowd));
    let mut latencies = Latencies::default();
    for (index, seat) in seats.iter().enumerate() {
        let one = std::slice::from_ref(seat);
        let namespace = crowd.of(one)[0].status.as_ref().and_then(|status| status.namespace.clone()).expect("one");
        let start = Instant::now();
        crowd.go_to(one, STEPS[2]);
        latencies.changed.push(crowd.runtime.block_on(wait_for_value(&mut seen, &namespace, STEPS[2])) - start);
        crowd.wait_running(one, STEPS[2], PATIENCE);
        latencies.running.push(start.elapsed());

        let deployments: Api<Deployment> = Api::namespaced(crowd.client.clone(), &namespace);
        let note = format!("note-{index}");
        let start = Instant::now();
        crowd.runtime.block_on(async {
            let patch = json!({ "metadata": { "annotations": { "example.org/note": note } } });
            deployments.patch("workspace", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
        });
        latencies.raw.push(crowd.runtime.block_on(wait_for_value(&mut seen, &namespace, &note)) - start);
    }
    latencies
}

/// A Deployment as the watch showed it: its namespace, its step and its note, and when.
type Seen = (String, [Option<String>; 2], Instant);

async fn watch_deployments(crowd: &Crowd) -> mpsc::UnboundedReceiver<Seen> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let deployments: Api<Deployment> = Api::all(crowd.client.clone());
    crowd.runtime.spawn(async move {
        let mut events = Box::pin(watcher(deployments, watcher::Config::default()));
        let mut ready = Some(ready);
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(deployment)) => {
                    let annotation = |all: Option<&std::collections::BTreeMap<String, String>>, key: &str| {
                        all.and_then(|all| all.get(key).cloned())
                    };
                    let pod = deployment.spec.template.metadata.as_ref();
                    let step = annotation(pod.and_then(|pod| pod.annotations.as_ref()), "workshop.platform/step");
                    let note = annotation(deployment.metadata.annotations.as_ref(), "example.org/note");
                    let namespace = deployment.metadata.namespace.unwrap_or_default();
                    if sender.send((namespace, [step, note], Instant::now())).is_err() {
                        return;
                    }
                }
                Ok(watcher::Event::InitDone) => {
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(());
                    }
                }
                _ => {}
            }
        }
    });
    is_ready.await.expect("the watch begins");
    receiver
}

async fn wait_for_value(seen: &mut mpsc::UnboundedReceiver<Seen>, namespace: &str, value: &str) -> Instant {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let (of, values, when) = seen.recv().await.expect("the watch goes on");
            if of == namespace && values.iter().flatten().any(|found| found == value) {
                return when;
            }
        }
    });
    waited.await.expect("the Deployment changes")
}
