//! Whole runs of checks, on the real machine.

mod engines;
mod network;

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

#[tokio::test]
async fn every_kind_of_resource_can_be_asked_for() {
    let mut sleeping =
        crate::backend::reaper::spawn(tokio::process::Command::new("/bin/sleep").arg("600").kill_on_drop(true))
            .unwrap();
    check(
        "process: {sleep: {running: true}, no-such-process: {running: false}}
user: {root: {exists: true, uid: 0, gid: 0, home: /root, groups: [root], shell: {have-prefix: /}}}
group: {root: {exists: true, gid: 0}}
package: {dpkg: {installed: true, versions: {contain-element: {match-regexp: '^1[.]'}}}}
mount: {/proc: {exists: true, filesystem: proc, opts: [rw], usage: {le: 100}}}
interface: {lo: {exists: true, addrs: [127.0.0.1/8], mtu: {gt: 1000}}}
kernel-param: {kernel.ostype: {value: Linux}, kernel.pid_max: {value: {gt: 100}}}
matching: {sum: {content: 5, matches: {and: [{gt: 4}, '5']}}}
registry: {'HKLM': {exists: true}}
",
        &[
            "running passed",
            "running passed",
            "exists passed",
            "uid passed",
            "gid passed",
            "home passed",
            "groups passed",
            "shell passed",
            "exists passed",
            "gid passed",
            "installed passed",
            "versions passed",
            "exists passed",
            "filesystem passed",
            "opts passed",
            "usage passed",
            "exists passed",
            "addrs passed",
            "mtu passed",
            "value passed",
            "value passed",
            "matches passed",
            "exists error",
        ],
    )
    .await;
    sleeping.kill().await.unwrap();
}

#[tokio::test]
async fn learners_read_the_authors_words_or_a_sentence() {
    let report = report(
        "file:
  /nowhere: {exists: true}
  /etc/passwd:
    exists: true
    mode: '0600'
    contents: [no such line, '!/^root:/']
  /etc/group:
    title: The group file is empty
    meta: {hint: {size: Use truncate, exists: Make it}, message: {size: It is too large}}
    exists: true
    size: 0
    owner: nobody
command:
  echo 1000: {exit-status: 0, stdout: '0'}
  exit 3: {exit-status: 0, stderr: ''}
user: {root: {exists: false}}
",
    )
    .await;
    let words: Vec<(&str, Option<&str>)> =
        report.results.iter().map(|result| (result.message.as_str(), result.hint.as_deref())).collect();
    assert_eq!(
        words,
        [
            ("/nowhere should exist", None),
            ("/etc/passwd should exist", None),
            ("the mode of /etc/passwd should be 0600, it is 0644", None),
            ("/etc/passwd should have a line with \"no such line\" and have no line that matches /^root:/", None),
            ("The group file is empty", Some("Make it")),
            ("It is too large", Some("Use truncate")),
            ("The group file is empty", None),
            ("`echo 1000` should end with exit status 0", None),
            ("`echo 1000` should print 0, it printed 1000", None),
            ("`exit 3` should end with exit status 0, it ended with 3", None),
            ("the errors of `exit 3` should be empty", None),
            ("the user root should not exist", None),
        ]
    );
    assert_eq!((report.counts.failed, report.counts.passed, report.passed), (8, 4, false));
}

#[tokio::test]
async fn an_answer_that_the_author_asks_for_is_nowhere_in_the_report() {
    let spec = "command:
  answer: {title: You know the colour, exec: echo blue, exit-status: 0, stdout: [amber, '/^am/', blue]}
  whole: {title: You know it all, exec: echo blue, exit-status: 0, stdout: amber}
  silent: {meta: {reveal: false}, exec: echo blue, exit-status: {lt: 123454321}, stdout: {not: {have-prefix: blue}}}
  open: {title: Open, meta: {reveal: true}, exec: echo blue, exit-status: 0, stdout: [green]}
";
    let report = report(spec).await;
    let text = format!("{}{}", serde_json::to_string(&report).unwrap(), report.to_goss());
    for secret in ["amber", "/^am/", "123454321"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains("green"));
    let messages: Vec<&str> = report.results.iter().map(|result| result.message.as_str()).collect();
    assert_eq!(messages[4..6], ["`echo blue` is as it should be", "`echo blue` is not yet as it should be"]);
    assert_eq!((report.counts.passed, report.counts.failed), (4, 4));
}

#[tokio::test]
async fn the_report_has_gosss_own_form_as_well() {
    let report = report(
        "file: {/nowhere: {exists: true, mode: '0644'}}
matching: {a: {title: Sum, meta: {by: me}, content: '5', matches: {gt: 6}}, b: {content: x, matches: x}}
service: {'bad name': {running: true}}
",
    )
    .await;
    let goss = report.to_goss();
    let part = |index: usize, key: &str| goss["results"][index][key].clone();
    assert_eq!(goss["summary"]["test-count"], 5);
    assert_eq!(goss["summary"]["failed-count"], 3);
    assert_eq!(goss["summary"]["skipped-count"], 1);
    assert!(
        goss["summary"]["summary-line"].as_str().unwrap().starts_with("Count: 5, Failed: 3, Skipped: 1, Duration: ")
    );
    assert_eq!((part(0, "result"), part(1, "result"), part(3, "result")), (1.into(), 2.into(), 0.into()));
    assert_eq!(
        (part(0, "successful"), part(1, "skipped"), part(3, "successful")),
        (false.into(), true.into(), true.into())
    );
    assert_eq!(part(2, "resource-type"), "Matching");
    assert_eq!(part(2, "title"), "Sum");
    assert_eq!(part(2, "meta")["by"], "me");
    assert_eq!(part(2, "matcher-result")["message"], "to be numerically gt");
    assert_eq!(part(2, "matcher-result")["untransformed-value"], "5");
    assert_eq!(
        part(2, "summary-line-compact"),
        "Matching: a: matches: Expected 5 to be numerically gt 6 the transform chain was [{\"to-numeric\":{}}] the raw value was \"5\""
    );
    assert_eq!(part(3, "summary-line"), "Matching: b: matches: matches expectation: \"x\"");
    assert!(part(4, "err").is_string());
    let time: jiff::Timestamp = part(0, "start-time").as_str().unwrap().parse().unwrap();
    assert!(time >= report.started_at);
    // A report that was kept as JSON comes back whole, but for what only goss's form has.
    let text = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(back.counts, report.counts);
    assert_eq!(back.to_goss()["summary"], goss["summary"]);
    for key in ["\"resourceId\"", "\"durationMs\"", "\"startedAt\"", "\"outcome\":\"skipped\""] {
        assert!(text.contains(key), "{key} in {text}");
    }
}

#[tokio::test]
async fn ten_thousand_assertions_are_made_in_the_order_of_the_spec() {
    use std::fmt::Write as _;
    let mut spec = String::from("matching:\n");
    for number in 0..10_000 {
        writeln!(spec, "  m{number}: {{content: {number}, matches: {number}}}").unwrap();
    }
    let report = report(&spec).await;
    assert_eq!((report.counts.total, report.counts.passed), (10_000, 10_000));
    assert!(report.results.iter().enumerate().all(|(index, result)| result.resource_id == format!("m{index}")));
}

#[tokio::test]
async fn a_spec_that_is_wrong_is_the_authors_problem_with_its_place() {
    let error = run("file: {/a: {exsts: true}}", &Options::default()).await.unwrap_err();
    assert!(matches!(&error, ChecksError::Spec(problems) if problems.len() == 1), "{error:?}");
    assert!(error.to_string().contains("goss.yaml:1:13"), "{error}");
}
