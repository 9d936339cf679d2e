//! What a recipe asks for: its steps in order with their files and their content keys.
//!
//! Pure: nothing is looked up or built here.

use super::error::{CompileError, Place};
use crate::domain::digest::Digest;
use crate::domain::key::{BuildOptions, Parent, step_key};
use crate::domain::recipe::{self, Content, ImageFile, Recipe, resolve_files};
use crate::domain::tree::FileTree;
use crate::domain::yaml;

/// The id and image tag of the state after the last step.
pub const FINISH: &str = "finish";

/// One image to come.
pub struct PlannedStep<'a> {
    /// The step's id, or `finish`.
    pub id: &'a str,
    /// Its place among all images of the workshop, from 0.
    pub position: usize,
    /// What it adds.
    pub content: &'a Content,
    /// The files it adds, sources expanded.
    pub files: Vec<ImageFile>,
    /// Its key.
    pub key: Digest,
}

/// The steps of `recipe` on a base of this digest; `tree` is the workshop's directory.
pub fn plan_steps<'a>(
    recipe: &'a Recipe,
    tree: &FileTree,
    base: Digest,
    options: &BuildOptions,
) -> Result<Vec<PlannedStep<'a>>, CompileError> {
    let steps = recipe.steps.iter().map(|step| (step.id.as_str(), &step.content));
    let finish = recipe.finish.iter().map(|content| (FINISH, content));
    let mut parent = Parent::Base(base);
    steps
        .chain(finish)
        .enumerate()
        .map(|(position, (id, content))| {
            let files = resolve_files(content, tree).map_err(|source| CompileError::Files {
                place: Place::of(recipe, id, file_line(content, source.path())),
                source: Box::new(source),
            })?;
            let key = step_key(parent, &files, &content.env, &content.commands, options);
            parent = Parent::Step(key);
            Ok(PlannedStep { id, position, content, files, key })
        })
        .collect()
}

/// The line of the `files` entry that a target path comes from.
pub fn file_line(content: &Content, path: &str) -> Option<u32> {
    let is_from = |file: &&recipe::RecipeFile| {
        path.strip_prefix(file.path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    content.files.iter().rev().find(is_from).map(|file| file.place.line)
}

/// The line of a command (counted from 0), which a recipe's value does not keep; found in its text.
pub fn command_line(tree: &FileTree, position: usize, steps: usize, command: usize) -> Option<u32> {
    let document = yaml::parse(recipe::FILE_NAME, tree.file(recipe::FILE_NAME)?).value?;
    let step = if position < steps {
        sequence(child(&document.root, "steps")?)?.get(position)?
    } else {
        child(&document.root, FINISH)?
    };
    Some(sequence(child(step, "commands")?)?.get(command)?.place.line)
}

fn child<'n>(node: &'n yaml::Node, key: &str) -> Option<&'n yaml::Node> {
    match &node.value {
        yaml::Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
        _ => None,
    }
}

fn sequence(node: &yaml::Node) -> Option<&[yaml::Node]> {
    match &node.value {
        yaml::Value::Sequence(nodes) => Some(nodes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::recipe::parse_recipe;

    const RECIPE: &str = "\
version: v1
workshop: {name: w, image: team/w}
base: {image: scratch}
steps:
- id: one
  title: One
  commands:
  - 'true'
  - |
    false
- id: two
  title: Two
  files:
  - {path: /a, content: x}
finish:
  commands: ['echo', 'end']
";

    fn keys(recipe: &str) -> Vec<(String, Digest)> {
        let tree = FileTree::default();
        let options = BuildOptions { architecture: "amd64".into(), epoch: 0, compression: "gzip" };
        let (recipe, _) = parse_recipe(recipe::FILE_NAME, recipe.as_bytes(), &tree).into_result().unwrap();
        let steps = plan_steps(&recipe, &tree, Digest::of(b"base"), &options).unwrap();
        steps.iter().map(|step| (step.id.to_owned(), step.key)).collect()
    }

    #[test]
    fn a_change_changes_the_keys_from_its_step_on() {
        let before = keys(RECIPE);
        assert_eq!(before.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["one", "two", FINISH]);
        let rows = [("'true'", "':'", 0), ("content: x", "content: y", 1), ("'echo'", "'ls'", 2), ("Two", "2nd", 3)];
        for (from, to, first) in rows {
            let after = keys(&RECIPE.replace(from, to));
            for (index, (old, new)) in before.iter().zip(&after).enumerate() {
                assert_eq!(old.1 == new.1, index < first, "step {index} after {from} became {to}");
            }
        }
    }

    #[test]
    fn a_command_is_found_at_its_line() {
        let mut tree = FileTree::default();
        tree.insert_file(recipe::FILE_NAME, RECIPE.as_bytes(), false);
        let rows = [(0, 0, Some(8)), (0, 1, Some(10)), (2, 1, Some(16)), (1, 0, None), (2, 2, None)];
        for (position, command, line) in rows {
            assert_eq!(command_line(&tree, position, 2, command), line, "{position} {command}");
        }
    }
}
