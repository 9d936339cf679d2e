//! From a SOURCE to workshops: what is followed, the revision that it stands for, and each workshop's file tree.
//!
//! A pair of ends: directories of this machine and Git repositories give the same snapshot for the same content.
//! What the files of a workshop mean is not decided here.

use std::collections::BTreeMap;
use std::path::Path;

use crate::adapters::folder::{self, FolderError, FolderScan};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::names::UnitKey;
use crate::domain::revision::Revision;
use crate::domain::tree::FileTree;

/// One workshop of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its directory from the source's root; empty for the root itself.
    pub path: String,
    /// The identity of its content.
    pub key: UnitKey,
}

/// All workshops of a source at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The commit; none for files of a directory.
    pub revision: Option<Revision>,
    /// The workshops, sorted by path, readable or not.
    pub units: Vec<Unit>,
    /// Problems that belong to no single workshop.
    pub problems: Vec<Diagnostic>,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Folder(BTreeMap<String, Result<FileTree, Vec<Diagnostic>>>),
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A directory of this machine.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Why the files of one workshop cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its content cannot be used, and will not be until it changes.
    #[error("the workshop at \"{path}\" has {} files that cannot be used", .diagnostics.len())]
    Content {
        /// The workshop's directory.
        path: String,
        /// Every problem.
        diagnostics: Vec<Diagnostic>,
    },
    /// The snapshot has no such workshop.
    #[error("there is no workshop at \"{0}\"")]
    Missing(String),
}

/// Reads all workshops below a directory of this machine, uncommitted files included.
pub fn read_directory(directory: &Path, ignore: Option<&str>) -> Result<Snapshot, SourceError> {
    let FolderScan { units: found, problems } = folder::read_folder(directory, ignore)?;
    let units =
        found.iter().map(|unit| Unit { path: unit.path.clone(), key: UnitKey { tree: unit.key, tag: None } }).collect();
    let contents = found.into_iter().map(|unit| (unit.path, unit.content)).collect();
    Ok(Snapshot { revision: None, units, problems, contents: Contents::Folder(contents) })
}

impl Snapshot {
    /// The files of one workshop.
    pub fn read(&self, unit: &Unit) -> Result<FileTree, ReadError> {
        match &self.contents {
            Contents::Folder(trees) => match trees.get(&unit.path) {
                Some(Ok(tree)) => Ok(tree.clone()),
                Some(Err(diagnostics)) => {
                    Err(ReadError::Content { path: unit.path.clone(), diagnostics: diagnostics.clone() })
                }
                None => Err(ReadError::Missing(unit.path.clone())),
            },
        }
    }
}
