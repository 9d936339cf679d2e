//! Files land where the image has them, never outside, and the cache gives back what was put in.

use proptest::prelude::*;

use super::*;

/// A Debian root in small: `/bin` and `/sbin` are links, `/etc/alternatives` is full of them.
fn usr_merged() -> PathIndex {
    let mut index = PathIndex::default();
    index.add_entries(&[
        Entry::symlink("bin", "usr/bin"),
        Entry::directory("etc", 0o755),
        Entry::file("etc/passwd", 0o644, 10),
        Entry::symlink("sbin", "usr/sbin"),
        Entry::directory("usr", 0o755),
        Entry::directory("usr/bin", 0o755),
        Entry::directory("usr/sbin", 0o755),
        Entry::symlink("usr/bin/sh", "/bin/dash"),
        Entry::symlink("abs", "/usr/bin/../sbin"),
        Entry::symlink("outside", "../../../etc"),
        Entry::symlink("dangling", "/srv/data"),
        Entry::symlink("loop-a", "loop-b"),
        Entry::symlink("loop-b", "loop-a"),
    ]);
    index
}

fn shown(result: Result<Placement, PlaceError>) -> String {
    match result {
        Ok(place) => {
            let exists = if place.exists { " (there)" } else { "" };
            let missing: String = place.missing.iter().map(|path| format!(" +{path}")).collect();
            format!("{}{exists}{missing}", place.path)
        }
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn a_files_target_follows_the_links_of_its_parents() {
    let index = usr_merged();
    for (target, expected) in [
        ("/sbin/tini", "usr/sbin/tini"),
        ("/usr/local/bin/x", "usr/local/bin/x +usr/local +usr/local/bin"),
        ("/bin/sh", "usr/bin/sh (there)"),
        ("/abs/x", "usr/sbin/x"),
        ("/outside/x", "etc/x"),
        ("/dangling/x", "srv/data/x +srv +srv/data"),
        ("/new/deep/file", "new/deep/file +new +new/deep"),
        ("/etc/passwd", "etc/passwd (there)"),
        ("/sbin", "sbin (there)"),
        ("/etc/passwd/x", "error: \"/etc/passwd/x\" cannot be written: \"/etc/passwd\" is a file in the image"),
        ("/loop-a/x", "error: \"/loop-a/x\" goes through more than 40 links of the image"),
        ("/etc", "error: \"/etc\" cannot be written: \"/etc\" is a directory in the image"),
    ] {
        assert_eq!(shown(index.resolve(target)), expected, "{target}");
    }
}

#[test]
fn a_directorys_target_follows_the_last_link_too() {
    let index = usr_merged();
    for (target, expected) in [
        ("/sbin", "usr/sbin (there)"),
        ("/srv", "srv"),
        ("/srv/www", "srv/www +srv"),
        ("/dangling", "srv/data +srv"),
        ("/", " (there)"),
        ("/etc/passwd", "error: \"/etc/passwd\" cannot be written: \"/etc/passwd\" is a file in the image"),
    ] {
        assert_eq!(shown(index.resolve_directory(target)), expected, "{target}");
    }
}

#[test]
fn layers_remove_and_replace_what_lies_below() {
    let mut index = PathIndex::default();
    index.add_entries(&[
        Entry::directory("a", 0o755),
        Entry::file("a/old", 0o644, 0),
        Entry::directory("b", 0o755),
        Entry::file("b/hidden", 0o644, 0),
        Entry::directory("c", 0o755),
        Entry::file("c/inside", 0o644, 0),
        Entry::symlink("d", "a"),
    ]);
    index.add_entries(&[
        Entry::whiteout("a/old"),
        // A removal hides older files only, wherever it stands among the layer's entries.
        Entry::file("b/new", 0o644, 0),
        Entry { kind: Kind::Opaque, ..Entry::directory("b", 0) },
        Entry::file("c", 0o644, 0),
        Entry::file("d/x", 0o644, 0),
    ]);
    let paths: Vec<_> = index.nodes.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(paths, ["a", "b", "b/new", "c", "d", "d/x"]);
    assert_eq!(index.nodes[&b"d"[..]], Node::Directory);
    index.add_entries(&[Entry { kind: Kind::Opaque, ..Entry::directory("", 0) }, Entry::file("only", 0o644, 0)]);
    assert_eq!(index.len(), 1);
}

#[test]
fn a_damaged_cache_is_noticed() {
    let bytes = usr_merged().to_bytes();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(PathIndex::from_bytes(&damaged), Err(InvalidIndex), "byte {at}");
        assert_eq!(PathIndex::from_bytes(&bytes[..at]), Err(InvalidIndex), "cut at {at}");
    }
}

fn any_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["[a-c]", "[a-z]{1,4}", Just("..".to_owned())], 1..5)
        .prop_map(|parts| parts.join("/"))
}

fn any_layer() -> impl Strategy<Value = Vec<Entry>> {
    let plain = proptest::collection::vec("[a-c]{1,2}", 1..4).prop_map(|parts| parts.join("/"));
    let entry = (plain, any_path(), 0..5_u8, any::<bool>()).prop_map(|(path, target, kind, absolute)| match kind {
        0 | 1 => Entry::directory(&path, 0o755),
        2 => Entry::file(&path, 0o644, 0),
        3 => Entry::whiteout(&path),
        _ => Entry::symlink(&path, &if absolute { format!("/{target}") } else { target }),
    });
    proptest::collection::vec(entry, 0..30)
}

proptest! {
    #[test]
    fn the_index_reads_back_from_its_bytes(layers in proptest::collection::vec(any_layer(), 0..3)) {
        let mut index = PathIndex::default();
        for layer in &layers {
            index.add_entries(layer);
        }
        prop_assert_eq!(PathIndex::from_bytes(&index.to_bytes()), Ok(index));
    }

    #[test]
    fn a_placement_never_goes_through_a_link_and_never_leaves_the_root(
        layers in proptest::collection::vec(any_layer(), 1..3),
        target in any_path(),
    ) {
        let mut index = PathIndex::default();
        for layer in &layers {
            index.add_entries(layer);
        }
        if let Ok(place) = index.resolve(&target) {
            let components: Vec<&str> = place.path.split('/').collect();
            prop_assert!(!components.contains(&"..") && !place.path.starts_with('/'), "{}", place.path);
            for end in 1..components.len() {
                let parent = components[..end].join("/");
                let node = index.nodes.get(parent.as_bytes());
                let listed = place.missing.contains(&parent);
                prop_assert!(
                    matches!((node, listed), (Some(Node::Directory), false) | (None, true)),
                    "{parent} of {} is {node:?}, listed: {listed}", place.path
                );
            }
        }
    }

    #[test]
    fn no_bytes_make_the_index_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        use sha2::Digest as _;
        let mut bytes = b"workshop path index 1\n".to_vec();
        bytes.extend(body);
        let digest = sha2::Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        let _ = PathIndex::from_bytes(&bytes);
    }
}
