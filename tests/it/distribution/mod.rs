//! Artifacts in a real registry: pushed, pulled, run with nothing else, and refused where they are something else.

mod refused;
mod run;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::platform::platform_directory;
use crate::support::registry::Registry;

const RECIPE: &str = "version: v1
workshop: {name: first, image: team/first}
base: {image: 'docker.io/library/busybox:1.36'}
steps:
- id: one
  title: One
  files: [{path: /srv/plan, content: amber}]
- id: two
  title: Two
";

/// A registry, a workshop whose images are in it, and its artifact's file.
struct Published {
    registry: Registry,
    directory: TempDir,
}

impl Published {
    fn new() -> Self {
        let published = Self { registry: Registry::start(), directory: TempDir::new().unwrap() };
        let workshop = published.path("workshop");
        std::fs::create_dir(&workshop).unwrap();
        std::fs::write(workshop.join("step-spec.yaml"), RECIPE).unwrap();
        let settings = "# Ours\nversion: v1\nlifecycle: {ttl: 2h}\nisolation: {user: root}\n";
        std::fs::write(workshop.join("workspace.yaml"), settings).unwrap();
        let seeded = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/seed-busybox"))
            .arg(env!("CARGO_BIN_EXE_workshop"))
            .arg("--state")
            .arg(published.path("state"))
            .output()
            .expect("hack/seed-busybox starts");
        assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
        let (workshop, file) = (text(&workshop), text(&published.file()));
        published.json(&["build", "compile", &workshop, "--registry", &published.registry.host(), "-o", &file]);
        published
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The artifact's file with the digests of its images.
    fn file(&self) -> PathBuf {
        self.path("first.db")
    }

    /// A reference in the registry.
    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    /// The program on this state directory.
    fn command(&self, state: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command
            .arg("--state")
            .arg(self.path(state))
            .args(arguments)
            .env("WORKSHOP_PLATFORM", platform_directory())
            .env("DOCKER_CONFIG", "/nonexistent")
            .env("NO_COLOR", "1");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command("state", arguments).output().expect("the program starts")
    }

    /// What a verb prints with `--output json`.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Runs a verb that must end with `code` and say `expected`.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, expected: &str) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
