//! The install bundle against the program that it starts.

use std::path::Path;
use std::process::Command;

/// The arguments that the controller's Deployment gives its container.
fn arguments() -> Vec<String> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/controller.yaml")).unwrap();
    let block = text.split("        args:\n").nth(1).expect("the container has arguments");
    block
        .lines()
        .map(str::trim)
        .take_while(|line| line.starts_with("- ") || line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("- "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_program_takes_the_arguments_of_the_bundle() {
    let arguments = arguments();
    assert!(arguments.len() > 5 && arguments[0] == "controller", "{arguments:?}");
    // clap answers `--help` only after it has accepted the words before it.
    let output = Command::new(env!("CARGO_BIN_EXE_workshop")).args(&arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_for_administrators_patches_the_argument_that_it_means() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md")).unwrap();
    let index = page.split("/containers/0/args/").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let argument = &arguments()[index.parse::<usize>().unwrap()];
    assert!(argument.starts_with("--gateway-url="), "argument {index} is {argument}");
}
