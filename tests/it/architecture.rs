//! Holds the shape of the code: which module may import which, and what every file owes its reader.

use std::collections::BTreeSet;

use crate::support::rust_source::{RustFile, rust_files};

/// What a module of `src/` may import of ours besides itself. Imports point down only.
struct Module {
    name: &'static str,
    layer: u8,
    may_import: &'static [&'static str],
}

const MODULES: &[Module] = &[
    Module { name: "domain", layer: 1, may_import: &[] },
    Module { name: "crd", layer: 1, may_import: &["domain"] },
    Module { name: "failpoint", layer: 1, may_import: &[] },
    Module { name: "pages", layer: 1, may_import: &[] },
    // One adapter imports no other: `adapters::x` stands for itself here.
    Module { name: "adapters", layer: 2, may_import: &["domain", "crd", "failpoint"] },
    Module { name: "pipeline", layer: 3, may_import: &["domain", "crd", "failpoint", "adapters"] },
    Module { name: "controller", layer: 4, may_import: &["domain", "crd", "failpoint", "adapters", "pipeline"] },
    Module { name: "operator", layer: 4, may_import: &["domain", "crd", "failpoint", "adapters", "pipeline"] },
    Module { name: "gateway", layer: 4, may_import: &["domain", "crd", "failpoint", "pages", "adapters", "pipeline"] },
    Module { name: "backend", layer: 4, may_import: &["domain", "pages"] },
    // The command line puts the fronts together.
    Module {
        name: "cli",
        layer: 4,
        may_import: &["domain", "crd", "failpoint", "adapters", "pipeline", "controller", "operator", "gateway"],
    },
    Module { name: "bin", layer: 5, may_import: &["cli", "backend"] },
];

/// Outside paths that would let the world into the two pure modules.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "gix",
    "kube::Client",
    "libc",
    "notify",
    "oci_client",
    "reqwest",
    "rusqlite",
    "rustix",
    "tempfile",
    "tokio",
    "tracing",
];

/// Files of more than 500 lines, each with the reason why it is not split.
const LONG_FILES: &[(&str, &str)] = &[];

const LIMIT: usize = 500;

fn module(name: &str) -> Option<&'static Module> {
    MODULES.iter().find(|module| module.name == name)
}

/// What is wrong with the imports of a file, as `path:line: why`.
fn import_problems(file: &RustFile) -> Vec<String> {
    let own = file.module();
    // `src/lib.rs` only declares; what tests need they may take from anywhere.
    let Some(first) = own.first() else { return Vec::new() };
    if own.last().is_some_and(|last| last == "tests") {
        return Vec::new();
    }
    let Some(importer) = module(first) else {
        return vec![format!("{}: module \"{first}\" is not in the table", file.path)];
    };
    let mut problems = Vec::new();
    for path in file.named_paths() {
        let mut problem = |why: String| problems.push(format!("{}:{}: {why}", file.path, path.line));
        let is_ours = path.segments[0] == "crate" || (importer.name == "bin" && path.segments[0] == "workshop");
        if is_ours && let Some(imported) = path.segments.get(1) {
            if module(imported).is_none() {
                problem(format!("\"{imported}\" is not a module of the table"));
            } else if imported != importer.name && !importer.may_import.contains(&imported.as_str()) {
                problem(format!("{} must not import {imported}", importer.name));
            } else if imported == "adapters" && importer.name == "adapters" && own.get(1) != path.segments.get(2) {
                problem(format!("adapter {} must not import {}", own[1..].join("::"), path.segments[2..].join("::")));
            }
        }
        let joined = format!("{}::", path.segments.join("::"));
        if ["domain", "crd"].contains(&importer.name)
            && let Some(impure) = IMPURE.iter().find(|impure| joined.starts_with(&format!("{impure}::")))
        {
            problem(format!("{} is pure and must not name {impure}", importer.name));
        }
    }
    problems
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn all_files() -> Vec<RustFile> {
    ["src", "tests", "benches"]
        .into_iter()
        .filter(|directory| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(directory).is_dir())
        .flat_map(rust_files)
        .collect()
}

#[test]
fn the_table_itself_points_down_only() {
    for importer in MODULES {
        for name in importer.may_import {
            let imported = module(name).unwrap_or_else(|| panic!("\"{name}\" is not in the table"));
            // Layer 1 is ordered by the table, and the command line is the front that starts the others.
            let below = imported.layer < importer.layer || (imported.name, importer.name) == ("domain", "crd");
            assert!(
                below || importer.name == "cli" && imported.layer == importer.layer,
                "{} imports {name}",
                importer.name
            );
        }
    }
}

#[test]
fn imports_follow_the_table() {
    assert_none(rust_files("src").iter().flat_map(import_problems).collect());
}

#[test]
fn an_import_against_the_table_is_found() {
    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_eq!(import_problems(&RustFile::new(path.into(), text.into())), expected);
    }
    check(
        "src/domain/tree.rs",
        "use crate::adapters::git::fetch;",
        &["src/domain/tree.rs:1: domain must not import adapters"],
    );
    check(
        "src/domain/tree.rs",
        "\nuse std::{fmt, fs::File};",
        &["src/domain/tree.rs:2: domain is pure and must not name std::fs"],
    );
    check(
        "src/adapters/git/fetch.rs",
        "use super::super::store::Store;",
        &["src/adapters/git/fetch.rs:1: adapter git::fetch must not import store::Store"],
    );
    check("src/adapters/git/fetch.rs", "use super::pack::Pack; use crate::adapters::git::Git;", &[]);
    check(
        "src/backend/mod.rs",
        "fn f() { crate::pipeline::run() }",
        &["src/backend/mod.rs:1: backend must not import pipeline"],
    );
    check("src/util/mod.rs", "", &["src/util/mod.rs: module \"util\" is not in the table"]);
    check(
        "src/bin/workshop.rs",
        "fn main() { workshop::pipeline::run() }",
        &["src/bin/workshop.rs:1: bin must not import pipeline"],
    );
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let silent = |file: &RustFile| !file.text.lines().next().is_some_and(|line| line.starts_with("//! "));
    assert_none(
        all_files()
            .iter()
            .filter(|file| silent(file))
            .map(|file| format!("{}: opens without //!", file.path))
            .collect(),
    );
}

#[test]
fn no_file_is_long_without_a_reason() {
    let mut problems = Vec::new();
    for file in all_files() {
        let lines = file.text.lines().count();
        let reason = LONG_FILES.iter().find(|(path, _)| *path == file.path);
        match reason {
            None if lines > LIMIT => problems.push(format!("{}: {lines} lines, split it by concept", file.path)),
            Some(_) if lines <= LIMIT => problems.push(format!("{}: {lines} lines, needs no reason", file.path)),
            _ => {}
        }
    }
    assert_none(problems);
}

#[test]
fn no_file_is_left_out_of_the_build() {
    let mut problems = Vec::new();
    for directory in ["src", "tests/it"] {
        let files = rust_files(directory);
        let declared: BTreeSet<String> = files
            .iter()
            .flat_map(|file| {
                let parent = file.module();
                file.declared_modules()
                    .into_iter()
                    .map(move |name| parent.iter().cloned().chain([name]).collect::<Vec<_>>())
            })
            .map(|module| module.join("::"))
            .collect();
        for file in &files {
            let own = file.module();
            let is_root = own.is_empty() || file.path == "tests/it/main.rs" || own[0] == "bin";
            if !is_root && !declared.contains(&own.join("::")) {
                problems.push(format!("{}: no file declares it with `mod`", file.path));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn the_map_of_the_library_names_its_modules() {
    let files = rust_files("src");
    let library = files.iter().find(|file| file.path == "src/lib.rs").expect("a library");
    let declared: BTreeSet<String> = library.declared_modules().into_iter().collect();
    let map: String = library.text.lines().filter(|line| line.starts_with("//!")).collect();
    let named: BTreeSet<String> =
        map.split("[`").skip(1).filter_map(|rest| rest.split_once("`]")).map(|(name, _)| name.to_owned()).collect();
    assert_eq!(named, declared, "the map of src/lib.rs against its `mod` lines");
}
