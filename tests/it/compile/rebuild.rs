//! What is built again and what is not, and that it is the same wherever it is built.

use std::fs;
use std::path::Path;

use super::fixture::{Workshop, config, snapshot};
use crate::support::registry::Registry;

const RECIPE: &str = r#"
version: v1
workshop: {name: again, image: team/again}
base: {image: "docker.io/tests/base:1"}
steps:
- {id: one, title: One, files: [{path: /one, content: "1"}]}
- {id: two, title: Two, commands: ["echo 2 > /two"]}
- {id: three, title: Three, env: {THREE: "3"}}
- {id: four, title: Four, files: [{path: /four, content: "4"}], commands: ["cat /one /two > /both"]}
"#;

#[test]
fn an_unchanged_workshop_writes_nothing_not_even_from_another_machine() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(RECIPE);
    let (_, first) = workshop.compiled(&registry.host());
    let before = snapshot(&registry.data());
    let (results, again) = workshop.compiled(&registry.host());
    assert_eq!(results, ["one reused", "two reused", "three reused", "four reused"]);
    assert_eq!(again, first);
    // Another machine has the repository only.
    let other = Workshop::on_busybox(RECIPE);
    let (results, elsewhere) = other.compiled(&registry.host());
    assert_eq!(results, ["one reused", "two reused", "three reused", "four reused"]);
    assert_eq!(elsewhere, first);
    assert_eq!(snapshot(&registry.data()), before);
    assert!(!other.state.join("logs").exists(), "no command ran");
}

#[test]
fn a_change_rebuilds_from_its_step_on() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(RECIPE);
    let (_, before) = workshop.compiled(&registry.host());
    let rows = [
        ("THREE: \"3\"", "THREE: \"three\"", 2),
        ("echo 2", "echo two", 1),
        ("content: \"4\"", "content: \"iv\"", 3),
        ("content: \"1\"", "content: \"i\"", 0),
    ];
    let mut before = before;
    for (from, to, first) in rows {
        workshop.edit(from, to);
        let (results, after) = workshop.compiled(&registry.host());
        for (index, result) in results.iter().enumerate() {
            assert_eq!(result.ends_with("built"), index >= first, "{result} after {from} became {to}");
            assert_eq!(after[index] != before[index], index >= first, "{result}");
        }
        before = after;
    }
    // Going back to what was there before needs no build at all.
    workshop.edit("content: \"i\"", "content: \"1\"");
    assert!(workshop.compiled(&registry.host()).0.iter().all(|result| result.ends_with("reused")));
}

#[test]
fn a_title_is_no_content() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(RECIPE);
    let (_, before) = workshop.compiled(&registry.host());
    workshop.edit("title: One", "title: First of all");
    let (results, after) = workshop.compiled(&registry.host());
    assert!(results.iter().all(|result| result.ends_with("reused")), "{results:?}");
    assert_eq!(before, after);
}

#[test]
fn a_new_platform_runs_no_command_again() {
    let registry = Registry::start();
    // Had the command run twice, the image would say so.
    let mut workshop = Workshop::on_busybox(&RECIPE.replace("echo 2 >", "head -c 16 /dev/urandom >"));
    let (_, before) = workshop.compiled(&registry.host());
    let layers = |step: &str| config(&format!("{}/team/again:{step}", registry.host()))["rootfs"]["diff_ids"].clone();
    let old = layers("four");
    let platform = tempfile::tempdir().unwrap();
    for name in ["tini", "workshop-backend"] {
        fs::copy(workshop.platform.join(name), platform.path().join(name)).unwrap();
    }
    append(&platform.path().join("workshop-backend"), b"another build");
    workshop.platform = platform.path().to_owned();
    let (results, after) = workshop.compiled(&registry.host());
    assert!(results.iter().all(|result| result.ends_with("reused")), "{results:?}");
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    let new = layers("four");
    let (old, new) = (old.as_array().unwrap(), new.as_array().unwrap());
    assert_eq!(old.len(), new.len());
    assert_eq!(old[..old.len() - 1], new[..new.len() - 1], "only the platform's layer differs");
    assert_ne!(old.last(), new.last());
}

fn append(file: &Path, bytes: &[u8]) {
    let mut all = fs::read(file).unwrap();
    all.extend_from_slice(bytes);
    fs::write(file, all).unwrap();
}

#[test]
fn two_builds_from_nothing_give_equal_digests() {
    let builds: Vec<Vec<String>> = (0..2)
        .map(|_| {
            let registry = Registry::start();
            let (results, digests) = Workshop::on_busybox(RECIPE).compiled(&registry.host());
            assert!(results.iter().all(|result| result.ends_with("built")), "{results:?}");
            digests
        })
        .collect();
    assert_eq!(builds[0], builds[1]);
}

#[test]
fn later_steps_build_on_published_ones_only_while_those_are_what_the_recipe_says() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(RECIPE);
    let from = ["--from-step", "three"];
    let (code, document) = workshop.compile(&registry.host(), &from);
    assert_eq!(code, 4, "{document:#}");
    assert!(document["failure"]["message"].as_str().unwrap().contains("is not published"), "{document:#}");

    let (_, before) = workshop.compiled(&registry.host());
    workshop.edit("THREE: \"3\"", "THREE: \"iii\"");
    let (code, document) = workshop.compile(&registry.host(), &from);
    assert_eq!(code, 0, "{document:#}");
    assert_eq!(document["steps"][1]["digest"], before[1].as_str());
    assert_eq!(document["steps"][2]["result"], "built");

    workshop.edit("echo 2", "echo two");
    let (code, document) = workshop.compile(&registry.host(), &from);
    assert_eq!(code, 4, "{document:#}");
    let (code, document) = workshop.compile(&registry.host(), &["--from-step", "none"]);
    assert_eq!(code, 1, "{document:#}");
}

#[test]
fn the_base_is_looked_up_again_only_when_asked() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(RECIPE);
    let (_, before) = workshop.compiled(&registry.host());
    let root = tempfile::tempdir().unwrap();
    super::fixture::run(
        "cp",
        &["-a", &format!("{}/.", super::fixture::busybox_root().display()), &root.path().display().to_string()],
    );
    fs::write(root.path().join("newer"), "base").unwrap();
    workshop.import(root.path());
    assert_eq!(workshop.compiled(&registry.host()).1, before);
    let (code, document) = workshop.compile(&registry.host(), &["--refresh-base"]);
    assert_eq!(code, 0, "{document:#}");
    assert!(document["steps"].as_array().unwrap().iter().all(|step| step["result"] == "built"), "{document:#}");
}

#[test]
fn content_that_was_removed_from_the_registry_is_built_again_when_it_is_needed() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(RECIPE);
    let (code, document) = workshop.compile(&registry.host(), &[]);
    assert_eq!(code, 0, "{document:#}");
    for step in [1, 2] {
        let key = document["steps"][step]["key"].as_str().unwrap().trim_start_matches("sha256:");
        let reference = format!("docker://{}/team/again:key-{}", registry.host(), &key[..32]);
        super::fixture::run("skopeo", &["delete", "--tls-verify=false", &reference]);
    }
    workshop.edit("content: \"4\"", "content: \"iv\"");
    let (results, after) = workshop.compiled(&registry.host());
    assert_eq!(results, ["one reused", "two reused", "three reused", "four built"]);
    assert_eq!(after[2], document["steps"][2]["digest"].as_str().unwrap());
}
