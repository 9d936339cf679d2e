//! What fails is named, and what was there before stays.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fixture::{BASE, Workshop, run, snapshot};
use crate::support::registry::{Answer, FaultyRegistry, LOGIN, Registry};
use crate::support::wait::wait_for;

/// A recipe of one step before the one with these commands.
fn recipe(commands: &str) -> String {
    format!(
        "version: v1\nworkshop: {{name: bad, image: team/bad}}\nbase: {{image: '{BASE}'}}\nsteps:\n\
         - {{id: good, title: Good, files: [{{path: /good, content: g}}]}}\n\
         - id: wrong\n  title: Wrong\n  commands:\n{commands}\n"
    )
}

fn message(document: &Value) -> String {
    let causes = document["failure"]["causes"].as_array().cloned().unwrap_or_default();
    let texts = std::iter::once(&document["failure"]["message"]).chain(&causes);
    texts.map(|text| text.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" | ")
}

#[test]
fn a_failing_command_names_its_place_and_leaves_what_is_published() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(&recipe("  - echo fine"));
    let (_, before) = workshop.compiled(&registry.host());
    workshop.edit(
        "  - echo fine",
        "  - echo fine\n  - |\n    for i in $(seq 1 30); do echo line $i; done\n    echo broken >&2\n    exit 3",
    );
    let (code, document) = workshop.compile(&registry.host(), &[]);
    assert_eq!(code, 1, "{document:#}");
    let command = &document["failure"]["command"];
    assert_eq!((&command["step"], &command["number"], &command["line"]), (&"wrong".into(), &2.into(), &11.into()));
    assert_eq!(command["exit"], "ended with exit code 3");
    let lines = command["lastLines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[19], &lines[0]), (20, &"broken".into(), &"line 12".into()));
    let log = fs::read_to_string(command["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("line 1\n") && log.contains("fine\n") && log.ends_with("broken\n"), "{log}");
    for part in ["command 2", "\"wrong\"", "\"bad\"", "step-spec.yaml:11", "exit code 3"] {
        assert!(message(&document).contains(part), "{part}: {}", message(&document));
    }
    let digest = run(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &format!("docker://{}/team/bad:wrong", registry.host()),
        ],
    );
    assert_eq!(String::from_utf8(digest).unwrap().trim(), before[1]);

    // Mended, only what failed is built.
    workshop.edit("exit 3", "exit 0");
    let (results, _) = workshop.compiled(&registry.host());
    assert_eq!(results, ["good reused", "wrong built"]);
}

#[test]
fn commands_that_cannot_end_well_are_told_apart() {
    let registry = Registry::start();
    let rows: [(&str, &[&str], i32, &str); 4] = [
        ("  - sleep 4711", &["--timeout", "1s"], 1, "was killed after 1 s"),
        ("  - sh -c 'kill -9 $$'; exit $?", &[], 1, "was killed by signal 9"),
        ("  - no-such-program", &[], 1, "exit code 127"),
        ("  - nc -w 3 127.0.0.1 PORT </dev/null", &["--no-network"], 1, "exit code 1"),
    ];
    for (commands, flags, expected, part) in rows {
        let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
        let workshop = Workshop::on_busybox(&recipe(&commands.replace("PORT", &port)));
        let before = Instant::now();
        let (code, document) = workshop.compile(&registry.host(), flags);
        assert_eq!(code, expected, "{commands}: {document:#}");
        assert!(message(&document).contains(part), "{commands}: {}", message(&document));
        assert!(before.elapsed() < Duration::from_secs(600), "sleep 4711 was waited for");
    }
    assert!(!is_running("4711"));
    // With the network it works, so it was the network that was missing.
    let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
    let workshop = Workshop::on_busybox(&recipe(&format!("  - nc -w 3 127.0.0.1 {port} </dev/null")));
    workshop.compiled(&registry.host());
}

#[test]
fn a_base_or_registry_that_is_not_there_is_named() {
    let registry = Registry::start();
    let (nowhere, host) = (Workshop::new(&recipe("  - 'true'")), registry.host());
    nowhere.edit(BASE, &format!("{host}/no/such:base"));
    let (code, document) = nowhere.compile(&host, &[]);
    assert_eq!(code, 3, "{document:#}");
    assert!(message(&document).contains("no/such:base"), "{}", message(&document));

    let workshop = Workshop::on_busybox(&recipe("  - 'true'"));
    let (code, document) = workshop.compile("127.0.0.1:1", &[]);
    assert_eq!(code, 3, "{document:#}");
    assert!(message(&document).contains("127.0.0.1:1"), "{}", message(&document));
}

#[test]
fn a_registrys_refusal_is_told_and_changes_nothing() {
    let workshop = Workshop::on_busybox(&recipe("  - 'true'"));
    for (status, headers, part) in [
        (401, "", "wants a login"),
        (403, "", "does not allow this login"),
        (429, "Retry-After: 3600\r\n", "limits requests"),
        (500, "", "its own log says why"),
    ] {
        let registry = FaultyRegistry::start(move |request| {
            if request == "GET /v2/" { Answer::status(200) } else { Answer { status, headers, body: Vec::new() } }
        });
        let (code, document) = workshop.compile(&registry.host(), &[]);
        assert_eq!(code, 3, "{status}: {document:#}");
        let message = message(&document);
        assert!(message.contains(part) && message.contains(&registry.host()), "{status}: {message}");
        assert!(!registry.seen().iter().any(|request| request.starts_with("PUT ")), "{:?}", registry.seen());
    }
}

#[test]
fn the_users_own_login_is_used_and_never_shown() {
    let registry = Registry::start_with_login();
    let workshop = Workshop::on_busybox(&recipe("  - 'true'"));
    let docker = tempfile::tempdir().unwrap();
    let compile = |password: &str| {
        let auths = serde_json::json!({ registry.host(): { "username": LOGIN.0, "password": password } });
        fs::write(docker.path().join("config.json"), serde_json::json!({ "auths": auths }).to_string()).unwrap();
        let output =
            workshop.compile_command(&registry.host(), &["-vv"]).env("DOCKER_CONFIG", docker.path()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains(password), "{text}");
        (output.status.code(), text)
    };
    let (code, text) = compile("a wrong one");
    assert!(code == Some(3) && text.contains("wants a login"), "{code:?} {text}");
    let (code, text) = compile(LOGIN.1);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_file_in_the_way_of_a_directory_is_named_with_its_line() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(&recipe("  - 'true'"));
    workshop.edit("path: /good", "path: /etc/passwd/good");
    let (code, document) = workshop.compile(&registry.host(), &[]);
    assert_eq!(code, 1, "{document:#}");
    for part in ["step-spec.yaml:5", "/etc/passwd"] {
        assert!(message(&document).contains(part), "{part}: {}", message(&document));
    }
}

#[test]
fn a_platform_that_would_not_start_in_every_image_is_refused() {
    let registry = Registry::start();
    let mut workshop = Workshop::on_busybox(&recipe("  - 'true'"));
    let platform = tempfile::tempdir().unwrap();
    fs::copy(workshop.platform.join("tini"), platform.path().join("tini")).unwrap();
    for (program, part) in [("/bin/bash", "linked dynamically"), ("/etc/passwd", "no 64-bit ELF")] {
        fs::copy(program, platform.path().join("workshop-backend")).unwrap();
        workshop.platform = platform.path().to_owned();
        let output = workshop.compile_command(&registry.host(), &[]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(errors.contains(part), "{errors}");
    }
}

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &path]);
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let registry = Registry::start();
    let mut workshop = Workshop::on_busybox(&recipe("  - echo 1 > /one"));
    let (_, before) = workshop.compiled(&registry.host());
    let published = snapshot(&registry.data().join("docker/registry/v2/repositories/team/bad/_manifests/tags/wrong"));
    let disk = SmallDisk::new("12m");
    let whole = std::mem::replace(&mut workshop.state, disk.0.path().to_owned());
    // The base is there, the changes of the command no longer fit.
    workshop.import(&super::fixture::busybox_root());
    workshop.edit("echo 1 > /one", "dd if=/dev/urandom of=/one bs=1M count=20");
    let (code, document) = workshop.compile(&registry.host(), &[]);
    assert!(code == 1 || code == 3, "{document:#}");
    let lines = document["failure"]["command"]["lastLines"].to_string();
    let told = format!("{} {lines}", message(&document));
    assert!(told.contains("disk is full") || told.contains("No space left"), "{told}");
    assert_eq!(
        snapshot(&registry.data().join("docker/registry/v2/repositories/team/bad/_manifests/tags/wrong")),
        published
    );
    workshop.edit("dd if=/dev/urandom of=/one bs=1M count=20", "echo 1 > /one");
    workshop.state = whole;
    assert_eq!(workshop.compiled(&registry.host()).1, before);
}

#[test]
fn a_killed_compile_leaves_nothing_that_the_next_one_does_not_clean_up() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(&recipe("  - sleep 4712"));
    let mut child = workshop.compile_command(&registry.host(), &[]).spawn().unwrap();
    wait_for("the command to run", Duration::from_secs(60), || is_running("4712").then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(mounts_below(&workshop.state) > 0, "the kill came too late to show anything");
    workshop.edit("sleep 4712", "echo done");
    let (results, _) = workshop.compiled(&registry.host());
    assert_eq!(results, ["good reused", "wrong built"]);
    assert_eq!(mounts_below(&workshop.state), 0);
    assert!(!is_running("4712"));
    assert_eq!(fs::read_dir(workshop.state.join("run")).unwrap().count(), 0);
}

#[test]
fn an_interrupted_compile_ends_its_command_at_once() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(&recipe("  - sleep 4713"));
    let mut child =
        workshop.compile_command(&registry.host(), &[]).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("the command to run", Duration::from_secs(60), || is_running("4713").then_some(()));
    run("kill", &["-INT", &child.id().to_string()]);
    let status = wait_for("the compile to end", Duration::from_secs(60), || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(3));
    assert!(!is_running("4713"));
    assert_eq!(mounts_below(&workshop.state), 0);
}

/// The mounts below a directory.
fn mounts_below(directory: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(directory.to_str().unwrap())).count()
}

/// True when a process has this argument.
fn is_running(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        fs::read(process.path().join("cmdline")).is_ok_and(|line| {
            line.starts_with(b"sleep") && line.split(|byte| *byte == 0).any(|given| given == argument.as_bytes())
        })
    })
}
