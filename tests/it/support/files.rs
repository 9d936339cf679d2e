//! Copies of directory trees, and commands that must succeed.

use std::path::Path;
use std::process::Command;

/// Copies what is in a directory, with modes and links.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
}

/// Runs a command to its end and gives what it printed; fails the test when it fails.
pub fn run(command: &mut Command) -> String {
    let said = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).into_owned()
}
