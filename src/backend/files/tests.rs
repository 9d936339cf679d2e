//! The worker, asked as the backend asks it, with the rights of the test.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::protocol::{Answer, EntryKind, FailureKind, MAX_CONTENT, Request};
use super::{archive, worker};

/// The answer to one request, with its body.
fn ask(request: &Request, body: &[u8]) -> (Answer, Vec<u8>) {
    let head = serde_json::to_vec(request).unwrap();
    let mut input = Vec::new();
    for part in [&head[..], body] {
        input.write_all(&(part.len() as u32).to_be_bytes()).unwrap();
        input.write_all(part).unwrap();
    }
    let mut output = Vec::new();
    worker::serve(Cursor::new(input), &mut output).unwrap();
    let part = |bytes: &[u8]| {
        let (length, rest) = bytes.split_at(4);
        let (part, rest) = rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
        (part.to_vec(), rest.to_vec())
    };
    let (head, rest) = part(&output);
    let (body, rest) = part(&rest);
    assert!(rest.is_empty());
    (serde_json::from_slice(&head).unwrap(), body)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>, FailureKind> {
    match ask(&Request::Read { path: text(path) }, b"") {
        (Answer::Content { .. }, body) => Ok(body),
        (Answer::Failed { kind, .. }, _) => Err(kind),
        other => panic!("{other:?}"),
    }
}

fn write(path: &Path, if_match: Option<&str>, is_new: bool, content: &[u8]) -> Result<String, FailureKind> {
    let request = Request::Write { path: text(path), if_match: if_match.map(str::to_owned), is_new };
    match ask(&request, content) {
        (Answer::Content { tag }, _) => Ok(tag),
        (Answer::Failed { kind, .. }, _) => Err(kind),
        other => panic!("{other:?}"),
    }
}

fn done(request: &Request) -> Result<(), FailureKind> {
    match ask(request, b"").0 {
        Answer::Done => Ok(()),
        Answer::Failed { kind, .. } => Err(kind),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_written_whole_and_only_as_the_client_last_saw_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sh");
    let first = write(&path, None, true, b"one").unwrap();
    assert_eq!(write(&path, None, true, b"two"), Err(FailureKind::Changed));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o751)).unwrap();
    let second = write(&path, Some(&first), false, b"two").unwrap();
    assert_eq!(write(&path, Some(&first), false, b"three"), Err(FailureKind::Changed));
    assert_eq!(read(&path).unwrap(), b"two");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o751);
    assert_ne!(first, second);
    assert_eq!(write(&directory.path().join("none"), Some(&first), false, b""), Err(FailureKind::Changed));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn links_are_written_through_and_keep_being_links() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "one").unwrap();
    symlink("file", &link).unwrap();
    write(&link, None, false, b"two").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"two");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    done(&Request::Remove { path: text(&link) }).unwrap();
    assert!(file.exists());
}

#[test]
fn a_file_with_two_names_keeps_both() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    fs::write(&one, "a long text").unwrap();
    fs::hard_link(&one, &two).unwrap();
    write(&one, None, false, b"b").unwrap();
    assert_eq!(fs::read(&two).unwrap(), b"b");
}

#[test]
fn the_trees_of_the_system_and_the_backend_are_closed_whatever_leads_there() {
    let directory = tempfile::tempdir().unwrap();
    symlink("/proc/self", directory.path().join("self")).unwrap();
    symlink("/", directory.path().join("root")).unwrap();
    for path in ["/proc/self/environ", "/sys/kernel/version", "/dev/null", "/workshop/state/workshop.db"] {
        assert_eq!(read(Path::new(path)), Err(FailureKind::Forbidden), "{path}");
    }
    assert_eq!(read(&directory.path().join("self/environ")), Err(FailureKind::Forbidden));
    assert_eq!(read(&directory.path().join("root/dev/null")), Err(FailureKind::Forbidden));
    assert_eq!(write(&directory.path().join("root/dev/x"), None, false, b""), Err(FailureKind::Forbidden));
    assert_eq!(done(&Request::Directory { path: text(&directory.path().join("self/x")) }), Err(FailureKind::Forbidden));
    for path in ["", "a", "../a", "/home/../etc/passwd", "/a\0b"] {
        assert_eq!(read(Path::new(path)), Err(FailureKind::Path), "{path:?}");
    }
    assert_eq!(done(&Request::Remove { path: "/".into() }), Err(FailureKind::Forbidden));
}

#[test]
fn what_is_no_file_is_not_opened_and_what_is_too_large_not_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    assert_eq!(read(&pipe), Err(FailureKind::Conflict));
    assert_eq!(write(&pipe, None, false, b"x"), Err(FailureKind::Conflict));
    assert_eq!(read(directory.path()), Err(FailureKind::Conflict));
    let large = directory.path().join("large");
    fs::File::create(&large).unwrap().set_len(MAX_CONTENT as u64 + 1).unwrap();
    assert_eq!(read(&large), Err(FailureKind::TooLarge));
    assert_eq!(read(&directory.path().join("none")), Err(FailureKind::NotFound));
}

#[test]
fn directories_are_listed_made_moved_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&directory.path().join(name));
    done(&Request::Directory { path: at("d") }).unwrap();
    assert_eq!(done(&Request::Directory { path: at("d") }), Err(FailureKind::Conflict));
    write(&directory.path().join("d/f"), None, false, b"1234").unwrap();
    symlink("f", directory.path().join("d/l")).unwrap();
    done(&Request::Move { from: at("d"), to: at("e") }).unwrap();
    fs::write(at("x"), "").unwrap();
    assert_eq!(done(&Request::Move { from: at("e"), to: at("x") }), Err(FailureKind::Conflict));
    let (Answer::Entries { entries, .. }, _) = ask(&Request::List { path: at("e") }, b"") else { panic!("no entries") };
    let found: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.kind, entry.size)).collect();
    assert_eq!(found, [("f", EntryKind::File, 4), ("l", EntryKind::Symlink, 1)]);
    assert_eq!((entries[1].target.as_deref(), entries[0].mode.as_str()), (Some("f"), "0644"));
    done(&Request::Remove { path: at("e") }).unwrap();
    assert_eq!(done(&Request::Remove { path: at("e") }), Err(FailureKind::NotFound));
}

#[test]
fn an_archive_has_files_and_links_and_nothing_from_outside() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    fs::create_dir_all(home.join("d")).unwrap();
    fs::write(home.join("d/f"), "text").unwrap();
    symlink("/etc/passwd", home.join("link")).unwrap();
    let mut bytes = Vec::new();
    archive::write(&mut bytes, &home).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
    let mut found: Vec<(String, u64)> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path().unwrap().to_string_lossy().into_owned(), entry.size()))
        .collect();
    found.sort();
    let expected = [("home", 0), ("home/d", 0), ("home/d/f", 4), ("home/link", 0)];
    assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
    assert!(archive::write(Vec::new(), Path::new("/proc/self")).is_err());
}

#[test]
fn nonsense_ends_the_worker() {
    for input in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{}\0\0\0\0", b"\0\0\0\x05{"] {
        assert!(worker::serve(Cursor::new(input), Vec::new()).is_err(), "{input:?}");
    }
    assert!(worker::serve(Cursor::new(b""), Vec::new()).is_ok());
}
