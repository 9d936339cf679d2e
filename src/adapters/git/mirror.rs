//! The bare mirror of one repository below the state directory: a cache that may be deleted at any time.
//!
//! It holds the references that were followed and what they lead to. What a name stands for is asked in `resolve`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gix::remote::Direction;

use super::connect::{Access, Credentials, connect};
use super::error::{GitError, Problem};
use super::resolve::Resolved;
use super::scan::Commit;
use crate::domain::source::GitUrl;

/// Every fetch adds a pack and gix never merges them: the mirror is made anew when it has this many.
const MAX_PACKS: usize = 50;

/// How long an operation may take, and the flag that ends it early.
#[derive(Debug, Clone)]
pub struct Deadline {
    end: Instant,
    limit: Duration,
    interrupted: Arc<AtomicBool>,
}

impl Deadline {
    /// A deadline `limit` from now.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self { end: Instant::now() + limit, limit, interrupted: Arc::default() }
    }

    /// What is left of the time, never less than a millisecond.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// The whole time allowed.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Makes the operation end at its next step.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    pub(super) fn flag(&self) -> &AtomicBool {
        &self.interrupted
    }
}

/// The mirror of one repository.
pub struct Mirror {
    url: GitUrl,
    directory: PathBuf,
    access: Access,
    repository: Mutex<Option<gix::ThreadSafeRepository>>,
    /// One fetch at a time.
    fetching: Mutex<()>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("url", &self.url).field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Mirror {
    /// The mirror of `url` below `state`; it is created at its first use, and nothing is asked of the server yet.
    pub fn new(url: GitUrl, state: &Path, credentials: &Credentials) -> Result<Self, GitError> {
        let directory = state.join("mirrors").join(url.mirror_name());
        let access = Access::new(&url, credentials)?;
        Ok(Self { url, directory, access, repository: Mutex::default(), fetching: Mutex::default() })
    }

    /// The repository's address without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.address()
    }

    /// Makes sure that the mirror has the commit, fetching what is missing, and gives it.
    pub fn fetch(&self, resolved: &Resolved, deadline: &Deadline) -> Result<Commit, GitError> {
        let wanted = gix::ObjectId::from_hex(resolved.revision.commit.as_bytes())
            .map_err(|_| GitError::new(self.url(), Problem::MissingCommit(resolved.revision.commit.clone())))?;
        let reference = resolved.reference.as_deref();
        if let Some(commit) = self.find(wanted, resolved)? {
            // Force-pushes back to an old commit and new tags on known ones are followed without a fetch.
            self.follow(reference, wanted)?;
            return Ok(commit);
        }
        let _one = lock(&self.fetching);
        let _other_processes = self.lock_file()?;
        if count_packs(&self.directory) >= MAX_PACKS {
            self.start_anew()?;
        }
        if let Some(reference) = reference {
            self.make_room(reference)?;
            self.receive(&format!("+{reference}:{reference}"), resolved, deadline)?;
            if let Some(commit) = self.find(wanted, resolved)? {
                return Ok(commit);
            }
        }
        // The name moved on since it was resolved, or there is none: the commit may still be given by its id.
        self.receive(&format!("{wanted}:refs/workshop/commits/{wanted}"), resolved, deadline)?;
        self.find(wanted, resolved)?
            .ok_or_else(|| GitError::new(self.url(), Problem::MissingCommit(wanted.to_string())))
    }

    /// The commit, if the mirror has it.
    fn find(&self, wanted: gix::ObjectId, resolved: &Resolved) -> Result<Option<Commit>, GitError> {
        let repository = self.repository()?;
        let unreadable = |error: gix::Error| GitError::mirror(self.url(), "read", error.to_string());
        let Some(object) = repository.try_find_object(wanted).map_err(unreadable)? else { return Ok(None) };
        let named = || resolved.revision.to_string();
        let commit = object.try_into_commit().map_err(|_| GitError::new(self.url(), Problem::NoCommit(named())))?;
        let tree = commit.tree_id().map_err(unreadable)?.detach();
        drop(commit);
        Ok(Some(Commit::new(self.url().to_owned(), repository.into_sync(), tree)))
    }

    /// Fetches one refspec.
    fn receive(&self, refspec: &str, resolved: &Resolved, deadline: &Deadline) -> Result<(), GitError> {
        let failed = |error: gix::Error| {
            let mut error = GitError::remote(self.url(), "fetch from the server", error);
            let refused =
                |text: String| ["not our ref", "unadvertised", "upload-pack"].iter().any(|word| text.contains(word));
            let by_id = !refspec.starts_with('+');
            if by_id
                && matches!(error.problem, Problem::Failed(_))
                && error.source.as_ref().is_some_and(|source| refused(source.to_string()))
            {
                error.problem = Problem::MissingCommit(resolved.revision.commit.clone());
            }
            error
        };
        let repository = self.repository()?;
        let remote = self.remote(&repository, [refspec.to_owned()])?;
        let connection = connect(&repository, &remote, deadline.remaining()).map_err(failed)?;
        let prepared = connection
            .prepare_fetch(gix::progress::Discard, gix::remote::ref_map::Options::default())
            .map_err(failed)?;
        if prepared.ref_map().object_hash != gix::hash::Kind::Sha1 {
            return Err(GitError::new(self.url(), Problem::Sha256));
        }
        if prepared.ref_map().mappings.is_empty() {
            let name = resolved.revision.name.clone().unwrap_or_else(|| resolved.revision.commit.clone());
            return Err(GitError::new(self.url(), Problem::MissingRef(format!("reference \"{name}\""))));
        }
        prepared.receive(gix::progress::Discard, deadline.flag()).map_err(failed)?;
        // Opened anew, so that the new pack is seen whatever gix has cached.
        *lock(&self.repository) = None;
        Ok(())
    }

    /// The remote with `refspecs`, never with tags that nobody asked for.
    pub(super) fn remote<'a>(
        &self,
        repository: &'a gix::Repository,
        refspecs: impl IntoIterator<Item = String>,
    ) -> Result<gix::Remote<'a>, GitError> {
        let refspecs: Vec<gix::bstr::BString> = refspecs.into_iter().map(Into::into).collect();
        repository
            .remote_at_without_url_rewrite(self.url.address())
            .map(|remote| remote.with_fetch_tags(gix::remote::fetch::Tags::None))
            .and_then(|remote| remote.with_refspecs(refspecs.iter().map(|spec| spec.as_slice()), Direction::Fetch))
            .map_err(|error| GitError::remote(self.url(), "use the address", error))
    }

    /// The open mirror, made where there is none yet. One that cannot be opened is made anew: it is only a cache.
    pub(super) fn repository(&self) -> Result<gix::Repository, GitError> {
        let mut open = lock(&self.repository);
        if open.is_none() {
            *open = Some(match self.open() {
                Ok(repository) => repository,
                Err(_) => {
                    remove(&self.directory).map_err(|error| GitError::mirror(self.url(), "remove", error))?;
                    self.create(&self.directory)?;
                    self.open().map_err(|error| GitError::mirror(self.url(), "open", error.to_string()))?
                }
            });
        }
        match open.as_ref() {
            Some(repository) => Ok(repository.to_thread_local()),
            None => Err(GitError::mirror(self.url(), "open", "it is gone")),
        }
    }

    fn open(&self) -> Result<gix::ThreadSafeRepository, gix::Error> {
        self.access.options().open_path_as_is(true).with(gix::sec::Trust::Full).open(&self.directory)
    }

    fn create(&self, directory: &Path) -> Result<(), GitError> {
        fs::create_dir_all(directory).map_err(|error| GitError::mirror(self.url(), "create", error))?;
        gix::ThreadSafeRepository::init_opts(
            directory,
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            self.access.options(),
        )
        .map(|_| ())
        .map_err(|error| GitError::mirror(self.url(), "create", error.to_string()))
    }

    /// Puts an empty mirror in the place of the old one, which stays readable for those who have it open.
    fn start_anew(&self) -> Result<(), GitError> {
        let failed = |error| GitError::mirror(self.url(), "renew", error);
        let mut open = lock(&self.repository);
        let (old, new) = (self.directory.with_extension("old"), self.directory.with_extension("new"));
        remove(&old).map_err(failed)?;
        remove(&new).map_err(failed)?;
        self.create(&new)?;
        fs::rename(&self.directory, &old).map_err(failed)?;
        fs::rename(&new, &self.directory).map_err(failed)?;
        *open = None;
        remove(&old).map_err(failed)
    }

    /// The commit that the mirror has under `reference`, tags peeled.
    pub(super) fn mirrored(&self, reference: &str) -> Option<String> {
        let repository = self.repository().ok()?;
        let mut found = repository.try_find_reference(reference).ok()??;
        Some(found.peel_to_id().ok()?.to_string())
    }

    /// The mirror's references below `prefix`.
    pub(super) fn mirrored_names(&self, prefix: &str) -> Result<Vec<String>, GitError> {
        let unreadable = |error: gix::Error| GitError::mirror(self.url(), "read", error.to_string());
        let repository = self.repository()?;
        let platform = repository.references().map_err(unreadable)?;
        let names = platform.prefixed(prefix).map_err(unreadable)?;
        Ok(names.flatten().map(|reference| reference.name().as_bstr().to_string()).collect())
    }

    /// Removes a reference from the mirror.
    pub(super) fn forget(&self, reference: &str) -> Result<(), GitError> {
        let repository = self.repository()?;
        match repository.try_find_reference(reference) {
            Ok(Some(found)) => {
                found.delete().map_err(|error| GitError::mirror(self.url(), "change", error.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Removes what the server cannot have any more beside `reference`: `a` and `a/b` are never references at once.
    fn make_room(&self, reference: &str) -> Result<(), GitError> {
        for (slash, _) in reference.match_indices('/').skip(1) {
            self.forget(&reference[..slash])?;
        }
        self.mirrored_names(&format!("{reference}/"))?.iter().try_for_each(|name| self.forget(name))
    }

    /// Points the mirror's reference at a commit that it already has.
    fn follow(&self, reference: Option<&str>, commit: gix::ObjectId) -> Result<(), GitError> {
        let Some(reference) = reference.filter(|name| name.starts_with("refs/")) else { return Ok(()) };
        if self.mirrored(reference).is_some_and(|there| commit.to_hex() == there) {
            return Ok(());
        }
        self.make_room(reference)?;
        self.repository()?
            .reference(reference, commit, gix::refs::transaction::PreviousValue::Any, "followed")
            .map(|_| ())
            .map_err(|error| GitError::mirror(self.url(), "change", error.to_string()))
    }

    /// Held while this process fetches, so that another one with the same state directory waits.
    fn lock_file(&self) -> Result<fs::File, GitError> {
        let failed = |error| GitError::mirror(self.url(), "lock", error);
        let file = fs::File::create(self.directory.with_extension("lock")).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is replaced as a whole, so a panic elsewhere leaves it sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn count_packs(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory.join("objects/pack")) else { return 0 };
    entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pack")).count()
}
