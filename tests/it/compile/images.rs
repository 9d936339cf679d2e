//! What is in the images, seen by skopeo and umoci: the base and what the recipe says, nothing else.

use std::collections::BTreeMap;
use std::fs;

use super::fixture::{Workshop, busybox_root, config, debian_tar, listing, run, unpacked};
use crate::support::registry::Registry;

const RECIPE: &str = r##"
version: v1
workshop: {name: tree, image: team/tree}
base: {image: "docker.io/tests/base:1"}
steps:
- id: first
  title: Files, env and commands
  files:
  - {path: /etc/motd, content: "welcome\n"}
  - {path: /sbin/tool, mode: "0755", content: "#!/bin/sh\necho tool\n"}
  - {path: /tmp/note, content: "n"}
  - {path: /srv/data, source: data, owner: "1000:1001"}
  env: {GREETING: hello there, PATH: /opt/bin:/usr/sbin:/usr/bin:/sbin:/bin}
  commands:
  - mkdir -p /srv/made && echo "$GREETING" > /srv/made/g && chown 12:34 /srv/made && chmod 2750 /srv/made
  - ln /srv/made/g /srv/made/hard; ln -s g /srv/made/soft
  - "test -x /sbin/tool && test \"$(cat /tmp/note)\" = n && touch /etc/motd"
- id: second
  title: Removals
  commands:
  - rm -r /srv/data/deep /srv/made/hard
  - rm -r /home && mkdir /home && echo new > /home/new
- id: third
  title: Nothing but a variable
  env: {GREETING: bye}
finish:
  files:
  - {path: /srv/end, content: "end"}
"##;

fn write_sources(workshop: &Workshop) {
    workshop.write("data/plain", "p");
    workshop.write("data/deep/er", "d");
}

/// What the first step adds to a base whose `/sbin` is `sbin`.
fn after_first(base: &BTreeMap<String, String>, sbin: &str) -> BTreeMap<String, String> {
    let mut tree = base.clone();
    let rows = [
        ("etc/motd", "file \"welcome\\n\" 644 0:0"),
        ("tmp/note", "file \"n\" 644 0:0"),
        ("srv/data", "directory 755 1000:1001"),
        ("srv/data/plain", "file \"p\" 644 1000:1001"),
        ("srv/data/deep", "directory 755 1000:1001"),
        ("srv/data/deep/er", "file \"d\" 644 1000:1001"),
        ("srv/made", "directory 2750 12:34"),
        // The group comes with the directory's bit only for what is made after it was set.
        ("srv/made/g", "file \"hello there\\n\" 644 0:0"),
        ("srv/made/hard", "file \"hello there\\n\" 644 0:0"),
        ("srv/made/soft", "link g 777 0:34"),
    ];
    for (path, what) in rows {
        tree.insert(path.to_owned(), what.to_owned());
    }
    tree.entry("srv".to_owned()).or_insert_with(|| "directory 755 0:0".to_owned());
    tree.insert(format!("{sbin}/tool"), "file \"#!/bin/sh\\necho tool\\n\" 755 0:0".to_owned());
    if !base.contains_key("sbin") {
        tree.insert("sbin".to_owned(), "directory 755 0:0".to_owned());
    }
    tree
}

fn after_second(first: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let gone = ["srv/data/deep", "srv/data/deep/er", "srv/made/hard"];
    let mut tree = first.clone();
    tree.retain(|path, _| !gone.contains(&path.as_str()) && !path.starts_with("home/"));
    tree.insert("home/new".to_owned(), "file \"new\\n\" 644 0:0".to_owned());
    tree
}

/// The tree with the platform on top.
fn dressed(tree: &BTreeMap<String, String>, workshop: &Workshop, sbin: &str) -> BTreeMap<String, String> {
    let mut tree = tree.clone();
    let directory = "directory 755 0:0".to_owned();
    for path in ["usr", "usr/local", "usr/local/bin"] {
        tree.entry(path.to_owned()).or_insert_with(|| directory.clone());
    }
    for (path, file) in
        [(format!("{sbin}/tini"), "tini"), ("usr/local/bin/workshop-backend".to_owned(), "workshop-backend")]
    {
        let digest = workshop::domain::digest::Digest::of(&fs::read(workshop.platform.join(file)).unwrap());
        tree.insert(path, format!("file {digest} 755 0:0"));
    }
    tree
}

/// The lines that are in one of the trees only.
fn differences(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) -> Vec<String> {
    let line = |sign: char, (path, what): (&String, &String)| format!("{sign} {path}: {what}");
    let more = found.iter().filter(|(path, what)| expected.get(*path) != Some(what)).map(|row| line('+', row));
    let less = expected.iter().filter(|(path, what)| found.get(*path) != Some(what)).map(|row| line('-', row));
    more.chain(less).collect()
}

fn check(workshop: &Workshop, base: &BTreeMap<String, String>, sbin: &str) {
    write_sources(workshop);
    let registry = Registry::start();
    let (results, _) = workshop.compiled(&registry.host());
    assert_eq!(results, ["first built", "second built", "third built", "finish built"]);
    let first = after_first(base, sbin);
    let second = after_second(&first);
    let mut finish = second.clone();
    finish.insert("srv/end".to_owned(), "file \"end\" 644 0:0".to_owned());
    for (step, tree) in [("first", &first), ("second", &second), ("third", &second), ("finish", &finish)] {
        let scratch = tempfile::tempdir().unwrap();
        let found = listing(&unpacked(&format!("{}/team/tree:{step}", registry.host()), scratch.path()));
        assert_eq!(differences(&found, &dressed(tree, workshop, sbin)), Vec::<String>::new(), "{step}");
    }
    let config = config(&format!("{}/team/tree:third", registry.host()));
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.iter().any(|variable| variable == "GREETING=bye"), "{env:?}");
    assert_eq!(env.iter().filter(|variable| variable.as_str().unwrap().starts_with("PATH=")).count(), 1);
    assert_eq!(
        config["config"]["Entrypoint"],
        serde_json::json!(["/sbin/tini", "--", "/usr/local/bin/workshop-backend"])
    );
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
}

#[test]
fn images_on_busybox_hold_what_the_recipe_says() {
    check(&Workshop::on_busybox(RECIPE), &listing(&busybox_root()), "sbin");
}

#[test]
fn images_on_a_usr_merged_debian_hold_what_the_recipe_says() {
    let root = tempfile::tempdir().unwrap();
    let tar = debian_tar().display().to_string();
    // Debian's tar has the nodes of /dev, as the image has.
    run("tar", &["-xf", &tar, "--numeric-owner", "-C", &root.path().display().to_string()]);
    check(&Workshop::on_debian(RECIPE), &listing(root.path()), "usr/sbin");
}

#[test]
fn assets_are_below_the_platform_and_outside_of_the_keys() {
    let registry = Registry::start();
    let workshop = Workshop::on_busybox(
        "version: v1\nworkshop: {name: w, image: t/w}\nbase: {image: 'docker.io/tests/base:1'}\nsteps:\n- {id: one, title: One, files: [{path: /a, content: a}]}\n",
    );
    workshop.write("export/assets/map.svg", "<svg/>");
    let keys = || workshop.compile(&registry.host(), &[]).1["steps"][0]["key"].clone();
    let key = keys();
    let scratch = tempfile::tempdir().unwrap();
    let tree = listing(&unpacked(&format!("{}/t/w:one", registry.host()), scratch.path()));
    assert_eq!(tree["workshop/assets/map.svg"], "file \"<svg/>\" 644 0:0");
    workshop.write("export/assets/map.svg", "<svg></svg>");
    assert_eq!(keys(), key);
    let scratch = tempfile::tempdir().unwrap();
    let tree = listing(&unpacked(&format!("{}/t/w:one", registry.host()), scratch.path()));
    assert_eq!(tree["workshop/assets/map.svg"], "file \"<svg></svg>\" 644 0:0");
}
