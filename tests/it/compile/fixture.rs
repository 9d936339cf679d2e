//! A workshop in a directory, a state directory with a base in its local store, and a look at what came out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::platform::platform_directory;

/// The reference under which the bases of tests are in the local store.
pub const BASE: &str = "docker.io/tests/base:1";

/// A workshop, its state directory and the program.
pub struct Workshop {
    pub directory: tempfile::TempDir,
    pub state: PathBuf,
    pub platform: PathBuf,
    _own_state: tempfile::TempDir,
}

impl Workshop {
    /// A workshop with this recipe on the busybox base.
    pub fn on_busybox(recipe: &str) -> Self {
        let workshop = Self::new(recipe);
        workshop.import(&busybox_root());
        workshop
    }

    /// A workshop with this recipe on a usr-merged Debian base.
    pub fn on_debian(recipe: &str) -> Self {
        let workshop = Self::new(recipe);
        workshop.import(&debian_tar());
        workshop
    }

    /// A workshop whose base is nowhere.
    pub fn new(recipe: &str) -> Self {
        let own_state = tempfile::tempdir().unwrap();
        let workshop = Self {
            directory: tempfile::tempdir().unwrap(),
            state: own_state.path().join("state"),
            platform: platform_directory(),
            _own_state: own_state,
        };
        workshop.write("step-spec.yaml", recipe);
        workshop
    }

    /// Puts a root file system into the local store as [`BASE`].
    pub fn import(&self, root: &Path) {
        let output = self.run(&["image", "import-rootfs", &root.display().to_string(), "--tag", BASE]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes a file of the workshop.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The recipe with a text replaced.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.directory.path().join("step-spec.yaml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "the recipe has no {from}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// The program with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command.arg("--state").arg(&self.state).args(arguments).env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `build compile` to a registry with more arguments.
    pub fn compile_command(&self, registry: &str, more: &[&str]) -> Command {
        let mut command = self.command(&["build", "compile"]);
        command.arg(self.directory.path()).args(["--registry", registry, "--output", "json"]);
        command.arg("--platform").arg(&self.platform).args(more);
        command
    }

    /// Compiles and gives the exit code with the document.
    pub fn compile(&self, registry: &str, more: &[&str]) -> (i32, Value) {
        let output = self.compile_command(registry, more).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Value::String(errors));
        (output.status.code().unwrap_or(-1), document)
    }

    /// Compiles, which must work, and gives `id result` and the digests of the steps.
    pub fn compiled(&self, registry: &str) -> (Vec<String>, Vec<String>) {
        let (code, document) = self.compile(registry, &[]);
        assert_eq!(code, 0, "{document:#}");
        let steps = document["steps"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let results = steps.iter().map(|step| format!("{} {}", text(&step["id"]), text(&step["result"]))).collect();
        (results, steps.iter().map(|step| text(&step["digest"])).collect())
    }
}

/// A root file system of busybox alone.
pub fn busybox_root() -> PathBuf {
    static ROOT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = ROOT.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        let busybox = Path::new("/bin/busybox");
        fs::copy(busybox, root.join("bin/busybox")).expect("busybox-static (hack/deps test)");
        let list = Command::new(busybox).arg("--list").output().unwrap().stdout;
        for name in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        for (path, mode) in [("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home", 0o755)] {
            fs::create_dir_all(root.join(path)).unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        (directory, root)
    });
    path.clone()
}

/// A usr-merged Debian as a tar file, made once per machine.
pub fn debian_tar() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("WORKSHOP_TEST_CACHE").unwrap_or_else(|| {
            let home = || variable("HOME").unwrap().join(".cache");
            variable("XDG_CACHE_HOME").unwrap_or_else(home).join("workshop-platform")
        });
        let tar = cache.join("debian-bookworm-minbase.tar");
        if !tar.is_file() {
            fs::create_dir_all(&cache).unwrap();
            let partial = cache.join(format!("debian-{}.tar", std::process::id()));
            let made = Command::new("mmdebstrap")
                .args(["--variant=minbase", "bookworm"])
                .arg(&partial)
                .output()
                .expect("mmdebstrap (hack/deps test)");
            assert!(made.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&made.stderr));
            fs::rename(&partial, &tar).unwrap();
        }
        tar
    })
    .clone()
}

/// The tree of a published image, unpacked by skopeo and umoci.
pub fn unpacked(reference: &str, into: &Path) -> PathBuf {
    let layout = format!("oci:{}:image", into.join("layout").display());
    let source = format!("docker://{reference}");
    run("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &source, &layout]);
    let image = format!("{}:image", into.join("layout").display());
    let bundle = into.join("bundle");
    run("umoci", &["unpack", "--image", &image, &bundle.display().to_string()]);
    bundle.join("rootfs")
}

/// The config of a published image.
pub fn config(reference: &str) -> Value {
    let source = format!("docker://{reference}");
    let output = run("skopeo", &["inspect", "--config", "--tls-verify=false", &source]);
    serde_json::from_slice(&output).unwrap()
}

/// Runs a tool that must be there and succeed; gives its output.
pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: run `hack/deps test`"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    output.stdout
}

/// Every path of a tree with what an image keeps of it: kind, mode, owner, and content or target.
pub fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let what = if data.is_dir() {
                pending.push(path.clone());
                "directory".to_owned()
            } else if data.is_symlink() {
                format!("link {}", fs::read_link(&path).unwrap().display())
            } else if data.is_file() {
                format!("file {}", content(&path, data.len()))
            } else {
                format!("node {}", data.rdev())
            };
            let mode = if data.is_symlink() { 0o777 } else { data.mode() & 0o7777 };
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, format!("{what} {mode:o} {}:{}", data.uid(), data.gid()));
        }
    }
    found
}

/// Small files as they are, large ones by their digest.
fn content(path: &Path, size: u64) -> String {
    let bytes = fs::read(path).unwrap();
    match String::from_utf8(bytes) {
        Ok(text) if size < 200 => format!("{text:?}"),
        Ok(text) => workshop::domain::digest::Digest::of(text.as_bytes()).to_string(),
        Err(error) => workshop::domain::digest::Digest::of(error.as_bytes()).to_string(),
    }
}

/// Every file below a directory with length and time of change: equal when nothing was written.
pub fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            found.insert(path.clone(), (data.len(), data.mtime(), data.mtime_nsec()));
            if data.is_dir() {
                pending.push(path);
            }
        }
    }
    found
}
