//! Which paths of a source do not count: `.gitignore` files from the source's root down, then `spec.ignore`.
//!
//! Unlike in Git the rules also remove files that are tracked, so that a commit, a working tree and a plain folder
//! give the same workshop. A user's own excludes never apply. Reading the files is an adapter's matter.

use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::digest::{Digest, FramedHasher};

/// The name of the files that hold the rules.
pub const IGNORE_FILE: &str = ".gitignore";

/// The largest rule file, in bytes.
pub const MAX_IGNORE_FILE: u64 = 256 * 1024;

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    /// More text than any honest rule file has.
    #[error("ignore rules are larger than {MAX_IGNORE_FILE} bytes")]
    TooLarge,
    /// The patterns together are more than a matcher can be built for.
    #[error("could not build a matcher from the ignore rules: {0}")]
    Unusable(String),
}

/// The rules that apply in one directory: those of every directory above and its own.
#[derive(Debug, Clone)]
pub struct Rules {
    level: Option<Arc<Level>>,
    spec: Option<Arc<Gitignore>>,
    /// Where the paths that are asked for begin, seen from the top of the rules; empty but for [`Rules::seen_from`].
    origin: String,
    digest: Digest,
}

#[derive(Debug)]
struct Level {
    base: String,
    matcher: Gitignore,
    above: Option<Arc<Level>>,
}

impl Rules {
    /// The rules before any directory was entered: those of `spec.ignore`, which win over every file.
    pub fn new(spec: Option<&str>) -> Result<Self, IgnoreError> {
        let mut hasher = FramedHasher::new("workshop.ignore");
        hasher.optional(spec);
        let spec = spec.map(|text| build_matcher(text.as_bytes()).map(Arc::new)).transpose()?;
        Ok(Self { level: None, spec, origin: String::new(), digest: hasher.finish() })
    }

    /// The rules inside of `directory` (from the source's root, empty for the root itself), whose rule file holds
    /// `text`.
    pub fn enter(&self, directory: &str, text: &[u8]) -> Result<Self, IgnoreError> {
        let matcher = build_matcher(text)?;
        if matcher.is_empty() {
            return Ok(self.clone());
        }
        let mut hasher = FramedHasher::new("workshop.ignore");
        hasher.part(self.digest.to_string()).part(directory).part(text);
        let level = Level { base: below(&self.origin, directory), matcher, above: self.level.clone() };
        Ok(Self { level: Some(Arc::new(level)), digest: hasher.finish(), ..self.clone() })
    }

    /// True when the path (from the source's root) does not count; the caller asks from the root down and never
    /// looks below a directory that does not count. A link is no directory.
    #[must_use]
    pub fn is_ignored(&self, path: &str, is_directory: bool) -> bool {
        if let Some(spec) = &self.spec {
            let found = spec.matched(path, is_directory);
            if !found.is_none() {
                return found.is_ignore();
            }
        }
        let path = below(&self.origin, path);
        let mut level = self.level.as_deref();
        while let Some(here) = level {
            let relative = if here.base.is_empty() {
                Some(path.as_str())
            } else {
                path.strip_prefix(here.base.as_str()).and_then(|rest| rest.strip_prefix('/'))
            };
            let found = relative.map(|relative| here.matcher.matched(relative, is_directory));
            if let Some(found) = found.filter(|found| !found.is_none()) {
                return found.is_ignore();
            }
            level = here.above.as_deref();
        }
        false
    }

    /// These rules for a source that begins at `directory` and has the rules of `spec` on top.
    #[must_use]
    pub fn seen_from(self, directory: &str, spec: &Self) -> Self {
        let mut hasher = FramedHasher::new("workshop.ignore");
        hasher.part(self.digest.to_string()).part(spec.digest.to_string()).part(directory);
        Self { spec: spec.spec.clone(), origin: below(&self.origin, directory), digest: hasher.finish(), ..self }
    }

    /// True when there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.level.is_none() && self.spec.is_none()
    }

    /// Equal for equal rules at equal places.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

fn below(directory: &str, path: &str) -> String {
    match (directory, path) {
        ("", _) => path.to_owned(),
        (_, "") => directory.to_owned(),
        _ => format!("{directory}/{path}"),
    }
}

fn build_matcher(text: &[u8]) -> Result<Gitignore, IgnoreError> {
    if text.len() as u64 > MAX_IGNORE_FILE {
        return Err(IgnoreError::TooLarge);
    }
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut builder = GitignoreBuilder::new("");
    for line in text.lines() {
        // Git takes a pattern that it cannot read as one that matches nothing.
        let _ = builder.add_line(None, line);
    }
    builder.build().map_err(|error| IgnoreError::Unusable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(spec: Option<&str>, files: &[(&str, &str)]) -> Rules {
        files.iter().fold(Rules::new(spec).unwrap(), |rules, (directory, text)| {
            rules.enter(directory, text.as_bytes()).unwrap()
        })
    }

    #[track_caller]
    fn check(rules: &Rules, path: &str, is_directory: bool, expected: bool) {
        assert_eq!(rules.is_ignored(path, is_directory), expected, "{path}");
    }

    #[test]
    fn the_deepest_file_wins_and_spec_ignore_wins_over_all() {
        let rules = rules(Some("!keep.log\ndraft/\n"), &[("", "*.log\n/only-root\nbuild/\n"), ("a/b", "!x.log\n")]);
        check(&rules, "y.log", false, true);
        check(&rules, "a/b/x.log", false, false);
        check(&rules, "a/c/x.log", false, true);
        check(&rules, "a/b/keep.log", false, false);
        check(&rules, "only-root", false, true);
        check(&rules, "a/only-root", false, false);
        check(&rules, "a/build", true, true);
        check(&rules, "a/build", false, false);
        check(&rules, "a/draft", true, true);
    }

    #[test]
    fn anchored_patterns_of_a_deeper_file_are_anchored_there() {
        let rules = rules(None, &[("a", "/x\nb/c\n")]);
        check(&rules, "a/x", false, true);
        check(&rules, "x", false, false);
        check(&rules, "a/d/x", false, false);
        check(&rules, "a/b/c", false, true);
        check(&rules, "ab/x", false, false);
    }

    #[test]
    fn a_file_of_comments_changes_nothing() {
        let none = Rules::new(None).unwrap();
        assert!(none.is_empty());
        let commented = none.enter("", b"# nothing\n\n").unwrap();
        assert!(commented.is_empty());
        assert_eq!(none.digest(), commented.digest());
    }

    #[test]
    fn rules_that_are_too_large_are_refused() {
        assert!(matches!(Rules::new(Some(&"a\n".repeat(200_000))), Err(IgnoreError::TooLarge)));
    }

    #[test]
    fn broken_patterns_match_nothing() {
        check(&rules(None, &[("", "[\n{a\n\\\n*.log\n")]), "x.log", false, true);
    }
}
