//! The example workshops and the authors' guide, held against the rules that authors' own files are held against.
//!
//! Building and running them is the matter of other tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use workshop::domain::export::{self, Layout, State};
use workshop::domain::goss::check_goss;
use workshop::domain::recipe::parse_recipe;
use workshop::domain::roster::parse_roster;
use workshop::domain::tree::FileTree;
use workshop::domain::workshop::{Workshop, read_workshop};
use workshop::domain::workspace::{CheckEngine, parse_workspace};
use workshop::domain::yaml;

const EXAMPLES: [&str; 3] = ["first-steps-in-the-shell", "files-users-permissions", "processes-and-services"];

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read_tree(root: &Path) -> FileTree {
    let mut tree = FileTree::default();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let executable = fs::metadata(&path).unwrap().permissions().mode() & 0o100 != 0;
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            tree.insert_file(name, fs::read(&path).unwrap(), executable);
        }
    }
    tree
}

struct Example {
    name: &'static str,
    tree: FileTree,
    workshop: Workshop,
}

/// The example read by the product's own rules; any problem, a warning too, is a failure.
fn read_example(name: &'static str) -> Example {
    let tree = read_tree(&repository().join("examples/workshops").join(name));
    let read = read_workshop(name, &tree, None, None);
    assert!(read.diagnostics.is_empty(), "{name}: {:#?}", read.diagnostics);
    Example { name, workshop: read.value.unwrap(), tree }
}

#[test]
fn the_examples_are_valid_workshops_of_four_to_eight_steps() {
    for Example { name, workshop, .. } in EXAMPLES.map(read_example) {
        let recipe = workshop.recipe.unwrap();
        assert!((4..=8).contains(&recipe.steps.len()), "{name}");
        assert_eq!(workshop.definition.steps.len(), recipe.steps.len(), "{name}");
        let contents = || recipe.steps.iter().map(|step| &step.content);
        assert!(contents().any(|content| !content.files.is_empty()), "{name} has no files");
        assert!(contents().any(|content| !content.env.is_empty()), "{name} has no env");
        assert!(contents().any(|content| !content.commands.is_empty()), "{name} has no commands");
        assert!(recipe.finish.is_some(), "{name}: the last step's check has no image to pass on");
    }
}

#[test]
fn every_step_of_the_examples_has_a_text_and_checks_with_title_and_hint() {
    for Example { name, workshop, .. } in EXAMPLES.map(read_example) {
        for step in &workshop.definition.steps {
            let place = format!("{name}, step {}", step.id);
            let text = step.markdown.as_deref().unwrap_or_default();
            assert!(
                text.starts_with(&format!("# {}\n", step.title)),
                "{place}: the text does not begin with the title"
            );
            assert!(text.contains("\n## Your task\n"), "{place}: the text has no task");

            let spec = step.goss_spec.as_deref().unwrap_or_default();
            let spec = yaml::parse("goss.yaml", spec.as_bytes()).value.unwrap().root.to_json();
            for (kind, resources) in spec.as_object().unwrap() {
                assert_ne!(kind, "process", "{place}: nothing runs in an image");
                for (key, resource) in resources.as_object().unwrap() {
                    assert!(resource["title"].is_string(), "{place}: {key} has no title");
                    assert!(resource["meta"]["hint"].is_string(), "{place}: {key} has no hint");
                }
            }
        }
    }
}

#[test]
fn the_export_of_the_first_example_is_canonical() {
    let Example { tree, workshop, .. } = read_example(EXAMPLES[0]);
    let canonical = export::render(&workshop.definition, Layout::Tree, &State::default()).unwrap();
    let committed = tree.subtree("export");
    let names = |tree: &FileTree| tree.iter().map(|(path, _)| path.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&canonical));
    for (path, _) in canonical.iter() {
        let text = |tree: &FileTree| String::from_utf8(tree.file(path).unwrap().to_vec()).unwrap();
        assert_eq!(text(&committed), text(&canonical), "{path}");
    }
}

/// The YAML blocks of the guide in which `key` stands at the beginning of a line.
fn guide_blocks(key: &str) -> Vec<String> {
    let guide = fs::read_to_string(repository().join("docs/authoring.md")).unwrap();
    let blocks = guide.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let found: Vec<_> = blocks.filter(|block| block.lines().any(|line| line.starts_with(key))).collect();
    assert!(!found.is_empty(), "the guide has no example with {key}");
    found
}

#[test]
fn the_files_that_the_authors_guide_shows_are_valid() {
    for block in guide_blocks("lifecycle:") {
        let problems = parse_workspace("workspace.yaml", block.as_bytes()).diagnostics;
        assert!(problems.is_empty(), "{problems:#?}");
    }
    for block in guide_blocks("instances:") {
        let problems = parse_roster("roster.yaml", block.as_bytes()).diagnostics;
        assert!(problems.is_empty(), "{problems:#?}");
    }
    for block in guide_blocks("file:") {
        let problems = check_goss("goss.yaml", block.as_bytes(), CheckEngine::Builtin);
        assert!(problems.is_empty(), "{problems:#?}");
    }
    // Its sources are those of the first example.
    let tree = read_tree(&repository().join("examples/workshops").join(EXAMPLES[0]));
    for block in guide_blocks("base:") {
        let problems = parse_recipe("step-spec.yaml", block.as_bytes(), &tree).diagnostics;
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
