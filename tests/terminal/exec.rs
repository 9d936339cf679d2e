//! The helper mode that drops privileges, with the real program.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use workshop::backend::exec::{self, ControllingTerminal, Identity};

use crate::support::use_the_backend;

const LEARNER: u32 = 1000;

fn learner() -> Identity {
    Identity { uid: LEARNER, gid: LEARNER, groups: vec![27, LEARNER] }
}

/// Exit code, standard output and standard error of a script that runs as somebody.
async fn run(
    identity: &Identity,
    directory: &str,
    environment: &[(&str, &str)],
    script: &str,
) -> (i32, String, String) {
    use_the_backend();
    assert!(rustix::process::geteuid().is_root(), "dropping privileges needs root: run the tests as root");
    let output = exec::command(
        identity,
        Path::new(directory),
        environment.iter().map(|(name, value)| (OsStr::new(*name), OsStr::new(*value))),
        OsStr::new("/bin/bash"),
        ["-c", script].map(OsStr::new),
        ControllingTerminal::No,
    )
    .stdin(Stdio::null())
    .output()
    .await
    .expect("the helper mode starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_identity_is_dropped_for_good() {
    let script = "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm|CapAmb|NoNewPrivs|SigBlk):' /proc/self/status; :";
    let (code, out, err) = run(&learner(), "/", &[], script).await;
    let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        words,
        [
            vec!["Uid:", "1000", "1000", "1000", "1000"],
            vec!["Gid:", "1000", "1000", "1000", "1000"],
            vec!["Groups:", "27", "1000"],
            vec!["SigBlk:", "0000000000000000"],
            vec!["CapPrm:", "0000000000000000"],
            vec!["CapEff:", "0000000000000000"],
            vec!["CapAmb:", "0000000000000000"],
            // sudo must work in lessons about it.
            vec!["NoNewPrivs:", "0"],
        ]
    );
}

#[tokio::test]
async fn what_was_dropped_cannot_be_regained() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "secret").expect("a file of root");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("a file of root alone");
    let script = format!("cat {}; cat /proc/1/environ; kill -0 1; kill -0 {}", secret.display(), std::process::id());
    let (code, out, err) = run(&learner(), "/", &[("PATH", "/usr/bin:/bin")], &script).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_eq!(err.lines().count(), 4, "{err}");
    // The helper mode itself is no way back either.
    let again = format!("{} exec 0 0 '' none / /usr/bin/id", env!("CARGO_BIN_EXE_workshop-backend"));
    let (code, out, err) = run(&learner(), "/", &[], &again).await;
    assert_ne!(code, 0, "{err}");
    assert_eq!(out, "");
}

#[tokio::test]
async fn the_environment_and_arguments_are_exactly_those_given() {
    let environment = [("PATH", "/usr/bin:/bin"), ("WORD", "a b\nc"), ("EMPTY", "")];
    let (code, out, err) = run(&learner(), "/tmp", &environment, "cat /proc/self/environ | tr '\\0' '|'").await;
    assert_eq!((code, err.as_str()), (0, ""));
    let mut found: Vec<&str> = out.trim_end_matches('|').split('|').collect();
    found.sort_unstable();
    // The three that bash itself adds tell where it started.
    found.retain(|pair| !pair.starts_with("_=") && !pair.starts_with("SHLVL="));
    assert_eq!(found, ["EMPTY=", "PATH=/usr/bin:/bin", "PWD=/tmp", "WORD=a b\nc"]);
}

#[tokio::test]
async fn signals_have_their_default_actions() {
    let (_, out, err) = run(&learner(), "/", &[("PATH", "/usr/bin:/bin")], "grep ^SigIgn: /proc/self/status").await;
    let ignored = out.trim_start_matches("SigIgn:").trim();
    let ignored = u64::from_str_radix(ignored, 16).expect(&err);
    // The highest ones belong to the C library.
    assert_eq!(ignored & 0x7fff_ffff, 0, "{out}");
}

#[tokio::test]
async fn no_file_of_this_program_is_open_in_the_other() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("open");
    let _file = std::fs::File::create(&path).expect("a file");
    let _socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let script = "for fd in /proc/$$/fd/*; do readlink $fd; done";
    let (_, out, err) = run(&learner(), "/", &[("PATH", "/usr/bin:/bin")], script).await;
    let count = |what: &str| out.lines().filter(|line| line.contains(what)).count();
    // What the tests themselves were started with is not this program's.
    let inherited = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten().filter(|entry| {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map_or("2000000", str::trim);
        u64::from_str_radix(flags, 8).unwrap() & 0o2_000_000 == 0
    });
    assert!(out.lines().count() <= inherited.count() + 1, "{out}{err}");
    assert_eq!(count(path.to_str().unwrap()), 0, "{out}");
}

#[tokio::test]
async fn a_session_and_a_directory_of_its_own() {
    let (_, out, _) = run(
        &learner(),
        "/root/not/for/learners",
        &[("PATH", "/usr/bin:/bin")],
        "pwd; ps -o sid= -p $$ | xargs test $$ = && echo leads",
    )
    .await;
    assert_eq!(out, "/\nleads\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_ends_with_127_and_a_reason() {
    use_the_backend();
    let output =
        exec::command(&learner(), Path::new("/"), [], OsStr::new("/no/such/shell"), [], ControllingTerminal::No)
            .output()
            .await
            .expect("the helper mode starts");
    assert_eq!(output.status.code(), Some(127));
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(reason.starts_with("failed to start \"/no/such/shell\": No such file"), "{reason}");
}
