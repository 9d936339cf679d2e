//! Checks with real parts: commands as another user by the program's helper mode, a TLS server by openssl.
//!
//! Needs root, as the backend has it in a workspace.

use std::path::Path;
use std::time::{Duration, Instant};

use workshop::backend::checks::{CommandUser, Options, run};
use workshop::backend::exec::{self, Identity};
use workshop::domain::workspace::CheckEngine;

fn options() -> Options {
    exec::use_program(Path::new(env!("CARGO_BIN_EXE_workshop-backend")));
    assert!(rustix::process::geteuid().is_root(), "run this test as root: it starts programs as other users");
    let identity = Identity { uid: 12_345, gid: 23_456, groups: vec![23_456, 34_567] };
    let environment = vec![("HOME".into(), "/home/zoe".into()), ("WORKSHOP_TOKEN".into(), "x".into())];
    Options { command_user: Some(CommandUser { identity, environment }), ..Options::default() }
}

#[tokio::test]
async fn commands_run_as_the_user_that_is_named() {
    let spec = "command:
  who: {exec: 'id -u; id -G', exit-status: 0, stdout: {equal: \"12345\\n23456 34567\\n\"}}
  shadow: {exec: 'cat /etc/shadow', exit-status: {gt: 0}, stdout: ''}
  list: {exec: [printf, '%s', a b], exit-status: 0, stdout: a b}
  three: {exec: exit 3, exit-status: 3}
  home: {exec: 'echo $HOME; env', exit-status: 0, stdout: [/home/zoe, '!WORKSHOP_']}
  root: {exec: 'id -u; echo $HOME', meta: {user: root}, exit-status: 0, stdout: {equal: \"0\\n/root\\n\"}}
";
    let report = run(spec, &options()).await.unwrap();
    assert!(report.passed && report.counts.total == 11, "{:#?}", report.results);
}

#[tokio::test]
async fn their_process_group_is_killed_when_the_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let spec = format!(
        "command: {{hangs: {{exec: 'sleep 600 & echo $! > {}; wait', exit-status: 0, timeout: 3000}}}}\n",
        file.display()
    );
    let report = run(&spec, &options()).await.unwrap();
    assert!(report.results[0].found.contains("within 3000 ms"), "{:#?}", report.results);
    let pid = std::fs::read_to_string(&file).unwrap();
    assert!(!pid.trim().is_empty(), "the command did not begin");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z')) {
            break;
        }
        assert!(Instant::now() < deadline, "{pid} lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A TLS server with a certificate of its own making; ends with the test.
struct Secure {
    server: std::process::Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn secure_server() -> Secure {
    use std::process::{Command, Stdio};
    let directory = tempfile::tempdir().expect("a temporary directory");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(directory.path())
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "the test needs the program openssl: apt install openssl");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-www",
            "-key",
            "key.pem",
            "-cert",
            "cert.pem",
            "-accept",
            &format!("127.0.0.1:{port}"),
        ])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "openssl s_server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Secure { server, directory, port }
}

#[tokio::test]
async fn certificates_are_verified_unless_the_check_says_otherwise() {
    let secure = secure_server();
    let (port, certificate) = (secure.port, secure.directory.path().join("cert.pem"));
    let spec = format!(
        "http:
  unknown: {{url: 'https://127.0.0.1:{port}/', status: 200, timeout: 30000}}
  insecure: {{url: 'https://127.0.0.1:{port}/', allow-insecure: true, status: 200, body: [TLS], timeout: 30000}}
  trusted: {{url: 'https://127.0.0.1:{port}/', ca-file: {0}, status: 200, timeout: 30000}}
  missing: {{url: 'https://127.0.0.1:{port}/', ca-file: {0}.no, status: 200, timeout: 30000}}
",
        certificate.display()
    );
    let report = run(&spec, &Options::default()).await.unwrap();
    let outcomes: Vec<String> = report.results.iter().map(|it| format!("{:?} {}", it.outcome, it.found)).collect();
    assert!(outcomes[0].starts_with("Failed it does not answer: invalid peer certificate"), "{outcomes:#?}");
    assert_eq!(outcomes[1], "Passed 200");
    assert!(outcomes[2].starts_with("Passed"), "{outcomes:#?}");
    assert_eq!(outcomes[3], "Passed 200");
    assert!(outcomes[4].starts_with("Error there is no file"), "{outcomes:#?}");
}

/// An image whose goss is this script; everybody may run it.
fn image(directory: &Path, script: &str) -> Options {
    use std::os::unix::fs::PermissionsExt as _;
    let program = directory.join("goss");
    let text = directory.join("script");
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("the directory is ours");
    for path in [directory, &text] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    // By a program: what another test starts at this moment would hold a file of ours open for writing.
    let copied = std::process::Command::new("/bin/cp").arg("-p").arg(&text).arg(&program).status();
    assert!(copied.is_ok_and(|status| status.success()));
    Options {
        engine: CheckEngine::Goss,
        base_dir: directory.to_owned(),
        image_environment: vec![("PATH".into(), format!("{}:/usr/bin:/bin", directory.display()).into())],
        ..options()
    }
}

#[tokio::test]
async fn the_images_goss_runs_as_the_learner_and_reads_the_spec_from_its_input() {
    let directory = tempfile::tempdir().unwrap();
    let spec = "command: {who: {exec: id -u, exit-status: 0}}\n";
    // It reports who it is, what it was told, what it read and what it may not read.
    let script = r#"
spec=$(cat); [ "$WORKSHOP_TOKEN" ] && spec=leaked
shadow=$(head -n 1 /etc/shadow 2>/dev/null)
printf '{"results":[{"resource-type":"Command","resource-id":"who","property":"exit-status","successful":true,"summary-line-compact":"%s|%s|%s|%s|%s"}]}' \
  "$(id -u)" "$*" "$spec" "$shadow" "$(pwd)""#;
    let report = run(spec, &image(directory.path(), script)).await.unwrap();
    let expected = "12345|-g - validate --format json --no-color|command: {who: {exec: id -u, exit-status: 0}}||/";
    assert_eq!(report.results[0].message, expected);
    // Where the learner is root, so is goss, and the spec is a file beside what it includes.
    let root = Options { command_user: None, ..image(directory.path(), script) };
    let report = run(spec, &root).await.unwrap();
    assert!(report.results[0].message.starts_with("0|-g "), "{}", report.results[0].message);
}
