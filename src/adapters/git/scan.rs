//! The workshops of a commit and their files, read from the object database without a checkout.
//!
//! The work for a commit is that of the directories it changed: everything below an unchanged tree under unchanged
//! rules is remembered. Names, modes and sizes are checked before anything is read; nothing is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gix::objs::tree::EntryKind;

use super::error::{GitError, Problem};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::digest::Digest;
use crate::domain::discover::{
    self, EXPORT_DIRECTORY, EXPORT_FILE, MAX_DEPTH, MAX_FILE, MAX_FILES, MAX_TOTAL, RECIPE_FILE, join,
};
use crate::domain::ignore::{IGNORE_FILE, MAX_IGNORE_FILE, Rules};
use crate::domain::names::ObjectId;
use crate::domain::tree::{FileTree, object_id};

/// The most entries that one scan looks at.
const MAX_ENTRIES: usize = 1_000_000;
/// The most directories that are remembered between scans.
const MAX_MEMO: usize = 200_000;
/// The largest tree object, in bytes.
const MAX_TREE: u64 = 16 * 1024 * 1024;

/// A commit of a mirror.
pub struct Commit {
    url: String,
    repository: gix::ThreadSafeRepository,
    tree: gix::ObjectId,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").field("url", &self.url).field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// One workshop of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedUnit {
    /// Its directory, from the repository's root.
    pub path: String,
    /// Git's id of its tree after ignore rules.
    pub key: ObjectId,
}

/// Everything that one scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The workshops, sorted by path.
    pub units: Vec<ScannedUnit>,
    /// Problems that belong to no single workshop.
    pub problems: Vec<Diagnostic>,
    /// How many directories were read rather than remembered.
    pub directories_read: usize,
}

/// What earlier scans of the same repository found out about its directories.
#[derive(Debug, Default)]
pub struct Memo(HashMap<(gix::ObjectId, String, Digest), Arc<Directory>>);

/// A directory after ignore rules.
#[derive(Debug, Default)]
struct Directory {
    /// The id of its tree; none when nothing is left of it.
    id: Option<ObjectId>,
    /// The workshops at and below it.
    units: Vec<ScannedUnit>,
    problems: Vec<Diagnostic>,
    has_export_file: bool,
}

/// One entry of a tree object.
struct Entry {
    mode: Vec<u8>,
    kind: EntryKind,
    name: Vec<u8>,
    id: gix::ObjectId,
}

impl Commit {
    pub(super) fn new(url: String, repository: gix::ThreadSafeRepository, tree: gix::ObjectId) -> Self {
        Self { url, repository, tree }
    }

    /// Finds the workshops of the commit; `ignore` is the source's own ignore text.
    pub fn scan(&self, ignore: Option<&str>, memo: &mut Memo) -> Result<Scan, GitError> {
        let rules = self.root_rules(ignore)?;
        if memo.0.len() > MAX_MEMO {
            memo.0.clear();
        }
        let mut walk =
            Walk { commit: self, repository: self.repository.to_thread_local(), memo, entries: 0, directories_read: 0 };
        let root = walk.directory(self.tree, "", 0, &rules)?;
        let mut units = root.units.clone();
        units.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(Scan { units, problems: root.problems.clone(), directories_read: walk.directories_read })
    }

    /// The files of the workshop at `path`, or all reasons why they cannot be used.
    pub fn read(&self, path: &str, ignore: Option<&str>) -> Result<Result<FileTree, Vec<Diagnostic>>, GitError> {
        let repository = self.repository.to_thread_local();
        let mut rules = self.root_rules(ignore)?;
        let mut tree = self.tree;
        let mut here = String::new();
        for component in path.split('/').filter(|component| !component.is_empty()) {
            let entries = self.entries(&repository, tree)?;
            rules = self.enter(&repository, &entries, &here, &rules)?.unwrap_or(rules);
            here = join(&here, component);
            let found =
                entries.iter().find(|entry| entry.name == component.as_bytes() && entry.kind == EntryKind::Tree);
            tree = found.ok_or_else(|| GitError::mirror(&self.url, "find the workshop in", here.clone()))?.id;
        }
        let mut reader =
            Reader { commit: self, repository, base: path, files: FileTree::default(), size: 0, problems: Vec::new() };
        reader.directory(tree, path, path.split('/').filter(|part| !part.is_empty()).count(), &rules)?;
        Ok(if reader.problems.is_empty() { Ok(reader.files) } else { Err(reader.problems) })
    }

    fn root_rules(&self, ignore: Option<&str>) -> Result<Rules, GitError> {
        Rules::new(ignore).map_err(|error| GitError::new(&self.url, Problem::InvalidRef(error.to_string())))
    }

    fn unreadable(&self, error: impl ToString) -> GitError {
        GitError::mirror(&self.url, "read", error.to_string())
    }

    /// The bytes of an object, unless it has more than `limit`.
    fn bytes(
        &self,
        repository: &gix::Repository,
        id: gix::ObjectId,
        limit: u64,
    ) -> Result<Result<Vec<u8>, u64>, GitError> {
        let size = repository.find_header(id).map_err(|error| self.unreadable(error))?.size();
        if size > limit {
            return Ok(Err(size));
        }
        Ok(Ok(repository.find_object(id).map_err(|error| self.unreadable(error))?.detach().data))
    }

    fn entries(&self, repository: &gix::Repository, tree: gix::ObjectId) -> Result<Vec<Entry>, GitError> {
        let data = self
            .bytes(repository, tree, MAX_TREE)?
            .map_err(|_| GitError::new(&self.url, Problem::TooManyFiles(MAX_ENTRIES)))?;
        gix::objs::TreeRefIter::from_bytes(&data, gix::hash::Kind::Sha1)
            .map(|entry| {
                let entry = entry.map_err(|error| self.unreadable(error))?;
                let mut buffer = Default::default();
                Ok(Entry {
                    mode: entry.mode.as_bytes(&mut buffer).to_vec(),
                    kind: entry.mode.kind(),
                    name: entry.filename.to_vec(),
                    id: entry.oid.to_owned(),
                })
            })
            .collect()
    }

    /// The rules inside of a directory with these entries; none when its rule file cannot be used.
    fn enter(
        &self,
        repository: &gix::Repository,
        entries: &[Entry],
        path: &str,
        above: &Rules,
    ) -> Result<Option<Rules>, GitError> {
        let is_rules = |entry: &&Entry| {
            entry.name == IGNORE_FILE.as_bytes() && matches!(entry.kind, EntryKind::Blob | EntryKind::BlobExecutable)
        };
        let Some(entry) = entries.iter().find(is_rules) else { return Ok(Some(above.clone())) };
        Ok(match self.bytes(repository, entry.id, MAX_IGNORE_FILE)? {
            Ok(text) => above.enter(path, &text).ok(),
            Err(_) => None,
        })
    }
}

/// What is wrong with an entry's name or kind before it is even looked at.
fn entry_problem(entry: &Entry, shown: &str) -> Option<Diagnostic> {
    let bad_name = matches!(entry.name.as_slice(), b"" | b"." | b"..")
        || entry.name.eq_ignore_ascii_case(b".git")
        || entry.name.contains(&b'/')
        || entry.name.contains(&0);
    if bad_name {
        return Some(
            Diagnostic::error("path-not-allowed", shown, format!("\"{shown}\" is no name that a file can have"))
                .help("remove the entry from the commit"),
        );
    }
    if std::str::from_utf8(&entry.name).is_err() {
        return Some(discover::name_not_utf8(shown));
    }
    (entry.kind == EntryKind::Commit).then(|| discover::submodule(shown))
}

struct Walk<'a> {
    commit: &'a Commit,
    repository: gix::Repository,
    memo: &'a mut Memo,
    entries: usize,
    directories_read: usize,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        tree: gix::ObjectId,
        path: &str,
        depth: usize,
        above: &Rules,
    ) -> Result<Arc<Directory>, GitError> {
        let key = (tree, path.to_owned(), above.digest());
        if let Some(known) = self.memo.0.get(&key) {
            return Ok(known.clone());
        }
        self.directories_read += 1;
        let entries = self.commit.entries(&self.repository, tree)?;
        self.entries += entries.len();
        if self.entries > MAX_ENTRIES {
            return Err(GitError::new(&self.commit.url, Problem::TooManyFiles(MAX_ENTRIES)));
        }
        let mut found = Directory::default();
        let rules = match self.commit.enter(&self.repository, &entries, path, above)? {
            Some(rules) => rules,
            None => {
                found
                    .problems
                    .push(discover::ignore_file_unusable(&join(path, IGNORE_FILE), "its rules are too large"));
                above.clone()
            }
        };
        let mut is_workshop = false;
        let mut changed = false;
        let mut rows: Vec<(Vec<u8>, Vec<u8>, ObjectId)> = Vec::with_capacity(entries.len());
        for entry in entries {
            let shown = join(path, &String::from_utf8_lossy(&entry.name));
            let is_directory = entry.kind == EntryKind::Tree;
            // A submodule is a directory to Git's rules.
            if rules.is_ignored(&shown, is_directory || entry.kind == EntryKind::Commit) {
                changed = true;
                continue;
            }
            let mut id = to_id(entry.id);
            if !is_directory {
                is_workshop |= entry.name == RECIPE_FILE.as_bytes() && entry.kind != EntryKind::Commit;
                found.has_export_file |= entry.name == EXPORT_FILE.as_bytes() && entry.kind != EntryKind::Commit;
            } else if depth < MAX_DEPTH && entry_problem(&entry, &shown).is_none() {
                let child = self.directory(entry.id, &shown, depth + 1, &rules)?;
                is_workshop |= child.has_export_file && entry.name == EXPORT_DIRECTORY.as_bytes();
                found.units.extend(child.units.iter().cloned());
                found.problems.extend(child.problems.iter().cloned());
                match child.id {
                    None => {
                        changed = true;
                        continue;
                    }
                    Some(left) => {
                        changed |= left != id;
                        id = left;
                    }
                }
            }
            rows.push((entry.mode, entry.name, id));
        }
        found.id = match (rows.is_empty(), changed) {
            // Git has no empty directories, but for the root.
            (true, _) if !path.is_empty() => None,
            (_, false) => Some(to_id(tree)),
            (_, true) => Some(tree_of(&rows)),
        };
        if let Some(key) = found.id.filter(|_| is_workshop) {
            found.units.push(ScannedUnit { path: path.to_owned(), key });
        }
        let found = Arc::new(found);
        self.memo.0.insert(key, found.clone());
        Ok(found)
    }
}

fn to_id(id: gix::ObjectId) -> ObjectId {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(id.as_slice());
    ObjectId::from_bytes(bytes)
}

/// The id of a tree with these rows, which keep Git's order.
fn tree_of(rows: &[(Vec<u8>, Vec<u8>, ObjectId)]) -> ObjectId {
    let mut body = Vec::new();
    for (mode, name, id) in rows {
        body.extend_from_slice(mode);
        body.push(b' ');
        body.extend_from_slice(name);
        body.push(0);
        body.extend_from_slice(id.as_bytes());
    }
    object_id("tree", &body)
}

struct Reader<'a> {
    commit: &'a Commit,
    repository: gix::Repository,
    base: &'a str,
    files: FileTree,
    size: u64,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// Reads a directory; gives false once the workshop is too large to go on.
    fn directory(&mut self, tree: gix::ObjectId, path: &str, depth: usize, above: &Rules) -> Result<bool, GitError> {
        let entries = self.commit.entries(&self.repository, tree)?;
        let rules = self.commit.enter(&self.repository, &entries, path, above)?.unwrap_or_else(|| {
            self.problems.push(discover::ignore_file_unusable(&join(path, IGNORE_FILE), "its rules are too large"));
            above.clone()
        });
        let mut names = BTreeSet::new();
        for entry in entries {
            let shown = join(path, &String::from_utf8_lossy(&entry.name));
            let is_directory = matches!(entry.kind, EntryKind::Tree | EntryKind::Commit);
            if rules.is_ignored(&shown, is_directory) {
                continue;
            }
            if let Some(problem) = entry_problem(&entry, &shown) {
                self.problems.push(problem);
                continue;
            }
            if !names.insert(entry.name.clone()) {
                self.problems.push(
                    Diagnostic::error("path-not-allowed", &shown, format!("\"{shown}\" is in the commit twice"))
                        .help("commit the directory again with git"),
                );
                continue;
            }
            let goes_on = match entry.kind {
                EntryKind::Tree if depth >= MAX_DEPTH => {
                    self.problems.push(discover::too_deep(&shown));
                    true
                }
                EntryKind::Tree => self.directory(entry.id, &shown, depth + 1, &rules)?,
                _ => self.file(&entry, &shown)?,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn file(&mut self, entry: &Entry, shown: &str) -> Result<bool, GitError> {
        let skip = if self.base.is_empty() { 0 } else { self.base.len() + 1 };
        let bytes = match self.commit.bytes(&self.repository, entry.id, MAX_FILE)? {
            Ok(bytes) => bytes,
            Err(size) => {
                self.problems.push(discover::file_too_large(shown, size));
                return Ok(true);
            }
        };
        self.size += bytes.len() as u64;
        if self.size > MAX_TOTAL || self.files.len() >= MAX_FILES {
            let mut problem = discover::workshop_too_large(if self.base.is_empty() { "." } else { self.base });
            problem.file = self.base.to_owned();
            self.problems.push(problem);
            return Ok(false);
        }
        let path = &shown[skip..];
        if entry.kind == EntryKind::Link {
            match String::from_utf8(bytes) {
                Ok(target) => self.files.insert_link(path, target),
                Err(_) => self.problems.push(discover::target_not_utf8(shown)),
            }
            return Ok(true);
        }
        if discover::is_lfs_pointer(&bytes) {
            self.problems.push(discover::lfs_pointer(shown));
        }
        self.files.insert_file(path, bytes, entry.kind == EntryKind::BlobExecutable);
        Ok(true)
    }
}
