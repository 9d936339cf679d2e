//! From a SOURCE to workshops: what is followed, the revision that it stands for, and each workshop's file tree.
//!
//! A pair of ends: directories of this machine and Git repositories give the same snapshot for the same content.
//! What the files of a workshop mean is not decided here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::adapters::folder::{self, FolderError, FolderScan, Kind};
use crate::adapters::git::{Commit, Deadline, Memo, Mirror, Resolved};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::names::UnitKey;
use crate::domain::revision::{RefSpec, Revision};
use crate::domain::source::{GitUrl, InvalidSource, Source};
use crate::domain::tree::FileTree;

pub use crate::adapters::git::{Credentials, GitError, Problem};

/// How long one operation at a repository may take unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Where workshops come from.
#[derive(Debug)]
pub struct Origin {
    place: Place,
    ignore: Option<Arc<str>>,
    timeout: Duration,
    memo: Arc<Mutex<Memo>>,
}

#[derive(Debug)]
enum Place {
    /// A plain folder.
    Folder(PathBuf),
    /// A working tree: its files, or the commits of its repository where a reference is asked for.
    WorkingTree(PathBuf, Arc<Mirror>),
    Git(Arc<Mirror>),
}

/// What a followed name stands for right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The commit; none for the files of a directory, which are looked at each time.
    pub revision: Option<Revision>,
    /// The commit that the followed tag stood for before: a tag that moves is suspicious.
    pub moved_from: Option<String>,
    resolved: Option<Resolved>,
}

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
    /// How many of a commit's directories had to be looked at because they or the rules above them changed.
    pub directories_read: usize,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Folder(BTreeMap<String, Result<FileTree, Vec<Diagnostic>>>),
    Git(Box<Commit>, Option<Arc<str>>),
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A directory of this machine.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A Git repository.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The source's text.
    #[error(transparent)]
    Invalid(#[from] InvalidSource),
    /// A plain folder was asked for a revision.
    #[error("\"{}\" is no Git repository, so it has no {spec}", path.display())]
    NoRepository {
        /// The folder.
        path: PathBuf,
        /// What was asked for.
        spec: RefSpec,
    },
    /// An artifact holds a finished workshop, not files to build one from.
    #[error("\"{0}\" is an artifact, not a directory or repository of workshops")]
    Artifact(String),
    /// The work on another thread ended without a result.
    #[error("reading the source was cut off")]
    CutOff,
}

impl SourceError {
    /// True when the same attempt may succeed later without any change of the configuration.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Git(error) => error.is_retryable(),
            Self::Folder(FolderError::Ignore(_)) | Self::Invalid(_) | Self::NoRepository { .. } | Self::Artifact(_) => {
                false
            }
            Self::Folder(_) | Self::CutOff => true,
        }
    }

    /// What to do about it; empty where the message says it all.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Git(error) => error.help(),
            Self::NoRepository { .. } => "leave the reference out, or name a Git repository",
            _ => "",
        }
    }
}

/// Why the files of one workshop cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its content cannot be used, and will not be until it changes.
    #[error("the workshop at \"{path}\" has {} files that cannot be used", diagnostics.len())]
    Content {
        /// The workshop's directory.
        path: String,
        /// Every problem.
        diagnostics: Vec<Diagnostic>,
    },
    /// The snapshot has no such workshop.
    #[error("there is no workshop at \"{0}\"")]
    Missing(String),
    /// The mirror cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
}

impl Origin {
    /// Opens a source; `state` is the state directory and `ignore` the source's own ignore text. Nothing is asked of a
    /// server yet.
    pub fn open(
        source: &Source,
        state: &Path,
        credentials: Credentials,
        ignore: Option<&str>,
    ) -> Result<Self, SourceError> {
        let mirror = |url: GitUrl| Mirror::new(url, state, &credentials).map(Arc::new);
        let place = match source {
            Source::Git(url) => Place::Git(mirror(url.clone())?),
            Source::Directory(path) => match folder::read_kind(path)? {
                Kind::Plain => Place::Folder(path.clone()),
                Kind::WorkingTree => Place::WorkingTree(path.clone(), mirror(local_url(path)?)?),
                Kind::Bare => Place::Git(mirror(local_url(path)?)?),
            },
            Source::Artifact(_) | Source::Oci(_) => return Err(SourceError::Artifact(source.to_string())),
        };
        Ok(Self { place, ignore: ignore.map(Into::into), timeout: DEFAULT_TIMEOUT, memo: Arc::default() })
    }

    /// Gives each operation this much time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Finds out what `spec` stands for: one listing of references, nothing is fetched. The default of a working tree
    /// or plain folder is its files.
    pub async fn resolve(&self, spec: &RefSpec) -> Result<Head, SourceError> {
        let mirror = match (&self.place, spec) {
            (Place::Folder(_) | Place::WorkingTree(..), RefSpec::Default) => {
                return Ok(Head { revision: None, moved_from: None, resolved: None });
            }
            (Place::Folder(path), _) => {
                return Err(SourceError::NoRepository { path: path.clone(), spec: spec.clone() });
            }
            (Place::WorkingTree(_, mirror) | Place::Git(mirror), _) => mirror.clone(),
        };
        let spec = spec.clone();
        let resolved = self.at_repository(mirror, move |mirror, deadline| mirror.resolve(&spec, deadline)).await?;
        Ok(Head {
            revision: Some(resolved.revision.clone()),
            moved_from: resolved.moved_from.clone(),
            resolved: Some(resolved),
        })
    }

    /// Fetches what is missing of `head` and finds its workshops.
    pub async fn snapshot(&self, head: &Head) -> Result<Snapshot, SourceError> {
        match (&self.place, &head.resolved) {
            (Place::Git(mirror) | Place::WorkingTree(_, mirror), Some(resolved)) => {
                self.read_commit(mirror.clone(), resolved.clone()).await
            }
            (Place::Folder(path) | Place::WorkingTree(path, _), _) => {
                let (path, ignore) = (path.clone(), self.ignore.clone());
                tokio::task::spawn_blocking(move || read_directory(&path, ignore.as_deref()))
                    .await
                    .map_err(|_| SourceError::CutOff)?
            }
            (Place::Git(_), None) => Err(SourceError::CutOff),
        }
    }

    async fn read_commit(&self, mirror: Arc<Mirror>, resolved: Resolved) -> Result<Snapshot, SourceError> {
        let (memo, ignore) = (self.memo.clone(), self.ignore.clone());
        let revision = resolved.revision.clone();
        let (commit, scan) = self
            .at_repository(mirror, {
                let ignore = ignore.clone();
                move |mirror, deadline| {
                    let commit = mirror.fetch(&resolved, deadline)?;
                    // Whole entries are put into the memo, so a panic elsewhere leaves it sound.
                    let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
                    let scan = commit.scan(ignore.as_deref(), &mut memo)?;
                    Ok((commit, scan))
                }
            })
            .await?;
        let units = scan
            .units
            .into_iter()
            .map(|unit| Unit { path: unit.path, key: UnitKey { tree: unit.key, tag: revision.tag.clone() } });
        Ok(Snapshot {
            units: units.collect(),
            problems: scan.problems,
            directories_read: scan.directories_read,
            revision: Some(revision),
            contents: Contents::Git(Box::new(commit), ignore),
        })
    }

    /// Runs `work` on a thread that may block; ends it when the time is over or nobody waits for it any more.
    async fn at_repository<T: Send + 'static>(
        &self,
        mirror: Arc<Mirror>,
        work: impl FnOnce(&Mirror, &Deadline) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, SourceError> {
        struct InterruptOnDrop(Deadline);
        impl Drop for InterruptOnDrop {
            fn drop(&mut self) {
                self.0.interrupt();
            }
        }
        let url = mirror.url().to_owned();
        let deadline = Deadline::after(self.timeout);
        let _interrupt = InterruptOnDrop(deadline.clone());
        let working = tokio::task::spawn_blocking(move || work(&mirror, &deadline));
        match tokio::time::timeout(self.timeout, working).await {
            Ok(Ok(result)) => result.map_err(SourceError::Git),
            Ok(Err(_)) => Err(SourceError::CutOff),
            Err(_) => {
                let problem = Problem::Timeout(self.timeout.as_secs());
                Err(SourceError::Git(GitError { url, problem, source: None }))
            }
        }
    }
}

/// The address under which Git reaches a directory of this machine.
fn local_url(path: &Path) -> Result<GitUrl, SourceError> {
    let real = path.canonicalize().map_err(|source| FolderError::Read { path: path.to_owned(), source })?;
    Ok(GitUrl::from_path(&real.to_string_lossy())?)
}

/// Reads all workshops below a directory of this machine, uncommitted files included.
pub fn read_directory(directory: &Path, ignore: Option<&str>) -> Result<Snapshot, SourceError> {
    let FolderScan { units: found, problems } = folder::read_folder(directory, ignore)?;
    let units =
        found.iter().map(|unit| Unit { path: unit.path.clone(), key: UnitKey { tree: unit.key, tag: None } }).collect();
    let contents = found.into_iter().map(|unit| (unit.path, unit.content)).collect();
    Ok(Snapshot { revision: None, units, problems, directories_read: 0, contents: Contents::Folder(contents) })
}

impl Snapshot {
    /// The files of one workshop. Blocks while it reads a commit's objects from the mirror.
    pub fn read(&self, unit: &Unit) -> Result<FileTree, ReadError> {
        let content = |diagnostics| ReadError::Content { path: unit.path.clone(), diagnostics };
        match &self.contents {
            Contents::Folder(trees) => match trees.get(&unit.path) {
                Some(Ok(tree)) => Ok(tree.clone()),
                Some(Err(diagnostics)) => Err(content(diagnostics.clone())),
                None => Err(ReadError::Missing(unit.path.clone())),
            },
            Contents::Git(commit, ignore) => commit.read(&unit.path, ignore.as_deref())?.map_err(content),
        }
    }
}
