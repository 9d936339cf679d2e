//! One in-memory file tree in Git's terms: what a commit, a working tree and a plain folder have in common.
//!
//! Paths are relative, separated by `/`, UTF-8, without empty, `.` or `..` components. Reading one from somewhere is
//! an adapter's matter.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use super::names::ObjectId;

/// The most symlinks that one look-up follows.
const MAX_LINKS: usize = 40;

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEntry {
    /// A regular file; the executable bit is all that Git keeps of a mode.
    File {
        /// The raw bytes.
        bytes: Arc<[u8]>,
        /// Mode 0755 instead of 0644.
        executable: bool,
    },
    /// A symbolic link with its raw target.
    Link {
        /// The target as written.
        target: String,
    },
}

/// Files and links by their path; directories exist through what they hold, as in Git.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileTree {
    entries: BTreeMap<String, TreeEntry>,
}

/// What a path leads to once links are followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// A file at this real path.
    File {
        /// The path after links.
        path: String,
        /// The raw bytes.
        bytes: &'a [u8],
        /// The executable bit.
        executable: bool,
    },
    /// A directory at this real path (empty for the root).
    Directory(String),
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nothing is there.
    #[error("there is no \"{0}\"")]
    Missing(String),
    /// A link or `..` on the way leads out of the tree.
    #[error("\"{0}\" leads outside of the workshop's directory")]
    Outside(String),
    /// More links than any honest tree has.
    #[error("\"{0}\" goes through more than {MAX_LINKS} links")]
    TooManyLinks(String),
}

impl FileTree {
    /// Puts a file at `path`, replacing what was there.
    pub fn insert_file(&mut self, path: impl Into<String>, bytes: impl Into<Arc<[u8]>>, executable: bool) {
        self.entries.insert(path.into(), TreeEntry::File { bytes: bytes.into(), executable });
    }

    /// Puts a link at `path`.
    pub fn insert_link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.entries.insert(path.into(), TreeEntry::Link { target: target.into() });
    }

    /// Puts any entry at `path`.
    pub fn insert(&mut self, path: impl Into<String>, entry: TreeEntry) {
        self.entries.insert(path.into(), entry);
    }

    /// Removes the entry at `path`.
    pub fn remove(&mut self, path: &str) -> Option<TreeEntry> {
        self.entries.remove(path)
    }

    /// The entry exactly at `path`, links not followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&TreeEntry> {
        self.entries.get(path)
    }

    /// The bytes of the regular file exactly at `path`.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match self.entries.get(path) {
            Some(TreeEntry::File { bytes, .. }) => Some(bytes),
            _ => None,
        }
    }

    /// All entries, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TreeEntry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The number of files and links.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The sum of all file sizes, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.entries
            .values()
            .map(|entry| match entry {
                TreeEntry::File { bytes, .. } => bytes.len() as u64,
                TreeEntry::Link { target } => target.len() as u64,
            })
            .sum()
    }

    /// The entries below the directory `path` (empty for all), with that whole path still in front.
    pub fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a TreeEntry)> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.entries
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while({
                let prefix = prefix.clone();
                move |(path, _)| path.starts_with(&prefix)
            })
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// The directory `path` as a tree of its own; contents are shared, not copied.
    #[must_use]
    pub fn subtree(&self, path: &str) -> Self {
        let skip = if path.is_empty() { 0 } else { path.len() + 1 };
        Self { entries: self.below(path).map(|(path, entry)| (path[skip..].to_owned(), entry.clone())).collect() }
    }

    /// True when something lies below `path`, or `path` is empty.
    #[must_use]
    pub fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.below(path).next().is_some()
    }

    /// Follows `path` and every link on it, never leaving the tree.
    pub fn resolve(&self, path: &str) -> Result<Resolved<'_>, ResolveError> {
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut real: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            match component.as_str() {
                "" | "." => continue,
                ".." => {
                    real.pop().ok_or_else(|| ResolveError::Outside(path.to_owned()))?;
                    continue;
                }
                _ => real.push(component),
            }
            let here = real.join("/");
            match self.entries.get(&here) {
                Some(TreeEntry::Link { target }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ResolveError::TooManyLinks(path.to_owned()));
                    }
                    if target.starts_with('/') {
                        return Err(ResolveError::Outside(path.to_owned()));
                    }
                    real.pop();
                    pending.extend(target.split('/').rev().map(str::to_owned));
                }
                Some(TreeEntry::File { .. }) if !pending.iter().all(|rest| rest.is_empty() || rest == ".") => {
                    return Err(ResolveError::Missing(path.to_owned()));
                }
                Some(TreeEntry::File { .. }) => {}
                None if self.is_directory(&here) => {}
                None => return Err(ResolveError::Missing(path.to_owned())),
            }
        }
        let real = real.join("/");
        match self.entries.get(&real) {
            Some(TreeEntry::File { bytes, executable }) => {
                Ok(Resolved::File { path: real, bytes, executable: *executable })
            }
            _ => Ok(Resolved::Directory(real)),
        }
    }

    /// Git's tree id of the whole, computed here: equal to Git's own for the same files.
    #[must_use]
    pub fn git_id(&self) -> ObjectId {
        let entries: Vec<_> = self.entries.iter().map(|(path, entry)| (path.as_str(), entry)).collect();
        tree_id(&entries, 0)
    }
}

/// Hashes an object as Git does: `<kind> <size>\0<body>`.
#[must_use]
pub fn object_id(kind: &str, body: &[u8]) -> ObjectId {
    let mut hasher = Sha1::new();
    hasher.update(format!("{kind} {}\0", body.len()));
    hasher.update(body);
    ObjectId::from_bytes(hasher.finalize().into())
}

/// The id that Git gives to a file of these bytes.
#[must_use]
pub fn blob_id(bytes: &[u8]) -> ObjectId {
    object_id("blob", bytes)
}

/// The id of the directory whose entries (sorted by full path) share their first `skip` bytes.
fn tree_id(entries: &[(&str, &TreeEntry)], skip: usize) -> ObjectId {
    let mut rows: Vec<(Vec<u8>, &str, &str, ObjectId)> = Vec::new();
    let mut index = 0;
    while index < entries.len() {
        let rest = &entries[index].0[skip..];
        match rest.split_once('/') {
            None => {
                let (mode, id) = match entries[index].1 {
                    TreeEntry::File { bytes, executable: false } => ("100644", blob_id(bytes)),
                    TreeEntry::File { bytes, executable: true } => ("100755", blob_id(bytes)),
                    TreeEntry::Link { target } => ("120000", blob_id(target.as_bytes())),
                };
                rows.push((rest.as_bytes().to_vec(), mode, rest, id));
                index += 1;
            }
            Some((name, _)) => {
                let prefix = &entries[index].0[..=skip + name.len()];
                let end = index + entries[index..].iter().take_while(|(path, _)| path.starts_with(prefix)).count();
                // Git sorts a directory as if its name ended with a slash.
                rows.push((
                    [name.as_bytes(), b"/"].concat(),
                    "40000",
                    name,
                    tree_id(&entries[index..end], prefix.len()),
                ));
                index = end;
            }
        }
    }
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    let mut body = Vec::new();
    for (_, mode, name, id) in rows {
        body.extend_from_slice(mode.as_bytes());
        body.push(b' ');
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(id.as_bytes());
    }
    object_id("tree", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> FileTree {
        let mut tree = FileTree::default();
        tree.insert_file("a/x", *b"1\n", false);
        tree.insert_file("a.b", *b"2\n", false);
        tree.insert_file("a/run", *b"3\n", true);
        tree.insert_link("link", "a/x");
        tree.insert_link("dir", "a");
        tree.insert_link("up", "../etc/passwd");
        tree.insert_link("abs", "/etc/passwd");
        tree.insert_link("loop", "loop");
        tree
    }

    #[test]
    fn the_empty_tree_has_gits_well_known_id() {
        assert_eq!(FileTree::default().git_id().to_string(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
    }

    #[test]
    fn links_are_followed_inside_and_refused_outside() {
        let tree = tree();
        let file = |path: &str| match tree.resolve(path) {
            Ok(Resolved::File { path, .. }) => path,
            other => format!("{other:?}"),
        };
        assert_eq!(file("link"), "a/x");
        assert_eq!(file("dir/run"), "a/run");
        assert_eq!(tree.resolve("dir"), Ok(Resolved::Directory("a".into())));
        assert_eq!(tree.resolve("up"), Err(ResolveError::Outside("up".into())));
        assert_eq!(tree.resolve("abs"), Err(ResolveError::Outside("abs".into())));
        assert_eq!(tree.resolve("../a"), Err(ResolveError::Outside("../a".into())));
        assert_eq!(tree.resolve("loop"), Err(ResolveError::TooManyLinks("loop".into())));
        assert_eq!(tree.resolve("a/x/y"), Err(ResolveError::Missing("a/x/y".into())));
        assert_eq!(tree.resolve("none"), Err(ResolveError::Missing("none".into())));
    }

    #[test]
    fn a_subtree_keeps_relative_paths() {
        let sub = tree().subtree("a");
        assert_eq!(sub.iter().map(|(path, _)| path).collect::<Vec<_>>(), ["run", "x"]);
    }
}
