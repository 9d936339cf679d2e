//! What is written reads back, the same bytes every time; what others wrote is read within its limits.

use std::io::{self, Read as _, Write as _};

use proptest::prelude::*;

use super::*;
use crate::domain::digest::Digest;

fn threads(count: usize) -> Workers {
    Workers::Spawn { count, spawn: |job| drop(std::thread::spawn(job)) }
}

fn write(entries: &[(Entry, Vec<u8>)], workers: Workers) -> Result<(Vec<u8>, LayerBlob), LayerError> {
    let mut writer = LayerWriter::new(Vec::new(), 1000, workers);
    for (entry, content) in entries {
        writer.append(entry, content.as_slice())?;
    }
    writer.finish()
}

fn read(blob: &[u8], limits: Limits) -> Result<Vec<(Entry, Vec<u8>)>, LayerReadError> {
    let mut entries = Vec::new();
    read_entries(decompress(blob)?, limits, |entry, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        entries.push((entry.clone(), bytes));
        Ok::<_, LayerReadError>(())
    })?;
    Ok(entries)
}

fn plain(entries: impl IntoIterator<Item = Entry>) -> Vec<(Entry, Vec<u8>)> {
    entries.into_iter().map(|entry| (entry, Vec::new())).collect()
}

#[test]
fn a_layer_has_these_bytes_forever() {
    let entries = [
        (Entry::directory("etc", 0o755), Vec::new()),
        (Entry::whiteout("etc/old"), Vec::new()),
        (Entry::file("etc/motd", 0o644, 6).owned_by(1000, 1000), b"hello\n".to_vec()),
        (Entry::symlink("sbin", "usr/sbin"), Vec::new()),
    ];
    let (bytes, blob) = write(&entries, Workers::Here).unwrap();
    assert_eq!(blob.digest, Digest::of(&bytes));
    let mut tar = Vec::new();
    decompress(bytes.as_slice()).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!((blob.diff_id, blob.tar_size), (Digest::of(&tar), tar.len() as u64));
    assert_eq!(
        blob.diff_id.to_string(),
        "sha256:cc71e6045d944bb01f03317a03677685c14950e0b8cbe4f41fecd1212d846af5",
        "a change of these bytes rebuilds every image: raise FORMAT_VERSION with it"
    );
}

#[test]
fn the_number_of_threads_does_not_show() {
    let content: Vec<u8> = (0..5_000_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    let entries = [(Entry::file("big", 0o644, content.len() as u64), content)];
    let alone = write(&entries, Workers::Here).unwrap();
    assert_eq!(write(&entries, threads(1)).unwrap(), alone);
    assert_eq!(write(&entries, threads(5)).unwrap(), alone);
    assert_eq!(read(&alone.0, Limits::default()).unwrap(), entries);
}

#[test]
fn the_gzip_header_tells_nothing_of_the_machine() {
    let (bytes, _) = write(&plain([Entry::directory("a", 0o755)]), Workers::Here).unwrap();
    assert_eq!(bytes[..4], [0x1f, 0x8b, 8, 0]);
    assert_eq!((&bytes[4..8], bytes[9]), (&[0; 4][..], 255));
}

#[test]
fn removals_come_before_their_siblings_and_parents_before_children() {
    let mut entries = [
        Entry::directory("a/b", 0o755),
        Entry::file("a/b/c", 0o644, 0),
        Entry::file("a/!first", 0o644, 0),
        Entry::whiteout("a/z"),
        Entry { kind: Kind::Opaque, ..Entry::directory("a/b", 0) },
        Entry::directory("a", 0o755),
        Entry::directory("a.d", 0o755),
    ];
    entries.sort_by(order);
    let names: Vec<_> = entries.iter().map(|entry| (entry.display_path(), entry.kind.clone())).collect();
    let expected = [
        ("/a", Kind::Directory),
        ("/a/z", Kind::Whiteout),
        ("/a/!first", Kind::File { size: 0 }),
        ("/a/b", Kind::Directory),
        ("/a/b", Kind::Opaque),
        ("/a/b/c", Kind::File { size: 0 }),
        ("/a.d", Kind::Directory),
    ];
    assert_eq!(names, expected.map(|(path, kind)| (path.to_owned(), kind)));
}

#[test]
fn entries_that_no_image_can_hold_are_refused() {
    let refused = |entries: Vec<(Entry, Vec<u8>)>| write(&entries, Workers::Here).unwrap_err().to_string();
    for (entries, expected) in [
        (plain([Entry::directory("b", 0), Entry::directory("a", 0)]), "\"/a\" comes twice or after an entry"),
        (plain([Entry::directory("a", 0), Entry::directory("a", 0)]), "\"/a\" comes twice or after an entry"),
        (plain([Entry::directory("a/../b", 0)]), "is no path inside of an image"),
        (plain([Entry::directory("", 0)]), "is no path inside of an image"),
        (plain([Entry::file("a/.wh.b", 0, 0)]), "mark removals"),
        (vec![(Entry::file("a", 0, 3), b"ab".to_vec())], "changed while it was read"),
        (vec![(Entry::file("a", 0, 3), b"abcd".to_vec())], "changed while it was read"),
    ] {
        let message = refused(entries);
        assert!(message.contains(expected), "{message}");
    }
}

fn foreign(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

/// A tar with one empty file whose name the library would not write.
fn named(name: &[u8], kind: tar::EntryType) -> Vec<u8> {
    foreign(|builder| {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    })
}

#[test]
fn hostile_layers_are_refused() {
    use tar::EntryType;
    let small = Limits { bytes: 1 << 14, entries: 2, names: 1 << 20 };
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let mut tar = foreign(|builder| {
            let mut header = tar::Header::new_ustar();
            header.set_size(1 << 20);
            header.set_cksum();
            builder.append_data(&mut header, "zeros", io::repeat(0).take(1 << 20)).unwrap();
        });
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        tar.clear();
        gz.finish().unwrap()
    };
    let many = foreign(|builder| {
        for index in 0..3 {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            builder.append_data(&mut header, index.to_string(), io::empty()).unwrap();
        }
    });
    // A few hundred bytes, and yet a tree of thousands of names that are thousands of bytes long.
    let deep = foreign(|builder| {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, "a/".repeat(1900) + "a", io::empty()).unwrap();
    });
    for (blob, expected) in [
        (deep, "more than 1048576 bytes of names"),
        (named(b"../up", EntryType::Regular), "\"../up\""),
        (named(b"a/../../up", EntryType::Regular), "\"a/../../up\""),
        (named(b"a/.wh...", EntryType::Regular), "\"/a/.wh...\""),
        (named(b"a/.wh.", EntryType::Regular), "\"/a/.wh.\""),
        (named(b"odd", EntryType::new(b'Z')), "unknown type 'Z'"),
        (named(b"link", EntryType::Symlink), "cannot read the layer"),
        (bomb, "more than 16384 bytes"),
        (many, "more than 2 entries"),
        (b"this is no tar at all, but long enough to fill a header block ".repeat(20), "cannot read the layer"),
        (vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, 2, 3], "cannot read the layer"),
    ] {
        let message = read(&blob, small).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}, not {expected}");
    }
}

#[test]
fn layers_of_other_tools_are_understood() {
    let tar = foreign(|builder| {
        for name in ["./a/.wh..wh..opq", "./a/.wh.gone", "./a/.wh..wh.plnk", "./a/kept"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o100_644);
            builder.append_data(&mut header, name, io::empty()).unwrap();
        }
        let long = format!("deep/{}", "x".repeat(300));
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, long, io::empty()).unwrap();
    });
    let expected = [
        ("/a".to_owned(), Kind::Opaque),
        ("/a/gone".to_owned(), Kind::Whiteout),
        ("/a/kept".to_owned(), Kind::File { size: 0 }),
        (format!("/deep/{}", "x".repeat(300)), Kind::File { size: 0 }),
    ];
    let zstd = zstd::encode_all(tar.as_slice(), 3).unwrap();
    let mut gzip = Vec::new();
    for half in tar.chunks(tar.len() / 2 + 1) {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        member.write_all(half).unwrap();
        gzip.extend(member.finish().unwrap());
    }
    for blob in [tar, zstd, gzip] {
        let entries = read(&blob, Limits::default()).unwrap();
        let found: Vec<_> = entries.iter().map(|(entry, _)| (entry.display_path(), entry.kind.clone())).collect();
        assert_eq!(found, expected);
        assert!(entries.iter().all(|(entry, _)| entry.mode <= 0o7777));
    }
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{1,12}".prop_map(String::into_bytes),
        "[a-z]{90,140}".prop_map(String::into_bytes),
        proptest::collection::vec(
            any::<u8>().prop_filter("no slash, no zero", |byte| !matches!(byte, 0 | b'/')),
            1..20
        ),
    ]
    .prop_filter("a name", |name| name != b"." && name != b".." && !name.starts_with(b".wh."))
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let path = proptest::collection::vec(any_name(), 1..5).prop_map(|names| names.join(&b'/'));
    let content = proptest::collection::vec(any::<u8>(), 0..2000);
    let target = proptest::collection::vec(any_name(), 1..4).prop_map(|names| names.join(&b'/'));
    let xattrs = proptest::collection::btree_map(
        "user\\.[a-z]{1,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..40),
        0..3,
    );
    (path, content, target, 0..9_u8, (any::<u32>(), any::<u32>(), 0..=1000_u64), 0..=0o7777_u32, xattrs).prop_map(
        |(path, content, target, kind, (uid, gid, mtime), mode, xattrs)| {
            let (major, minor) = (uid & 0xff, gid & 0xff);
            let kind = match kind {
                0 => Kind::Directory,
                1 => Kind::Symlink { target },
                2 => Kind::HardLink { target },
                3 => Kind::Character { major, minor },
                4 => Kind::Block { major, minor },
                5 => Kind::Fifo,
                6 => Kind::Whiteout,
                _ => Kind::File { size: content.len() as u64 },
            };
            let content = if matches!(kind, Kind::File { .. }) { content } else { Vec::new() };
            (Entry { path, kind, mode, uid: uid.into(), gid: gid.into(), mtime, xattrs }, content)
        },
    )
}

proptest! {
    #[test]
    fn every_entry_reads_back_as_it_was_written(entries in proptest::collection::vec(any_entry(), 0..12)) {
        let mut entries = entries;
        entries.sort_by(|left, right| order(&left.0, &right.0));
        entries.dedup_by(|left, right| order(&left.0, &right.0).is_eq());
        let (bytes, _) = write(&entries, threads(2)).unwrap();
        prop_assert_eq!(read(&bytes, Limits::default()).unwrap(), entries);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes, Limits { bytes: 1 << 20, entries: 100, names: 1 << 20 });
    }
}
