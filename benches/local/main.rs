//! Local mode as a teacher and learners meet it: ten seats to ten prompts, step switches, changed texts, memory.
//!
//! The real `workshop up` on the native runtime, driven over its control socket and its gateway.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

mod bare;
mod machine;
mod memory;
#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "../report/mod.rs"]
mod report;

use machine::{Machine, platform};
use report::{Report, quantile, show};

const EXAMPLE: &str = "first-steps-in-the-shell";
const TEMPLATE: &str = "first-steps";
const SEATS: usize = 10;
const CLASSES: usize = 5;
const SWITCHES: usize = 20;
const TEXTS: usize = 8;
const STARTS: usize = 15;
/// Says which machine it is: a line with "fresh" once, "stale" from then on.
const FRESH: &str = "if [ -e /tmp/seen ]; then echo sta''le; else touch /tmp/seen; echo fre''sh; fi";

fn main() {
    let load = load();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut report = Report::new(&format!("Local mode, native runtime, load average {load} at the beginning"));
    runtime.block_on(async {
        let (machine, took) = Machine::start(EXAMPLE).await;
        let listed = machine.ask(Method::GET, "workshops", &Value::Null).await;
        assert_eq!(listed["workshops"][0]["id"], TEMPLATE, "{listed}");
        let steps = listed["workshops"][0]["steps"].as_array().expect("steps").len();
        report.row("`up` on an empty state to its address", show(took), format!("{steps} images built"), "");
        classes(&machine, &mut report).await;
        switches(&machine, &mut report).await;
        texts(&machine, &mut report).await;
        backend(&machine, &mut report);
    });
    report.row("load average at the end", self::load(), "", "");
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").expect("proc");
    text.split(' ').next().expect("a number").to_owned()
}

/// Makes ten instances and waits for the answers of their shells; gives their names and the time.
async fn class(machine: &Machine, prefix: &str) -> (Vec<String>, Duration) {
    let body = json!({ "template": TEMPLATE, "owner": "bench", "count": SEATS, "prefix": prefix });
    let start = Instant::now();
    let made = machine.ask(Method::POST, "instances", &body).await;
    let names: Vec<String> = made["instances"]
        .as_array()
        .expect("instances")
        .iter()
        .map(|instance| instance["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names.len(), SEATS, "{made}");
    join_all(names.iter().map(|name| machine.answer(name, FRESH, "fresh"))).await;
    (names, start.elapsed())
}

async fn dismiss(machine: &Machine, names: &[String]) {
    for name in names {
        machine.ask(Method::DELETE, &format!("instances/{name}"), &Value::Null).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while memory::count(&machine.state()) > 0 {
        assert!(Instant::now() < deadline, "workspaces are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn classes(machine: &Machine, report: &mut Report) {
    // The first one unpacks the images' layers, which is not of interest here.
    let (names, cold) = class(machine, "cold").await;
    let seats = memory::seats(&machine.state());
    assert_eq!(seats.len(), SEATS);
    let mut bundles = bare::Bundles::copy(seats[0].first);
    memory(machine, &seats, report);
    dismiss(machine, &names).await;

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..CLASSES {
        let (names, took) = class(machine, &format!("class-{round}")).await;
        ours.push(took);
        dismiss(machine, &names).await;
        bare.push(bundles.prompts(SEATS));
    }
    report.row(
        "ten seats, from command to ten answering shells",
        format!("min {}, median {}; the first time {}", show(min(&ours)), show(quantile(&mut ours, 0.5)), show(cold)),
        format!("ten bare `runc run` to a prompt: min {}, median {}", show(min(&bare)), show(quantile(&mut bare, 0.5))),
        "< 2 s",
    );
    let mut one: Vec<Duration> = (0..CLASSES).map(|_| bundles.prompts(1)).collect();
    report.row("one bare `runc run` of the same files to a prompt", show(quantile(&mut one, 0.5)), "", "");
}

fn memory(machine: &Machine, seats: &[memory::Seat], report: &mut Report) {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let count = seats.len() as f64;
    let mean = |part: fn(&memory::Seat) -> f64| seats.iter().map(part).sum::<f64>() / count;
    report.row(
        "memory of a seat: tini and backend",
        format!(
            "{:.1} MiB of its own ({:.1} MiB resident)",
            mean(|seat| seat.own.proportional),
            mean(|seat| seat.own.resident)
        ),
        format!("the learner's shell {:.1} MiB", mean(|seat| seat.learner.proportional)),
        "< 20 MB",
    );
    report.row(
        "memory of a seat: its network and its state directory",
        format!(
            "{:.1} MiB ({:.1} MiB resident) and {:.1} MiB",
            mean(|seat| seat.network.proportional),
            mean(|seat| seat.network.resident),
            mean(|seat| seat.state)
        ),
        "",
        "in the < 20 MB",
    );
    let (resident, _) = report::resident(machine.pid());
    report.row("memory of `up` with ten seats", format!("{resident:.0} MiB"), "", "");
}

/// Goes through the steps of one workspace, over and over.
async fn switches(machine: &Machine, report: &mut Report) {
    let body = json!({ "template": TEMPLATE, "owner": "bench", "count": 1, "prefix": "switch" });
    let made = machine.ask(Method::POST, "instances", &body).await;
    let instance = &made["instances"][0];
    let name = instance["name"].as_str().expect("a name");
    let steps: Vec<&str> =
        instance["steps"].as_array().expect("steps").iter().map(|step| step["id"].as_str().expect("an id")).collect();
    // As a page does, which looks on while the machine is exchanged.
    let mut terminal = machine.answer(name, FRESH, "fresh").await;
    let (mut times, mut accepted) = (Vec::new(), Vec::new());
    // The first round unpacks what each step adds.
    for index in 1..steps.len() + SWITCHES {
        let start = Instant::now();
        let body = json!({ "step": steps[index % steps.len()] });
        machine.ask(Method::POST, &format!("instances/{name}/goto"), &body).await;
        let control = start.elapsed();
        let fresh = machine.answer(name, FRESH, "fresh").await;
        if index >= steps.len() {
            times.push(start.elapsed());
            accepted.push(control);
        }
        drop(std::mem::replace(&mut terminal, fresh));
    }
    report.row(
        &format!("step switch to an answering shell, {SWITCHES} times"),
        format!("p50 {}, p95 {}", show(quantile(&mut times, 0.5)), show(quantile(&mut times, 0.95))),
        format!(
            "the wish accepted: p50 {}, p95 {}",
            show(quantile(&mut accepted, 0.5)),
            show(quantile(&mut accepted, 0.95))
        ),
        "p95 < 0.5 s; control plane < 50 ms",
    );
    dismiss(machine, &[name.to_owned()]).await;
}

fn min(times: &[Duration]) -> Duration {
    *times.iter().min().expect("measured")
}

/// Edits a text, and asks for it as the page does.
async fn texts(machine: &Machine, report: &mut Report) {
    let body = json!({ "template": TEMPLATE, "owner": "bench", "count": 1, "prefix": "text" });
    let made = machine.ask(Method::POST, "instances", &body).await;
    let name = made["instances"][0]["name"].as_str().expect("a name");
    let step = made["instances"][0]["step"].as_str().expect("a step");
    machine.answer(name, FRESH, "fresh").await;
    let file = machine.source().join(EXAMPLE).join("export/steps").join(step).join("content.md");
    let text = std::fs::read_to_string(&file).expect("a text");
    let mut times = Vec::new();
    for index in 0..TEXTS {
        let word = format!("changed-{index}-times");
        std::fs::write(&file, format!("{text}\n\n{word}\n")).expect("written");
        let start = Instant::now();
        while !machine.step_html(name, step).await.contains(&word) {
            assert!(start.elapsed() < Duration::from_secs(60), "the page never has \"{word}\"");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        times.push(start.elapsed());
    }
    machine.answer(name, FRESH, "stale").await;
    let mut asked = Vec::new();
    for _ in 0..TEXTS {
        let start = Instant::now();
        machine.step_html(name, step).await;
        asked.push(start.elapsed());
    }
    report.row(
        &format!("changed text to page, {TEXTS} times"),
        format!("p50 {}, p95 {}", show(quantile(&mut times, 0.5)), show(quantile(&mut times, 0.95))),
        format!("asking for the text {}", show(quantile(&mut asked, 0.5))),
        "< 1 s, terminal untouched",
    );
    dismiss(machine, &[name.to_owned()]).await;
}

fn backend(machine: &Machine, report: &mut Report) {
    let size = std::fs::metadata(platform().join("workshop-backend")).expect("the backend").len();
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let size = size as f64 / 1e6;
    report.row("backend: size of the static program", format!("{size:.1} MB"), "", "< 15 MB");
    let alone = bare::backend(&artifact(&machine.state()), STARTS);
    let mut nothing: Vec<Duration> = (0..STARTS).map(|_| bare::nothing()).collect();
    let mut first_byte = alone.first_byte;
    report.row(
        &format!("backend: exec to the first byte of /healthz, {STARTS} starts"),
        format!("p50 {}, p95 {}", show(quantile(&mut first_byte, 0.5)), show(quantile(&mut first_byte, 0.95))),
        format!("exec of a static program that does nothing {}", show(quantile(&mut nothing, 0.5))),
        "< 50 ms",
    );
    let most = alone.idle.iter().copied().fold(0.0, f64::max);
    report.row("backend: idle memory", format!("{most:.1} MiB resident"), "", "< 15 MiB");
}

/// The artifact that was made last.
fn artifact(state: &Path) -> PathBuf {
    let entries = std::fs::read_dir(state.join("artifacts")).expect("a directory of artifacts").flatten();
    let databases = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "db"));
    databases.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok()).expect("an artifact").path()
}
