//! Reads Rust files for the architecture test: which modules a file declares, which paths it names.
//!
//! Works on tokens, so comments and strings cannot mislead it; code of `#[cfg(test)]` modules is left out.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// One Rust file.
pub struct RustFile {
    /// Path from the package's root.
    pub path: String,
    /// The text.
    pub text: String,
    tokens: TokenStream,
}

/// A path that a file names, `super`, `self` and `crate` resolved.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// From the crate's root for our own (`crate` first), else the outside crate first.
    pub segments: Vec<String>,
    /// Where it begins, from 1.
    pub line: usize,
}

/// All Rust files below a directory of the package, sorted.
pub fn rust_files(directory: &str) -> Vec<RustFile> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut pending = vec![package.join(directory)];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of this package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(RustFile::read(package, &path));
            }
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

impl RustFile {
    fn read(package: &Path, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("UTF-8");
        let path = path.strip_prefix(package).expect("below the package").to_str().expect("UTF-8").to_owned();
        Self::new(path, text)
    }

    /// A file with a path and a text.
    pub fn new(path: String, text: String) -> Self {
        let tokens = text.parse().unwrap_or_else(|error| panic!("{path} is not Rust: {error}"));
        Self { path, text, tokens }
    }

    /// The file's place in the tree of modules: `src/adapters/git/fetch.rs` is `["adapters", "git", "fetch"]`.
    pub fn module(&self) -> Vec<String> {
        let path = PathBuf::from(&self.path).with_extension("");
        let mut module: Vec<String> =
            path.components().skip(1).map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            module.pop();
        }
        module
    }

    /// The names of `mod name;`, those for tests only included.
    pub fn declared_modules(&self) -> Vec<String> {
        let trees: Vec<TokenTree> = self.tokens.clone().into_iter().collect();
        trees
            .windows(3)
            .filter(|three| is_ident(&three[0], "mod") && is_punct(&three[2], ';'))
            .map(|three| three[1].to_string())
            .collect()
    }

    /// All paths of two or more segments.
    pub fn named_paths(&self) -> Vec<NamedPath> {
        let mut found = Vec::new();
        walk(self.tokens.clone(), &self.module(), &mut found);
        found
    }
}

fn is_ident(tree: &TokenTree, name: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(tree: &TokenTree, character: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// Whether `::` stands at `index`.
fn is_separator(trees: &[TokenTree], index: usize) -> bool {
    let joint = matches!(trees.get(index), Some(TokenTree::Punct(punct))
        if punct.as_char() == ':' && punct.spacing() == Spacing::Joint);
    joint && trees.get(index + 1).is_some_and(|tree| is_punct(tree, ':'))
}

fn walk(tokens: TokenStream, module: &[String], found: &mut Vec<NamedPath>) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut index = 0;
    while index < trees.len() {
        match &trees[index] {
            // `#[cfg(test)] mod tests { … }`
            TokenTree::Group(group) if group.stream().to_string().replace(' ', "") == "cfg(test)" => {
                let inline = trees.get(index + 1).is_some_and(|tree| is_ident(tree, "mod"))
                    && matches!(trees.get(index + 3), Some(TokenTree::Group(_)));
                index += if inline { 4 } else { 1 };
            }
            TokenTree::Ident(ident) if ident == "mod" && matches!(trees.get(index + 2), Some(TokenTree::Group(_))) => {
                let inner: Vec<String> = module.iter().cloned().chain([trees[index + 1].to_string()]).collect();
                if let Some(TokenTree::Group(group)) = trees.get(index + 2) {
                    walk(group.stream(), &inner, found);
                }
                index += 3;
            }
            TokenTree::Ident(_) if is_separator(&trees, index + 1) => {
                index = read_path(&trees, index, Vec::new(), module, found);
            }
            TokenTree::Group(group) => {
                walk(group.stream(), module, found);
                index += 1;
            }
            _ => index += 1,
        }
    }
}

/// Reads the path that begins at `start`, groups of a `use` included; gives the index behind it.
fn read_path(
    trees: &[TokenTree],
    start: usize,
    prefix: Vec<String>,
    module: &[String],
    found: &mut Vec<NamedPath>,
) -> usize {
    let line = trees[start].span().start().line;
    let mut segments = prefix;
    let mut index = start;
    loop {
        match trees.get(index) {
            Some(TokenTree::Ident(ident)) => segments.push(ident.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let mut at = 0;
                while at < inner.len() {
                    at = match &inner[at] {
                        // The new name in `a as b` is no path.
                        tree if is_ident(tree, "as") => at + 2,
                        TokenTree::Ident(_) | TokenTree::Group(_) => {
                            read_path(&inner, at, segments.clone(), module, found)
                        }
                        _ => at + 1,
                    };
                }
                return index + 1;
            }
            // `use a::*`, or the generic arguments of `a::<B>`.
            _ => {
                found.push(NamedPath { segments: resolve(segments, module), line });
                return index;
            }
        }
        index += 1;
        if !is_separator(trees, index) {
            found.push(NamedPath { segments: resolve(segments, module), line });
            return index;
        }
        index += 2;
    }
}

/// Makes a path begin with `crate` where it begins with `self` or `super`.
fn resolve(segments: Vec<String>, module: &[String]) -> Vec<String> {
    let relative = segments.iter().take_while(|segment| ["self", "super"].contains(&segment.as_str())).count();
    if relative == 0 {
        return segments;
    }
    let up = segments.iter().take(relative).filter(|segment| *segment == "super").count();
    let base = &module[..module.len().saturating_sub(up)];
    ["crate".to_owned()].into_iter().chain(base.iter().cloned()).chain(segments.into_iter().skip(relative)).collect()
}

#[test]
fn paths_are_read_from_every_form_that_names_one() {
    fn check(text: &str, expected: &[&str]) {
        let file = RustFile::new("src/adapters/git/fetch.rs".into(), text.into());
        let found: Vec<String> = file.named_paths().into_iter().map(|path| path.segments.join("::")).collect();
        assert_eq!(found, expected, "{text}");
    }
    check("use crate::domain::tree::FileTree;", &["crate::domain::tree::FileTree"]);
    check(
        "use crate::{crd, domain::{names as n, tree::*}};",
        &["crate::crd", "crate::domain::names", "crate::domain::tree"],
    );
    check("use super::pack::Pack;", &["crate::adapters::git::pack::Pack"]);
    check("fn f(x: super::super::store::Store) {}", &["crate::adapters::store::Store"]);
    check("mod inner { use super::a; }", &["crate::adapters::git::fetch::a"]);
    check("fn f() { g(crate::cli::run::<u8>()) }", &["crate::cli::run"]);
    check("println!(\"{}\", std::fs::read(x))", &["std::fs::read"]);
    check("// crate::cli::a\nconst A: &str = \"crate::cli::b\";", &[]);
    check("pub(crate) fn f(a: u8) -> (u8, u8) { (a, a) }", &[]);
    check("#[cfg(test)]\nmod tests { use crate::cli::a; }\nuse crate::cli::b;", &["crate::cli::b"]);
}
