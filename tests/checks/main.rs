//! Checks whose commands run as another user, by the real program's helper mode.
//!
//! Needs root, as the backend has it in a workspace.

use std::path::Path;
use std::time::{Duration, Instant};

use workshop::backend::checks::{Options, run};
use workshop::backend::exec::{self, Identity};

fn options() -> Options {
    exec::use_program(Path::new(env!("CARGO_BIN_EXE_workshop-backend")));
    assert!(rustix::process::geteuid().is_root(), "run this test as root: it starts programs as other users");
    let identity = Identity { uid: 12_345, gid: 23_456, groups: vec![23_456, 34_567] };
    Options { command_user: Some(identity), ..Options::default() }
}

#[tokio::test]
async fn commands_run_as_the_user_that_is_named() {
    let spec = "command:
  who: {exec: 'id -u; id -G', exit-status: 0, stdout: {equal: \"12345\\n23456 34567\\n\"}}
  shadow: {exec: 'cat /etc/shadow', exit-status: {gt: 0}, stdout: ''}
  list: {exec: [printf, '%s', a b], exit-status: 0, stdout: a b}
  three: {exec: exit 3, exit-status: 3}
";
    let report = run(spec, &options()).await.unwrap();
    assert!(report.passed && report.counts.total == 7, "{:#?}", report.results);
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
