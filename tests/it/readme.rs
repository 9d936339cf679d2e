//! What README.md shows is true: its recipe is valid, its verbs and make targets exist, its paths are there.

use std::path::Path;
use std::process::Command;

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The lines of all code blocks that open with this word.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    text.split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n').map(str::to_owned))
        .collect()
}

/// What follows `$ PROGRAM` in the console blocks.
fn commands(program: &str) -> Vec<Vec<String>> {
    blocks("console")
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| line.strip_prefix("$ ")?.strip_prefix(program)?.strip_prefix(' '))
        .map(|line| line.split_whitespace().take_while(|word| *word != "#").map(str::to_owned).collect())
        .collect()
}

#[test]
fn its_recipe_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("step-spec.yaml"), &blocks("yaml")[0]).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_workshop")).arg("validate").arg(directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn its_verbs_and_flags_exist() {
    let commands = commands("workshop");
    assert!(commands.len() > 8, "{commands:?}");
    for words in commands {
        // clap answers `--help` only after it has accepted the words before it.
        let output = Command::new(env!("CARGO_BIN_EXE_workshop")).args(&words).arg("--help").output().unwrap();
        assert!(output.status.success(), "workshop {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn its_make_targets_exist() {
    let makefile = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile")).unwrap();
    for words in commands("make") {
        assert!(makefile.contains(&format!("\n{}:", words[0])), "make {}", words[0]);
    }
}

#[test]
fn its_paths_are_there() {
    let text = readme();
    let table = text.split("## Where things are").nth(1).unwrap();
    let paths: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let named = paths.iter().copied().chain(["manifests/", "examples/workshops/first-steps-in-the-shell", "LICENSE"]);
    for path in named {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{path}");
    }
}
