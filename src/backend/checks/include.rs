//! Specs that a spec includes: found by path or glob below the directory of the first, and nowhere else.
//!
//! Depth, number and size are bounded; a file that is included twice on one way is refused.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::ChecksError;
use super::fact::{read_text, reason};
use crate::domain::goss::{Item, Resource, Spec, parse_spec, spec::MAX_ASSERTIONS};

const MAX_DEPTH: usize = 8;
const MAX_FILES: usize = 100;
const MAX_SIZE: u64 = 4 << 20;

/// All resources of `spec` and of what it includes, each where it is included.
pub fn resolve(spec: Spec, base: &Path) -> Result<Vec<Arc<Resource>>, ChecksError> {
    let mut including = Including { base: base.to_owned(), files: 0, assertions: 0, resources: Vec::new() };
    including.add(spec, base, &mut Vec::new())?;
    Ok(including.resources)
}

struct Including {
    base: PathBuf,
    files: usize,
    assertions: usize,
    resources: Vec<Arc<Resource>>,
}

impl Including {
    fn add(&mut self, spec: Spec, directory: &Path, way: &mut Vec<PathBuf>) -> Result<(), ChecksError> {
        let wrong = |pattern: &str, reason: String| ChecksError::Include { pattern: pattern.to_owned(), reason };
        let mut left_out = Vec::new();
        for item in &spec.items {
            if let Item::Include(include) = item
                && include.skip
            {
                left_out.extend(self.find(&include.pattern, directory)?);
            }
        }
        for item in spec.items {
            let include = match item {
                Item::Resource(resource) => {
                    self.assertions += resource.assertions.len();
                    if self.assertions > MAX_ASSERTIONS {
                        return Err(wrong("", format!("together there are more than {MAX_ASSERTIONS} assertions")));
                    }
                    self.resources.push(Arc::from(resource));
                    continue;
                }
                Item::Include(include) if include.skip => continue,
                Item::Include(include) => include,
            };
            let pattern = include.pattern.as_str();
            let files = self.find(pattern, directory)?;
            if files.is_empty() && !is_glob(pattern) {
                return Err(wrong(pattern, "there is no such file beside the spec".to_owned()));
            }
            for file in files.into_iter().filter(|file| !left_out.contains(file)) {
                self.files += 1;
                if self.files > MAX_FILES || way.len() >= MAX_DEPTH || way.contains(&file) {
                    return Err(wrong(pattern, "specs include each other without end, or too many".to_owned()));
                }
                let text = read_text(&file, MAX_SIZE).map_err(|error| wrong(pattern, reason(&error)))?;
                let name = file.strip_prefix(&self.base).unwrap_or(&file).to_string_lossy().into_owned();
                let parsed = parse_spec(&name, text.unwrap_or_default().as_bytes());
                let (spec, _) = parsed.into_result().map_err(ChecksError::Spec)?;
                let directory = file.parent().unwrap_or(&self.base).to_owned();
                way.push(file);
                self.add(spec, &directory, way)?;
                way.pop();
            }
        }
        Ok(())
    }

    /// The files that `pattern` names, sorted; links that lead out of the base directory are left out.
    fn find(&self, pattern: &str, directory: &Path) -> Result<Vec<PathBuf>, ChecksError> {
        let outside = || ChecksError::Include {
            pattern: pattern.to_owned(),
            reason: "only specs beside the first one or below it are included".to_owned(),
        };
        let Ok(base) = self.base.canonicalize() else { return Ok(Vec::new()) };
        let mut found = vec![directory.canonicalize().map_err(|_| outside())?];
        let mut path = Path::new(pattern);
        if let Ok(below) = path.strip_prefix(&self.base) {
            found = vec![base.clone()];
            path = below;
        }
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name.to_string_lossy().into_owned(),
                Component::CurDir => continue,
                _ => return Err(outside()),
            };
            let mut next = Vec::new();
            for directory in found {
                if is_glob(&name) {
                    let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten().take(10_000);
                    let fitting = entries.filter(|entry| fits(&name, &entry.file_name().to_string_lossy()));
                    next.extend(fitting.map(|entry| entry.path()));
                } else {
                    next.push(directory.join(&name));
                }
            }
            found = next;
        }
        let inside = found.into_iter().filter_map(|path| path.canonicalize().ok());
        let mut files: Vec<PathBuf> = inside.filter(|path| path.starts_with(&base) && path.is_file()).collect();
        files.sort();
        Ok(files)
    }
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// True when `name` fits `pattern`, in which `*` is any text and `?` any character; both of bounded length.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let name: Vec<char> = name.chars().collect();
    // The places in the name up to which the pattern so far fits.
    let mut places = vec![false; name.len() + 1];
    places[0] = true;
    for wanted in pattern.chars() {
        let mut next = vec![false; name.len() + 1];
        for (place, _) in places.iter().enumerate().filter(|(_, fits)| **fits) {
            match wanted {
                '*' => next[place..].fill(true),
                _ if name.get(place).is_some_and(|&found| wanted == '?' || found == wanted) => next[place + 1] = true,
                _ => {}
            }
        }
        places = next;
    }
    places[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], spec: &str, expected: Result<&[&str], &str>) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        std::fs::create_dir(&base).unwrap();
        for (path, text) in files {
            let path = base.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let parsed = parse_spec("goss.yaml", spec.as_bytes()).into_result().unwrap().0;
        match (resolve(parsed, &base), expected) {
            (Ok(resources), Ok(expected)) => {
                let ids: Vec<&str> = resources.iter().map(|resource| resource.id.as_str()).collect();
                assert_eq!(ids, expected, "{spec}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{spec}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn included_specs_stand_where_they_are_included() {
        let a = ("a.yaml", "file: {/a: {exists: true}}");
        let b = ("sub/b.yaml", "file: {/b: {exists: true}}\ngossfile: {c.yaml: {}}");
        let c = ("sub/c.yaml", "file: {/c: {exists: true}}");
        let files = [a, b, c];
        check(&files, "gossfile: {a.yaml: {}}\nfile: {/z: {exists: true}}", Ok(&["/a", "/z"]));
        check(&files, "gossfile: {x: {file: sub/b.yaml}}", Ok(&["/b", "/c"]));
        check(&files, "gossfile:\n  'sub/*.yaml': {}\n  sub/b.yaml: {skip: true}\n", Ok(&["/c"]));
        check(&files, "gossfile: {'nothing*': {}}\nfile: {/z: {exists: true}}", Ok(&["/z"]));
    }

    #[test]
    fn nothing_outside_and_nothing_without_end_is_included() {
        check(&[], "gossfile: {../x.yaml: {}}", Err("beside the first one"));
        check(&[], "gossfile: {/etc/passwd: {}}", Err("beside the first one"));
        check(&[], "gossfile: {nothing.yaml: {}}", Err("no such file"));
        check(&[("a.yaml", "gossfile: {a.yaml: {}}")], "gossfile: {a.yaml: {}}", Err("without end"));
        check(&[("a.yaml", "fil: {}")], "gossfile: {a.yaml: {}}", Err("a.yaml:1:1"));
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
        let spec = parse_spec("g", b"gossfile: {link: {}}").into_result().unwrap().0;
        assert!(resolve(spec, directory.path()).is_err());
    }

    #[test]
    fn globs_fit_names() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".a.yaml", false),
            ("a?c*", "abc", true),
            ("a?c", "ac", false),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
