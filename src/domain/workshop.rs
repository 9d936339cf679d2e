//! A whole workshop from its directory: recipe, workspace file, roster and export read together, each fact once.
//!
//! A pure function of the tree, the followed tag and the registry's name; where the tree comes from, who compiles it
//! and where its rows go is decided elsewhere.

use super::definition::Definition;
use super::diagnostic::{Checked, Diagnostic};
use super::export::{self, Export, Facts, Layout, State, StepFacts, compose};
use super::goss::check_goss;
use super::names::WorkshopId;
use super::progress::{Condition, InvalidCondition};
use super::recipe::{self, Recipe, parse_recipe};
use super::roster::{self, Roster, parse_roster};
use super::tree::{FileTree, ResolveError, Resolved};
use super::workspace::{self, Workspace, parse_workspace};
use super::yaml;

/// The folder of the export in a workshop's directory.
pub const EXPORT: &str = "export";

/// Everything that a workshop's directory says.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The directory, from the source's root; empty for the root itself.
    pub path: String,
    /// The id, by recipe or export.
    pub id: WorkshopId,
    /// What its images contain; none: the workshop is export-only and never compiled.
    pub recipe: Option<Recipe>,
    /// How its workspaces run.
    pub workspace: Workspace,
    /// The instances that the repository itself wants.
    pub roster: Option<Roster>,
    /// The rows of its artifact.
    pub definition: Definition,
    /// How its export is laid out.
    pub layout: Layout,
    /// Runtime rows that the export carries: for `workshop import` only, never published.
    pub state: State,
}

/// True when `tree` is a workshop's directory.
#[must_use]
pub fn is_workshop(tree: &FileTree) -> bool {
    tree.get(recipe::FILE_NAME).is_some() || tree.get(&format!("{EXPORT}/{}", export::WORKSHOP_FILE)).is_some()
}

/// Reads the workshop whose directory is `tree`, at `path` from the source's root; `tag` is the followed tag,
/// `registry` what is put before an image that names none.
#[must_use]
pub fn read_workshop(path: &str, tree: &FileTree, tag: Option<&str>, registry: Option<&str>) -> Checked<Workshop> {
    let mut reader = Reader { path, tree, diagnostics: Vec::new() };
    let recipe_text = reader.file(recipe::FILE_NAME);
    let recipe = recipe_text.map(|bytes| {
        let name = reader.name(recipe::FILE_NAME);
        reader.take(parse_recipe(&name, bytes, tree))
    });
    let workspace = reader.file(workspace::FILE_NAME).map_or_else(
        || Some(Workspace::default()),
        |bytes| {
            let name = reader.name(workspace::FILE_NAME);
            reader.take(parse_workspace(&name, bytes))
        },
    );
    let roster_text = reader.file(roster::FILE_NAME);
    let roster = roster_text.map(|bytes| {
        let name = reader.name(roster::FILE_NAME);
        reader.take(parse_roster(&name, bytes))
    });

    let export_tree = tree.subtree(EXPORT);
    let parsed = export::parse(&reader.name(EXPORT), &export_tree);
    reader.diagnostics.extend(parsed.diagnostics);
    let mut export = parsed.value;
    let engine = workspace.as_ref().map(|workspace| workspace.checks.engine).unwrap_or_default();
    for step in export.iter().flat_map(|export| &export.steps) {
        if let Some(spec) = &step.goss_spec {
            let file = step.goss_file();
            let problems = check_goss(&reader.name(&format!("{EXPORT}/{file}")), spec.as_bytes(), engine);
            // In a table the spec is a text inside of another file, whose lines are not its own.
            let inside_table = |it: Diagnostic| Diagnostic {
                line: None,
                column: None,
                field: format!("goss_spec of step \"{}\"", step.id),
                ..it
            };
            let is_file = file != step.file;
            reader.diagnostics.extend(problems.into_iter().map(|it| if is_file { it } else { inside_table(it) }));
        }
    }

    // A recipe that cannot be read says nothing that an export could be held against.
    let recipe = match recipe {
        Some(None) => return Checked { value: None, diagnostics: reader.diagnostics },
        Some(Some(recipe)) => Some(recipe),
        None => None,
    };
    if recipe.is_none() && !is_workshop(tree) {
        let message = "the directory is no workshop: it has neither step-spec.yaml nor export/workshop.yaml";
        reader.diagnostics.push(
            Diagnostic::error("no-workshop", reader.name(recipe::FILE_NAME), message)
                .help("write a step-spec.yaml, or name the workshop's own directory"),
        );
        return Checked { value: None, diagnostics: reader.diagnostics };
    }
    let recipe_name = reader.name(recipe::FILE_NAME);
    let image = recipe.as_ref().map(|recipe| recipe.image.to_string()).unwrap_or_default();
    let facts = recipe.as_ref().map(|recipe| Facts {
        file: &recipe_name,
        text: recipe_text.unwrap_or_default(),
        id: &recipe.id,
        image: &image,
        steps: step_facts(recipe, registry),
    });
    let composed = export.as_ref().map(|export| compose::compose(export, facts.as_ref(), tag, registry));
    // Where recipe and export disagree the recipe's rows are there too: `workshop fmt` writes them.
    let definition = composed.and_then(|composed| {
        reader.diagnostics.extend(composed.diagnostics);
        composed.value
    });
    if let (Some(Some(roster)), Some(definition)) = (&roster, &definition) {
        reader.check_roster(roster, definition, roster_text.unwrap_or_default());
    }
    if let (Some(export), Some(definition)) = (&export, &definition) {
        reader.check_state(&export.state, definition);
    }
    if let Some(export) = &export {
        reader.check_conditions(export, definition.as_ref());
    }
    let state = export.as_mut().map(|export| std::mem::take(&mut export.state)).unwrap_or_default();
    let value = match (definition, workspace) {
        (Some(definition), Some(workspace)) => Some(Workshop {
            path: path.to_owned(),
            id: definition.id.clone(),
            recipe,
            workspace,
            roster: roster.flatten(),
            definition,
            layout: export.as_ref().map(|export| export.layout).unwrap_or_default(),
            state,
        }),
        _ => None,
    };
    Checked { value, diagnostics: reader.diagnostics }
}

/// The id that a directory claims for itself, for naming a workshop that cannot be read as a whole.
#[must_use]
pub fn peek_id(tree: &FileTree) -> Option<WorkshopId> {
    let read = |file: &str, path: &[&str]| {
        let document = yaml::parse(file, tree.file(file)?).value?;
        WorkshopId::parse(document.root.find(path)?.scalar()?).ok()
    };
    read(recipe::FILE_NAME, &["workshop", "name"])
        .or_else(|| read(&format!("{EXPORT}/{}", export::WORKSHOP_FILE), &["id"]))
}

fn step_facts<'a>(recipe: &'a Recipe, registry: Option<&str>) -> Vec<StepFacts<'a>> {
    let image = recipe.image.full(registry);
    let step = |step: &'a recipe::RecipeStep| StepFacts {
        id: &step.id,
        title: &step.title,
        image_tag: format!("{image}:{}", step.id),
    };
    recipe.steps.iter().map(step).collect()
}

struct Reader<'a> {
    path: &'a str,
    tree: &'a FileTree,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// Reports conditions that nobody can meet: their step would stay closed for ever.
    fn check_conditions(&mut self, export: &Export<'_>, definition: Option<&Definition>) {
        let field = match export.layout {
            Layout::Tree => "navigation.unlockCondition",
            Layout::Tables => "unlock_condition",
        };
        for step in &export.steps {
            let Some(text) = &step.navigation.unlock_condition else { continue };
            let mut report = |rule, message: String, help: String| {
                let problem = export.files.error(rule, step.navigation_file(), Some(text.place), message);
                self.diagnostics.push(problem.field(field).help(help));
            };
            let condition = match Condition::parse(&text.value) {
                Ok(condition) => condition,
                Err(InvalidCondition { at, reason }) => {
                    let message = format!("the unlock condition cannot be read at character {at}: {reason}");
                    let help = "write it like `completed(one) and (completed(two) or completed(three))`";
                    report("unlock-condition", message, help.to_owned());
                    continue;
                }
            };
            let known: Vec<&str> = definition.iter().flat_map(|it| &it.steps).map(|step| step.id.as_str()).collect();
            for unknown in condition.steps().into_iter().filter(|named| !known.is_empty() && !known.contains(named)) {
                let message = format!("the unlock condition waits for \"{unknown}\", which is no step");
                report("unknown-step", message, format!("name one of the steps: {}", known.join(", ")));
            }
        }
    }

    /// The path from the source's root.
    fn name(&self, file: &str) -> String {
        if self.path.is_empty() || self.path == "." { file.to_owned() } else { format!("{}/{file}", self.path) }
    }

    /// The bytes of `file`, through links as long as they stay inside.
    fn file(&mut self, file: &str) -> Option<&'a [u8]> {
        self.tree.get(file)?;
        let problem = match self.tree.resolve(file) {
            Ok(Resolved::File { bytes, .. }) => return Some(bytes),
            Ok(Resolved::Directory(_)) => "is a directory".to_owned(),
            Err(ResolveError::Missing(_)) => "is a link that leads nowhere".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!("\"{file}\" cannot be read: {problem}");
        self.diagnostics.push(Diagnostic::error("link", self.name(file), message).help("commit the file itself"));
        None
    }

    /// The value of `checked` when none of its problems is an error; the problems are kept.
    fn take<T>(&mut self, checked: Checked<T>) -> Option<T> {
        let is_valid = checked.is_valid();
        self.diagnostics.extend(checked.diagnostics);
        checked.value.filter(|_| is_valid)
    }

    fn check_state(&mut self, state: &State, definition: &Definition) {
        for row in state.runtime.iter().filter(|row| definition.step(&row.step_id).is_none()) {
            let file = self.name(&format!("{EXPORT}/{}", export::state::RUNTIME));
            let message =
                format!("workspace \"{}\" is in step \"{}\", which is no step", row.workspace_id, row.step_id);
            self.diagnostics.push(Diagnostic::error("unknown-step", file, message).help("remove the row"));
        }
    }

    fn check_roster(&mut self, roster: &Roster, definition: &Definition, text: &[u8]) {
        for (index, entry) in roster.instances.iter().enumerate() {
            let Some(step) = entry.step.as_ref().filter(|step| definition.step(step.as_str()).is_none()) else {
                continue;
            };
            let ids: Vec<String> = definition.steps.iter().map(|step| step.id.to_string()).collect();
            let message = format!("there is no step \"{step}\" in this workshop");
            self.diagnostics.push(
                Diagnostic::error("unknown-step", self.name(roster::FILE_NAME), message)
                    .at(entry.place, &String::from_utf8_lossy(text))
                    .field(format!("instances[{index}].step"))
                    .help(format!("name one of the steps: {}", ids.join(", "))),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::diagnostic::Severity;

    const RECIPE: &str = "version: v1\nworkshop:\n  name: w\n  image: team/w\nbase:\n  image: scratch\nsteps:\n\
                          - id: a\n  title: A\n- id: b\n  title: B\n";

    fn read(files: &[(&str, &str)]) -> Checked<Workshop> {
        let mut tree = FileTree::default();
        for (path, text) in files {
            tree.insert_file(*path, text.as_bytes(), false);
        }
        read_workshop("here", &tree, None, Some("r.io"))
    }

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        read(files).diagnostics.iter().map(|it| format!("{} {}", it.location(), it.rule)).collect()
    }

    #[test]
    fn a_recipe_alone_is_a_workshop() {
        let (workshop, warnings) = read(&[("step-spec.yaml", RECIPE)]).into_result().unwrap();
        assert_eq!(warnings, []);
        assert_eq!(workshop.id.as_str(), "w");
        assert_eq!(workshop.definition.steps[1].image_tag, "r.io/team/w:b");
        assert_eq!(workshop.definition.steps[0].markdown, None);
        assert_eq!(workshop.workspace, Workspace::default());
    }

    #[test]
    fn an_export_alone_is_a_workshop() {
        let (workshop, _) = read(&[
            ("export/workshop.yaml", "schema: 1\nid: w\nsteps: [a]\n"),
            ("export/steps/a/step.yaml", "title: A\nimageTag: w:a\n"),
            ("export/steps/a/content.md", "# A"),
        ])
        .into_result()
        .unwrap();
        assert!(workshop.recipe.is_none());
        assert_eq!(workshop.definition.steps[0].image_tag, "r.io/w:a");
    }

    #[test]
    fn problems_of_all_files_come_together_with_the_workshops_path() {
        assert_eq!(
            problems(&[
                ("step-spec.yaml", RECIPE),
                ("workspace.yaml", "version: v1\nlifecycel: {}\n"),
                ("roster.yaml", "instances:\n- owner: ada\n  step: z\n"),
                ("export/steps/a/step.yaml", "title: X\n"),
                ("export/steps/a/goss.yaml", "file: [\n"),
            ]),
            [
                "here/workspace.yaml:2:1 unknown-field",
                "here/export/steps/a/goss.yaml:1:7 syntax",
                "here/export/steps/a/step.yaml:1:8 disagreement",
                "here/roster.yaml:2:3 unknown-step",
            ]
        );
        assert_eq!(
            problems(&[("step-spec.yaml", RECIPE), ("roster.yaml", "instances:\n- owner: ada\n  step: z\n")]),
            ["here/roster.yaml:2:3 unknown-step"]
        );
        assert_eq!(problems(&[("README.md", "")]), ["here/step-spec.yaml no-workshop"]);
    }

    #[test]
    fn a_condition_that_nobody_can_meet_is_reported_where_it_stands() {
        let check = |condition: &str, expected: &[&str]| {
            let step = format!("metadata: {{x: y}}\nnavigation:\n  unlockCondition: {condition}\n");
            let files: [(&str, &str); 2] = [("step-spec.yaml", RECIPE), ("export/steps/b/step.yaml", &step)];
            assert_eq!(problems(&files), expected, "{condition}");
        };
        check("completed(a)", &[]);
        check("completed(a) and (completed(b) or completed(a))", &[]);
        check("completed(a", &["here/export/steps/b/step.yaml:3:20 unlock-condition"]);
        check("when(a)", &["here/export/steps/b/step.yaml:3:20 unlock-condition"]);
        check("completed(a) or completed(z)", &["here/export/steps/b/step.yaml:3:20 unknown-step"]);
        let rows = "- {step_id: a, next_step_id: null, prev_step_id: null, unlock_condition: completed(z)}\n";
        assert_eq!(
            problems(&[
                ("export/workshop.yaml", "schema: 1\nlayout: tables\nid: w\n"),
                (
                    "export/steps.yaml",
                    "- {id: a, position: 1, title: A, markdown: null, image_tag: r.io/w:a, goss_spec: null}\n"
                ),
                ("export/navigation.yaml", rows),
            ]),
            ["here/export/navigation.yaml:1:74 unknown-step"]
        );
    }

    #[test]
    fn a_large_text_is_warned_of_and_a_huge_one_refused() {
        let large = "x".repeat(5 << 20 | 1);
        let checked = read(&[("step-spec.yaml", RECIPE), ("export/steps/a/content.md", &large)]);
        assert!(checked.is_valid());
        assert_eq!(checked.diagnostics[0].severity, Severity::Warning);
        let huge = "x".repeat(32 << 20 | 1);
        assert!(!read(&[("step-spec.yaml", RECIPE), ("export/steps/a/content.md", &huge)]).is_valid());
    }
}
