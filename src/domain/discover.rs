//! Which directories of a source are workshops, and which files can never belong to one.
//!
//! Works on paths and bytes alone; ignore rules were applied before.

use std::collections::BTreeSet;

use super::diagnostic::Diagnostic;

/// The recipe's file name; it makes its directory a workshop.
pub const RECIPE_FILE: &str = "step-spec.yaml";
/// The export's directory inside of a workshop.
pub const EXPORT_DIRECTORY: &str = "export";
/// The file in the export's directory that makes the directory above a workshop.
pub const EXPORT_FILE: &str = "workshop.yaml";

/// The largest file of a workshop, in bytes.
pub const MAX_FILE: u64 = 32 * 1024 * 1024;
/// The most files and links of one workshop.
pub const MAX_FILES: usize = 20_000;
/// The most bytes of one workshop.
pub const MAX_TOTAL: u64 = 256 * 1024 * 1024;
/// The deepest nesting of directories, counted from the source's root.
pub const MAX_DEPTH: usize = 32;

/// The directories among `files` (paths of files and links) that are workshops, at any depth, nested ones too; the
/// source's root is the empty path.
pub fn find_workshops<'a>(files: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    files.into_iter().filter_map(workshop_of).map(str::to_owned).collect()
}

/// The directory that the file at `path` makes a workshop.
fn workshop_of(path: &str) -> Option<&str> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        RECIPE_FILE => Some(directory),
        EXPORT_FILE => match directory.rsplit_once('/') {
            Some((above, EXPORT_DIRECTORY)) => Some(above),
            None if directory == EXPORT_DIRECTORY => Some(""),
            _ => None,
        },
        _ => None,
    }
}

/// `directory` and `name` as one path; the root is the empty path.
#[must_use]
pub fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// True when `path` is `directory` or lies below it.
#[must_use]
pub fn is_within(directory: &str, path: &str) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True for the small text that Git LFS commits in the place of a large file.
#[must_use]
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.len() < 1024 && bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// The problem of a file that is only a pointer.
#[must_use]
pub fn lfs_pointer(path: &str) -> Diagnostic {
    Diagnostic::error("lfs-pointer", path, format!("\"{path}\" is a Git LFS pointer, its content is not in the commit"))
        .help("commit the file itself, or keep it outside and fetch it in the step's commands")
}

/// The problem of a nested repository.
#[must_use]
pub fn submodule(path: &str) -> Diagnostic {
    Diagnostic::error("submodule", path, format!("\"{path}\" is a submodule, its files are not part of the commit"))
        .help("commit the files themselves, or move the submodule out of the workshop's directory")
}

/// The problem of a name that is not UTF-8; `path` is written with replacement characters.
#[must_use]
pub fn name_not_utf8(path: &str) -> Diagnostic {
    Diagnostic::error("path-not-utf8", path, format!("the name of \"{path}\" is not valid UTF-8"))
        .help("rename the file")
}

/// The problem of a link whose target is not UTF-8.
#[must_use]
pub fn target_not_utf8(path: &str) -> Diagnostic {
    Diagnostic::error("path-not-utf8", path, format!("the target of the link \"{path}\" is not valid UTF-8"))
        .help("make the link point to a name in UTF-8")
}

/// The problem of a device, socket or pipe.
#[must_use]
pub fn special_file(path: &str, kind: &str) -> Diagnostic {
    Diagnostic::error("special-file", path, format!("\"{path}\" is a {kind}, only files, directories and links count"))
        .help("remove it, or name it in .gitignore")
}

/// The problem of a file above [`MAX_FILE`].
#[must_use]
pub fn file_too_large(path: &str, size: u64) -> Diagnostic {
    Diagnostic::error(
        "file-too-large",
        path,
        format!("\"{path}\" has {size} bytes, a file of a workshop has at most {MAX_FILE}"),
    )
    .help("fetch it in the step's commands or put it into the base image, or name it in .gitignore")
}

/// The problem of a file that cannot be read.
#[must_use]
pub fn unreadable(path: &str, reason: &str) -> Diagnostic {
    Diagnostic::error("unreadable", path, format!("could not read \"{path}\": {reason}"))
        .help("make it readable, or name it in .gitignore")
}

/// The problem of a workshop with more than [`MAX_FILES`] files or [`MAX_TOTAL`] bytes.
#[must_use]
pub fn workshop_too_large(path: &str) -> Diagnostic {
    Diagnostic::error(
        "workshop-too-large",
        path,
        format!("the workshop has more than {MAX_FILES} files or more than {MAX_TOTAL} bytes"),
    )
    .help("keep only what its steps need in its directory, or name the rest in .gitignore")
}

/// The problem of a directory below [`MAX_DEPTH`].
#[must_use]
pub fn too_deep(path: &str) -> Diagnostic {
    Diagnostic::error("too-deep", path, format!("\"{path}\" is nested deeper than {MAX_DEPTH} directories"))
        .help("use fewer levels of directories")
}

/// The problem of a rule file that cannot be used; its rules do not apply.
#[must_use]
pub fn ignore_file_unusable(path: &str, reason: &str) -> Diagnostic {
    Diagnostic::error("ignore-file", path, format!("\"{path}\" does not apply: {reason}")).help("shorten the file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[&str], expected: &[&str]) {
        assert_eq!(find_workshops(files.iter().copied()).into_iter().collect::<Vec<_>>(), expected, "{files:?}");
    }

    #[test]
    fn a_recipe_or_an_export_makes_a_workshop_at_any_depth() {
        check(&["step-spec.yaml"], &[""]);
        check(&["export/workshop.yaml"], &[""]);
        check(&["a/b/step-spec.yaml", "a/b/export/workshop.yaml", "a/step-spec.yaml"], &["a", "a/b"]);
        check(&["a/export/workshop.yaml"], &["a"]);
        check(&["workshop.yaml", "a/workshop.yaml", "a/step-spec.yml", "a/exports/workshop.yaml"], &[]);
    }

    #[test]
    fn a_directory_holds_itself_and_what_is_below() {
        assert!(is_within("", "a") && is_within("a", "a") && is_within("a", "a/b"));
        assert!(!is_within("a", "ab") && !is_within("a/b", "a"));
    }
}
