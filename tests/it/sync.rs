//! `workshop sync` into the embedded store, with the real program: what is due, what is kept, what is refused.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::cluster::cluster;
use crate::support::files::copy_tree;
use crate::support::git::{Fault, GitServer, Repository};
use crate::support::platform::platform_directory;

struct Run {
    code: i32,
    json: Value,
    talk: String,
}

fn workshop(state: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_workshop"))
        .arg("--state")
        .arg(state)
        .args(arguments)
        .env("WORKSHOP_PLATFORM", platform_directory())
        .env("DOCKER_CONFIG", "/nonexistent")
        .output()
        .expect("the program starts")
}

fn sync(state: &Path, source: &str, more: &[&str]) -> Run {
    let arguments = [&["sync", source, "--once", "--output", "json"], more].concat();
    let output = workshop(state, &arguments);
    Run {
        code: output.status.code().unwrap_or(-1),
        json: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        talk: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `id state steps objects`, a line a workshop.
fn rows(run: &Run) -> Vec<String> {
    let rows = run.json["workshops"].as_array().unwrap_or_else(|| panic!("no report: {}", run.talk));
    rows.iter()
        .map(|row| {
            let results = |list: &str| {
                row[list]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| item["result"].as_str().unwrap())
                    .collect::<Vec<_>>()
                    .join(",")
            };
            format!(
                "{} {} [{}] [{}]",
                row["id"].as_str().unwrap_or("?"),
                row["state"].as_str().unwrap(),
                results("steps"),
                results("objects")
            )
        })
        .collect()
}

fn recipe(id: &str, content: &str) -> String {
    format!(
        "version: v1\nworkshop:\n  name: {id}\n  image: {id}\nbase:\n  image: scratch\nsteps:\n  - id: one\n    title: One\n    files:\n      - path: /etc/one\n        content: same\n  - id: two\n    title: Two\n    files:\n      - path: /etc/two\n        content: \"{content}\"\n"
    )
}

#[test]
fn only_what_changed_is_due_and_what_left_is_pruned() {
    let git = GitServer::start();
    let repository = git.create("r");
    let state = tempfile::tempdir().unwrap();
    let url = git.url("r");
    for id in ["alpha", "beta", "gamma"] {
        repository.write(&format!("{id}/step-spec.yaml"), &recipe(id, "1"));
    }
    repository.commit("three");
    repository.push();
    let first = sync(state.path(), &url, &[]);
    assert_eq!(
        rows(&first),
        ["alpha", "beta", "gamma"].map(|id| format!("{id} ready [built,built] [created]")),
        "{}",
        first.talk
    );
    assert_eq!(
        (first.code, first.json["revision"].as_str()),
        (0, Some(format!("main@sha1:{}", repository.head()).as_str()))
    );

    let again = sync(state.path(), &url, &[]);
    assert_eq!(
        rows(&again),
        ["alpha", "beta", "gamma"].map(|id| format!("{id} unchanged [reused,reused] [unchanged]"))
    );

    repository.write("beta/step-spec.yaml", &recipe("beta", "2"));
    repository.commit("change beta's second step");
    repository.push();
    let dry = sync(state.path(), &url, &["--dry-run"]);
    let expected = [
        "alpha unchanged [reused,reused] [unchanged]",
        "beta ready [reused,built] [updated]",
        "gamma unchanged [reused,reused] [unchanged]",
    ];
    assert_eq!(rows(&dry), expected, "{}", dry.talk);
    let wet = sync(state.path(), &url, &[]);
    assert_eq!(rows(&wet), expected, "a dry run wrote nothing: {}", wet.talk);

    std::fs::remove_dir_all(repository.work_tree().join("gamma")).unwrap();
    repository.git(&["mv", "alpha", "moved"]);
    repository.commit("remove gamma, move alpha");
    repository.push();
    let third = sync(state.path(), &url, &[]);
    assert_eq!(
        rows(&third),
        [
            "beta unchanged [reused,reused] [unchanged]",
            "alpha ready [reused,reused] [updated]",
            "gamma removed [] [deleted]"
        ],
        "a moved workshop is updated, not made anew: {}",
        third.talk
    );
}

#[test]
fn a_source_is_brought_into_a_cluster_without_a_repository_object() {
    let repository = GitServer::start().create("r");
    let state = tempfile::tempdir().unwrap();
    repository.write("to-cluster/step-spec.yaml", &recipe("to-cluster", "1"));
    repository.write("to-cluster/roster.yaml", "instances: [{owner: ada, step: two}]\n");
    let source = repository.work_tree().to_str().unwrap();
    let kubeconfig = cluster().admin();
    let namespace = cluster().create_namespace("sync");
    let flags = ["--cluster", "--kubeconfig", kubeconfig.to_str().unwrap(), "-n", &namespace];
    let dry = sync(state.path(), source, &[&flags[..], &["--dry-run"]].concat());
    assert_eq!(rows(&dry), ["to-cluster ready [built,built] [created,created]"], "{}", dry.talk);
    assert_eq!(cluster().get(&["workspacetemplate", "to-cluster"]), None, "a dry run writes nothing");

    let first = sync(state.path(), source, &flags);
    assert_eq!(
        (first.code, rows(&first)),
        (0, vec!["to-cluster ready [built,built] [created,created]".into()]),
        "{}",
        first.talk
    );
    let instance = cluster().get(&["workspaceinstance", "-n", &namespace, "to-cluster-ada"]).unwrap();
    assert_eq!(instance["spec"]["currentStep"], "two");
    let owner = instance["metadata"]["labels"]["workshop.platform/repository"].as_str().unwrap();
    assert!(owner.starts_with("src-") && owner.len() == 36, "{owner}");
    let again = sync(state.path(), source, &flags);
    assert_eq!(rows(&again), ["to-cluster unchanged [reused,reused] [unchanged,unchanged]"]);
}

#[test]
fn a_folder_a_working_tree_and_a_commit_give_the_same_objects() {
    let git = GitServer::start();
    let repository = git.create("r");
    repository.write("alpha/step-spec.yaml", &recipe("alpha", "1"));
    repository.commit("one");
    repository.push();
    let plain = tempfile::tempdir().unwrap();
    copy_tree(&repository.work_tree().join("alpha"), &plain.path().join("alpha"));
    let spec_of = |source: &str| {
        let state = tempfile::tempdir().unwrap();
        let run = sync(state.path(), source, &[]);
        assert_eq!(run.code, 0, "{}", run.talk);
        let output = workshop(state.path(), &["get", "templates", "alpha", "-o", "json"]);
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        (object["spec"].clone(), object["metadata"]["annotations"].clone())
    };
    let commit = spec_of(&git.url("r"));
    assert_eq!(commit, spec_of(repository.work_tree().to_str().unwrap()));
    assert_eq!(commit, spec_of(plain.path().to_str().unwrap()));
    assert_eq!(commit, spec_of(repository.bare().to_str().unwrap()));
}

#[test]
fn losing_the_state_gives_the_same_rows_and_objects() {
    let repository = GitServer::start().create("r");
    repository.write("alpha/step-spec.yaml", &recipe("alpha", "1"));
    repository.write("alpha/export/steps/one/content.md", "# One\r\n\r\ntext  \n");
    let artifact = |state: &Path| {
        let run = sync(state, repository.work_tree().to_str().unwrap(), &[]);
        assert_eq!(run.code, 0, "{}", run.talk);
        let names = std::fs::read_dir(state.join("artifacts")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = names.filter(|path| path.is_file()).collect();
        assert_eq!(files.len(), 1);
        let file = files.remove(0);
        (file.file_name().unwrap().to_owned(), std::fs::read(&file).unwrap())
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(artifact(one.path()), artifact(two.path()), "the artifact's bytes are a function of the tree");
}

struct Row {
    name: &'static str,
    arrange: fn(&GitServer, &Repository),
    arguments: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
}

const BAD_SOURCES: &[Row] = &[
    Row {
        name: "missing branch",
        arrange: |_, _| {},
        arguments: &["--branch", "nowhere"],
        code: 3,
        says: &["\"nowhere\"", "help:"],
    },
    Row { name: "missing tag", arrange: |_, _| {}, arguments: &["--tag", "v9"], code: 3, says: &["\"v9\""] },
    Row { name: "no version in range", arrange: |_, _| {}, arguments: &["--semver", "7.x"], code: 3, says: &["7.x"] },
    Row { name: "nonsense range", arrange: |_, _| {}, arguments: &["--semver", "one"], code: 2, says: &["one"] },
    Row {
        name: "missing commit",
        arrange: |_, _| {},
        arguments: &["--commit", "0123456789012345678901234567890123456789"],
        code: 3,
        says: &["0123456789"],
    },
    Row {
        name: "server asks for a password",
        arrange: |git, _| git.set_fault(Some(Fault::Login { user: "u".into(), password: "p".into() })),
        arguments: &[],
        code: 3,
        says: &["http://127.0.0.1"],
    },
    Row {
        name: "server is overloaded",
        arrange: |git, _| git.set_fault(Some(Fault::Status(429))),
        arguments: &[],
        code: 3,
        says: &["http://127.0.0.1"],
    },
    Row {
        name: "server fails",
        arrange: |git, _| git.set_fault(Some(Fault::Status(500))),
        arguments: &[],
        code: 3,
        says: &["http://127.0.0.1"],
    },
    Row {
        name: "repository is not there",
        arrange: |git, _| git.set_fault(Some(Fault::Status(404))),
        arguments: &[],
        code: 3,
        says: &["http://127.0.0.1"],
    },
    Row {
        name: "base image that does not exist",
        arrange: |_, repository| {
            commit(repository, &recipe("alpha", "2").replace("image: scratch", "image: 127.0.0.1:1/none:1"))
        },
        arguments: &[],
        code: 3,
        says: &["127.0.0.1:1/none:1"],
    },
    Row {
        name: "broken recipe",
        arrange: |_, repository| commit(repository, &recipe("alpha", "2").replace("title: Two", "titel: Two")),
        arguments: &[],
        code: 1,
        says: &["alpha/step-spec.yaml:13:5", "titel"],
    },
    Row {
        name: "aliases that grow without end",
        arrange: |_, repository| {
            let levels =
                (1..20).map(|level| format!("a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(10)));
            commit(repository, &format!("a0: &a0 [x]\n{}", levels.collect::<String>()))
        },
        arguments: &[],
        code: 1,
        says: &["alpha/step-spec.yaml:"],
    },
    Row {
        name: "a line of a megabyte",
        arrange: |_, repository| commit(repository, &format!("{}# {}\n", recipe("alpha", "2"), "x".repeat(1 << 20))),
        arguments: &[],
        code: 1,
        says: &["alpha/step-spec.yaml:18:1"],
    },
    Row {
        name: "recipe without steps",
        arrange: |_, repository| commit(repository, recipe("alpha", "2").split("steps:").next().unwrap()),
        arguments: &[],
        code: 1,
        says: &["alpha/step-spec.yaml:1:1", "steps"],
    },
    Row {
        name: "source above the workshop",
        arrange: |_, repository| {
            repository.write("secret", "x");
            commit(repository, &recipe("alpha", "2").replace("content: same", "source: ../secret"))
        },
        arguments: &[],
        code: 1,
        says: &["alpha/step-spec.yaml:12:", "../secret"],
    },
    Row {
        name: "link out of the workshop",
        arrange: |_, repository| {
            std::os::unix::fs::symlink("/etc/passwd", repository.work_tree().join("alpha/out")).unwrap();
            commit(repository, &recipe("alpha", "2").replace("content: same", "source: out"))
        },
        arguments: &[],
        code: 1,
        says: &["alpha/step-spec.yaml:12:", "\"out\""],
    },
    Row {
        name: "base image that is a file of the machine",
        arrange: |_, repository| {
            commit(repository, &recipe("alpha", "2").replace("image: scratch", "image: oci-archive:/etc/passwd"))
        },
        arguments: &[],
        code: 1,
        says: &["oci-archive:/etc/passwd", "is a file beside the workshop"],
    },
    Row {
        name: "two workshops with one id",
        arrange: |_, repository| {
            repository.write("beta/step-spec.yaml", &recipe("alpha", "2"));
            repository.commit("a double");
            repository.push();
        },
        arguments: &[],
        code: 1,
        says: &["\"alpha\"", "\"beta\""],
    },
];

fn commit(repository: &Repository, text: &str) {
    repository.write("alpha/step-spec.yaml", text);
    repository.commit("a bad change");
    repository.push();
}

#[test]
fn a_bad_source_is_told_and_what_was_there_stays() {
    for row in BAD_SOURCES {
        let git = GitServer::start();
        let repository = git.create("r");
        let state = tempfile::tempdir().unwrap();
        repository.write("alpha/step-spec.yaml", &recipe("alpha", "1"));
        repository.commit("good");
        repository.push();
        assert_eq!(sync(state.path(), &git.url("r"), &[]).code, 0, "{}", row.name);
        let before = workshop(state.path(), &["get", "templates", "-o", "json"]).stdout;

        (row.arrange)(&git, &repository);
        let run = sync(state.path(), &git.url("r"), row.arguments);
        assert_eq!(run.code, row.code, "{}: {}\n{}", row.name, run.talk, run.json);
        let said = format!("{}\n{}", run.talk, run.json).replace("\\\"", "\"");
        for part in row.says {
            assert!(said.contains(part), "{} does not say {part}:\n{said}", row.name);
        }
        assert_eq!(
            workshop(state.path(), &["get", "templates", "-o", "json"]).stdout,
            before,
            "{}: what was there stays",
            row.name
        );
    }
}

#[test]
fn an_empty_repository_and_an_unreachable_server_are_told_apart() {
    let git = GitServer::start();
    git.create("empty");
    let state = tempfile::tempdir().unwrap();
    let empty = sync(state.path(), &git.url("empty"), &[]);
    assert_eq!(empty.code, 3, "{}", empty.talk);
    assert!(empty.talk.contains("empty"), "{}", empty.talk);
    let unreachable = sync(state.path(), "http://127.0.0.1:1/r.git", &[]);
    assert_eq!(unreachable.code, 3, "{}", unreachable.talk);
    assert!(unreachable.talk.contains("127.0.0.1:1"), "{}", unreachable.talk);
    assert_ne!(empty.talk, unreachable.talk);
}

#[test]
fn a_force_pushed_branch_is_followed() {
    let git = GitServer::start();
    let repository = git.create("r");
    let state = tempfile::tempdir().unwrap();
    repository.write("alpha/step-spec.yaml", &recipe("alpha", "1"));
    repository.commit("one");
    repository.push();
    assert_eq!(sync(state.path(), &git.url("r"), &[]).code, 0);
    repository.git(&["checkout", "--quiet", "--orphan", "other"]);
    repository.write("alpha/step-spec.yaml", &recipe("alpha", "rewritten"));
    repository.commit("another history");
    repository.git(&["push", "--quiet", "--force", "origin", "other:main"]);
    let run = sync(state.path(), &git.url("r"), &[]);
    assert_eq!((run.code, rows(&run)), (0, vec!["alpha ready [reused,built] [updated]".to_owned()]), "{}", run.talk);
}

#[test]
fn deleting_everything_waits_for_the_hash_of_the_plan() {
    let git = GitServer::start();
    let repository = git.create("r");
    let state = tempfile::tempdir().unwrap();
    repository.write("alpha/step-spec.yaml", &recipe("alpha", "1"));
    repository.commit("one");
    repository.push();
    assert_eq!(sync(state.path(), &git.url("r"), &[]).code, 0);
    std::fs::remove_dir_all(repository.work_tree().join("alpha")).unwrap();
    repository.write("README", "empty");
    repository.commit("delete everything");
    repository.push();
    let refused = sync(state.path(), &git.url("r"), &[]);
    assert_eq!((refused.code, rows(&refused)), (4, vec!["alpha refused [] []".to_owned()]), "{}", refused.talk);
    let hash = refused.json["plan"]["hash"].as_str().unwrap().to_owned();
    let approved = sync(state.path(), &git.url("r"), &["--approve", &hash]);
    assert_eq!(
        (approved.code, rows(&approved)),
        (0, vec!["alpha removed [] [deleted]".to_owned()]),
        "{}",
        approved.talk
    );
}

/// The repositories `one` and `two` both have the workshop `alpha`, and `one` was brought in first.
fn two_claims_of_one_id() -> (GitServer, tempfile::TempDir) {
    let git = GitServer::start();
    let state = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let repository = git.create(name);
        repository.write("alpha/step-spec.yaml", &recipe("alpha", "1"));
        repository.commit("one");
        repository.push();
    }
    assert_eq!(sync(state.path(), &git.url("one"), &[]).code, 0);
    (git, state)
}

#[test]
fn an_id_belongs_to_the_source_that_brought_it_first() {
    let (git, state) = two_claims_of_one_id();
    let before = workshop(state.path(), &["get", "templates", "-o", "json"]).stdout;
    let refused = sync(state.path(), &git.url("two"), &[]);
    assert_eq!(refused.code, 4, "{}", refused.json);
    assert!(
        refused.json["workshops"][0]["message"].as_str().unwrap().contains("belongs to the repository"),
        "{}",
        refused.json
    );
    assert_eq!(workshop(state.path(), &["get", "templates", "-o", "json"]).stdout, before);
}

fn names(state: &Path, arguments: &[&str]) -> String {
    let output = workshop(state, &[&["get", "instances", "-o", "name"], arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn instances_follow_their_namespace_and_are_got_by_name() {
    let source = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir(source.path().join("alpha")).unwrap();
    std::fs::write(source.path().join("alpha/step-spec.yaml"), recipe("alpha", "1")).unwrap();
    std::fs::write(source.path().join("alpha/roster.yaml"), "instances:\n  - owner: ada\n  - owner: bob\n").unwrap();
    let source = source.path().to_str().unwrap();
    assert_eq!(sync(state.path(), source, &["-n", "one"]).code, 0);
    assert_eq!(names(state.path(), &[]), "alpha-ada\nalpha-bob\n");
    assert_eq!(names(state.path(), &["alpha-bob"]), "alpha-bob\n");
    assert_eq!(names(state.path(), &["one"]), "", "a namespace is no name");

    let moved = sync(state.path(), source, &["-n", "two"]);
    assert_eq!(moved.code, 0, "{}", moved.talk);
    assert_eq!(names(state.path(), &["-n", "one"]), "");
    assert_eq!(names(state.path(), &["-n", "two"]), "alpha-ada\nalpha-bob\n");
}

#[test]
fn a_dry_run_tells_of_another_owner_and_a_failure_is_a_document_too() {
    let (git, state) = two_claims_of_one_id();
    let dry = sync(state.path(), &git.url("two"), &["--dry-run"]);
    assert_eq!((dry.code, rows(&dry)), (4, vec!["alpha refused [reused,reused] []".to_owned()]), "{}", dry.json);

    git.set_fault(Some(Fault::Status(500)));
    let failed = sync(state.path(), &git.url("one"), &[]);
    assert_eq!((failed.code, rows(&failed).len()), (3, 0));
    assert_eq!(failed.json["source"].as_str(), Some(git.url("one").as_str()));
    assert!(failed.json["problems"][0].as_str().unwrap().contains("500"), "{}", failed.json);
}
