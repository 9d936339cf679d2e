//! The files that a step puts into its image, sources expanded.
//!
//! Where a path leads in an image (links of the base) is the layer's matter, not known here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Content, FileSource, RecipeFile};
use crate::domain::tree::{self, FileTree, Resolved, TreeEntry};

/// One file, directory or link of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// The absolute path.
    pub path: String,
    /// What it is.
    pub kind: ImageFileKind,
    /// The permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// The owning user.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
}

/// What an [`ImageFile`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFileKind {
    /// A directory of a directory source.
    Directory,
    /// A regular file with its bytes.
    File(Arc<[u8]>),
    /// A symbolic link with its target as written.
    Link(String),
}

/// Why the files of a step cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The source leads nowhere, or outside.
    #[error("source \"{from}\" of \"{path}\": {reason}")]
    Source {
        /// The target path of the entry.
        path: String,
        /// The source as written.
        from: String,
        /// Where following it ended.
        reason: tree::ResolveError,
    },
    /// The source is a placeholder of Git LFS, not the file itself.
    #[error("source \"{file}\" of \"{path}\" is a Git LFS pointer, not the file itself")]
    LfsPointer {
        /// The target path of the entry.
        path: String,
        /// The pointer's path in the workshop's tree.
        file: String,
    },
    /// A name that layers use for deletions.
    #[error("source \"{file}\" of \"{path}\" begins with \".wh.\", which deletes files in image layers")]
    Whiteout {
        /// The target path of the entry.
        path: String,
        /// The file's path in the workshop's tree.
        file: String,
    },
    /// One path would be a file and a directory at once.
    #[error("\"{path}\" would be a file and, for \"{below}\", a directory")]
    Conflict {
        /// The path of the file.
        path: String,
        /// The path below it.
        below: String,
    },
}

impl ResolveError {
    /// The target path of the entry that is at fault.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Source { path, .. } | Self::LfsPointer { path, .. } | Self::Whiteout { path, .. } => path,
            Self::Conflict { below, .. } => below,
        }
    }
}

const LFS_HEADER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// Pointers are below this size by Git LFS's own specification.
const LFS_MAX_BYTES: usize = 1024;
const DIRECTORY_MODE: u32 = 0o755;
const LINK_MODE: u32 = 0o777;

/// All files of `content`, sorted by path, one entry per path: the last of the recipe wins. `tree` is the workshop's
/// directory.
pub fn resolve_files(content: &Content, tree: &FileTree) -> Result<Vec<ImageFile>, ResolveError> {
    let mut files = BTreeMap::new();
    for file in &content.files {
        for resolved in resolve_file(file, tree)? {
            files.insert(resolved.path.clone(), resolved);
        }
    }
    check_conflicts(&files)?;
    Ok(files.into_values().collect())
}

/// The entries of one element of `files`.
pub(super) fn resolve_file(file: &RecipeFile, tree: &FileTree) -> Result<Vec<ImageFile>, ResolveError> {
    let entry = |path: String, kind, mode| ImageFile { path, kind, mode, uid: file.owner.uid, gid: file.owner.gid };
    let file_mode = |executable| file.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
    let from = match &file.source {
        FileSource::Inline(text) => {
            let kind = ImageFileKind::File(text.as_bytes().into());
            return Ok(vec![entry(file.path.clone(), kind, file_mode(false))]);
        }
        FileSource::Tree(from) => from,
    };
    let outside = |reason| ResolveError::Source { path: file.path.clone(), from: from.clone(), reason };
    let check_bytes = |path: &str, bytes: &[u8]| {
        if bytes.len() < LFS_MAX_BYTES && bytes.starts_with(LFS_HEADER) {
            return Err(ResolveError::LfsPointer { path: file.path.clone(), file: path.to_owned() });
        }
        Ok(())
    };
    let root = match tree.resolve(from).map_err(outside)? {
        Resolved::File { path, executable, .. } => {
            let Some(TreeEntry::File { bytes, .. }) = tree.get(&path) else { return Ok(Vec::new()) };
            check_bytes(&path, bytes)?;
            return Ok(vec![entry(file.path.clone(), ImageFileKind::File(bytes.clone()), file_mode(executable))]);
        }
        Resolved::Directory(root) => root,
    };
    let mut entries = BTreeMap::new();
    entries.insert(file.path.clone(), entry(file.path.clone(), ImageFileKind::Directory, DIRECTORY_MODE));
    let skip = if root.is_empty() { 0 } else { root.len() + 1 };
    for (source, found) in tree.below(&root) {
        let relative = &source[skip..];
        if relative.split('/').any(|component| component.starts_with(".wh.")) {
            return Err(ResolveError::Whiteout { path: file.path.clone(), file: source.to_owned() });
        }
        for (end, _) in relative.match_indices('/') {
            let path = format!("{}/{}", file.path, &relative[..end]);
            entries.entry(path.clone()).or_insert_with(|| entry(path, ImageFileKind::Directory, DIRECTORY_MODE));
        }
        let path = format!("{}/{relative}", file.path);
        let (kind, mode) = match found {
            TreeEntry::File { bytes, executable } => {
                check_bytes(source, bytes)?;
                (ImageFileKind::File(bytes.clone()), file_mode(*executable))
            }
            TreeEntry::Link { target } => {
                // A link stays a link, so its target may be a file that only the image has; outside it may not lead.
                match tree.resolve(source) {
                    Ok(_) | Err(tree::ResolveError::Missing(_)) => {}
                    Err(reason) => return Err(outside(reason)),
                }
                (ImageFileKind::Link(target.clone()), LINK_MODE)
            }
        };
        entries.insert(path.clone(), entry(path, kind, mode));
    }
    Ok(entries.into_values().collect())
}

/// Finds a file or link that has other entries below it.
pub(super) fn check_conflicts(files: &BTreeMap<String, ImageFile>) -> Result<(), ResolveError> {
    for below in files.keys() {
        for (end, _) in below.match_indices('/').skip(1) {
            let above = &below[..end];
            if files.get(above).is_some_and(|file| file.kind != ImageFileKind::Directory) {
                return Err(ResolveError::Conflict { path: above.to_owned(), below: below.clone() });
            }
        }
    }
    Ok(())
}
