//! The runtime on the real kernel, with the real `runc` and Debian's static busybox; as root.

mod layers;

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::*;
use crate::domain::layer::{Entry, Kind, LayerWriter, Workers};

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
async fn the_kernel_holds_a_command_to_its_limits() {
    let fixture = Fixture::new();
    let base = fixture.busybox();
    let small = Limits { memory: 32 << 20, ..limits() };
    let few = Limits { processes: 8, ..limits() };
    let network = Limits { network: true, ..limits() };
    // Bit 13 of the capabilities, CAP_NET_RAW.
    let no_packets = "busybox grep -q '^CapBnd:.*[014589cd]...$' /proc/self/status";
    let rows = [
        ("busybox dd if=/dev/zero of=/dev/null bs=200M count=1", limits(), Some("")),
        ("busybox dd if=/dev/zero of=/dev/null bs=200M count=1", small, None),
        ("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait", limits(), Some("")),
        ("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait", few, Some("fork")),
        ("busybox mknod /disk b 8 0 && cat /disk", limits(), Some("not permitted")),
        ("echo 1 > /proc/sys/kernel/printk", limits(), Some("Read-only")),
        ("ls /sys/fs/cgroup/workshop", limits(), Some("No such file")),
        ("busybox mount -t tmpfs t /bin", limits(), Some("denied")),
        (no_packets, network, Some("")),
        (&format!("! {no_packets}"), limits(), Some("")),
    ];
    for (text, limits, said) in rows {
        let mut rootfs = fixture.runtime.mount(std::slice::from_ref(&base)).unwrap();
        let ended = run(&fixture, &mut rootfs, text, limits).await.unwrap();
        let lines = ended.last_lines.join("\n");
        match said {
            Some("") => assert_eq!(ended.exit, Exit::Code(0), "{text}: {lines}"),
            Some(said) => assert!(ended.exit != Exit::Code(0) && lines.contains(said), "{text}: {lines}"),
            None => assert_eq!(ended.exit, Exit::Code(137), "{text}: {lines}"),
        }
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
