//! A repository is followed: commits, broken workshops, tags, removals, drift, a learner's step.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::bench::{Bench, NAMESPACE, PATIENCE};
use crate::support::cluster::{CONTROLLER, Call, Moment, condition};
use crate::support::wait::wait_for;

const FIRST: &str = "first-steps";

#[test]
fn a_commit_reaches_the_cluster_and_stays_in_step() {
    let bench = Bench::start("follow");
    let controller = bench.controller(None);
    bench.cluster.apply(&bench.manifest("main", json!({})));

    // The first revision: three templates whose images are what the recipes say.
    let object = bench.wait_ready("main", "True");
    assert_eq!(object.pointer("/status/counts/workshops"), Some(&json!(3)));
    let revision = object.pointer("/status/lastAppliedRevision").and_then(Value::as_str).unwrap();
    assert_eq!(revision, format!("main@sha1:{}", bench.repository.head()));
    let templates = bench.templates();
    assert_eq!(templates.len(), 3, "{:?}", templates.keys());
    for template in templates.values() {
        for step in template.pointer("/spec/steps").and_then(Value::as_array).unwrap() {
            let tag = step["imageTag"].as_str().unwrap();
            assert_eq!(bench.image_digest(tag), step["imageDigest"].as_str().unwrap(), "{tag}");
        }
    }
    image_holds_what_the_recipe_says(&bench, &templates[FIRST]);

    an_unchanged_poll_costs_one_question(&bench);
    a_change_of_one_step_rebuilds_it_and_those_after_it(&bench);
    a_broken_workshop_fails_alone(&bench);
    a_template_edited_by_hand_is_put_back(&bench);
    a_learners_step_survives_every_sync(&bench);
    a_removed_workshop_is_pruned(&bench);
    a_tag_in_the_followed_range_is_applied(&bench);
    controller.terminate();
}

/// The last step's image, unpacked by umoci, has every inline file of the recipe with its content.
fn image_holds_what_the_recipe_says(bench: &Bench, template: &Value) {
    let steps = template.pointer("/spec/steps").and_then(Value::as_array).unwrap();
    let tag = steps.last().unwrap()["imageTag"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{tag}")])
        .arg(format!("oci:{}:step", layout.display())));
    let bundle = directory.path().join("bundle");
    run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:step", layout.display())).arg(&bundle));
    let root = bundle.join("rootfs");
    for path in ["sbin/tini", "usr/local/bin/workshop-backend"] {
        assert!(root.join(path).is_file(), "{path} is in the image");
    }
    let recipe_path = bench.repository.work_tree().join("first-steps-in-the-shell/step-spec.yaml");
    let recipe: Value = serde_yaml::from_str(&std::fs::read_to_string(recipe_path).unwrap()).unwrap();
    let mut checked = 0;
    let mut wished: BTreeMap<String, String> = BTreeMap::new();
    for file in
        recipe["steps"].as_array().unwrap().iter().flat_map(|step| step["files"].as_array().into_iter().flatten())
    {
        if let (Some(path), Some(content)) = (file["path"].as_str(), file["content"].as_str()) {
            wished.insert(path.to_owned(), content.to_owned());
        }
    }
    for (path, content) in wished {
        let found = std::fs::read_to_string(root.join(path.trim_start_matches('/')));
        // A later command may have taken a file away; one that is there has the recipe's content.
        if let Ok(found) = found {
            assert_eq!(found, content, "{path}");
            checked += 1;
        }
    }
    assert!(checked > 0, "the recipe has inline files");
}

fn an_unchanged_poll_costs_one_question(bench: &Bench) {
    let mark = Moment::now();
    let before = bench.git.requests();
    // Three more polls at an interval of one second.
    wait_for("three more polls", PATIENCE, || (bench.git.requests().posts >= before.posts + 3).then_some(()));
    let after = bench.git.requests();
    let (gets, posts) = (after.gets - before.gets, after.posts - before.posts);
    assert!(gets.abs_diff(posts) <= 1, "one GET and one POST a poll, not {gets} and {posts}");
    let calls = bench.cluster.calls_since(mark, CONTROLLER);
    let is_of_repositories = |call: &&Call| call.is_write() && call.resource != "leases" && !call.is_of_workspaces();
    let beside_leases: Vec<_> = calls.iter().filter(is_of_repositories).collect();
    assert!(beside_leases.is_empty(), "an unchanged head costs no API write: {beside_leases:?}");
}

fn a_change_of_one_step_rebuilds_it_and_those_after_it(bench: &Bench) {
    let before = bench.templates();
    let path = bench.repository.work_tree().join("first-steps-in-the-shell/step-spec.yaml");
    let recipe: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let ids: Vec<String> =
        recipe["steps"].as_array().unwrap().iter().map(|step| step["id"].as_str().unwrap().to_owned()).collect();
    let changed = 2;
    let text = std::fs::read_to_string(&path).unwrap();
    let at = text.find(&format!("id: {}", ids[changed])).expect("the step's id in the recipe");
    let title = text[at..].find("title:").map(|offset| at + offset).expect("the step's title");
    let line_end = text[title..].find('\n').map(|offset| title + offset).unwrap();
    let indent = text[..title].rsplit('\n').next().unwrap().len();
    assert!(!step_block(&text, at).contains("\n    env:"), "the changed step has no env block yet");
    let insert = format!("\n{0}env:\n{0}  CHANGED_BY_TEST: \"1\"", " ".repeat(indent));
    std::fs::write(&path, format!("{}{insert}{}", &text[..line_end], &text[line_end..])).unwrap();
    bench.repository.commit("change one step");
    bench.repository.push();
    bench.wait_ready("main", "True");

    let after = bench.templates();
    for (name, template) in &after {
        if name != FIRST {
            assert_eq!(
                template["metadata"]["resourceVersion"], before[name]["metadata"]["resourceVersion"],
                "{name} is untouched"
            );
        }
    }
    let digests = |template: &Value| -> Vec<String> {
        template["spec"]["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["imageDigest"].as_str().unwrap().to_owned())
            .collect()
    };
    let (old, new) = (digests(&before[FIRST]), digests(&after[FIRST]));
    assert_eq!(old[..changed], new[..changed], "earlier steps keep their images");
    for index in changed..ids.len() {
        assert_ne!(old[index], new[index], "step {} has a new image", ids[index]);
    }
}

fn step_block(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    &rest[..rest.find("\n  - id:").unwrap_or(rest.len())]
}

fn a_broken_workshop_fails_alone(bench: &Bench) {
    let before = bench.versions();
    let broken = bench.repository.work_tree().join("processes-and-services/step-spec.yaml");
    let good = std::fs::read_to_string(&broken).unwrap();
    let healthy = bench.repository.work_tree().join("files-users-permissions/export/steps");
    let content = first_content(&healthy);
    let bad = good.replacen("version: v1", "version: v1\nsurprise: true", 1);
    let line = bad.lines().position(|line| line.starts_with("surprise")).expect("the mistake") + 1;
    std::fs::write(&broken, bad).unwrap();
    let text = std::fs::read_to_string(&content).unwrap();
    std::fs::write(&content, format!("{text}\nOne more line.\n")).unwrap();
    bench.repository.commit("break one workshop, improve another");
    bench.repository.push();

    let object = bench.wait_ready("main", "False");
    assert_eq!(condition(&object, "Ready").unwrap()["reason"], "WorkshopsFailed");
    let failed = object.pointer("/status/notReady").and_then(Value::as_array).unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let message = failed[0]["message"].as_str().unwrap();
    assert!(message.contains(&format!("processes-and-services/step-spec.yaml:{line}:1")), "{message}");
    let after = bench.versions();
    let changed: Vec<&String> =
        after.iter().filter(|(name, version)| before[*name] != **version).map(|(name, _)| name).collect();
    assert_eq!(changed.len(), 1, "only the healthy workshop's template changed: {changed:?}");
    assert_eq!(before.len(), after.len(), "the broken one keeps its last good state");

    std::fs::write(&broken, good).unwrap();
    bench.repository.commit("mend it");
    bench.repository.push();
    bench.wait_ready("main", "True");
}

fn first_content(steps: &Path) -> std::path::PathBuf {
    let mut directories: Vec<_> = std::fs::read_dir(steps).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    directories[0].join("content.md")
}

fn a_template_edited_by_hand_is_put_back(bench: &Bench) {
    let wished = bench.template(FIRST).unwrap()["spec"].clone();
    bench.cluster.kubectl(&[
        "patch", "workspacetemplate", FIRST, "--type=json", "-p",
        r#"[{"op":"replace","path":"/spec/steps/0/title","value":"by hand"},{"op":"add","path":"/spec/defaults/isolation/runtimeClass","value":"by-hand"}]"#,
    ]);
    wait_for("the template is put back", PATIENCE, || {
        let template = bench.template(FIRST)?;
        (template["spec"] == wished).then_some(())
    });
    bench.cluster.kubectl(&["delete", "workspacetemplate", FIRST]);
    wait_for("the deleted template is made again", PATIENCE, || {
        (bench.template(FIRST)?["spec"] == wished).then_some(())
    });
}

fn a_learners_step_survives_every_sync(bench: &Bench) {
    let recipe = bench.repository.work_tree().join("first-steps-in-the-shell/step-spec.yaml");
    let recipe: Value = serde_yaml::from_str(&std::fs::read_to_string(recipe).unwrap()).unwrap();
    let step = |index: usize| recipe["steps"][index]["id"].as_str().unwrap().to_owned();
    let roster = bench.repository.work_tree().join("first-steps-in-the-shell/roster.yaml");
    std::fs::write(&roster, format!("instances:\n  - owner: Ada\n    step: {}\n  - owner: bob\n", step(1))).unwrap();
    bench.repository.commit("a roster");
    bench.repository.push();
    bench.wait_ready("main", "True");
    let instance = |name: &str| bench.cluster.get(&["workspaceinstance", "-n", NAMESPACE, name]);
    let ada = instance("first-steps-ada").expect("an instance for Ada");
    assert_eq!(ada["spec"]["currentStep"], json!(step(1)), "the roster's step is in the creation");

    let patch = json!({ "spec": { "currentStep": step(3) } }).to_string();
    bench.cluster.kubectl(&[
        "patch",
        "workspaceinstance",
        "-n",
        NAMESPACE,
        "first-steps-ada",
        "--type=merge",
        "-p",
        &patch,
    ]);
    std::fs::write(&roster, format!("instances:\n  - owner: Ada\n    step: {}\n    members: [eve]\n", step(1)))
        .unwrap();
    bench.repository.commit("change the roster");
    bench.repository.push();
    bench.wait_ready("main", "True");
    let ada = instance("first-steps-ada").expect("Ada's instance is still there");
    assert_eq!(ada["spec"]["members"], json!(["eve"]));
    assert_eq!(ada["spec"]["currentStep"], json!(step(3)), "no sync moves a learner");
    // The operator takes his workspace away first.
    wait_for("who left the roster is pruned with it", PATIENCE, || instance("first-steps-bob").is_none().then_some(()));
}

fn a_removed_workshop_is_pruned(bench: &Bench) {
    let gone = bench.repository.work_tree().join("processes-and-services");
    std::fs::remove_dir_all(gone).unwrap();
    bench.repository.commit("remove a workshop");
    bench.repository.push();
    bench.wait_ready("main", "True");
    wait_for("its template is pruned", PATIENCE, || (bench.templates().len() == 2).then_some(()));
}

fn a_tag_in_the_followed_range_is_applied(bench: &Bench) {
    bench.repository.tag("v1.0.0");
    bench.repository.push();
    bench.cluster.apply(&bench.manifest("main", json!({ "ref": { "semver": "1.x" } })));
    wait_for("v1.0.0 is applied", PATIENCE, || applied(bench)?.starts_with("v1.0.0@").then_some(()));
    let content = first_content(&bench.repository.work_tree().join("first-steps-in-the-shell/export/steps"));
    let text = std::fs::read_to_string(&content).unwrap();
    std::fs::write(&content, format!("{text}\nFor version 1.1.\n")).unwrap();
    bench.repository.commit("for 1.1");
    bench.repository.tag("v1.1.0");
    bench.repository.tag("v2.0.0");
    bench.repository.push();
    wait_for("v1.1.0 is applied", PATIENCE, || applied(bench)?.starts_with("v1.1.0@").then_some(()));
    let template = bench.template(FIRST).unwrap();
    assert_eq!(template.pointer("/metadata/annotations/workshop.platform~1tag"), Some(&json!("v1.1.0")));
}

fn applied(bench: &Bench) -> Option<String> {
    Some(bench.status("main").pointer("/status/lastAppliedRevision")?.as_str()?.to_owned())
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
