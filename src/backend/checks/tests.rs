//! Whole runs of checks, on the real machine.

use std::time::{Duration, Instant};

use super::*;
use crate::domain::goss::Outcome;

async fn report(spec: &str) -> Report {
    run(spec, &Options::default()).await.expect("a spec that can be run")
}

/// Runs `spec` and compares `property outcome` of each result, in order.
async fn check(spec: &str, expected: &[&str]) {
    let report = report(spec).await;
    let found: Vec<String> = report
        .results
        .iter()
        .map(|result| format!("{} {}", result.property, format!("{:?}", result.outcome).to_lowercase()))
        .collect();
    assert_eq!(found, expected, "{spec}\n{:#?}", report.results);
    assert_eq!(report.counts.total, expected.len());
}

fn fixture() -> (tempfile::TempDir, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("file"), "one\ntwo words\r\nthree\n").unwrap();
    std::fs::set_permissions(path("file"), std::fs::Permissions::from_mode(0o4640)).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    std::os::unix::fs::symlink("file", path("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
    std::fs::create_dir(path("directory")).unwrap();
    std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let text = directory.path().to_string_lossy().into_owned();
    (directory, text)
}

#[tokio::test]
async fn files_have_their_attributes() {
    let (_directory, path) = fixture();
    check(
        &format!(
            "file:
  {path}/file:
    exists: true
    mode: '4640'
    size: 21
    uid: {uid}
    owner: root
    gid: {gid}
    filetype: file
    contents: [one, two words, '/^t.*s$/', '!four', '!/^f/', '']
    md5: {{match-regexp: '^[0-9a-f]{{32}}$'}}
    sha256: {{have-len: 64}}
    sha512: {{have-len: 128}}
  {path}/link: {{exists: true, filetype: symlink, linked-to: file}}
  {path}/dangling: {{exists: true, filetype: symlink, contents: [x]}}
  {path}/directory: {{exists: true, filetype: directory, contents: [x]}}
  {path}/socket: {{exists: true, filetype: socket}}
  {path}/empty: {{exists: true, size: 0, contents: ''}}
  {path}/whole: {{path: {path}/file, exists: true, contents: {{have-len: 21}}}}
",
            uid = rustix::process::getuid().as_raw(),
            gid = rustix::process::getgid().as_raw(),
        ),
        &[
            "exists passed",
            "mode passed",
            "size passed",
            "uid passed",
            "owner passed",
            "gid passed",
            "filetype passed",
            "contents passed",
            "md5 passed",
            "sha256 passed",
            "sha512 passed",
            "exists passed",
            "filetype passed",
            "linked-to passed",
            "exists passed",
            "filetype passed",
            "contents failed",
            "exists passed",
            "filetype passed",
            "contents failed",
            "exists passed",
            "filetype passed",
            "exists passed",
            "size passed",
            "contents passed",
            "exists passed",
            "contents passed",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_closed_gate_skips_the_rest_and_absence_has_no_other_attributes() {
    check("file: {/nowhere/at/all: {mode: '0644', exists: true}}", &["exists failed", "mode skipped"]).await;
    check("file: {/nowhere: {exists: false, mode: '0644'}}", &["exists passed", "mode skipped"]).await;
    check("user: {nobody-here: {exists: true, uid: 5}}", &["exists failed", "uid skipped"]).await;
    check("package: {nothing-here: {installed: true, versions: ['1']}}", &["installed failed", "versions skipped"])
        .await;
    check("file: {/: {exists: true, mode: '0123', skip: true}}", &["exists skipped", "mode skipped"]).await;
    // A command has no gate.
    check("command: {exit 3: {exit-status: 0, stdout: ''}}", &["exit-status failed", "stdout passed"]).await;
}

#[tokio::test]
async fn commands_are_compared_and_retried() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tries");
    check(
        &format!(
            "command:
  counted:
    exec: 'echo x >> {0}; test $(wc -l < {0}) -ge 3'
    exit-status: 0
    retry_count: 5
    retry_delay: 10
  plain: {{exec: 'printf \"a\\nb\\n\"; echo e >&2', exit-status: 0, stdout: [a, b, '!c'], stderr: [e]}}
  numbers: {{exec: 'echo 42', exit-status: {{lt: 1}}, stdout: {{and: [{{gt: 41}}, {{le: 42}}]}}}}
",
            file.display()
        ),
        &[
            "exit-status passed",
            "exit-status passed",
            "stdout passed",
            "stderr passed",
            "exit-status passed",
            "stdout passed",
        ],
    )
    .await;
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn what_is_not_done_in_time_is_an_error_and_the_rest_is_reported() {
    let options = Options { timeout: Duration::from_secs(2), ..Options::default() };
    let spec = "file: {/: {exists: true}}\ncommand: {sleep 600: {exit-status: 0, timeout: 500000}}\n";
    let start = Instant::now();
    let report = run(spec, &options).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(60));
    let outcomes: Vec<Outcome> = report.results.iter().map(|result| result.outcome).collect();
    assert_eq!(outcomes, [Outcome::Passed, Outcome::Error]);
    assert!(report.results[1].message.contains("within 2 seconds"), "{report:#?}");
    assert!(!report.passed);
}
