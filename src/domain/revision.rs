//! What of a repository is followed, and the commit that it stands for.
//!
//! Resolving one to the other asks the repository and is an adapter's matter.

use std::fmt;

use semver::{Version, VersionReq};

/// What of a repository is followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum RefSpec {
    /// The branch that the repository itself names with `HEAD`.
    #[default]
    Default,
    /// A branch by its short name.
    Branch(String),
    /// A tag by its short name.
    Tag(String),
    /// The highest tag in a range of semantic versions.
    Semver(String),
    /// A full reference name (`refs/…`), or the short name of a branch or tag.
    Name(String),
    /// A commit by its 40 hex digits.
    Commit(String),
}

/// Why a text names no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRef {
    /// Not a name that Git would accept.
    #[error("\"{0}\" is no valid name of a branch or tag")]
    Name(String),
    /// Not 40 hex digits.
    #[error("\"{0}\" is no commit id of 40 hex digits")]
    Commit(String),
    /// Not a range of versions.
    #[error("\"{0}\" is no range of semantic versions: {1}")]
    Semver(String, String),
}

impl RefSpec {
    /// Reads a revision as people write it behind `@`: a commit id, `sha1:<id>`, `branch:…`, `tag:…`, `semver:…`,
    /// `commit:…`, else the name of a branch or tag.
    pub fn parse(text: &str) -> Result<Self, InvalidRef> {
        let spec = match text.split_once(':') {
            Some(("branch", rest)) => Self::Branch(rest.to_owned()),
            Some(("tag", rest)) => Self::Tag(rest.to_owned()),
            Some(("semver", rest)) => Self::Semver(rest.to_owned()),
            Some(("commit" | "sha1", rest)) => Self::Commit(rest.to_owned()),
            _ if is_commit_id(text) => Self::Commit(text.to_owned()),
            _ => Self::Name(text.to_owned()),
        };
        spec.check().map(|()| spec)
    }

    /// Tells whether the text in it can name anything at all.
    pub fn check(&self) -> Result<(), InvalidRef> {
        match self {
            Self::Default => Ok(()),
            Self::Branch(name) | Self::Tag(name) | Self::Name(name) => {
                is_ref_name(name).then_some(()).ok_or_else(|| InvalidRef::Name(name.clone()))
            }
            Self::Semver(range) => SemverRange::parse(range).map(|_| ()),
            Self::Commit(id) => is_commit_id(id).then_some(()).ok_or_else(|| InvalidRef::Commit(id.clone())),
        }
    }
}

/// What people call it, e.g. `branch "main"`.
impl fmt::Display for RefSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default branch"),
            Self::Branch(name) => write!(f, "branch \"{name}\""),
            Self::Tag(name) => write!(f, "tag \"{name}\""),
            Self::Semver(range) => write!(f, "versions \"{range}\""),
            Self::Name(name) => write!(f, "reference \"{name}\""),
            Self::Commit(id) => write!(f, "commit {id}"),
        }
    }
}

fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The rules of git-check-ref-format, one level being enough.
fn is_ref_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "@"
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(|c| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\'))
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

/// A commit and the name under which it was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The branch's, tag's or reference's name; none for a commit that was asked for by its id.
    pub name: Option<String>,
    /// The commit's 40 hex digits.
    pub commit: String,
    /// The tag, when a tag or a range of versions is followed.
    pub tag: Option<String>,
}

/// `<ref>@sha1:<hash>`, or `sha1:<hash>` where there is no name.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}@sha1:{}", self.commit),
            None => write!(f, "sha1:{}", self.commit),
        }
    }
}

/// Splits `SOURCE@REVISION` at its last `@`, if it has one that belongs to no address: not the `@` of `git@host:path`
/// or of `https://user@host/…`.
#[must_use]
pub fn split_revision(text: &str) -> (&str, Option<&str>) {
    let path_from = match text.find("://") {
        Some(scheme) => text[scheme + 3..].find('/').map_or(text.len(), |slash| scheme + 3 + slash),
        None => match (text.find(':'), text.find('/')) {
            (Some(colon), slash) if slash.is_none_or(|slash| colon < slash) => colon,
            _ => 0,
        },
    };
    match text[path_from..].rfind('@') {
        Some(0) if path_from == 0 => (text, None),
        Some(at) if path_from + at + 1 < text.len() => (&text[..path_from + at], Some(&text[path_from + at + 1..])),
        _ => (text, None),
    }
}

/// A range of semantic versions as the field writes it: `1.x`, `>=1.0.0 <2.0.0`, `^1.2 || 3.x`; a bare version means
/// exactly that version.
#[derive(Debug, Clone)]
pub struct SemverRange(Vec<VersionReq>);

impl SemverRange {
    /// Reads a range.
    pub fn parse(text: &str) -> Result<Self, InvalidRef> {
        let invalid = |reason: String| InvalidRef::Semver(text.to_owned(), reason);
        if text.len() > 200 {
            return Err(invalid("it is longer than 200 characters".to_owned()));
        }
        text.split("||")
            .map(|part| VersionReq::parse(&comparators(part)).map_err(|error| invalid(error.to_string())))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// True when the version lies in the range; pre-releases only where the range names one.
    #[must_use]
    pub fn matches(&self, version: &Version) -> bool {
        self.0.iter().any(|range| range.matches(version))
    }

    /// The tag with the highest version of the range; a tag may begin with `v`.
    pub fn highest<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        tags.into_iter()
            .filter_map(|tag| {
                let version = Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()?;
                self.matches(&version).then_some((version, tag))
            })
            .max()
            .map(|(_, tag)| tag)
    }
}

/// One alternative in the notation of the semver crate: commas between comparators, `=` before a bare version.
fn comparators(part: &str) -> String {
    const OPERATORS: [char; 5] = ['<', '>', '=', '^', '~'];
    let mut list: Vec<String> = Vec::new();
    for word in part.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        match list.last_mut() {
            // `>= 1.2` is one comparator in two words.
            Some(last) if last.ends_with(OPERATORS) => last.push_str(word.trim_start_matches('v')),
            _ => list.push(word.trim_start_matches('v').to_owned()),
        }
    }
    for comparator in &mut list {
        let bare = comparator.starts_with(|c: char| c.is_ascii_digit());
        if bare && !comparator.contains(['x', 'X', '*']) {
            comparator.insert(0, '=');
        }
    }
    if list.is_empty() { "*".to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_reads_as_name_and_hash() {
        let mut revision = Revision { name: Some("main".into()), commit: "a".repeat(40), tag: None };
        assert_eq!(revision.to_string(), format!("main@sha1:{}", "a".repeat(40)));
        revision.name = None;
        assert_eq!(revision.to_string(), format!("sha1:{}", "a".repeat(40)));
    }

    #[track_caller]
    fn check_split(text: &str, source: &str, revision: Option<&str>) {
        assert_eq!(split_revision(text), (source, revision), "{text}");
    }

    #[test]
    fn a_revision_is_split_from_its_source() {
        check_split("https://host/a.git@main", "https://host/a.git", Some("main"));
        check_split("https://user@host/a.git", "https://user@host/a.git", None);
        check_split("https://user@host/a@feature/x", "https://user@host/a", Some("feature/x"));
        check_split("git@host:team/a.git", "git@host:team/a.git", None);
        check_split("git@host:team/a.git@v1.0", "git@host:team/a.git", Some("v1.0"));
        check_split("dir@main", "dir", Some("main"));
        check_split(".@HEAD", ".", Some("HEAD"));
        check_split("./dir", "./dir", None);
        check_split("@x", "@x", None);
        check_split("dir@", "dir@", None);
    }

    #[track_caller]
    fn check_ref(text: &str, expected: Option<RefSpec>) {
        assert_eq!(RefSpec::parse(text).ok(), expected, "{text}");
    }

    #[test]
    fn revisions_are_read_as_people_write_them() {
        check_ref("main", Some(RefSpec::Name("main".into())));
        check_ref("feature/x", Some(RefSpec::Name("feature/x".into())));
        check_ref("tag:v1", Some(RefSpec::Tag("v1".into())));
        check_ref("semver:1.x", Some(RefSpec::Semver("1.x".into())));
        check_ref(&"0a".repeat(20), Some(RefSpec::Commit("0a".repeat(20))));
        check_ref(&format!("sha1:{}", "0a".repeat(20)), Some(RefSpec::Commit("0a".repeat(20))));
        for text in
            ["", "-x", "a..b", "a b", "a\n", "x.lock", "a//b", ".a", "a@{1}", "branch:", "commit:12", "semver:y"]
        {
            check_ref(text, None);
        }
    }

    #[track_caller]
    fn check_range(range: &str, tags: &[&str], expected: Option<&str>) {
        assert_eq!(SemverRange::parse(range).unwrap().highest(tags.iter().copied()), expected, "{range}");
    }

    #[test]
    fn the_highest_version_of_a_range_is_found() {
        let tags = ["v1.0.0", "v1.1.0", "1.2.0-rc.1", "v1.10.0", "v2.0.0", "latest", "v3"];
        check_range("1.x", &tags, Some("v1.10.0"));
        check_range("*", &tags, Some("v2.0.0"));
        check_range("1.1.0", &tags, Some("v1.1.0"));
        check_range("1.1", &tags, Some("v1.1.0"));
        check_range(">=1.0.0 <2.0.0", &tags, Some("v1.10.0"));
        check_range(">= 1.0.0, < 1.10", &tags, Some("v1.1.0"));
        check_range("~1.0 || ^2", &tags, Some("v2.0.0"));
        check_range(">=1.2.0-rc.0 <1.3.0", &tags, Some("1.2.0-rc.1"));
        check_range("4.x", &tags, None);
        check_range("1.x", &[], None);
    }
}
