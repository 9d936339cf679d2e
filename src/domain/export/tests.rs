//! Both layouts of the export, there and back, and what a recipe lets it leave out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::compose::{DISAGREEMENT, Facts, StepFacts, compose};
use super::*;
use crate::domain::definition::{DEFAULT_CREATED_AT, Definition, Navigation, StepRow};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::names::{StepId, WorkshopId};

/// Any definition that the schema can hold, with texts as hostile as UTF-8 allows.
pub fn any_definition() -> impl Strategy<Value = Definition> {
    let text = "(?s)[^\\x00]{0,40}|[ \\t\\r\\n:#|>a-c-]{0,20}";
    let step = (
        text,
        proptest::option::of(text),
        "[a-z0-9./:-]{1,20}",
        proptest::option::of(text),
        proptest::collection::btree_map(text, text, 0..3),
        (0..8usize, 0..8usize, proptest::option::of(text)),
    );
    let names = (text, text, proptest::collection::btree_set("[a-z0-9]{1,12}", 1..6));
    (names, proptest::collection::vec(step, 6)).prop_map(|((name, version, ids), steps)| {
        let ids: Vec<StepId> = ids.iter().filter_map(|id| StepId::parse(id).ok()).collect();
        let ids = if ids.is_empty() { vec![StepId::parse("only").unwrap()] } else { ids };
        let target = |pick: usize, usual: &Option<StepId>| match pick {
            0..5 => usual.clone(),
            5 => None,
            _ => ids.get(pick % ids.len()).cloned(),
        };
        let rows = steps.into_iter().enumerate().take(ids.len());
        let steps =
            rows.map(|(index, (title, markdown, image_tag, goss_spec, metadata, (next, prev, unlock_condition)))| {
                let linear = Navigation::linear(&ids, index);
                StepRow {
                    id: ids[index].clone(),
                    title,
                    markdown,
                    image_tag,
                    goss_spec,
                    metadata,
                    navigation: Navigation {
                        next: target(next, &linear.next),
                        prev: target(prev, &linear.prev),
                        unlock_condition,
                    },
                }
            });
        let steps = steps.collect();
        let id = WorkshopId::parse("some-workshop").unwrap();
        Definition { id, name, version, created_at: DEFAULT_CREATED_AT.into(), steps }
    })
}

fn read(files: &FileTree) -> Result<(Definition, State), Vec<Diagnostic>> {
    let parsed = parse("export", files);
    let export = parsed.value.unwrap();
    let composed = compose(&export, None, None, None);
    let mut diagnostics = parsed.diagnostics;
    diagnostics.extend(composed.diagnostics);
    match composed.value {
        Some(definition) if diagnostics.is_empty() => Ok((definition, export.state)),
        _ => Err(diagnostics),
    }
}

proptest! {
    #[test]
    fn rows_come_back_from_either_layout_and_its_bytes_are_canonical(definition in any_definition()) {
        let state = State {
            runtime: vec![RuntimeRow {
                workspace_id: "w".into(),
                step_id: definition.steps[0].id.to_string(),
                status: "active".into(),
                started_at: Some(definition.name.clone()),
                completed_at: None,
            }],
            custom: vec![CustomRow { workspace_id: "w".into(), key: "k".into(), value: definition.version.clone() }],
        };
        for layout in [Layout::Tree, Layout::Tables] {
            let files = render(&definition, layout, &state).unwrap();
            let (back, state_back) = read(&files).map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
            prop_assert_eq!(&back, &definition);
            prop_assert_eq!(&state_back, &state);
            prop_assert_eq!(back.content_digest(), definition.content_digest());
            prop_assert_eq!(render(&back, layout, &state_back).unwrap(), files);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(workshop in "(?s).{0,80}", step in ".{0,40}", other in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut files = FileTree::default();
        files.insert_file("workshop.yaml", workshop.into_bytes(), false);
        files.insert_file("steps/a/step.yaml", step.into_bytes(), false);
        files.insert_file("steps/a/content.md", other, false);
        let _ = read(&files);
    }
}

fn tree(files: &[(&str, &str)]) -> FileTree {
    let mut tree = FileTree::default();
    for (path, text) in files {
        tree.insert_file(*path, text.as_bytes(), false);
    }
    tree
}

const WORKSHOP: &str = "schema: 1\nid: w\nname: W\nversion: v1\ncreatedAt: 2024-01-01T00:00:00Z\nsteps:\n- a\n- b\n";

#[test]
fn the_layout_tree_reads_well() {
    let files = tree(&[
        ("workshop.yaml", WORKSHOP),
        ("steps/a/step.yaml", "title: A\nimageTag: r.io/w:a\n"),
        ("steps/a/content.md", "# A\r\n\r\n  text  "),
        ("steps/b/step.yaml", "title: B\nimageTag: r.io/w:b\nnavigation: {next: a, prev: null}\n"),
        ("steps/b/goss.yaml", ""),
    ]);
    let (definition, _) = read(&files).unwrap();
    assert_eq!(definition.steps[0].markdown.as_deref(), Some("# A\r\n\r\n  text  "));
    assert_eq!(definition.steps[0].goss_spec, None);
    assert_eq!(definition.steps[1].markdown, None);
    assert_eq!(definition.steps[1].goss_spec.as_deref(), Some(""));
    let canonical = render(&definition, Layout::Tree, &State::default()).unwrap();
    let text = |path: &str| std::str::from_utf8(canonical.file(path).unwrap()).unwrap().to_owned();
    assert_eq!(text("workshop.yaml"), WORKSHOP.replace("2024-01-01T00:00:00Z", "\"2024-01-01T00:00:00Z\""));
    assert_eq!(text("steps/a/step.yaml"), "title: A\nimageTag: r.io/w:a\n");
    assert_eq!(text("steps/b/step.yaml"), "title: B\nimageTag: r.io/w:b\nnavigation:\n  next: a\n  prev: null\n");
}

/// The rule, place and field of everything wrong with a workshop whose files are replaced by `files`.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let mut all = BTreeMap::from([
        ("workshop.yaml", WORKSHOP),
        ("steps/a/step.yaml", "title: A\nimageTag: r.io/w:a\n"),
        ("steps/b/step.yaml", "title: B\nimageTag: r.io/w:b\n"),
    ]);
    all.extend(files.iter().copied());
    all.retain(|_, text| *text != "-");
    let all: Vec<_> = all.into_iter().collect();
    let describe = |problem: &Diagnostic| format!("{} {} {}", problem.location(), problem.rule, problem.field);
    read(&tree(&all)).err().unwrap_or_default().iter().map(|problem| describe(problem).trim_end().to_owned()).collect()
}

#[test]
fn every_problem_of_an_export_is_reported_at_its_place() {
    for (file, text, expected) in [
        (
            "workshop.yaml",
            "-",
            vec![
                "export/workshop.yaml missing-field steps",
                "export/workshop.yaml missing-field id",
                "export/steps/a/step.yaml:1:1 unknown-step",
                "export/steps/b/step.yaml:1:1 unknown-step",
            ],
        ),
        ("workshop.yaml", "schema: 2\nid: w\nsteps: [a, b]\n", vec!["export/workshop.yaml:1:9 unknown-version schema"]),
        (
            "workshop.yaml",
            "schema: 1\nid: W\nsteps: [a, b, b]\n",
            vec!["export/workshop.yaml:2:5 invalid-name id", "export/workshop.yaml:3:15 duplicate-step steps[2]"],
        ),
        (
            "workshop.yaml",
            "schema: 1\nid: w\nnmae: x\nversion: 1.0\nsteps: [a, b]\n",
            vec!["export/workshop.yaml:3:1 unknown-field nmae", "export/workshop.yaml:4:10 wrong-type version"],
        ),
        (
            "workshop.yaml",
            "schema: 1\nid: w\ncreatedAt: today\nsteps: [a, b]\n",
            vec!["export/workshop.yaml:3:12 invalid-datetime createdAt"],
        ),
        ("workshop.yaml", "schema: 1\nid: w\nsteps: [a]\n", vec!["export/steps/b/step.yaml:1:1 unknown-step"]),
        ("steps/a/step.yaml", "-", vec!["export/steps/a/step.yaml missing-field"]),
        ("steps/a/step.yaml", "title: A\n", vec!["export/steps/a/step.yaml:1:1 missing-field imageTag"]),
        ("steps/a/step.yaml", "title: [A]\nimageTag: x:a\n", vec!["export/steps/a/step.yaml:1:8 wrong-type title"]),
        ("steps/a/step.yaml", "title: \"a\\0\"\nimageTag: x:a\n", vec!["export/steps/a/step.yaml:1:8 nul title"]),
        (
            "steps/a/step.yaml",
            "title: A\nimageTag: x a\n",
            vec!["export/steps/a/step.yaml:2:11 invalid-image imageTag"],
        ),
        (
            "steps/a/step.yaml",
            "title: A\nimageTag: x:a\nnavigation: {next: z}\n",
            vec!["export/steps/a/step.yaml:3:20 unknown-step navigation.next"],
        ),
        (
            "steps/a/step.yaml",
            "title: A\nimageTag: x:a\nmetadata: {skip: false}\n",
            vec!["export/steps/a/step.yaml:3:18 wrong-type metadata.skip"],
        ),
        ("steps/a/content.md", "ab\nc\0", vec!["export/steps/a/content.md:2:2 nul"]),
        ("steps/a/contents.md", "text", vec!["export/steps/a/contents.md unknown-file"]),
        (
            "steps/X/content.md",
            "text",
            vec!["export/steps/X/content.md invalid-name", "export/steps/X/content.md unknown-file"],
        ),
        (
            "steps/a/content.md",
            "version https://git-lfs.github.com/spec/v1\noid x\n",
            vec!["export/steps/a/content.md lfs-pointer"],
        ),
        ("assets/picture.svg", "<svg/>", vec![]),
    ] {
        assert_eq!(problems(&[(file, text)]), expected, "{file}: {text}");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_refused_with_their_offset() {
    let mut files = tree(&[
        ("workshop.yaml", "schema: 1\nid: w\nsteps: [a]\n"),
        ("steps/a/step.yaml", "title: A\nimageTag: x:a\n"),
    ]);
    files.insert_file("steps/a/content.md", *b"ab\n\xff", false);
    let problems = read(&files).unwrap_err();
    assert_eq!(problems[0].to_string(), "export/steps/a/content.md:2:1: byte 3 is not valid UTF-8");
}

#[test]
fn a_link_is_no_text() {
    let mut files = tree(&[
        ("workshop.yaml", "schema: 1\nid: w\nsteps: [a]\n"),
        ("steps/a/step.yaml", "title: A\nimageTag: x:a\n"),
    ]);
    files.insert_link("steps/a/content.md", "/etc/passwd");
    assert_eq!(read(&files).unwrap_err()[0].rule, "link");
}

const RECIPE: &str =
    "version: v1\nworkshop:\n  name: w\n  image: team/w\nsteps:\n- id: a\n  title: A\n- id: b\n  title: B\n";

fn beside_recipe(files: &[(&str, &str)], registry: &str) -> Checked<Definition> {
    let id = WorkshopId::parse("w").unwrap();
    let ids = [StepId::parse("a").unwrap(), StepId::parse("b").unwrap()];
    let step = |index: usize, title| StepFacts {
        id: &ids[index],
        title,
        image_tag: format!("{registry}/team/w:{}", ids[index]),
    };
    let facts = Facts {
        file: "step-spec.yaml",
        text: RECIPE.as_bytes(),
        id: &id,
        image: "team/w",
        steps: vec![step(0, "A"), step(1, "B")],
    };
    let files = tree(files);
    let parsed = parse("export", &files);
    let composed = compose(&parsed.value.unwrap(), Some(&facts), Some("v1.2.0"), Some(registry));
    let diagnostics = parsed.diagnostics.into_iter().chain(composed.diagnostics).collect();
    Checked { value: composed.value, diagnostics }
}

#[test]
fn beside_a_recipe_the_export_may_leave_out_what_the_recipe_says() {
    let (definition, warnings) = beside_recipe(&[("steps/b/content.md", "# B\n")], "docker.io").into_result().unwrap();
    assert_eq!(warnings, []);
    assert_eq!(definition.name, "w");
    assert_eq!(definition.version, "v1.2.0");
    assert_eq!(definition.created_at, DEFAULT_CREATED_AT);
    assert_eq!(definition.steps[0].image_tag, "docker.io/team/w:a");
    assert_eq!(definition.steps[1].markdown.as_deref(), Some("# B\n"));
    assert_eq!(definition.steps[1].navigation.prev.as_ref().map(StepId::as_str), Some("a"));
}

#[test]
fn what_recipe_and_export_both_say_must_agree() {
    for (file, text, expected) in [
        (
            "workshop.yaml",
            "schema: 1\nid: v\n",
            "export/workshop.yaml:2:5: id: the id is \"v\" here and \"w\" at step-spec.yaml:3:9",
        ),
        (
            "workshop.yaml",
            "schema: 1\nsteps: [b, a]\n",
            "export/workshop.yaml:2:9: steps[0]: the steps are \"b, a\" here and \"a, b\" at step-spec.yaml:6:3",
        ),
        (
            "steps/b/step.yaml",
            "title: C\n",
            "export/steps/b/step.yaml:1:8: title: the title is \"C\" here and \"B\" at step-spec.yaml:9:10",
        ),
        (
            "steps/b/step.yaml",
            "imageTag: w:b\n",
            "export/steps/b/step.yaml:1:11: imageTag: the image tag is \"w:b\" here and \"h:5000/team/w:b\" by the image at step-spec.yaml:4:10",
        ),
        ("steps/b/step.yaml", "imageTag: team/w:b\n", ""),
        ("steps/b/step.yaml", "imageTag: ghcr.io/team/w:b@sha256:12\n", ""),
        ("steps/b/step.yaml", "imageTag: ghcr.io/prefix/team/w:b\n", ""),
        ("steps/c/content.md", "", "export/steps/c/step.yaml: there is no step \"c\" at step-spec.yaml:6:3"),
    ] {
        let checked = beside_recipe(&[(file, text)], "h:5000");
        assert!(checked.value.is_some(), "the recipe decides");
        let found: Vec<String> = checked.diagnostics.iter().map(ToString::to_string).collect();
        let expected: Vec<&str> = Some(expected).filter(|it| !it.is_empty()).into_iter().collect();
        assert_eq!(found, expected);
        assert!(checked.diagnostics.iter().all(|it| it.rule == DISAGREEMENT || it.rule == "unknown-step"));
    }
}

#[test]
fn a_registry_goes_before_an_exported_image_that_names_none() {
    for (tag, registry, expected) in [
        ("w:a", None, "w:a"),
        ("team/w:a", Some("h:5000/x"), "h:5000/x/team/w:a"),
        ("ghcr.io/w:a", Some("h:5000"), "ghcr.io/w:a"),
        ("localhost/w:a", Some("h:5000"), "localhost/w:a"),
    ] {
        let step = format!("title: A\nimageTag: {tag}\n");
        let files = tree(&[("workshop.yaml", "schema: 1\nid: w\nsteps: [a]\n"), ("steps/a/step.yaml", &step)]);
        let parsed = parse("export", &files);
        let definition = compose(&parsed.value.unwrap(), None, None, registry).value.unwrap();
        assert_eq!(definition.steps[0].image_tag, expected);
    }
}
