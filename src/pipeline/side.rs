//! From what a person names as one side of a comparison to workshops: a directory, an artifact file,
//! `SOURCE@REVISION`, or `cluster`.
//!
//! Reads only. What differs is `domain::diff`'s matter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::source::{Credentials, GitError, Origin, Problem, ReadError, Snapshot, SourceError};
use crate::adapters::artifact::{self, ArtifactError};
use crate::adapters::cluster::{self, Cluster};
use crate::adapters::git::read_local_revision;
use crate::crd::{Kind, labels};
use crate::domain::definition::Definition;
use crate::domain::diagnostic::Diagnostic;
use crate::domain::diff::{Content, StepLine, View};
use crate::domain::revision::{RefSpec, split_revision};
use crate::domain::source::{InvalidSource, Source};
use crate::domain::tree::FileTree;
use crate::domain::workshop::{peek_id, read_workshop};
use crate::domain::workspace::Workspace;

/// The word that names the cluster of the kubeconfig.
pub const CLUSTER: &str = "cluster";

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// The templates of the cluster.
    Cluster,
    /// One artifact file.
    Artifact(PathBuf),
    /// The files of a source; with a revision those of that commit.
    Files {
        /// The source.
        source: Source,
        /// The revision as written behind `@`.
        revision: Option<String>,
        /// The part of the source that is compared, from its root; empty for all of it.
        below: String,
    },
}

/// Why a side cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// The text names nothing.
    #[error(transparent)]
    Invalid(#[from] InvalidSource),
    /// A directory or repository.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A workshop of it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An artifact file.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// A kind of source that holds nothing to compare.
    #[error("\"{0}\" cannot be compared")]
    Unsupported(String),
    /// One side was given, and it says nothing of the other.
    #[error("\"{}\" is in no Git repository, so there is nothing to compare it with", .0.display())]
    NoRepository(PathBuf),
}

impl Side {
    /// Reads one side as a person writes it; what exists in the file system is that, whatever else it could mean.
    pub fn parse(text: &str) -> Result<Self, SideError> {
        let path = Path::new(text);
        if text == CLUSTER {
            return Ok(Self::Cluster);
        }
        if path.is_file() {
            return Ok(Self::Artifact(path.to_owned()));
        }
        let (address, revision) = if path.is_dir() { (text, None) } else { split_revision(text) };
        match Source::parse(address)? {
            Source::Artifact(path) => Ok(Self::Artifact(path)),
            Source::Oci(reference) => Err(SideError::Unsupported(format!("oci://{reference}"))),
            // The files of a repository without a working tree are those of its default branch.
            source @ Source::Git(_) => {
                Ok(Self::Files { source, revision: revision.map(str::to_owned), below: String::new() })
            }
            Source::Directory(directory) => Ok(match (revision, find_repository(&directory)) {
                (Some(revision), Some((root, below))) => {
                    Self::Files { source: Source::Directory(root), revision: Some(revision.to_owned()), below }
                }
                (revision, _) => Self::Files {
                    source: Source::Directory(directory),
                    revision: revision.map(str::to_owned),
                    below: String::new(),
                },
            }),
        }
    }

    /// The two sides of a comparison for which one was named. A directory is compared with the last commit (that comes
    /// first); anything else comes first, before the directory it is a revision of, or else the current one.
    pub fn pair(only: Self) -> Result<(Self, Self), SideError> {
        match &only {
            Self::Files { source: Source::Directory(directory), revision: None, .. } => {
                let Some((root, below)) = find_repository(directory) else {
                    return Err(SideError::NoRepository(directory.clone()));
                };
                let commit = Self::Files { source: Source::Directory(root), revision: Some("HEAD".to_owned()), below };
                Ok((commit, only))
            }
            Self::Files { source: Source::Directory(root), below, .. } => {
                let directory = Source::Directory(root.join(below));
                Ok((only, Self::Files { source: directory, revision: None, below: String::new() }))
            }
            _ => {
                let here = Source::Directory(PathBuf::from("."));
                Ok((only, Self::Files { source: here, revision: None, below: String::new() }))
            }
        }
    }
}

/// The working tree that `directory` is in, with the directory's path from its root.
fn find_repository(directory: &Path) -> Option<(PathBuf, String)> {
    let real = directory.canonicalize().ok()?;
    let is_bare = real.join("HEAD").is_file() && real.join("objects").is_dir();
    if is_bare {
        return Some((directory.to_owned(), String::new()));
    }
    let root = real.ancestors().find(|above| above.join(".git").symlink_metadata().is_ok())?;
    let below = real.strip_prefix(root).ok()?.to_str()?.to_owned();
    Some((if below.is_empty() { directory.to_owned() } else { root.to_owned() }, below))
}

/// What was read of one side.
#[derive(Debug)]
pub enum Loaded {
    /// Directories of workshops.
    Files(Vec<Directory>),
    /// An artifact.
    Rows(Box<Definition>),
    /// Objects of the kind WorkspaceTemplate.
    Templates(Vec<Value>),
}

/// One workshop's directory.
#[derive(Debug)]
pub struct Directory {
    path: String,
    tag: Option<String>,
    files: Result<FileTree, Vec<Diagnostic>>,
}

/// Reads one side; `state` is the state directory, `cluster` is needed for [`Side::Cluster`] only.
pub async fn load(side: &Side, state: &Path, cluster: Option<&Cluster>) -> Result<Loaded, SideError> {
    match side {
        Side::Cluster => match cluster {
            Some(cluster) => Ok(Loaded::Templates(cluster.list(Kind::WorkspaceTemplate, None, None).await?)),
            None => Err(SideError::Unsupported(CLUSTER.to_owned())),
        },
        Side::Artifact(path) => Ok(Loaded::Rows(Box::new(artifact::read(path)?.definition))),
        Side::Files { source, revision, below } => {
            let origin = Origin::open(source, state, Credentials::default(), None)?;
            let snapshot = match revision {
                None => origin.snapshot(&origin.resolve(&RefSpec::Default).await?).await?,
                Some(revision) => snapshot_of(&origin, source, revision).await?,
            };
            Ok(Loaded::Files(directories(&snapshot, below)?))
        }
    }
}

/// The files at `revision`: a name of the repository, else, on this machine, whatever Git's expressions mean there.
async fn snapshot_of(origin: &Origin, source: &Source, revision: &str) -> Result<Snapshot, SideError> {
    let local = || match source {
        Source::Directory(directory) => read_local_revision(directory, revision).map(RefSpec::Commit),
        _ => None,
    };
    let named = match RefSpec::parse(revision) {
        Ok(spec) => origin.resolve(&spec).await,
        Err(error) => Err(SourceError::Git(GitError {
            url: source.without_credentials(),
            problem: Problem::InvalidRef(error.to_string()),
            source: None,
        })),
    };
    let head = match (named, local()) {
        (Ok(head), _) => head,
        (Err(SourceError::Git(_)), Some(spec)) => origin.resolve(&spec).await?,
        (Err(error), _) => return Err(error.into()),
    };
    Ok(origin.snapshot(&head).await?)
}

fn directories(snapshot: &Snapshot, below: &str) -> Result<Vec<Directory>, SideError> {
    let mut directories = Vec::new();
    for unit in &snapshot.units {
        let path = match unit.path.strip_prefix(below) {
            Some(rest) if below.is_empty() => rest,
            Some("") => "",
            Some(rest) if rest.starts_with('/') => &rest[1..],
            _ => continue,
        };
        let files = match snapshot.read(unit) {
            Ok(tree) => Ok(tree),
            Err(ReadError::Content { diagnostics, .. }) => Err(diagnostics),
            Err(error) => return Err(error.into()),
        };
        directories.push(Directory { path: path.to_owned(), tag: unit.key.tag.clone(), files });
    }
    Ok(directories)
}

/// Both sides as workshops to compare.
#[must_use]
pub fn build_views(before: Loaded, after: Loaded) -> (Vec<View>, Vec<View>) {
    // A version that comes from a tag differs from one that comes from nowhere, which says nothing of the content.
    let is_tagged = |side: &Loaded| matches!(side, Loaded::Files(units) if units.iter().any(|unit| unit.tag.is_some()));
    let with_tags = is_tagged(&before) && is_tagged(&after);
    let both_templates = matches!((&before, &after), (Loaded::Templates(_), Loaded::Templates(_)));
    let mut sides = [before, after].map(|side| match side {
        Loaded::Files(units) => (units.into_iter().map(|unit| view_of_files(unit, with_tags)).collect(), Vec::new()),
        Loaded::Rows(definition) => (vec![View::of_rows(*definition)], Vec::new()),
        Loaded::Templates(objects) => (Vec::new(), objects),
    });
    if !both_templates {
        let ids: BTreeSet<String> =
            sides.iter().flat_map(|(views, _): &(Vec<View>, _)| views).filter_map(|view| view.id.clone()).collect();
        for (_, objects) in &mut sides {
            keep_related(objects, &ids);
        }
    }
    let [before, after] = sides.map(|(mut views, objects)| {
        views.extend(objects.iter().filter_map(view_of_template));
        views
    });
    (before, after)
}

/// Leaves out of a cluster's templates what no compared workshop has to do with: neither its own template nor one of
/// the same owner.
fn keep_related(objects: &mut Vec<Value>, ids: &BTreeSet<String>) {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let owner = |object: &Value| object["metadata"]["labels"][labels::OWNER].as_str().map(str::to_owned);
    let owners: BTreeSet<String> =
        objects.iter().filter(|object| ids.contains(&name(object))).filter_map(owner).collect();
    objects.retain(|object| ids.contains(&name(object)) || owner(object).is_some_and(|owner| owners.contains(&owner)));
}

fn view_of_files(directory: Directory, with_tags: bool) -> View {
    let Directory { path, tag, files } = directory;
    let tree = match files {
        Ok(tree) => tree,
        Err(diagnostics) => {
            return View {
                id: None,
                path: Some(path),
                content: Content::Broken { tree: FileTree::default(), diagnostics },
            };
        }
    };
    match read_workshop(&path, &tree, tag.as_deref().filter(|_| with_tags), None).into_result() {
        Ok((workshop, _)) => View::of_files(workshop, tree),
        Err(diagnostics) => {
            let id = peek_id(&tree).map(|id| id.to_string());
            View { id, path: Some(path), content: Content::Broken { tree, diagnostics } }
        }
    }
}

fn view_of_template(object: &Value) -> Option<View> {
    let id = object["metadata"]["name"].as_str()?.to_owned();
    let steps = object["spec"]["steps"].as_array()?.iter().filter_map(|step| {
        let text = |key: &str| step[key].as_str().map(str::to_owned);
        Some(StepLine { id: text("id")?, title: text("title")?, image_tag: text("imageTag")? })
    });
    // Read and written again, so that both sides spell the settings alike, what is absent as its default.
    let workspace: Workspace = serde_json::from_value(object["spec"]["defaults"].clone()).unwrap_or_default();
    let content = Content::Template { steps: steps.collect(), workspace: serde_json::to_value(workspace).ok()? };
    Some(View { id: Some(id), path: None, content })
}
