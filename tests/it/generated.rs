//! What is generated from the sources and committed is as the sources say; nothing is written here.

use std::path::Path;

use workshop::cli::crds::build_document;
use workshop::crd::Kind;

#[test]
fn the_files_in_crds_are_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let mut stale = Vec::new();
    for kind in Kind::ALL {
        let name = format!("{}.yaml", kind.plural());
        let expected = build_document(kind).unwrap();
        if std::fs::read_to_string(directory.join(&name)).ok().as_deref() != Some(expected.as_str()) {
            stale.push(name);
        }
    }
    assert!(stale.is_empty(), "crds/{} differs from src/crd: run `make generate`", stale.join(", crds/"));
}

#[test]
fn crds_holds_one_file_per_kind_and_the_list_of_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .expect("crds/")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "kustomization.yaml")
        .collect();
    names.sort();
    let mut expected: Vec<String> = Kind::ALL.iter().map(|kind| format!("{}.yaml", kind.plural())).collect();
    expected.sort();
    assert_eq!(names, expected);
    let list = std::fs::read_to_string(directory.join("kustomization.yaml")).unwrap();
    for name in &expected {
        assert!(list.contains(&format!("- {name}\n")), "{name} is not in crds/kustomization.yaml");
    }
}
