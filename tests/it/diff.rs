//! `workshop diff` as the real program: directories, artifacts, revisions over HTTP and on disk, and a real cluster.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::cluster::cluster;
use crate::support::git::{GitServer, Repository};

const RECIPE: &str = "version: v1
workshop: {name: diff-demo, image: team/diff-demo}
base: {image: debian}
steps:
- id: one
  title: One
  files: [{path: /etc/motd, source: motd}]
- id: two
  title: Two
";

fn workshop(directory: &Path, state: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
    command.current_dir(directory).arg("--state").arg(state).args(arguments).output().unwrap()
}

struct Fixture {
    server: GitServer,
    repository: Repository,
    state: tempfile::TempDir,
}

impl Fixture {
    /// A repository with one committed and pushed workshop, tagged `v1.0.0`.
    fn new() -> Self {
        let server = GitServer::start();
        let repository = server.create("team");
        repository.write("demo/step-spec.yaml", RECIPE);
        repository.write("demo/motd", "hello\n");
        repository.write("demo/export/steps/one/content.md", "# One\n");
        repository.commit("first");
        repository.tag("v1.0.0");
        repository.push();
        Self { server, repository, state: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        workshop(self.repository.work_tree(), self.state.path(), arguments)
    }

    /// The exit code and the report.
    fn diff(&self, sides: &[&str]) -> (Option<i32>, Value) {
        let output = self.run(&[&["diff", "--output", "json"], sides].concat());
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), report)
    }

    #[track_caller]
    fn same(&self, sides: &[&str]) {
        let (exit, report) = self.diff(sides);
        assert_eq!((exit, &report["same"]), (Some(0), &json!(true)), "{sides:?}: {report:#}");
    }

    /// The one workshop that differs.
    #[track_caller]
    fn change(&self, sides: &[&str]) -> Value {
        let (exit, report) = self.diff(sides);
        assert_eq!((exit, &report["same"]), (Some(1), &json!(false)), "{sides:?}: {report:#}");
        assert_eq!(report["workshops"].as_array().map(Vec::len), Some(1), "{sides:?}: {report:#}");
        report["workshops"][0].clone()
    }
}

#[test]
fn a_working_tree_is_compared_with_its_commits() {
    let fixture = Fixture::new();
    fixture.same(&["."]);
    fixture.repository.write("demo/motd", "goodbye\n");
    let change = fixture.change(&["."]);
    assert_eq!(change["state"], "changed");
    assert_eq!(
        change["steps"],
        json!([
            {"id": "one", "state": "changed", "changes": ["files: /etc/motd"], "rebuild": "files: /etc/motd"},
            {"id": "two", "state": "unchanged", "changes": [], "rebuild": "earlier step"},
        ])
    );
    assert_eq!(change["files"][0]["diff"], "--- a/demo/motd\n+++ b/demo/motd\n@@ -1 +1 @@\n-hello\n+goodbye\n");
    // The same from below, where paths begin at the directory that was named.
    assert_eq!(fixture.change(&["demo"])["path"], "");
    fixture.repository.commit("second");
    fixture.same(&["."]);
    fixture.same(&[".@HEAD", ".@main"]);
    for before in
        [".@v1.0.0", ".@HEAD~1", "demo@HEAD~1", &format!(".@{}", fixture.repository.git(&["rev-parse", "v1.0.0^{}"]))]
    {
        assert_eq!(fixture.change(&[before])["steps"][0]["rebuild"], "files: /etc/motd", "{before}");
    }
}

#[test]
fn a_server_an_artifact_and_a_directory_are_sides_like_each_other() {
    let fixture = Fixture::new();
    let url = fixture.server.url("team");
    let (main, tag) = (format!("{url}@main"), format!("{url}@v1.0.0"));
    fixture.same(&[&main, "."]);
    fixture.same(&[&tag, &main]);
    let written = fixture.run(&["import", "demo", "-o", "demo.db"]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    fixture.same(&["demo.db", "demo"]);
    fixture.same(&["demo.db", &main]);
    fixture.repository.write("demo/export/steps/one/content.md", "# First\n");
    let change = fixture.change(&["demo.db", "demo"]);
    assert_eq!(change["steps"], json!([{"id": "one", "state": "changed", "changes": ["text"], "rebuild": null}]));
    assert_eq!(change["files"][0]["path"], "export/steps/one/content.md");
    assert_eq!(fixture.change(&[&main, "."])["steps"][0]["changes"], json!(["text"]));
}

#[test]
fn a_cluster_is_compared_by_what_its_templates_say() {
    let fixture = Fixture::new();
    let cluster = cluster();
    let template = |name: &str, owner: &str, title: &str, ttl: &str| {
        json!({
            "apiVersion": "workshop.platform/v1alpha1",
            "kind": "WorkspaceTemplate",
            "metadata": {"name": name, "labels": {"workshop.platform/repository": owner}},
            "spec": {
                "defaults": {"lifecycle": {"ttl": ttl}},
                "steps": [
                    {"id": "one", "title": title, "imageTag": "registry.example:5000/team/diff-demo:one"},
                    {"id": "two", "title": "Two", "imageTag": "registry.example:5000/team/diff-demo:two"},
                ],
                "artifact": {"digest": format!("sha256:{}", "a".repeat(64)), "size": 1},
            },
        })
    };
    let admin = cluster.admin();
    let sides = ["--kubeconfig", admin.to_str().unwrap(), "cluster", "."];
    let added = fixture.change(&sides);
    assert_eq!((&added["state"], &added["id"]), (&json!("added"), &json!("diff-demo")));
    cluster.apply(&template("diff-demo", "diff-owner", "One", "4h"));
    cluster.apply(&template("diff-foreign", "diff-other-owner", "One", "4h"));
    fixture.same(&sides);
    cluster.apply(&template("diff-demo", "diff-owner", "Number one", "2h"));
    let change = fixture.change(&sides);
    assert_eq!(change["changes"], json!(["workspace.lifecycle.ttl: 2h -> 4h"]));
    assert_eq!(change["steps"][0]["changes"], json!(["title"]));
    // What the owner has besides would go with a sync; what others have is none of our business.
    cluster.apply(&template("diff-old", "diff-owner", "One", "4h"));
    let (exit, report) = fixture.diff(&sides);
    let states: Vec<&Value> = report["workshops"].as_array().unwrap().iter().map(|change| &change["state"]).collect();
    assert_eq!((exit, states), (Some(1), vec![&json!("removed"), &json!("changed")]));
    for name in ["diff-demo", "diff-foreign", "diff-old"] {
        cluster.kubectl(&["delete", "workspacetemplate", name, "--wait=false"]);
    }
}

#[test]
fn sides_that_cannot_be_read_are_told_apart_by_the_exit_code() {
    let fixture = Fixture::new();
    let plain = tempfile::tempdir().unwrap();
    let plain = plain.path().to_str().unwrap();
    let missing = format!("{}@main", fixture.server.url("nobody"));
    for (sides, exit) in [
        (vec!["nowhere"], 2),
        (vec![plain], 2),
        (vec!["oci://registry.example/a:1", "."], 2),
        (vec![&missing, "."], 3),
        (vec![".@no-such-branch"], 3),
    ] {
        let (found, report) = fixture.diff(&sides);
        assert_eq!(found, Some(exit), "{sides:?}: {report:#}");
        assert_eq!(report["diagnostics"][0]["rule"], "unreadable-source", "{sides:?}");
        let output = fixture.run(&[&["diff"], &sides[..]].concat());
        assert_eq!(output.status.code(), Some(exit), "{sides:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "), "{sides:?}");
    }
    fixture.repository.write("broken.db", "no database");
    assert_eq!(fixture.diff(&["broken.db", "."]).0, Some(1));
}

#[test]
fn a_broken_side_is_named_with_its_place_and_its_files_are_still_compared() {
    let fixture = Fixture::new();
    fixture.repository.write("demo/step-spec.yaml", &RECIPE.replace("title: Two", "titel: Two"));
    let (exit, report) = fixture.diff(&["."]);
    assert_eq!(exit, Some(1));
    assert_eq!(report["workshops"][0]["state"], "invalid");
    assert_eq!(report["workshops"][0]["files"][0]["path"], "demo/step-spec.yaml");
    let places: Vec<String> = report["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| format!("{} {}:{}", problem["rule"], problem["file"], problem["line"]).replace('"', ""))
        .collect();
    assert_eq!(places, ["missing-field demo/step-spec.yaml:8", "unknown-field demo/step-spec.yaml:9"]);
}
