//! A directory of this machine, or one workshop's files, to an artifact file.
//!
//! What the files mean is the domain's; where a sync keeps its artifacts is decided by `sync`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::{ReadError, SourceError, Unit, read_directory};
use crate::adapters::artifact::{self, ArtifactError};
use crate::domain::diagnostic::{Checked, Diagnostic};
use crate::domain::digest::Digest;
use crate::domain::names::UnitKey;
use crate::domain::tree::FileTree;
use crate::domain::workshop::{Workshop, read_workshop};

/// Why a directory did not become an artifact; what is wrong with its content is in diagnostics instead.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The directory cannot be read.
    #[error("failed to read the workshop in \"{}\"", path.display())]
    Source {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: SourceError,
    },
    /// No workshop is there.
    #[error("\"{}\" is no workshop: it has neither step-spec.yaml nor export/workshop.yaml", path.display())]
    NoWorkshop {
        /// The directory.
        path: PathBuf,
        /// The directories of workshops below it.
        below: Vec<String>,
    },
    /// The artifact cannot be written.
    #[error("failed to import \"{}\"", path.display())]
    Artifact {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: ArtifactError,
    },
}

/// A workshop's directory, read.
#[derive(Debug)]
pub struct Imported {
    /// The identity of the tree; none when it could not be read.
    pub key: Option<UnitKey>,
    /// The files; empty when they could not be read.
    pub tree: FileTree,
    /// The workshop, with all problems.
    pub workshop: Checked<Workshop>,
}

/// Reads the workshop whose directory is `directory`; problems name files below it, as the person would.
pub fn read_workshop_directory(directory: &Path, registry: Option<&str>) -> Result<Imported, ImportError> {
    let path = || directory.to_owned();
    let snapshot = read_directory(directory, None).map_err(|source| ImportError::Source { path: path(), source })?;
    let Some(unit) = snapshot.units.iter().find(|unit| unit.path.is_empty()) else {
        let below = snapshot.units.into_iter().map(|unit| unit.path).collect();
        return Err(ImportError::NoWorkshop { path: path(), below });
    };
    let shown = shown(directory, "");
    match snapshot.read(unit) {
        Ok(tree) => {
            let workshop = read_workshop(&shown, &tree, None, registry);
            Ok(Imported { key: Some(unit.key.clone()), tree, workshop })
        }
        Err(ReadError::Content { diagnostics, .. }) => {
            let diagnostics = diagnostics.into_iter().map(|problem| below(directory, problem)).collect();
            Ok(Imported { key: None, tree: FileTree::default(), workshop: Checked { value: None, diagnostics } })
        }
        Err(_) => Err(ImportError::NoWorkshop { path: path(), below: Vec::new() }),
    }
}

/// A workshop's place and what was read there.
pub type Read = (Unit, Imported);

/// All workshops below `directory`, each read with its own problems; first the problems of none.
pub fn read_workshops(directory: &Path, registry: Option<&str>) -> Result<(Vec<Diagnostic>, Vec<Read>), ImportError> {
    let snapshot =
        read_directory(directory, None).map_err(|source| ImportError::Source { path: directory.to_owned(), source })?;
    let mut read = Vec::new();
    for unit in &snapshot.units {
        let imported = match snapshot.read(unit) {
            Ok(tree) => {
                let workshop = read_workshop(&shown(directory, &unit.path), &tree, None, registry);
                Imported { key: Some(unit.key.clone()), tree, workshop }
            }
            Err(ReadError::Content { diagnostics, .. }) => {
                let diagnostics = diagnostics.into_iter().map(|problem| below(directory, problem)).collect();
                Imported { key: None, tree: FileTree::default(), workshop: Checked { value: None, diagnostics } }
            }
            Err(_) => continue,
        };
        read.push((unit.clone(), imported));
    }
    let problems = snapshot.problems.into_iter().map(|problem| below(directory, problem)).collect();
    Ok((problems, read))
}

/// Writes the artifact of `workshop` to `file`, its parent directories made; gives the sha256 of the file.
pub fn write_artifact(
    workshop: &Workshop,
    images: &BTreeMap<String, Digest>,
    file: &Path,
) -> Result<Digest, ImportError> {
    let failed = |source| ImportError::Artifact { path: PathBuf::from(&workshop.path), source };
    if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|source| {
            failed(ArtifactError::Io { attempt: "make the directory", path: parent.into(), source })
        })?;
    }
    artifact::write_with_state(&workshop.definition, images, &workshop.state, file).map_err(failed)
}

/// A path below `directory` as the person would write it.
fn shown(directory: &Path, path: &str) -> String {
    let directory = directory.to_string_lossy();
    let directory = directory.strip_prefix("./").unwrap_or(&directory).trim_end_matches('/');
    match (directory, path) {
        ("" | ".", path) => path.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, path) => format!("{directory}/{path}"),
    }
}

fn below(directory: &Path, problem: Diagnostic) -> Diagnostic {
    Diagnostic { file: shown(directory, &problem.file), ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_as_the_person_would_write_them() {
        for (directory, path, expected) in [
            (".", "a/b", "a/b"),
            ("./x/", "a", "x/a"),
            ("x", "", "x"),
            (".", "", ""),
            ("/abs/", "a", "/abs/a"),
            ("../up", "a", "../up/a"),
        ] {
            assert_eq!(shown(Path::new(directory), path), expected, "{directory} {path}");
        }
    }
}
