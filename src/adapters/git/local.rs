//! What a person's own revision expression (`HEAD~1`, a short commit id, `origin/main`) means in a repository of this
//! machine. Reads references and commits there, and no configuration.

use std::path::Path;

/// The commit's 40 hex digits, or none where the expression names no commit of the repository at `directory`.
#[must_use]
pub fn read_local_revision(directory: &Path, expression: &str) -> Option<String> {
    // Searches for text in messages (`:/…`) walk the whole history, and nobody needs them here.
    if expression.contains(':') || expression.len() > 255 {
        return None;
    }
    let repository = gix::open_opts(directory, gix::open::Options::isolated()).ok()?;
    let commit = repository.rev_parse_single(expression).ok()?.object().ok()?.peel_to_commit().ok()?;
    Some(commit.id.to_string())
}
