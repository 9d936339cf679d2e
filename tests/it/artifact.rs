//! Import, export and fmt through the program itself, with Git and the sqlite3 shell as witnesses.
//!
//! What the single files of an export may say is tested beside the code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn workshop(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
    command.args(arguments.iter().map(|argument| argument.as_ref())).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn succeed(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let output = workshop(arguments);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workshops/first-steps-in-the-shell")
}

/// All files below `directory`, by their path.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

fn write(directory: &Path, texts: &[(&str, &[u8])]) {
    for (path, text) in texts {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// An export-only workshop with texts that every editor and tool likes to change.
fn awkward(directory: &Path) {
    write(
        directory,
        &[
            (
                "export/workshop.yaml",
                b"steps: [b, a]\nname: \"W\"\nid: w\nschema: 1 # the only one\ncreatedAt: 2024-05-06T07:08:09Z\n",
            ),
            ("export/steps/a/step.yaml", b"imageTag: 'example.org/w:a'\ntitle: 'yes'\nmetadata: {b: '1', a: \"no\"}\n"),
            ("export/steps/a/content.md", b"# CRLF\r\n\r\nhard break  \r\nno final newline"),
            ("export/steps/a/goss.yaml", b"file:\n  /etc/passwd:\n    exists: true\n\n\n"),
            ("export/steps/b/step.yaml", b"title: B\nimageTag: example.org/w:b\nnavigation:\n  next: null\n"),
            ("export/steps/b/content.md", b""),
        ],
    );
}

fn sqlite(file: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(file).arg(sql).output();
    let output = output.expect("sqlite3 is needed: apt-get install sqlite3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_canonical_export_comes_back_byte_for_byte() {
    let directory = TempDir::new().unwrap();
    let (file, out) = (directory.path().join("made/w.db"), directory.path().join("out/export"));
    succeed(&[&"import", &example(), &"-o", &file]);
    succeed(&[&"export", &file, &"-o", &out]);
    assert_eq!(files(&out), files(&example().join("export")));
}

#[test]
fn every_way_round_gives_the_same_rows_and_bytes() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    awkward(directory.path());
    let first = json(&succeed(&[&"--output", &"json", &"import", &directory.path(), &"-o", &path("one.db")]));
    let dump = sqlite(&path("one.db"), ".dump");
    for (layout, name) in [("tree", "a"), ("tables", "b")] {
        let (workshop, file) = (path(name), path(&format!("{name}.db")));
        succeed(&[&"export", &path("one.db"), &"-o", &workshop.join("export"), &"--layout", &layout]);
        let again = json(&succeed(&[&"--output", &"json", &"import", &workshop, &"-o", &file]));
        assert_eq!(again["contentDigest"], first["contentDigest"], "{layout}");
        assert_eq!(again["digest"], first["digest"], "{layout}");
        assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(path("one.db")).unwrap());
        assert_eq!(sqlite(&file, ".dump"), dump);
        let canonical = files(&workshop.join("export"));
        succeed(&[&"export", &file, &"-o", &path("again").join(name), &"--layout", &layout]);
        assert_eq!(files(&path("again").join(name)), canonical, "{layout}");
    }
    let text = std::fs::read(path("a/export/steps/a/content.md")).unwrap();
    assert_eq!(text, b"# CRLF\r\n\r\nhard break  \r\nno final newline");
}

#[test]
fn the_sqlite_shell_opens_an_artifact() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("w.db");
    awkward(directory.path());
    succeed(&[&"import", &directory.path(), &"-o", &file]);
    assert_eq!(sqlite(&file, "PRAGMA integrity_check; PRAGMA foreign_key_check; PRAGMA journal_mode"), "ok\ndelete");
    assert_eq!(sqlite(&file, "SELECT id, name, version, created_at FROM workshop"), "w|W|v1|2024-05-06T07:08:09Z");
    assert_eq!(
        sqlite(
            &file,
            "SELECT position, id, title, image_tag, markdown IS NULL, goss_spec IS NULL FROM steps ORDER BY 1"
        ),
        "1|b|B|example.org/w:b|0|1\n2|a|yes|example.org/w:a|0|0"
    );
    assert_eq!(
        sqlite(
            &file,
            "SELECT step_id, ifnull(next_step_id, '-'), ifnull(prev_step_id, '-') FROM navigation ORDER BY 1 DESC"
        ),
        "b|-|-\na|-|b"
    );
    assert_eq!(sqlite(&file, "SELECT key, value FROM step_metadata"), "a|no\nb|1");
}

#[test]
fn fmt_makes_an_export_canonical_once() {
    let directory = TempDir::new().unwrap();
    awkward(directory.path());
    let before = files(directory.path());
    let check = workshop(&[&"fmt", &"--check", &directory.path()]);
    assert_eq!(code(&check), 1);
    assert_eq!(files(directory.path()), before, "--check changes nothing");
    succeed(&[&"fmt", &directory.path()]);
    succeed(&[&"fmt", &"--check", &directory.path()]);
    let after = files(directory.path());
    for (path, text) in &before {
        assert!(!path.ends_with("content.md") && !path.ends_with("goss.yaml") || after[path] == *text, "{path}");
    }
    let file = TempDir::new().unwrap();
    succeed(&[&"import", &directory.path(), &"-o", &file.path().join("w.db")]);
    succeed(&[&"export", &file.path().join("w.db"), &"-o", &file.path().join("out")]);
    assert_eq!(files(&file.path().join("out")), files(&directory.path().join("export")));
}

#[test]
fn fmt_rewrites_from_the_recipe_what_the_two_disagree_about() {
    let directory = TempDir::new().unwrap();
    write(
        directory.path(),
        &[
            (
                "w/step-spec.yaml",
                b"version: v1\nworkshop: {name: w, image: r.io/w}\nbase: {image: scratch}\nsteps: [{id: a, title: New}]\n",
            ),
            ("w/export/workshop.yaml", b"schema: 1\nid: old\nname: Mine\nversion: v7\n"),
            ("w/export/steps/a/step.yaml", b"title: Old\nmetadata: {skip: 'false'}\n"),
        ],
    );
    let root = directory.path().join("w");
    let file = directory.path().join("w.db");
    let refused = workshop(&[&"--output", &"json", &"import", &root, &"-o", &file]);
    assert_eq!(code(&refused), 1);
    let report = json(&refused);
    let rules: Vec<_> = report["diagnostics"].as_array().unwrap().iter().map(|it| it["rule"].clone()).collect();
    assert_eq!(rules, ["disagreement", "disagreement"], "{report}");
    assert!(!file.exists());

    succeed(&[&"fmt", &directory.path()]);
    let text = |path: &str| std::fs::read_to_string(root.join("export").join(path)).unwrap();
    assert_eq!(
        text("workshop.yaml"),
        "schema: 1\nid: w\nname: Mine\nversion: v7\ncreatedAt: \"1970-01-01T00:00:00Z\"\nsteps:\n- a\n"
    );
    assert_eq!(text("steps/a/step.yaml"), "title: New\nimageTag: r.io/w:a\nmetadata:\n  skip: \"false\"\n");
    succeed(&[&"import", &root, &"-o", &file]);

    // A text of a step that the recipe no longer has is never thrown away.
    write(&root, &[("export/steps/gone/content.md", b"my words")]);
    assert_eq!(code(&workshop(&[&"fmt", &directory.path()])), 1);
    assert_eq!(text("steps/gone/content.md"), "my words");
}

#[test]
fn a_commit_a_working_tree_and_a_plain_folder_are_the_same_workshop() {
    let directory = TempDir::new().unwrap();
    let (tree, plain) = (directory.path().join("tree"), directory.path().join("plain"));
    for root in [&tree, &plain] {
        awkward(&root.join("w"));
        write(root, &[("w/.gitignore", b"*.log\n"), ("w/noise.log", b"not content")]);
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&tree).args(arguments).output().expect("git is needed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "workshop"]);
    let imports: Vec<Value> = [&tree, &plain]
        .iter()
        .map(|root| {
            let file = directory.path().join("w.db");
            json(&succeed(&[&"--output", &"json", &"import", &root.join("w"), &"-o", &file]))
        })
        .collect();
    assert_eq!(imports[0]["unitKey"], *git(&["rev-parse", "HEAD:w"]));
    assert_eq!(imports[0], imports[1]);
}

#[test]
fn runtime_rows_are_exported_on_demand_and_come_back() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    awkward(directory.path());
    succeed(&[&"import", &directory.path(), &"-o", &path("w.db")]);
    let rows = "INSERT INTO runtime_state VALUES ('x', 'a', 'active', '2026-01-01T00:00:00Z', NULL);
                INSERT INTO custom_state VALUES ('x', 'note', 'a' || char(10) || 'b');";
    sqlite(&path("w.db"), rows);
    succeed(&[&"export", &path("w.db"), &"-o", &path("plain/export")]);
    assert!(!path("plain/export/runtime_state.yaml").exists());
    for layout in ["tree", "tables"] {
        succeed(&[
            &"export",
            &path("w.db"),
            &"-o",
            &path(layout).join("export"),
            &"--with-state",
            &"--layout",
            &layout,
        ]);
        let file = path(&format!("{layout}.db"));
        succeed(&[&"import", &path(layout), &"-o", &file]);
        let state = "SELECT * FROM runtime_state; SELECT workspace_id, key, hex(value) FROM custom_state";
        assert_eq!(sqlite(&file, state), "x|a|active|2026-01-01T00:00:00Z|\nx|note|610A62");
    }
}

#[test]
fn what_cannot_be_imported_or_exported_is_refused_and_nothing_is_lost() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    awkward(&path("w"));
    succeed(&[&"import", &path("w"), &"-o", &path("w.db")]);
    let good = std::fs::read(path("w.db")).unwrap();

    write(&path("w"), &[("export/steps/a/content.md", b"a\0b")]);
    let refused = workshop(&[&"--output", &"json", &"import", &path("w"), &"-o", &path("w.db")]);
    assert_eq!(code(&refused), 1);
    let problem = &json(&refused)["diagnostics"][0];
    assert_eq!((&problem["rule"], &problem["line"], &problem["column"]), (&"nul".into(), &1.into(), &2.into()));
    assert_eq!(std::fs::read(path("w.db")).unwrap(), good);

    assert_eq!(code(&workshop(&[&"import", &path("none"), &"-o", &path("w.db")])), 3);
    assert_eq!(code(&workshop(&[&"import", &directory.path(), &"-o", &path("w.db")])), 1);
    assert_eq!(code(&workshop(&[&"export", &path("none.db"), &"-o", &path("out")])), 3);
    assert_eq!(code(&workshop(&[&"import"])), 2);
    assert_eq!(std::fs::read(path("w.db")).unwrap(), good);

    sqlite(&path("w.db"), "UPDATE steps SET position = 9 WHERE id = 'a'");
    let refused = workshop(&[&"export", &path("w.db"), &"-o", &path("out")]);
    assert_eq!(code(&refused), 1);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("the position of step \"a\" (9 where 2 is due)"), "{said}");
    assert!(!path("out").exists());
}
