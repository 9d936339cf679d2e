//! Layers on the disk: unpacked, looked at, mounted, refused and cleaned up.

use std::fs;
use std::io::{self, Cursor};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use super::Fixture;
use crate::adapters::runtime::{Runtime, RuntimeError, capture, lower, xattr};
use crate::domain::digest::Digest;
use crate::domain::layer::{Entry, Kind, LayerWriter, Workers, decompress, read_entries};

#[test]
fn layers_unpack_as_overlay_wants_them() {
    let fixture = Fixture::new();
    let below = fixture
        .layer(
            &[
                (Entry::directory("home", 0o711).owned_by(9, 9), ""),
                (Entry::directory("home/learner", 0o700).owned_by(1000, 1000), ""),
                (Entry::file("home/learner/old", 0o644, 1), "o"),
                (Entry::directory("gone", 0o755), ""),
                (Entry::file("gone/f", 0o644, 1), "f"),
            ],
            &[],
        )
        .unwrap();
    let mut capable = Entry::file("ping", 0o755, 1);
    capable.xattrs.insert(
        b"security.capability".to_vec(),
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec(),
    );
    capable.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    let mut opaque = Entry::directory("gone", 0);
    opaque.kind = Kind::Opaque;
    let mut device = Entry::file("null", 0o666, 0);
    device.kind = Kind::Character { major: 1, minor: 3 };
    let above = fixture
        .layer(
            &[
                (Entry::file("home/learner/new", 0o600, 1).owned_by(1000, 1000), "n"),
                (Entry::whiteout("home/learner/old"), ""),
                (Entry::directory("gone", 0o755), ""),
                (opaque, ""),
                (capable, "p"),
                (device, ""),
                (Entry::symlink("link", "/etc/passwd"), ""),
            ],
            std::slice::from_ref(&below),
        )
        .unwrap();
    let rootfs = fixture.runtime.mount(&[below.clone(), above.clone()]).unwrap();
    let root = rootfs.path();
    for (path, mode, owner) in [("home", 0o711, 9), ("home/learner", 0o700, 1000)] {
        let data = fs::metadata(root.join(path)).unwrap();
        assert_eq!((data.mode() & 0o7777, data.uid()), (mode, owner), "{path}, which the upper layer leaves out");
    }
    assert!(!root.join("home/learner/old").exists() && root.join("home/learner/new").exists());
    assert_eq!(fs::read_dir(root.join("gone")).unwrap().count(), 0);
    assert_eq!(fs::metadata(root.join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/passwd"));
    let attributes = xattr::read(&above.join("ping")).unwrap();
    assert_eq!(
        attributes.keys().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>(),
        ["security.capability"]
    );
    assert!(!xattr::is_opaque(&above.join("ping")));
}

#[test]
fn the_lookup_over_layers_agrees_with_overlay() {
    let fixture = Fixture::new();
    let one = fixture
        .layer(
            &[
                (Entry::directory("d", 0o755), ""),
                (Entry::file("d/a", 0o644, 1), "1"),
                (Entry::file("d/b", 0o644, 1), "1"),
                (Entry::file("f", 0o644, 1), "1"),
            ],
            &[],
        )
        .unwrap();
    let two = fixture
        .layer(
            &[
                (Entry::directory("d", 0o755), ""),
                (Entry::whiteout("d/a"), ""),
                (Entry::file("d/c", 0o644, 1), "2"),
                (Entry::directory("f", 0o755), ""),
                (Entry::file("f/x", 0o644, 1), "2"),
            ],
            std::slice::from_ref(&one),
        )
        .unwrap();
    let mut opaque = Entry::directory("d", 0);
    opaque.kind = Kind::Opaque;
    let three = fixture
        .layer(
            &[(Entry::directory("d", 0o755), ""), (opaque, ""), (Entry::file("d/e", 0o644, 1), "3")],
            &[one.clone(), two.clone()],
        )
        .unwrap();
    for layers in [vec![one.clone()], vec![one.clone(), two.clone()], vec![one, two, three]] {
        let rootfs = fixture.runtime.mount(&layers).unwrap();
        let root = rootfs.path();
        for directory in ["", "d", "f", "none"] {
            let shown: std::collections::BTreeSet<_> = fs::read_dir(root.join(directory))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name())
                .collect();
            assert_eq!(lower::names(&layers, Path::new(directory)), shown, "{directory} of {} layers", layers.len());
        }
        for path in ["d", "d/a", "d/b", "d/c", "d/e", "f", "f/x", "none/x"] {
            assert_eq!(
                lower::lookup(&layers, Path::new(path)).is_some(),
                root.join(path).exists(),
                "{path} of {} layers",
                layers.len()
            );
        }
    }
}

#[test]
fn hostile_layers_are_refused_and_leave_nothing() {
    let fixture = Fixture::new();
    let canary = fixture.state.path().join("canary");
    fs::create_dir(&canary).unwrap();
    let tar = |build: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    };
    let raw_entry = |builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(kind);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    };
    use tar::EntryType::{Char, Directory, Link, Regular, Symlink};
    let escape = canary.display().to_string();
    let refused: [(&str, Vec<u8>); 5] = [
        ("leads out", tar(&|b| raw_entry(b, "../canary/x", Regular, ""))),
        ("hard link out", tar(&|b| raw_entry(b, "h", Link, "../../etc/passwd"))),
        ("hard link to nothing", tar(&|b| raw_entry(b, "h", Link, "etc/passwd"))),
        ("device 0:0", tar(&|b| raw_entry(b, "zero", Char, ""))),
        ("no tar", b"this is no tar at all, but long enough to be looked at".repeat(20)),
    ];
    for (what, bytes) in refused {
        let error = fixture.raw(&bytes, Digest::of(&bytes), &[]);
        assert!(matches!(error, Err(RuntimeError::BadLayer { .. })), "{what}: {error:?}");
    }
    let bytes = tar(&|b| raw_entry(b, "x", Regular, ""));
    assert!(matches!(fixture.raw(&bytes, Digest::of(b"other"), &[]), Err(RuntimeError::BadLayer { .. })));
    assert_eq!(fs::read_dir(fixture.state.path().join("layers")).unwrap().count(), 0);

    // Links inside of the image are followed inside of it.
    let bytes = tar(&|b| {
        raw_entry(b, "out", Symlink, &escape);
        raw_entry(b, "out/x", Regular, "");
        raw_entry(b, "up", Symlink, "../../../../../..");
        raw_entry(b, "up/tmp", Directory, "");
    });
    let layer = fixture.raw(&bytes, Digest::of(&bytes), &[]).unwrap();
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
    assert!(layer.join("tmp").is_dir());
}

#[test]
fn times_are_set_inside_of_the_layer_only() {
    let fixture = Fixture::new();
    let outside = fixture.state.path().join("outside");
    fs::create_dir_all(outside.join("victim")).unwrap();
    let before = fs::metadata(outside.join("victim")).unwrap().mtime();
    // The link leads to a directory that both the machine and the layer have.
    let path = outside.display().to_string();
    let mut builder = tar::Builder::new(Vec::new());
    let mut directory = |name: &str, link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        match link {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, name, target).unwrap();
            }
            None => {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, name, io::empty()).unwrap();
            }
        }
    };
    directory(path.trim_start_matches('/'), None);
    directory("out", Some(&path));
    directory("out/victim", None);
    let bytes = builder.into_inner().unwrap();
    let layer = fixture.raw(&bytes, Digest::of(&bytes), &[]).unwrap();
    assert_eq!(fs::metadata(outside.join("victim")).unwrap().mtime(), before);
    let inside = layer.join(path.trim_start_matches('/')).join("victim");
    assert_eq!(fs::metadata(inside).unwrap().mtime(), 7);
}

#[test]
fn other_users_of_the_machine_reach_nothing_that_an_image_brings() {
    let fixture = Fixture::new();
    for directory in ["layers", "run"] {
        let mode = fs::metadata(fixture.state.path().join(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{directory}");
    }
}

#[test]
fn a_socket_is_left_out_and_what_it_replaced_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (upper, below) = (directory.path().join("upper"), directory.path().join("below"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&below).unwrap();
    fs::write(below.join("old"), "x").unwrap();
    for name in ["old", "new"] {
        std::os::unix::net::UnixListener::bind(upper.join(name)).unwrap();
    }
    let changes = capture::capture(&upper, &[below], &std::collections::BTreeSet::new()).unwrap();
    let found: Vec<_> = changes.into_iter().map(|change| (change.entry.display_path(), change.entry.kind)).collect();
    assert_eq!(found, [("/old".to_owned(), Kind::Whiteout)]);
}

#[test]
fn a_layer_is_unpacked_once_however_many_ask() {
    let fixture = Fixture::new();
    let mut writer = LayerWriter::new(Vec::new(), 0, Workers::Here);
    writer.append(&Entry::file("f", 0o644, 4), Cursor::new("once")).unwrap();
    let (bytes, blob) = writer.finish().unwrap();
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let ask = || {
            fs::metadata(fixture.runtime.unpack(blob.diff_id, blob.diff_id, bytes.as_slice(), &[]).unwrap())
                .unwrap()
                .ino()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(inodes.windows(2).all(|pair| pair[0] == pair[1]), "{inodes:?}");
    assert_eq!(
        fixture.runtime.unpacked(blob.diff_id),
        Some(fixture.state.path().join("layers").join(blob.diff_id.hex()))
    );
}

#[test]
fn a_hundred_layers_are_mounted() {
    let fixture = Fixture::new();
    let layers: Vec<PathBuf> = (0..100)
        .map(|index| fixture.layer(&[(Entry::file(&format!("f{index}"), 0o644, 1), "x")], &[]).unwrap())
        .collect();
    let rootfs = fixture.runtime.mount(&layers).unwrap();
    assert_eq!(fs::read_dir(rootfs.path()).unwrap().count(), 100);
}

#[test]
fn what_a_killed_process_left_mounted_is_taken_down_at_the_next_start() {
    let fixture = Fixture::new();
    let layer = fixture.layer(&[(Entry::file("f", 0o644, 1), "x")], &[]).unwrap();
    let rootfs = fixture.runtime.mount(&[layer]).unwrap();
    let merged = rootfs.path();
    // What a kill leaves: the mount is there, the lock is free.
    std::mem::forget(rootfs);
    let run = fixture.state.path().join("run");
    let own = fs::read_dir(&run).unwrap().next().unwrap().unwrap().path();
    let stale = run.join("1-1");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("lock"), "").unwrap();
    let moved = stale.join("merged");
    fs::create_dir(&moved).unwrap();
    rustix::mount::mount_bind(&merged, &moved).unwrap();
    let second = Runtime::open(fixture.state.path()).unwrap();
    assert!(!stale.exists());
    assert!(merged.join("f").exists() && own.exists(), "a living process keeps its mounts");
    drop(second);
    let path = fixture.state.path().to_owned();
    drop(fixture.runtime);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(path.to_str().unwrap()), "{table}");
}

#[test]
fn entries_read_back_as_they_were_written() {
    let fixture = Fixture::new();
    let upper = fixture.state.path().join("plain");
    fs::create_dir_all(upper.join("dir")).unwrap();
    fs::write(upper.join("dir/file"), "text").unwrap();
    fs::set_permissions(upper.join("dir/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    chown(upper.join("dir"), Some(12), Some(34)).unwrap();
    symlink("file", upper.join("dir/link")).unwrap();
    let changes = capture::capture(&upper, &[], &Default::default()).unwrap();
    let mut writer = LayerWriter::new(Vec::new(), u64::MAX, Workers::Here);
    for change in &changes {
        match &change.content {
            Some(content) => writer.append(&change.entry, fs::File::open(content).unwrap()).unwrap(),
            None => writer.append(&change.entry, io::empty()).unwrap(),
        }
    }
    let (bytes, _) = writer.finish().unwrap();
    let mut back = Vec::new();
    read_entries::<crate::domain::layer::LayerReadError>(
        decompress(bytes.as_slice()).unwrap(),
        Default::default(),
        |entry, _| {
            back.push(entry.clone());
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(back, changes.into_iter().map(|change| change.entry).collect::<Vec<_>>());
}
