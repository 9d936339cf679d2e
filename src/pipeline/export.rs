//! An artifact file to an export's directory, and an export to its canonical form.
//!
//! Touches only files that a layout writes; everything is read and rendered before the first write.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::adapters::artifact::{self, Artifact, ArtifactError};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::export::compose::DISAGREEMENT;
use crate::domain::export::emit::EmitError;
use crate::domain::export::{self, Layout, State, is_layout_file, is_state_file};
use crate::domain::tree::{FileTree, TreeEntry};
use crate::domain::workshop::{EXPORT, Workshop};

use super::import::Imported;

/// Why an artifact did not become a directory.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The artifact cannot be read.
    #[error("failed to export \"{}\"", path.display())]
    Artifact {
        /// The artifact.
        path: PathBuf,
        /// The cause.
        source: ArtifactError,
    },
    /// The rows cannot be said in YAML.
    #[error("failed to render the export")]
    Render(#[from] EmitError),
    /// Something that is no directory is where one has to be.
    #[error("\"{}\" is no directory, so nothing is written below it", .0.display())]
    NoDirectory(PathBuf),
    /// The file system refused.
    #[error("failed to {attempt} \"{}\"", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl ExportError {
    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
    }
}

/// What writing an export changed; paths are relative to its directory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Files that are new or different now.
    pub written: Vec<String>,
    /// Files that no longer belong and are gone.
    pub removed: Vec<String>,
}

impl Changes {
    /// True when nothing was or is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }
}

/// Writes the artifact `file` as the export `directory`, runtime tables only on demand.
pub fn export_artifact(
    file: &Path,
    directory: &Path,
    layout: Layout,
    with_state: bool,
) -> Result<(Artifact, Changes), ExportError> {
    let failed = |source| ExportError::Artifact { path: file.to_owned(), source };
    let (artifact, state) = if with_state {
        artifact::read_with_state(file).map_err(failed)?
    } else {
        (artifact::read(file).map_err(failed)?, State::default())
    };
    let files = export::render(&artifact.definition, layout, &state)?;
    let changes = write_export(&files, directory, with_state)?;
    Ok((artifact, changes))
}

/// What `fmt` makes of one workshop's export.
#[derive(Debug)]
pub enum Formatted {
    /// These files have to change for it to be canonical.
    Canonical {
        /// All files of the canonical export.
        files: FileTree,
        /// What differs from the files that are there.
        changes: Changes,
    },
    /// The workshop has no export to rewrite.
    NoExport,
    /// The workshop has problems that no rewriting puts right.
    Invalid(Vec<Diagnostic>),
}

/// The canonical form of an export beside its recipe; what the two disagree about, the recipe decides.
pub fn format_workshop(imported: Imported) -> Result<Formatted, ExportError> {
    let current = imported.tree.subtree(EXPORT);
    let mut diagnostics = imported.workshop.diagnostics;
    diagnostics.retain(|problem| problem.rule != DISAGREEMENT);
    let workshop: Workshop = match imported.workshop.value {
        Some(workshop) if !diagnostics.iter().any(Diagnostic::is_error) => workshop,
        _ => return Ok(Formatted::Invalid(diagnostics)),
    };
    if !current.iter().any(|(path, _)| is_layout_file(path)) {
        return Ok(Formatted::NoExport);
    }
    let files = export::render(&workshop.definition, workshop.layout, &workshop.state)?;
    let changes = Changes {
        written: changed(&files, |path| current.file(path).map(<[u8]>::to_vec)),
        removed: current
            .iter()
            .map(|(path, _)| path.to_owned())
            .filter(|path| is_layout_file(path) && files.get(path).is_none())
            .collect(),
    };
    Ok(Formatted::Canonical { files, changes })
}

/// Makes `directory` hold exactly `files` of all files that a layout writes; runtime tables that are there stay
/// unless `with_state`, because they are somebody's backup.
pub fn write_export(files: &FileTree, directory: &Path, with_state: bool) -> Result<Changes, ExportError> {
    // The directory itself may be a link of the person's; below it nothing is followed.
    let directory = &directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let folders = folders_of(files);
    check_folders(directory, &folders)?;
    let present = layout_files(directory)?;
    let written = changed(files, |path| {
        let target = directory.join(path);
        let is_file = target.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        is_file.then(|| std::fs::read(&target).ok()).flatten()
    });
    let removed: Vec<String> =
        present.into_iter().filter(|path| files.get(path).is_none() && (with_state || !is_state_file(path))).collect();
    std::fs::create_dir_all(directory).map_err(ExportError::io("make the directory", directory))?;
    for folder in &folders {
        let folder = directory.join(folder);
        std::fs::create_dir_all(&folder).map_err(ExportError::io("make the directory", &folder))?;
    }
    for path in &written {
        write_file(&directory.join(path), files.file(path).unwrap_or_default())?;
    }
    for path in &removed {
        let file = directory.join(path);
        std::fs::remove_file(&file).map_err(ExportError::io("remove", &file))?;
        remove_empty_folders(directory, path);
    }
    Ok(Changes { written, removed })
}

/// The paths of `files` whose bytes differ from what `current` gives.
fn changed(files: &FileTree, current: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<String> {
    let differs = |(path, entry): (&str, &TreeEntry)| {
        let TreeEntry::File { bytes, .. } = entry else { return None };
        (current(path).as_deref() != Some(&bytes[..])).then(|| path.to_owned())
    };
    files.iter().filter_map(differs).collect()
}

fn folders_of(files: &FileTree) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for (path, _) in files.iter() {
        folders.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
    }
    folders
}

/// Nothing is written through a link: every folder below `directory` is a real one, or not there yet.
fn check_folders(directory: &Path, folders: &BTreeSet<String>) -> Result<(), ExportError> {
    if directory.metadata().is_ok_and(|metadata| !metadata.is_dir()) {
        return Err(ExportError::NoDirectory(directory.to_owned()));
    }
    for folder in folders {
        let folder = directory.join(folder);
        if folder.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(ExportError::NoDirectory(folder));
        }
    }
    Ok(())
}

/// The files of `directory` that a layout writes, wherever they came from.
fn layout_files(directory: &Path) -> Result<Vec<String>, ExportError> {
    let mut found = Vec::new();
    for name in names(directory)? {
        if is_layout_file(&name) && is_no_directory(&directory.join(&name)) {
            found.push(name);
        }
    }
    let steps = directory.join(export::STEPS_FOLDER);
    for step in names(&steps)? {
        for name in names(&steps.join(&step))? {
            let path = format!("{}/{step}/{name}", export::STEPS_FOLDER);
            if is_layout_file(&path) && is_no_directory(&directory.join(&path)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_no_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir())
}

/// The names in a real directory; none where there is none, or only a link to one.
fn names(directory: &Path) -> Result<Vec<String>, ExportError> {
    if directory.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        return Ok(Vec::new());
    }
    let failed = || ExportError::io("read the directory", directory);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(failed())?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed())?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Writes beside the target and takes its name, so that a reader sees the old file or the new one.
fn write_file(target: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let failed = || ExportError::io("write", target);
    let parent = target.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".export-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(parent).map_err(failed())?;
    file.write_all(bytes).map_err(failed())?;
    file.persist(target).map(drop).map_err(|error| failed()(error.error))
}

/// Removes the folders that removing `path` left empty.
fn remove_empty_folders(directory: &Path, path: &str) {
    for (end, _) in path.rmatch_indices('/') {
        // A folder that still holds something refuses, as it should.
        if std::fs::remove_dir(directory.join(&path[..end])).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[(&str, &str)]) -> FileTree {
        let mut files = FileTree::default();
        for (path, text) in names {
            files.insert_file(*path, text.as_bytes(), false);
        }
        files
    }

    fn present(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![directory.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.push(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn only_what_a_layout_writes_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("new/export");
        let before = files(&[
            ("workshop.yaml", "old"),
            ("steps/a/step.yaml", "a"),
            ("steps/b/step.yaml", "b"),
            ("steps/c/content.md", "c"),
            ("custom_state.yaml", "[]"),
        ]);
        assert_eq!(write_export(&before, &directory, false).unwrap().written.len(), 5);
        std::fs::write(directory.join("steps/c/notes.txt"), "mine").unwrap();
        std::fs::create_dir(directory.join("assets")).unwrap();
        std::fs::write(directory.join("assets/content.md"), "mine").unwrap();

        let after = files(&[("workshop.yaml", "new"), ("steps/a/step.yaml", "a")]);
        let changes = write_export(&after, &directory, false).unwrap();
        assert_eq!(changes.written, ["workshop.yaml"]);
        assert_eq!(changes.removed, ["steps/b/step.yaml", "steps/c/content.md"]);
        assert_eq!(
            present(&directory),
            [
                "assets",
                "assets/content.md",
                "custom_state.yaml",
                "steps",
                "steps/a",
                "steps/a/step.yaml",
                "steps/c",
                "steps/c/notes.txt",
                "workshop.yaml"
            ]
        );
        assert!(write_export(&after, &directory, false).unwrap().is_empty());
        assert_eq!(write_export(&after, &directory, true).unwrap().removed, ["custom_state.yaml"]);
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_or_removed_through_a_link() {
        use std::os::unix::fs::symlink;
        let parent = tempfile::tempdir().unwrap();
        let (outside, directory) = (parent.path().join("outside"), parent.path().join("export"));
        std::fs::create_dir_all(outside.join("x")).unwrap();
        std::fs::write(outside.join("x/content.md"), "theirs").unwrap();
        std::fs::write(outside.join("file"), "theirs").unwrap();

        std::fs::create_dir_all(&directory).unwrap();
        symlink(&outside, directory.join("steps")).unwrap();
        let export = files(&[("workshop.yaml", "w"), ("steps/x/step.yaml", "x")]);
        assert!(matches!(write_export(&export, &directory, true), Err(ExportError::NoDirectory(_))));
        assert_eq!(present(&directory.join("steps")), ["file", "x", "x/content.md"]);
        assert!(!directory.join("workshop.yaml").exists(), "refused before the first write");
        write_export(&files(&[("workshop.yaml", "w")]), &directory, true).unwrap();
        assert!(outside.join("x/content.md").exists());

        std::fs::remove_file(directory.join("steps")).unwrap();
        std::fs::remove_file(directory.join("workshop.yaml")).unwrap();
        symlink(outside.join("file"), directory.join("workshop.yaml")).unwrap();
        std::fs::create_dir(directory.join("steps")).unwrap();
        symlink(outside.join("x"), directory.join("steps/y")).unwrap();
        write_export(&export, &directory, true).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "theirs");
        assert!(outside.join("x/content.md").exists());
        assert_eq!(std::fs::read_to_string(directory.join("workshop.yaml")).unwrap(), "w");
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("export");
        std::fs::write(&directory, "file").unwrap();
        assert!(write_export(&files(&[("workshop.yaml", "w")]), &directory, true).is_err());
        assert_eq!(std::fs::read_to_string(&directory).unwrap(), "file");
    }
}
