//! The runtime on the real kernel, with the real `runc` and Debian's static busybox; as root.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::domain::layer::{Entry, Kind, LayerWriter, Workers, decompress, read_entries};

/// Long enough for a loaded machine, short enough for a test that hangs.
const DEADLINE: Duration = Duration::from_secs(30);

struct Fixture {
    state: tempfile::TempDir,
    runtime: Runtime,
}

impl Fixture {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let runtime = Runtime::open(state.path()).expect("runtime tests need root and runc (apt-get install runc)");
        Self { state, runtime }
    }

    /// Writes a layer of these entries and unpacks it on `parents`.
    fn layer(&self, entries: &[(Entry, &str)], parents: &[PathBuf]) -> Result<PathBuf, RuntimeError> {
        let mut writer = LayerWriter::new(Vec::new(), u64::MAX, Workers::Here);
        let mut entries: Vec<_> = entries.to_vec();
        entries.sort_by(|left, right| crate::domain::layer::order(&left.0, &right.0));
        for (entry, content) in &entries {
            writer.append(entry, Cursor::new(content)).unwrap();
        }
        let (bytes, blob) = writer.finish().unwrap();
        self.raw(&bytes, blob.diff_id, parents)
    }

    fn raw(&self, bytes: &[u8], diff_id: Digest, parents: &[PathBuf]) -> Result<PathBuf, RuntimeError> {
        self.runtime.unpack(Digest::of(format!("{diff_id}{parents:?}").as_bytes()), diff_id, bytes, parents)
    }

    /// A layer with busybox as `/bin/sh`.
    fn busybox(&self) -> PathBuf {
        let bytes = fs::read("/bin/busybox").expect("these tests need busybox-static (apt-get install busybox-static)");
        let mut writer = LayerWriter::new(Vec::new(), 0, Workers::Here);
        writer.append(&Entry::directory("bin", 0o755), Cursor::new("")).unwrap();
        writer.append(&Entry::file("bin/busybox", 0o755, bytes.len() as u64), Cursor::new(&bytes)).unwrap();
        for name in [
            "cat", "chmod", "chown", "echo", "false", "hostname", "id", "ln", "ls", "mkdir", "mv", "nc", "rm", "sh",
            "sleep", "touch", "true", "yes",
        ] {
            writer.append(&Entry::symlink(&format!("bin/{name}"), "busybox"), Cursor::new("")).unwrap();
        }
        let (bytes, blob) = writer.finish().unwrap();
        self.raw(&bytes, blob.diff_id, &[]).unwrap()
    }
}

fn limits() -> Limits {
    Limits { timeout: DEADLINE, memory: 256 << 20, processes: 64, output: 1 << 20, network: false }
}

async fn run(fixture: &Fixture, rootfs: &mut Rootfs, text: &str, limits: Limits) -> Result<Ended, RuntimeError> {
    let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
    let command = CommandSpec { shell: &shell, text, env: &[], directory: "", user: "", limits };
    let log = fixture.state.path().join("log");
    fixture.runtime.run(rootfs, &command, &log, std::future::pending()).await
}

/// `path kind mode uid:gid` of every change.
fn listing(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| {
            let entry = &change.entry;
            let kind = match &entry.kind {
                Kind::Directory => "directory".to_owned(),
                Kind::File { .. } => {
                    format!("file {:?}", fs::read_to_string(change.content.as_ref().unwrap()).unwrap())
                }
                Kind::Symlink { target } => format!("link {}", String::from_utf8_lossy(target)),
                Kind::HardLink { target } => format!("hard link {}", String::from_utf8_lossy(target)),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("{} {kind} {:o} {}:{}", String::from_utf8_lossy(&entry.path), entry.mode, entry.uid, entry.gid)
        })
        .collect()
}

#[tokio::test]
async fn what_commands_change_becomes_the_layer_and_nothing_else() {
    let fixture = Fixture::new();
    let base = fixture.busybox();
    let data = fixture
        .layer(
            &[
                (Entry::directory("data", 0o750).owned_by(5, 6), ""),
                (Entry::file("data/a", 0o600, 1).owned_by(5, 6), "a"),
                (Entry::file("data/b", 0o644, 1), "b"),
                (Entry::directory("data/sub", 0o755), ""),
                (Entry::file("data/sub/c", 0o644, 1), "c"),
                (Entry::directory("data/sub/deep", 0o755), ""),
                (Entry::file("data/sub/deep/d", 0o644, 1), "d"),
            ],
            std::slice::from_ref(&base),
        )
        .unwrap();
    let data_line = "data directory 750 5:6";
    let rows: [(&str, &[&str]); 14] = [
        ("true", &[]),
        ("touch /data/a && touch /x && rm /x", &[]),
        ("chmod 600 /data/b && chmod 644 /data/b", &[]),
        ("echo new > /data/n", &[data_line, "data/n file \"new\\n\" 644 0:0"]),
        ("echo -n z > /data/a", &[data_line, "data/a file \"z\" 600 5:6"]),
        ("chmod 4755 /data/b", &[data_line, "data/b file \"b\" 4755 0:0"]),
        ("rm /data/b", &[data_line, "data/b whiteout 0 0:0"]),
        ("rm -r /data/sub", &[data_line, "data/sub whiteout 0 0:0"]),
        (
            "rm -r /data/sub && mkdir /data/sub && echo -n e > /data/sub/e",
            &[
                data_line,
                "data/sub directory 755 0:0",
                "data/sub/c whiteout 0 0:0",
                "data/sub/deep whiteout 0 0:0",
                "data/sub/e file \"e\" 644 0:0",
            ],
        ),
        (
            "rm -r /data/sub && mkdir -p /data/sub/deep && echo -n e > /data/sub/deep/e",
            &[
                data_line,
                "data/sub directory 755 0:0",
                "data/sub/c whiteout 0 0:0",
                "data/sub/deep directory 755 0:0",
                "data/sub/deep/d whiteout 0 0:0",
                "data/sub/deep/e file \"e\" 644 0:0",
            ],
        ),
        ("rm -r /data/sub && echo -n f > /data/sub", &[data_line, "data/sub file \"f\" 644 0:0"]),
        (
            "mkdir /h && echo -n h > /h/z && ln /h/z /h/a && ln -s z /h/s",
            &["h directory 755 0:0", "h/a file \"h\" 644 0:0", "h/s link z 777 0:0", "h/z hard link h/a 644 0:0"],
        ),
        (
            "mv /data/sub /moved",
            &[
                data_line,
                "data/sub whiteout 0 0:0",
                "moved directory 755 0:0",
                "moved/c file \"c\" 644 0:0",
                "moved/deep directory 755 0:0",
                "moved/deep/d file \"d\" 644 0:0",
            ],
        ),
        ("mkdir -p /a/b && chown 7:8 /a/b", &["a directory 755 0:0", "a/b directory 755 7:8"]),
    ];
    for (text, expected) in rows {
        let mut rootfs = fixture.runtime.mount(&[base.clone(), data.clone()]).unwrap();
        for network in [true, false] {
            let text = if network { text } else { "true" };
            let ended = run(&fixture, &mut rootfs, text, Limits { network, ..limits() }).await.unwrap();
            assert_eq!(ended.exit, Exit::Code(0), "{text}: {:?}", ended.last_lines);
        }
        assert_eq!(listing(&rootfs.changes().unwrap()), expected, "{text}");
    }
}

#[tokio::test]
async fn a_layer_made_of_changes_gives_the_same_tree_again() {
    let fixture = Fixture::new();
    let base = fixture.busybox();
    let mut rootfs = fixture.runtime.mount(std::slice::from_ref(&base)).unwrap();
    let text = "mkdir -p /opt/x && echo 1 > /opt/x/f && ln /opt/x/f /opt/g && chown 3:4 /opt/x && chmod 2711 /opt/x && rm /bin/yes";
    assert_eq!(run(&fixture, &mut rootfs, text, limits()).await.unwrap().exit, Exit::Code(0));
    let mut writer = LayerWriter::new(Vec::new(), 0, Workers::Here);
    for change in rootfs.changes().unwrap() {
        match &change.content {
            Some(content) => writer.append(&change.entry, fs::File::open(content).unwrap()).unwrap(),
            None => writer.append(&change.entry, io::empty()).unwrap(),
        }
    }
    let (bytes, blob) = writer.finish().unwrap();
    drop(rootfs);
    let layer = fixture.raw(&bytes, blob.diff_id, std::slice::from_ref(&base)).unwrap();
    let again = fixture.runtime.mount(&[base, layer]).unwrap();
    let root = again.path();
    assert!(!root.join("bin/yes").exists() && root.join("bin/sh").exists());
    let data = fs::metadata(root.join("opt/x")).unwrap();
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o7777), (3, 4, 0o2711));
    let (one, other) = (fs::metadata(root.join("opt/x/f")).unwrap(), fs::metadata(root.join("opt/g")).unwrap());
    assert_eq!((one.ino(), one.mtime()), (other.ino(), 0));
    assert_eq!(listing(&again.changes().unwrap()), Vec::<String>::new());
}

#[tokio::test]
async fn commands_see_the_image_and_not_the_machine() {
    let fixture = Fixture::new();
    let base = fixture.busybox();
    let accounts = fixture
        .layer(
            &[
                (Entry::directory("etc", 0o755), ""),
                (Entry::file("etc/passwd", 0o644, 42), "learner:x:1000:1000::/home/learner:/bin/sh"),
                (Entry::file("etc/group", 0o644, 19), "tools:x:50:learner\n"),
            ],
            std::slice::from_ref(&base),
        )
        .unwrap();
    let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
    let env = ["GREETING=hello there".to_owned()];
    let rows = [
        ("hostname", "", vec!["workshop"]),
        ("echo $GREETING; echo $HOME; echo $PWD", "", vec!["hello there", "/root", "/work"]),
        ("id -u; id -g; id -G; echo $HOME", "learner", vec!["1000", "1000", "1000 50", "/home/learner"]),
        ("echo out; echo err >&2", "", vec!["out", "err"]),
        ("cat", "", vec![]),
    ];
    for (text, user, expected) in rows {
        let mut rootfs = fixture.runtime.mount(&[base.clone(), accounts.clone()]).unwrap();
        let command = CommandSpec { shell: &shell, text, env: &env, directory: "/work", user, limits: limits() };
        let log = fixture.state.path().join("log");
        let ended = fixture.runtime.run(&mut rootfs, &command, &log, std::future::pending()).await.unwrap();
        assert_eq!(
            (ended.exit, ended.last_lines),
            (Exit::Code(0), expected.iter().map(|line| (*line).to_owned()).collect()),
            "{text}"
        );
        assert_eq!(listing(&rootfs.changes().unwrap()), Vec::<String>::new(), "{text}");
    }
}

#[tokio::test]
async fn a_command_that_must_end_is_gone_with_all_its_processes() {
    let fixture = Fixture::new();
    let base = fixture.busybox();
    let slow = Limits { timeout: Duration::from_millis(700), ..limits() };
    let rows = [
        ("exit 3", limits(), Exit::Code(3)),
        // The first process of a container is immune to its own signals.
        ("sh -c 'kill -9 $$'; exit $?", limits(), Exit::Code(137)),
        ("sleep 4321 & sleep 4321", slow, Exit::TimedOut(slow.timeout)),
        ("yes", limits(), Exit::TooMuchOutput(1 << 20)),
        ("(trap '' TERM HUP INT; sleep 4321) & echo started", limits(), Exit::Code(0)),
    ];
    for (text, limits, expected) in rows {
        let mut rootfs = fixture.runtime.mount(std::slice::from_ref(&base)).unwrap();
        let before = Instant::now();
        assert_eq!(run(&fixture, &mut rootfs, text, limits).await.unwrap().exit, expected, "{text}");
        assert!(before.elapsed() < DEADLINE, "{text}");
        assert!(!is_running("4321"), "{text}");
    }
    let mut rootfs = fixture.runtime.mount(&[base]).unwrap();
    let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
    let command =
        CommandSpec { shell: &shell, text: "sleep 4321", env: &[], directory: "", user: "", limits: limits() };
    let log = fixture.state.path().join("log");
    let cancel = async {
        while !is_running("4321") {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    let result = fixture.runtime.run(&mut rootfs, &command, &log, cancel).await;
    assert!(matches!(result, Err(RuntimeError::Cancelled)), "{result:?}");
    assert!(!is_running("4321"));
}

/// True when a process has this argument.
fn is_running(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        fs::read(process.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).skip(1).any(|given| given == argument.as_bytes()))
    })
}

#[tokio::test]
async fn an_image_that_cannot_run_the_command_is_told_from_a_failing_command() {
    let fixture = Fixture::new();
    let empty = fixture.layer(&[(Entry::directory("etc", 0o755), "")], &[]).unwrap();
    let mut rootfs = fixture.runtime.mount(&[empty]).unwrap();
    let error = run(&fixture, &mut rootfs, "true", limits()).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Start(reason) if reason.contains("/bin/sh")), "{error}");
}

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
