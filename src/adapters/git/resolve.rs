//! What a followed name stands for right now: one listing of the server's references, nothing fetched.

use gix::protocol::handshake::Ref;

use super::connect::connect;
use super::error::{GitError, Problem};
use super::mirror::{Deadline, Mirror};
use crate::domain::revision::{RefSpec, Revision, SemverRange};

/// The commit that a followed name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The commit and its name.
    pub revision: Revision,
    /// The server's full reference, e.g. `refs/heads/main`; none for a commit asked for by its id or a detached `HEAD`.
    pub reference: Option<String>,
    /// The commit that the mirror last had under the same tag, when it is another one.
    pub moved_from: Option<String>,
}

/// One reference of the server; `id` is the commit behind an annotated tag.
struct Listed {
    name: String,
    id: gix::ObjectId,
    target: Option<String>,
}

impl Mirror {
    /// Asks the server what `spec` stands for. A commit given by its id is not asked for.
    pub fn resolve(&self, spec: &RefSpec, deadline: &Deadline) -> Result<Resolved, GitError> {
        let url = self.url();
        spec.check().map_err(|error| GitError::new(url, Problem::InvalidRef(error.to_string())))?;
        if let RefSpec::Commit(id) = spec {
            let revision = Revision { name: None, commit: id.clone(), tag: None };
            return Ok(Resolved { revision, reference: None, moved_from: None });
        }
        let listed = self.list(&filters(spec), deadline)?;
        let full = |name: &str| listed.iter().find(|listed| listed.name == name);
        let missing = || GitError::new(url, Problem::MissingRef(spec.to_string()));
        let (found, name, tag) = match spec {
            RefSpec::Commit(_) => return Err(missing()),
            RefSpec::Default => {
                // Where HEAD leads nowhere there may still be other branches, but nothing says which one is meant.
                let head = full("HEAD").ok_or_else(|| GitError::new(url, Problem::Empty))?;
                (head, short(head.target.as_deref().unwrap_or("HEAD")), None)
            }
            RefSpec::Branch(branch) => (self.must(full(&format!("refs/heads/{branch}")), spec)?, branch.clone(), None),
            RefSpec::Tag(tag) => (self.must(full(&format!("refs/tags/{tag}")), spec)?, tag.clone(), Some(tag.clone())),
            RefSpec::Semver(text) => {
                let range = SemverRange::parse(text)
                    .map_err(|error| GitError::new(url, Problem::InvalidRef(error.to_string())))?;
                self.forget_deleted("refs/tags/", &listed)?;
                let tag = range
                    .highest(listed.iter().filter_map(|listed| listed.name.strip_prefix("refs/tags/")))
                    .ok_or_else(|| GitError::new(url, Problem::NoVersion(text.clone())))?;
                let found = full(&format!("refs/tags/{tag}")).ok_or_else(missing)?;
                (found, tag.to_owned(), Some(tag.to_owned()))
            }
            RefSpec::Name(name) if name.starts_with("refs/") || name == "HEAD" => {
                let found = self.must(full(name), spec)?;
                (found, short(name), name.strip_prefix("refs/tags/").map(str::to_owned))
            }
            RefSpec::Name(name) => match full(&format!("refs/tags/{name}")) {
                // Git itself prefers a tag over a branch of the same name.
                Some(found) => (found, name.clone(), Some(name.clone())),
                None => (self.must(full(&format!("refs/heads/{name}")), spec)?, name.clone(), None),
            },
        };
        let commit = found.id.to_string();
        let reference = match found.name.as_str() {
            // A detached HEAD is fetched by its commit.
            "HEAD" => found.target.clone(),
            name => Some(name.to_owned()),
        };
        let before = tag.as_ref().and(reference.as_deref()).and_then(|reference| self.mirrored(reference));
        let moved_from = before.filter(|before| *before != commit);
        Ok(Resolved { revision: Revision { name: Some(name), commit, tag }, reference, moved_from })
    }

    /// The reference, or the error that it is missing, which the mirror then forgets too.
    fn must<'a>(&self, found: Option<&'a Listed>, spec: &RefSpec) -> Result<&'a Listed, GitError> {
        if let Some(found) = found {
            return Ok(found);
        }
        for name in filters(spec) {
            self.forget(&name)?;
        }
        Err(GitError::new(self.url(), Problem::MissingRef(spec.to_string())))
    }

    /// One ls-refs limited to `filters`, each a full name or a prefix that ends in `/*`.
    fn list(&self, filters: &[String], deadline: &Deadline) -> Result<Vec<Listed>, GitError> {
        let failed = |error| GitError::remote(self.url(), "list the references of the server", error);
        let repository = self.repository()?;
        let remote = self.remote(&repository, filters.iter().map(|name| format!("+{name}:{name}")))?;
        let connection = connect(&repository, &remote, deadline.remaining()).map_err(failed)?;
        let (map, _) =
            connection.ref_map(gix::progress::Discard, gix::remote::ref_map::Options::default()).map_err(failed)?;
        if map.object_hash != gix::hash::Kind::Sha1 {
            return Err(GitError::new(self.url(), Problem::Sha256));
        }
        let text = |name: gix::bstr::BString| String::from_utf8(name.into()).ok();
        let listed = map.remote_refs.into_iter().filter_map(|reference| match reference {
            Ref::Peeled { full_ref_name, object, .. } | Ref::Direct { full_ref_name, object } => {
                Some(Listed { name: text(full_ref_name)?, id: object, target: None })
            }
            Ref::Symbolic { full_ref_name, target, object, .. } => {
                Some(Listed { name: text(full_ref_name)?, id: object, target: text(target) })
            }
            Ref::Unborn { .. } => None,
        });
        Ok(listed.collect())
    }

    /// Removes from the mirror what the server no longer has below `prefix`; gix never does.
    fn forget_deleted(&self, prefix: &str, listed: &[Listed]) -> Result<(), GitError> {
        for name in self.mirrored_names(prefix)? {
            if !listed.iter().any(|listed| listed.name == name) {
                self.forget(&name)?;
            }
        }
        Ok(())
    }
}

/// What to ask the server for.
fn filters(spec: &RefSpec) -> Vec<String> {
    match spec {
        RefSpec::Default => vec!["HEAD".to_owned()],
        RefSpec::Branch(name) => vec![format!("refs/heads/{name}")],
        RefSpec::Tag(name) => vec![format!("refs/tags/{name}")],
        RefSpec::Semver(_) => vec!["refs/tags/*".to_owned()],
        RefSpec::Name(name) if name.starts_with("refs/") || name == "HEAD" => vec![name.clone()],
        RefSpec::Name(name) => vec![format!("refs/tags/{name}"), format!("refs/heads/{name}")],
        RefSpec::Commit(_) => Vec::new(),
    }
}

/// A reference as people call it.
fn short(reference: &str) -> String {
    let known = ["refs/heads/", "refs/tags/"].iter().find_map(|prefix| reference.strip_prefix(prefix));
    known.unwrap_or(reference).to_owned()
}
