//! What a comparison says, for sides of every kind.

use proptest::prelude::*;

use super::*;
use crate::domain::tree::FileTree;
use crate::domain::workshop::read_workshop;

const RECIPE: &str = "version: v1
workshop: {name: demo, image: team/demo}
base: {image: debian}
steps:
- id: one
  title: One
  files: [{path: /etc/motd, content: hello}]
- id: two
  title: Two
  env: {PATH: /bin}
  commands: [echo a, echo b]
- id: three
  title: Three
finish:
  commands: [echo done]
";

fn files(recipe: &str, more: &[(&str, &str)]) -> FileTree {
    let mut tree = FileTree::default();
    tree.insert_file("step-spec.yaml", recipe.as_bytes(), false);
    for (path, text) in more {
        tree.insert_file(*path, text.as_bytes(), false);
    }
    tree
}

fn at(path: &str, tree: FileTree) -> View {
    let checked = read_workshop(path, &tree, None, None);
    match checked.into_result() {
        Ok((workshop, _)) => View::of_files(workshop, tree),
        Err(diagnostics) => {
            View { id: None, path: Some(path.to_owned()), content: Content::Broken { tree, diagnostics } }
        }
    }
}

fn view(recipe: &str) -> View {
    at("demo", files(recipe, &[]))
}

fn rows(view: &View) -> View {
    View::of_rows(view.definition().unwrap())
}

fn template(view: &View) -> View {
    let content = Content::Template { steps: view.lines().unwrap(), workspace: view.workspace().unwrap() };
    View { id: view.id.clone(), path: None, content }
}

/// `STATE ID: CHANGES (REBUILD)` of each step of the one workshop that changed.
fn steps(before: &View, after: &View) -> Vec<String> {
    let changes = compare(std::slice::from_ref(before), std::slice::from_ref(after));
    assert!(changes.len() <= 1, "{changes:?}");
    let show = |step: &StepChange| {
        format!(
            "{} {}: {} ({})",
            step.state.as_str(),
            step.id,
            step.changes.join(", "),
            step.rebuild.as_deref().unwrap_or("-")
        )
    };
    changes.iter().flat_map(|change| &change.steps).map(show).collect()
}

#[track_caller]
fn check(from: &str, to: &str, expected: &[&str]) {
    let changed = RECIPE.replace(from, to);
    assert_ne!(changed, RECIPE, "{from} is in the recipe");
    assert_eq!(steps(&view(RECIPE), &view(&changed)), expected, "{from} -> {to}");
}

#[test]
fn equal_workshops_do_not_differ_on_any_side() {
    let files = view(RECIPE);
    for other in [view(RECIPE), rows(&files), template(&files)] {
        assert_eq!(compare(std::slice::from_ref(&files), std::slice::from_ref(&other)), []);
        assert_eq!(compare(std::slice::from_ref(&other), std::slice::from_ref(&files)), []);
    }
    assert_eq!(compare(&[rows(&files)], &[template(&files)]), []);
}

#[test]
fn the_first_differing_part_of_a_key_is_why_an_image_is_built_again() {
    check(
        "hello",
        "bye",
        &[
            "changed one: files: /etc/motd (files: /etc/motd)",
            "unchanged two:  (earlier step)",
            "unchanged three:  (earlier step)",
            "unchanged finish:  (earlier step)",
        ],
    );
    check(
        "content: hello",
        "content: hello, mode: 0600",
        &[
            "changed one: files: /etc/motd (files: /etc/motd)",
            "unchanged two:  (earlier step)",
            "unchanged three:  (earlier step)",
            "unchanged finish:  (earlier step)",
        ],
    );
    check(
        "{PATH: /bin}",
        "{PATH: /sbin}",
        &[
            "changed two: env: PATH (env: PATH)",
            "unchanged three:  (earlier step)",
            "unchanged finish:  (earlier step)",
        ],
    );
    check(
        "echo b]",
        "echo c]",
        &[
            "changed two: commands[1] (commands[1])",
            "unchanged three:  (earlier step)",
            "unchanged finish:  (earlier step)",
        ],
    );
    check(
        "echo b]",
        "echo b, echo c]",
        &[
            "changed two: commands[2] (commands[2])",
            "unchanged three:  (earlier step)",
            "unchanged finish:  (earlier step)",
        ],
    );
    check("echo done", "echo over", &["changed finish: commands[0] (commands[0])"]);
    check(
        "image: debian",
        "image: alpine",
        &[
            "unchanged one:  (base.image)",
            "unchanged two:  (earlier step)",
            "unchanged three:  (earlier step)",
            "unchanged finish:  (earlier step)",
        ],
    );
    check(
        "image: team/demo",
        "image: team/other",
        &[
            "changed one: image tag (workshop.image)",
            "changed two: image tag (workshop.image)",
            "changed three: image tag (workshop.image)",
            "unchanged finish:  (workshop.image)",
        ],
    );
}

#[test]
fn what_is_in_no_image_builds_none_again() {
    check("title: Two", "title: Second", &["changed two: title (-)"]);
    check("version: v1", "version: v1 # a comment", &[]);
    check("finish:\n  commands: [echo done]\n", "", &["removed finish:  (-)"]);
}

#[test]
fn steps_are_added_removed_and_moved() {
    // An empty step's image is one that was there: that of the step which was at its place.
    let later = ["unchanged three:  (earlier step)", "unchanged finish:  (earlier step)"];
    check("- id: three", "- id: new\n  title: New\n- id: three", &["added new:  (-)", later[0], later[1]]);
    check(
        "- id: three",
        "- id: new\n  title: New\n  commands: [x]\n- id: three",
        &["added new:  (new step)", later[0], later[1]],
    );
    check("- id: three\n  title: Three\n", "", &["unchanged finish:  (earlier step)", "removed three:  (-)"]);
    let one = "- id: one\n  title: One\n  files: [{path: /etc/motd, content: hello}]\n";
    let moved = RECIPE.replace(one, "").replace("- id: three", &format!("{one}- id: three"));
    let found = steps(&view(RECIPE), &view(&moved));
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().any(|step| step.starts_with("moved ")), "{found:?}");
    assert_eq!(found[0].split_once(' ').map(|(_, rest)| rest), Some("two:  (earlier step)"));
}

#[test]
fn text_and_checks_of_the_export_are_changes_of_their_step() {
    let before = at("demo", files(RECIPE, &[("export/steps/one/content.md", "# One\n")]));
    let after = at(
        "demo",
        files(RECIPE, &[("export/steps/one/content.md", "# First\n"), ("export/steps/two/goss.yaml", "file: {}\n")]),
    );
    for (before, after, prefix) in [(&before, &after, "demo/"), (&rows(&before), &rows(&after), "")] {
        assert_eq!(steps(before, after), ["changed one: text (-)", "changed two: checks (-)"]);
        let changes = compare(std::slice::from_ref(before), std::slice::from_ref(after));
        let paths: Vec<&str> = changes[0].files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [format!("{prefix}export/steps/one/content.md"), format!("{prefix}export/steps/two/goss.yaml"),]
        );
        assert_eq!(
            changes[0].files[0].diff.as_deref(),
            Some(
                format!(
                    "--- a/{prefix}export/steps/one/content.md\n+++ b/{prefix}export/steps/one/content.md\n\
                     @@ -1 +1 @@\n-# One\n+# First\n"
                )
                .as_str()
            )
        );
    }
}

#[test]
fn workshops_are_added_removed_and_moved() {
    let other = RECIPE.replace("demo", "other");
    let before = [at("a", files(RECIPE, &[])), at("b", files(&other, &[]))];
    let after = [at("c", files(RECIPE, &[]))];
    let states = |before: &[View], after: &[View]| -> Vec<String> {
        compare(before, after)
            .iter()
            .map(|change| {
                let from = change.from.as_deref().unwrap_or("-");
                format!("{} {} {from}", change.state.as_str(), change.path.as_deref().unwrap_or("-"))
            })
            .collect()
    };
    assert_eq!(states(&before, &after), ["removed b -", "moved c a"]);
    assert_eq!(states(&after, &before), ["moved a c", "added b -"]);
    assert_eq!(compare(&after, &before)[1].steps[0].rebuild.as_deref(), Some("new step"));
}

#[test]
fn a_workshop_with_another_id_in_the_same_directory_is_another_one() {
    let changes = compare(&[view(RECIPE)], &[view(&RECIPE.replace("demo", "other"))]);
    assert_eq!(changes.iter().map(|change| change.state).collect::<Vec<_>>(), [State::Removed, State::Added]);
}

#[test]
fn a_broken_workshop_is_compared_by_its_files_alone() {
    let broken = view(&RECIPE.replace("title: One", "titel: One"));
    let changes = compare(&[view(RECIPE)], std::slice::from_ref(&broken));
    assert_eq!((changes.len(), changes[0].state, changes[0].id.as_deref()), (1, State::Invalid, Some("demo")));
    assert_eq!(changes[0].files.len(), 1);
    assert_eq!(problems(&[broken]).len(), 2);
}

#[test]
fn settings_and_roster_are_compared_field_by_field() {
    let before = at("demo", files(RECIPE, &[("roster.yaml", "instances: [{owner: ada}]")]));
    let after = at(
        "demo",
        files(
            RECIPE,
            &[
                ("workspace.yaml", "lifecycle: {ttl: 2h, persist: 1Gi}"),
                ("roster.yaml", "class: monday\ninstances: [{owner: ada, step: two}, {owner: ben}]"),
            ],
        ),
    );
    let changes = compare(std::slice::from_ref(&before), std::slice::from_ref(&after));
    assert_eq!(
        changes[0].changes,
        [
            "workspace.lifecycle.persist: unset -> 1Gi",
            "workspace.lifecycle.ttl: 4h -> 2h",
            "roster.class: unset -> monday",
            "roster.instances.ada.step: unset -> two",
            "roster.instances.ben: unset -> {\"members\":[],\"step\":null,\"overrides\":null}",
        ]
    );
    // A cluster knows the settings and no roster.
    let changes = compare(&[template(&before)], &[after]);
    assert_eq!(changes[0].changes.len(), 2);
    assert_eq!(changes[0].files[0].path, "demo/WorkspaceTemplate/demo.yaml".trim_start_matches("demo/"));
}

#[test]
fn files_that_are_no_text_or_differ_in_their_mode_only_are_named() {
    let tree = |bytes: &[u8], executable| {
        let mut tree = files(RECIPE, &[]);
        tree.insert_file("run", bytes.to_vec(), executable);
        at("", tree)
    };
    let changed = |before: View, after: View| compare(&[before], &[after])[0].files[0].clone();
    let binary = changed(tree(b"\0a", false), tree(b"\0b", false));
    assert_eq!((binary.path.as_str(), binary.diff), ("run", None));
    let mode = changed(tree(b"a\n", false), tree(b"a\n", true));
    assert_eq!(mode.diff.as_deref(), Some("--- a/run\n+++ b/run\nold mode 100644\nnew mode 100755\n"));
    let empty = compare(&[view(RECIPE)], &[at("demo", files(RECIPE, &[("empty", "")]))]);
    assert_eq!(empty[0].files[0].diff.as_deref(), Some("--- /dev/null\n+++ b/demo/empty\n"));
}

proptest! {
    #[test]
    fn a_workshop_differs_from_another_text_and_never_from_itself(text in "(?s)[a-z\\n\\r]{0,40}", other in "(?s)[a-z\\n\\r]{0,40}") {
        let with = |text: &str| at("w", files(RECIPE, &[("export/steps/one/content.md", text)]));
        let (before, after) = (with(&text), with(&other));
        prop_assert_eq!(compare(std::slice::from_ref(&before), std::slice::from_ref(&after)).is_empty(), text == other);
        prop_assert!(compare(std::slice::from_ref(&before), std::slice::from_ref(&before)).is_empty());
        prop_assert_eq!(compare(&[rows(&before)], &[rows(&after)]).is_empty(), text == other);
    }
}
