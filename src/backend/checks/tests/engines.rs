//! The engine that is a program of the image, and both engines side by side where there is a real one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

/// Options for an image whose goss is this script.
fn image(directory: &Path, script: &str) -> Options {
    let program = directory.join("goss");
    let text = directory.join("script");
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    // By a program: what another test starts at this moment would hold a file of ours open for writing.
    let copied = std::process::Command::new("/bin/cp").arg("-p").arg(&text).arg(&program).status();
    assert!(copied.unwrap().success());
    Options {
        engine: CheckEngine::Goss,
        base_dir: directory.to_owned(),
        image_environment: vec![("PATH".into(), format!("{}:/usr/bin:/bin", directory.display()).into())],
        ..Options::default()
    }
}

const DOCUMENT: &str = r#"{"results":[
{"duration":2000000,"err":null,"matcher-result":{"actual":false,"expected":true,"message":"to equal"},"meta":{"hint":"make it"},
 "property":"exists","resource-id":"/a","resource-type":"File","result":1,"skipped":false,"successful":false,
 "summary-line-compact":"File: /a: exists: Expected false to equal true","title":""},
{"duration":0,"err":null,"matcher-result":{},"meta":null,"property":"linkedto","resource-id":"/a","resource-type":"File",
 "result":2,"skipped":true,"successful":false,"summary-line-compact":"skipped","title":"A link"},
{"duration":0,"err":null,"matcher-result":{"actual":0,"expected":0},"meta":null,"property":"exit-status","resource-id":"true",
 "resource-type":"Command","result":0,"skipped":false,"successful":true,"summary-line-compact":"ok","title":""}],
"summary":{"failed-count":1,"test-count":3}}"#;

#[tokio::test]
async fn the_images_goss_is_given_the_spec_and_its_results_are_ours() {
    let directory = tempfile::tempdir().unwrap();
    let options = image(
        directory.path(),
        &format!("echo \"$@\" > called; cat \"$2\" > seen; cat <<'END'\n{DOCUMENT}\nEND\nexit 1"),
    );
    let spec = "file: {'{{.Env.X}}': {exists: true}}\n";
    let report = run(spec, &options).await.unwrap();
    assert_eq!(std::fs::read_to_string(directory.path().join("seen")).unwrap(), spec);
    let called = std::fs::read_to_string(directory.path().join("called")).unwrap();
    assert!(called.contains("validate --format json"), "{called}");
    let found: Vec<(&str, &str, Outcome)> =
        report.results.iter().map(|it| (it.id.as_str(), it.message.as_str(), it.outcome)).collect();
    assert_eq!(
        found,
        [
            ("file:/a:exists", "File: /a: exists: Expected false to equal true", Outcome::Failed),
            ("file:/a:linked-to", "A link", Outcome::Skipped),
            ("command:true:exit-status", "ok", Outcome::Passed),
        ]
    );
    assert_eq!(report.results[0].hint.as_deref(), Some("make it"));
    assert_eq!((report.results[0].duration_ms, report.passed), (2, false));
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".run")), "{left:?}");
}

#[tokio::test]
async fn a_goss_that_fails_hangs_or_is_not_there_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let spec = "file: {/a: {exists: true}}\n";
    let error = run(spec, &image(directory.path(), "echo 'could not read it' >&2; exit 78")).await.unwrap_err();
    assert!(error.to_string().contains("exit status 78: could not read it"), "{error}");
    let hanging = Options { timeout: Duration::from_secs(1), ..image(directory.path(), "sleep 600 & wait") };
    let error = run(spec, &hanging).await.unwrap_err();
    assert!(error.to_string().contains("did not end within 1000 ms"), "{error}");
    std::fs::remove_file(directory.path().join("goss")).unwrap();
    if !Path::new("/usr/local/bin/goss").exists() {
        let none = Options {
            engine: CheckEngine::Goss,
            image_environment: vec![("PATH".into(), directory.path().into())],
            ..Options::default()
        };
        assert!(matches!(run(spec, &none).await, Err(ChecksError::NoGoss)));
    }
}

/// Specs whose results do not depend on the machine.
const SAME: [&str; 3] = [
    "file: {/etc/passwd: {exists: true, mode: '0644', owner: root, filetype: file, contents: ['/^root:/', '!nothing']}}\n",
    "command: {'echo a; echo b >&2; exit 3': {exit-status: 3, stdout: [a, '!c'], stderr: {have-prefix: b}}}\n",
    "user: {root: {exists: true, uid: 0, home: /root}, nobody-here: {exists: true, uid: 1}}\ngroup: {root: {exists: true, gid: 1}}\n",
];

/// Past the test program's capture, so that it is seen without a failure.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "\n{text}\n");
}

#[tokio::test]
async fn a_real_goss_says_the_same() {
    let environment = vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())];
    let Some(program) = command::find("goss", &environment) else {
        say("NOT COMPARED: there is no `goss` in PATH, so the built-in engine was not held against the real one");
        return;
    };
    say(&format!("comparing with {}", program.display()));
    let directory = tempfile::tempdir().unwrap();
    for spec in SAME {
        let options = |engine| Options {
            engine,
            base_dir: directory.path().to_owned(),
            image_environment: environment.clone(),
            ..Options::default()
        };
        let outcomes = |report: Report| {
            let mut all: Vec<String> = report.results.iter().map(|it| format!("{} {:?}", it.id, it.outcome)).collect();
            all.sort();
            all
        };
        let theirs = outcomes(run(spec, &options(CheckEngine::Goss)).await.unwrap());
        assert_eq!(outcomes(run(spec, &options(CheckEngine::Builtin)).await.unwrap()), theirs, "{spec}");
    }
}
