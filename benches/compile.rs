//! Compile: ten files-only steps beside buildah and docker, an unchanged workshop, and one command beside runc.
//!
//! Drives the program as an author does, so that start-up and the state directory count.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod fixture;
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod report;

use report::{Report, quantile, show, time};

const STEPS: usize = 10;
const FILES: usize = 20;
const SIZE: usize = 5_000;
const RUNS: usize = 5;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let workshop = directory.path().join("workshop");
    fixture::write_recipe(&workshop, "bench", STEPS, FILES, SIZE);

    let mut report = Report::new("Compile: ten files-only steps, 20 files of 5 kB each");
    let mut fresh = Vec::new();
    for run in 0..RUNS {
        let state = directory.path().join(format!("state-{run}"));
        fresh.push(time(|| compile(&workshop, &state)).1);
    }
    let state = directory.path().join("state-0");
    let mut unchanged: Vec<Duration> = (0..RUNS).map(|_| time(|| compile(&workshop, &state)).1).collect();
    let ours = quantile(&mut fresh, 0.5);

    let peers: Vec<(&str, Option<Duration>)> = vec![
        ("buildah", with_buildah(&workshop, directory.path())),
        ("docker", with_docker(&workshop, directory.path())),
    ];
    for (name, peer) in peers {
        let beside = match peer {
            Some(peer) => format!("{name} {}: {:.0} ×", show(peer), peer.as_secs_f64() / ours.as_secs_f64()),
            None => format!("{name}: not usable here"),
        };
        report.row("files only, 10 steps, from nothing", show(ours), beside, "≥ 20 × faster than buildah");
    }
    report.row("unchanged", show(quantile(&mut unchanged, 0.5)), "", "< 50 ms");

    one_command(directory.path(), &mut report);
}

fn workshop_program(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
    command.arg("--state").arg(state).arg("--quiet");
    command
}

fn compile(workshop: &Path, state: &Path) {
    must(workshop_program(state).args(["build", "compile"]).arg(workshop));
}

fn must(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The fastest way buildah has: one working container, a copy and a commit for each step.
fn with_buildah(workshop: &Path, directory: &Path) -> Option<Duration> {
    Command::new("buildah").arg("--version").output().ok()?;
    let storage = directory.join("buildah");
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run")).args(arguments);
        String::from_utf8_lossy(&must(&mut command).stdout).trim().to_owned()
    };
    let mut runs: Vec<Duration> = (0..3)
        .map(|run| {
            time(|| {
                let container = buildah(&["from", "scratch"]);
                for step in 1..=STEPS {
                    let source = workshop.join(format!("files/step-{step}"));
                    buildah(&["copy", "-q", &container, &source.to_string_lossy(), &format!("/data/step-{step}")]);
                    buildah(&["commit", "-q", &container, &format!("bench-{run}:step-{step}")]);
                }
                container
            })
        })
        .map(|(container, duration)| {
            buildah(&["rm", &container]);
            duration
        })
        .collect();
    // Its storage is a mount of its own, which would keep the directory from being removed.
    let _ = Command::new("umount").arg(storage.join("root/overlay")).output();
    Some(quantile(&mut runs, 0.5))
}

/// One Dockerfile with a stage for each step; `None` where no daemon answers.
fn with_docker(workshop: &Path, directory: &Path) -> Option<Duration> {
    Command::new("docker").arg("version").output().ok().filter(|output| output.status.success())?;
    let mut text = "FROM scratch AS step-0\n".to_owned();
    for step in 1..=STEPS {
        text += &format!("FROM step-{} AS step-{step}\nCOPY files/step-{step} /data/step-{step}\n", step - 1);
    }
    let dockerfile = directory.join("Dockerfile");
    fixture::write(&dockerfile, &text);
    let (_, duration) = time(|| {
        for step in 1..=STEPS {
            must(
                Command::new("docker")
                    .args(["build", "-q", "--target", &format!("step-{step}"), "-f"])
                    .arg(&dockerfile)
                    .args(["-t", &format!("workshop-bench:step-{step}")])
                    .arg(workshop),
            );
        }
    });
    for step in 1..=STEPS {
        must(Command::new("docker").args(["image", "rm", &format!("workshop-bench:step-{step}")]));
    }
    Some(duration)
}

/// What a step with one command costs above a step with one file, beside a bare container of the same runtime.
fn one_command(directory: &Path, report: &mut Report) {
    let root = directory.join("root");
    std::fs::create_dir_all(root.join("bin")).expect("a directory");
    must(Command::new("cp").args(["/bin/busybox"]).arg(root.join("bin/busybox")));
    for name in ["sh", "true"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    let archive = directory.join("root.tar");
    must(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg("."));

    let state = directory.join("state-command");
    must(
        workshop_program(&state)
            .args(["image", "import-rootfs"])
            .arg(&archive)
            .args(["--tag", "docker.io/bench/base:1"]),
    );
    let write = |name: &str, content: &str| {
        let workshop = directory.join(name);
        let recipe = format!(
            "version: v1\nworkshop:\n  name: {name}\n  image: workshops/{name}\nbase:\n  image: docker.io/bench/base:1\nsteps:\n  - id: only\n    title: Only\n    {content}\n"
        );
        fixture::write(&workshop.join("step-spec.yaml"), &recipe);
        fixture::write(&workshop.join("export/steps/only/content.md"), "# Only\n");
        workshop
    };
    // A number in the content makes each run a new key.
    let (mut plain, mut command): (Vec<Duration>, Vec<Duration>) = (0..RUNS)
        .map(|run| {
            let file = write(&format!("file-{run}"), &format!("files: [{{ path: /a, content: \"{run}\" }}]"));
            let shell = write(&format!("command-{run}"), &format!("commands: [ \"true {run}\" ]"));
            (time(|| compile(&file, &state)).1, time(|| compile(&shell, &state)).1)
        })
        .unzip();
    let bundle = directory.join("bundle");
    std::fs::create_dir_all(&bundle).expect("a directory");
    must(Command::new("cp").arg("-a").arg(&root).arg(bundle.join("rootfs")));
    must(Command::new("runc").arg("spec").current_dir(&bundle));
    let config = bundle.join("config.json");
    let text = std::fs::read_to_string(&config).expect("runc wrote it");
    let mut spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "true"]);
    std::fs::write(&config, spec.to_string()).expect("written");
    let mut bare: Vec<Duration> = (0..RUNS)
        .map(|run| {
            let id = format!("workshop-bench-{}-{run}", std::process::id());
            time(|| must(Command::new("runc").args(["run", &id]).current_dir(&bundle))).1
        })
        .collect();

    let extra = quantile(&mut command, 0.5).saturating_sub(quantile(&mut plain, 0.5));
    let bare = quantile(&mut bare, 0.5);
    report.row(
        "one command, above one file",
        show(extra),
        format!("bare `runc run` of the same command {}: {} more", show(bare), show(extra.saturating_sub(bare))),
        "< 30 ms more",
    );
}
