//! Directories of this machine as file trees in Git's terms: plain folders and Git working trees alike, uncommitted
//! files included, `.git` excluded.
//!
//! Never follows a link, never opens anything but directories and regular files, never reads what ignore rules or no
//! workshop need. Writes nothing.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use file::{Found, FoundKind, Unread, exists, found, open_directory, open_file, read_capped, read_entry, special};

use crate::domain::diagnostic::Diagnostic;
use crate::domain::discover::{self, MAX_DEPTH, MAX_FILE, MAX_FILES, MAX_TOTAL, is_within, join};
use crate::domain::ignore::{IGNORE_FILE, IgnoreError, MAX_IGNORE_FILE, Rules};
use crate::domain::names::ObjectId;
use crate::domain::tree::{FileTree, TreeEntry, blob_id};

/// The most names that one scan looks at.
const MAX_NAMES: usize = 1_000_000;
/// The most bytes that the workshops of one folder have together.
const MAX_FOLDER: u64 = 1024 * 1024 * 1024;
/// How often a scan is tried when files change under it.
const TRIES: usize = 4;

/// What kind of directory a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory without Git.
    Plain,
    /// The top of a Git working tree.
    WorkingTree,
    /// A bare repository.
    Bare,
}

/// One workshop of a folder.
#[derive(Debug)]
pub struct FolderUnit {
    /// Its directory, from the folder's root.
    pub path: String,
    /// Git's id of its tree; where parts cannot be represented, an id that changes with them.
    pub key: ObjectId,
    /// Its files, or why it cannot be used.
    pub content: Result<FileTree, Vec<Diagnostic>>,
}

/// Everything that one scan of a folder found.
#[derive(Debug)]
pub struct FolderScan {
    /// The workshops, sorted by path.
    pub units: Vec<FolderUnit>,
    /// Problems that belong to no workshop.
    pub problems: Vec<Diagnostic>,
}

/// Why a directory cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// No such directory.
    #[error("there is no directory \"{}\"", .0.display())]
    Missing(PathBuf),
    /// Something else is there.
    #[error("\"{}\" is no directory", .0.display())]
    NoDirectory(PathBuf),
    /// The operating system refused.
    #[error("could not read the directory \"{}\"", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More names than any honest source has.
    #[error("\"{}\" holds more than {MAX_NAMES} files; name a directory that holds the workshops", .0.display())]
    TooMany(PathBuf),
    /// More content than fits into memory.
    #[error("the workshops in \"{}\" have more than {MAX_FOLDER} bytes together", .0.display())]
    TooLarge(PathBuf),
    /// Files changed during every attempt.
    #[error("files in \"{}\" kept changing while they were read", .0.display())]
    Unstable(PathBuf),
    /// `spec.ignore` cannot be used.
    #[error("could not use the ignore rules of the source")]
    Ignore(#[source] IgnoreError),
}

/// Tells what kind of directory `path` is.
pub fn read_kind(path: &Path) -> Result<Kind, FolderError> {
    let metadata = std::fs::metadata(path).map_err(|error| open_error(path, error))?;
    if !metadata.is_dir() {
        return Err(FolderError::NoDirectory(path.to_owned()));
    }
    if path.join(".git").symlink_metadata().is_ok() {
        return Ok(Kind::WorkingTree);
    }
    let bare = path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir();
    Ok(if bare { Kind::Bare } else { Kind::Plain })
}

/// Reads all workshops below `root`; `ignore` is the source's own ignore text, on top of the `.gitignore` files.
///
/// Inside of a Git working tree the `.gitignore` files above `root` apply too, as they do in a commit, unless they
/// ignore `root` itself.
pub fn read_folder(root: &Path, ignore: Option<&str>) -> Result<FolderScan, FolderError> {
    let spec = Rules::new(ignore).map_err(FolderError::Ignore)?;
    for _ in 0..TRIES {
        match (Walk { root, entries: BTreeMap::new(), problems: Vec::new(), names: 0, in_git: false }).run(&spec) {
            Err(Interrupted::Changed) => {}
            Err(Interrupted::Failed(error)) => return Err(error),
            Ok(scan) => return Ok(scan),
        }
    }
    Err(FolderError::Unstable(root.to_owned()))
}

/// Why an attempt ended early.
enum Interrupted {
    /// Something moved under the reader; worth another attempt.
    Changed,
    Failed(FolderError),
}

struct Walk<'a> {
    root: &'a Path,
    entries: BTreeMap<String, Found>,
    problems: Vec<Diagnostic>,
    names: usize,
    in_git: bool,
}

impl Walk<'_> {
    fn run(mut self, spec: &Rules) -> Result<FolderScan, Interrupted> {
        // The root may be a link of the user's; below it nothing is followed.
        let root = rustix::fs::open(self.root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Interrupted::Failed(open_error(self.root, error.into())))?;
        self.in_git = self.root.join(".git").symlink_metadata().is_ok();
        let rules = if self.in_git { spec.clone() } else { rules_above(self.root, spec) };
        self.list(&root, "", 0, &rules)?;
        // Directories give their names in no order.
        self.problems.sort_by(|left, right| left.file.cmp(&right.file));

        let workshops = discover::find_workshops(self.entries.keys().map(String::as_str));
        let mut tree = FileTree::default();
        let mut total = 0;
        // Each outermost workshop is read once; nested ones share its bytes.
        for workshop in outermost(&workshops) {
            total += self.read_workshop(&root, workshop, &mut tree)?;
            if total > MAX_FOLDER {
                return Err(Interrupted::Failed(FolderError::TooLarge(self.root.to_owned())));
            }
        }
        let mut units = Vec::new();
        for path in &workshops {
            let files = tree.subtree(path);
            let problems: Vec<_> =
                self.problems.iter().filter(|problem| is_within(path, &problem.file)).cloned().collect();
            let key = unit_key(&files, &problems);
            let content = if problems.is_empty() { Ok(files) } else { Err(problems) };
            units.push(FolderUnit { path: path.clone(), key, content });
        }
        let outside = |problem: &Diagnostic| !workshops.iter().any(|path| is_within(path, &problem.file));
        // What cannot be represented matters only inside of a workshop; a rule file that fails matters everywhere.
        let problems = self.problems.into_iter().filter(|problem| problem.rule == "ignore-file" && outside(problem));
        Ok(FolderScan { units, problems: problems.collect() })
    }

    /// Collects the names below `directory`, without reading any content but rule files.
    fn list(&mut self, directory: &OwnedFd, path: &str, depth: usize, above: &Rules) -> Result<(), Interrupted> {
        let rules = self.enter(directory, path, above)?;
        let names = Dir::read_from(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in names.map_err(|error| self.gone_or(path, error))? {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b".." | b".git") {
                continue;
            }
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(Interrupted::Failed(FolderError::TooMany(self.root.to_owned())));
            }
            self.list_one(directory, path, name, depth, &rules)?;
        }
        Ok(())
    }

    fn list_one(
        &mut self,
        directory: &OwnedFd,
        path: &str,
        name: &CStr,
        depth: usize,
        rules: &Rules,
    ) -> Result<(), Interrupted> {
        let shown = join(path, &name.to_string_lossy());
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.gone_or(&shown, error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if rules.is_ignored(&shown, kind == FileType::Directory) {
            return Ok(());
        }
        if name.to_str().is_err() {
            self.problems.push(discover::name_not_utf8(&shown));
            return Ok(());
        }
        match kind {
            FileType::Directory => match open_directory(directory, OsStr::from_bytes(name.to_bytes())) {
                Err(Errno::ACCESS | Errno::PERM) => {
                    self.problems.push(discover::unreadable(&shown, "permission denied"));
                }
                Err(error) => return Err(self.gone_or(&shown, error)),
                Ok(_) if depth + 1 > MAX_DEPTH => self.problems.push(discover::too_deep(&shown)),
                Ok(child) if self.in_git && exists(&child, c".git") => {
                    self.problems.push(discover::submodule(&shown));
                }
                Ok(child) => self.list(&child, &shown, depth + 1, rules)?,
            },
            FileType::RegularFile => {
                let executable = stat.st_mode & 0o100 != 0;
                self.entries.insert(shown, found(&stat, FoundKind::File { executable }));
            }
            FileType::Symlink => {
                self.entries.insert(shown, found(&stat, FoundKind::Link));
            }
            other => self.problems.push(discover::special_file(&shown, special(other))),
        }
        Ok(())
    }

    /// The rules inside of `directory`. As in Git a rule file that is a link does not count.
    fn enter(&mut self, directory: &OwnedFd, path: &str, above: &Rules) -> Result<Rules, Interrupted> {
        let file = join(path, IGNORE_FILE);
        let text = match open_file(directory, OsStr::new(IGNORE_FILE)) {
            Ok(open) => read_capped(open, MAX_IGNORE_FILE + 1),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(above.clone()),
            Err(error) => Err(error.into()),
        };
        let entered = match text {
            Ok(text) => above.enter(path, &text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Ok(entered.unwrap_or_else(|reason| {
            self.problems.push(discover::ignore_file_unusable(&file, &reason));
            above.clone()
        }))
    }

    /// Reads the files of one outermost workshop into `tree`; gives their bytes.
    fn read_workshop(&mut self, root: &OwnedFd, workshop: &str, tree: &mut FileTree) -> Result<u64, Interrupted> {
        let prefix = if workshop.is_empty() { String::new() } else { format!("{workshop}/") };
        let inside = || self.entries.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let size: u64 = inside().map(|(_, found)| found.size.min(MAX_FILE)).sum();
        if size > MAX_TOTAL || inside().count() > MAX_FILES {
            let shown = if workshop.is_empty() { "." } else { workshop };
            let mut problem = discover::workshop_too_large(shown);
            problem.file = workshop.to_owned();
            self.problems.push(problem);
            return Ok(0);
        }
        let mut problems = Vec::new();
        for (path, found) in inside() {
            match read_entry(root, path, found) {
                Ok(entry) => {
                    if matches!(&entry, TreeEntry::File { bytes, .. } if discover::is_lfs_pointer(bytes)) {
                        problems.push(discover::lfs_pointer(path));
                    }
                    tree.insert(path.clone(), entry);
                }
                Err(Unread::Changed) => return Err(Interrupted::Changed),
                Err(Unread::Refused(problem)) => problems.push(*problem),
            }
        }
        self.problems.extend(problems);
        Ok(size)
    }

    fn gone_or(&self, path: &str, error: Errno) -> Interrupted {
        match error {
            // The root itself was opened, so something below moved away.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Interrupted::Changed,
            _ => Interrupted::Failed(FolderError::Read { path: self.root.join(path), source: error.into() }),
        }
    }
}

fn open_error(path: &Path, error: io::Error) -> FolderError {
    match error.kind() {
        io::ErrorKind::NotFound => FolderError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory => FolderError::NoDirectory(path.to_owned()),
        _ => FolderError::Read { path: path.to_owned(), source: error },
    }
}

/// The workshops that lie in no other one.
fn outermost(workshops: &BTreeSet<String>) -> Vec<&str> {
    let mut list: Vec<&str> = Vec::new();
    for path in workshops {
        // A parent sorts before what is below it, though not always directly.
        if !list.iter().rev().any(|above| is_within(above, path)) {
            list.push(path);
        }
    }
    list
}

/// Git's tree id, mixed with the problems where there are some: a repaired workshop must not look like the broken one.
fn unit_key(files: &FileTree, problems: &[Diagnostic]) -> ObjectId {
    let id = files.git_id();
    if problems.is_empty() {
        return id;
    }
    let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    blob_id(format!("workshop with problems {id}\n{text}").as_bytes())
}

/// The rules of the `.gitignore` files above `root` in the same Git working tree.
fn rules_above(root: &Path, spec: &Rules) -> Rules {
    let Ok(real) = root.canonicalize() else { return spec.clone() };
    let Some(top) = real.ancestors().skip(1).find(|above| above.join(".git").symlink_metadata().is_ok()) else {
        return spec.clone();
    };
    read_rules_between(top, &real, spec).unwrap_or_else(|| spec.clone())
}

/// The rules from `top` down to above `root`, as seen from `root`; none when they ignore it.
fn read_rules_between(top: &Path, root: &Path, spec: &Rules) -> Option<Rules> {
    let below = root.strip_prefix(top).ok()?.to_str()?;
    let mut rules = Rules::new(None).ok()?;
    let mut here = String::new();
    let mut directory = top.to_owned();
    for component in below.split('/') {
        if let Ok(text) = open_file(CWD, directory.join(IGNORE_FILE).as_os_str())
            .map_err(io::Error::from)
            .and_then(|open| read_capped(open, MAX_IGNORE_FILE + 1))
        {
            rules = rules.enter(&here, &text).ok()?;
        }
        here = join(&here, component);
        directory.push(component);
        if rules.is_ignored(&here, true) {
            return None;
        }
    }
    Some(rules.seen_from(&here, spec))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn scan(folder: &tempfile::TempDir, ignore: Option<&str>) -> FolderScan {
        read_folder(folder.path(), ignore).unwrap()
    }

    /// The files of the workshop at `path`, or the rules that its problems break.
    fn content(scan: &FolderScan, path: &str) -> Vec<String> {
        let unit = scan.units.iter().find(|unit| unit.path == path).expect("the workshop is found");
        match &unit.content {
            Ok(tree) => tree.iter().map(|(path, _)| path.to_owned()).collect(),
            Err(problems) => problems.iter().map(|problem| format!("{}: {}", problem.rule, problem.file)).collect(),
        }
    }

    #[test]
    fn a_workshop_is_what_ignore_rules_leave_of_its_directory() {
        let folder = folder(&[
            (".gitignore", "*.log\n/a/secret\n"),
            ("a/step-spec.yaml", "x"),
            ("a/.gitignore", "!keep.log\n"),
            ("a/keep.log", ""),
            ("a/drop.log", ""),
            ("a/secret/x", ""),
            ("a/.git/config", ""),
            ("a/draft/x", ""),
            ("ignored.log/step-spec.yaml", "x"),
            ("other/readme", ""),
        ]);
        let scan = scan(&folder, Some("draft/\n"));
        assert_eq!(content(&scan, "a"), [".gitignore", "keep.log", "step-spec.yaml"]);
        assert_eq!(scan.units.len(), 1);
    }

    #[test]
    fn modes_are_those_of_git_and_links_are_not_followed() {
        let folder = folder(&[("step-spec.yaml", "x"), ("run", "y")]);
        fs::set_permissions(folder.path().join("run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/etc", folder.path().join("out")).unwrap();
        let scan = scan(&folder, None);
        let tree = scan.units[0].content.as_ref().unwrap();
        assert_eq!(tree.get("run"), Some(&TreeEntry::File { bytes: (*b"y").into(), executable: true }));
        assert_eq!(tree.get("out"), Some(&TreeEntry::Link { target: "/etc".into() }));
    }

    #[test]
    fn what_git_cannot_hold_is_refused_for_its_workshop_alone() {
        let folder = folder(&[
            ("good/step-spec.yaml", ""),
            ("bad/step-spec.yaml", ""),
            ("bad/big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ]);
        let bad = folder.path().join("bad");
        fs::write(bad.join(OsStr::from_bytes(b"\xff")), "").unwrap();
        rustix::fs::mknodat(CWD, bad.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        File::create(bad.join("huge")).unwrap().set_len(MAX_FILE + 1).unwrap();
        let scan = scan(&folder, None);
        assert_eq!(content(&scan, "good"), ["step-spec.yaml"]);
        assert_eq!(
            content(&scan, "bad"),
            [
                "special-file: bad/pipe",
                "path-not-utf8: bad/\u{fffd}",
                "lfs-pointer: bad/big.bin",
                "file-too-large: bad/huge"
            ]
        );
    }

    #[test]
    fn a_repaired_workshop_has_another_key_than_the_broken_one() {
        let folder = folder(&[("step-spec.yaml", "")]);
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let broken = scan(&folder, None).units.remove(0).key;
        fs::remove_file(pipe).unwrap();
        assert_ne!(scan(&folder, None).units.remove(0).key, broken);
    }

    #[test]
    fn rules_above_a_directory_in_a_working_tree_apply_unless_they_ignore_it() {
        let folder = folder(&[
            (".git/HEAD", ""),
            (".gitignore", "*.log\n/dotfiles\n"),
            ("a/step-spec.yaml", ""),
            ("a/x.log", ""),
            ("dotfiles/step-spec.yaml", ""),
            ("dotfiles/x.log", ""),
        ]);
        let inside = read_folder(&folder.path().join("a"), None).unwrap();
        assert_eq!(content(&inside, ""), ["step-spec.yaml"]);
        let ignored = read_folder(&folder.path().join("dotfiles"), None).unwrap();
        assert_eq!(content(&ignored, ""), ["step-spec.yaml", "x.log"]);
    }

    #[test]
    fn a_path_that_is_no_directory_is_named() {
        let folder = folder(&[("file", "")]);
        let error = |name: &str| read_folder(&folder.path().join(name), None).unwrap_err().to_string();
        assert!(error("none").starts_with("there is no directory"), "{}", error("none"));
        assert!(error("file").ends_with("is no directory"), "{}", error("file"));
    }
}
