//! The container of a workspace as the OCI runtime's `config.json`.
//!
//! Pure: what a workspace is given and denied is decided here; the files that it mounts are the caller's.

use std::path::Path;

use oci_spec::runtime::{get_default_maskedpaths, get_default_readonly_paths};
use serde_json::{Value, json};

use super::super::bundle::{CAPABILITIES, KERNEL_MOUNTS};
use super::seccomp;
use crate::domain::container::DEFAULT_PATH;

/// Processes and threads that a workspace may have at a time.
pub const PROCESSES: i64 = 1024;

/// The control groups, which a workspace sees besides the file systems of every container.
const CGROUPS: (&str, &str, &[&str]) = ("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);

/// One file or directory of the machine in the container.
pub struct Bind<'a> {
    /// Where it is on the machine.
    pub source: &'a Path,
    /// Where it is in the container.
    pub place: &'a str,
    /// Whether the container may write to it.
    pub writable: bool,
}

/// What the container is made of.
pub struct Container<'a> {
    /// The mounted root.
    pub rootfs: &'a Path,
    /// Its first process.
    pub arguments: Vec<String>,
    /// `NAME=value` of the image and of the container contract; later ones win.
    pub environment: Vec<String>,
    /// Its host name.
    pub hostname: &'a str,
    /// Its cgroup, below the root of each hierarchy.
    pub cgroup: &'a str,
    /// Thousandths of a core; 0 means no limit.
    pub cpu_millis: u64,
    /// Bytes; 0 means no limit.
    pub memory_bytes: u64,
    /// Whether the kernel can limit swap as well.
    pub limits_swap: bool,
    /// What it sees of the machine.
    pub binds: &'a [Bind<'a>],
    /// A directory that is in memory only, mode 0700.
    pub private: &'a str,
}

/// The `config.json` of a workspace.
pub fn build_config(container: &Container<'_>) -> Value {
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": container.rootfs, "readonly": false },
        "hostname": container.hostname,
        "process": {
            "terminal": false,
            // The backend is root whatever the image's user is: it is the one who becomes the learner.
            "user": { "uid": 0, "gid": 0, "umask": 0o022 },
            "args": container.arguments,
            "env": environment(&container.environment),
            "cwd": "/",
            // Lessons about users, permissions and processes are written for them. None reaches beyond the container's
            // own namespaces; raw sockets see its own network only.
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
                "inheritable": [], "ambient": [],
            },
            // Lessons use sudo and su.
            "noNewPrivileges": false,
        },
        "mounts": mounts(container),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": container.cgroup,
            "resources": resources(container),
            // Of the own network namespace: ping without privileges, and port 80 for anybody.
            "sysctl": {
                "net.ipv4.ping_group_range": "0 2147483647",
                "net.ipv4.ip_unprivileged_port_start": "0",
            },
            "maskedPaths": get_default_maskedpaths(),
            "readonlyPaths": get_default_readonly_paths(),
            "seccomp": seccomp::profile(),
        },
    })
}

fn resources(container: &Container<'_>) -> Value {
    let mut resources = json!({
        // Everything is denied; the runtime itself allows the harmless devices that it makes.
        "devices": [{ "allow": false, "access": "rwm" }],
        "pids": { "limit": PROCESSES },
    });
    if container.memory_bytes > 0 {
        let limit = i64::try_from(container.memory_bytes).unwrap_or(i64::MAX);
        resources["memory"] = json!({ "limit": limit });
        if container.limits_swap {
            // Memory and swap together.
            resources["memory"]["swap"] = json!(limit);
        }
    }
    if container.cpu_millis > 0 {
        // The kernel refuses less than a hundredth of a core.
        let quota = container.cpu_millis.max(10).saturating_mul(100);
        resources["cpu"] = json!({ "period": 100_000, "quota": i64::try_from(quota).unwrap_or(i64::MAX) });
    }
    resources
}

fn mounts(container: &Container<'_>) -> Vec<Value> {
    let kernel = KERNEL_MOUNTS.iter().chain([&CGROUPS]).map(
        |(kind, place, options)| json!({ "type": kind, "source": kind, "destination": place, "options": options }),
    );
    let private = json!({
        "type": "tmpfs", "source": "tmpfs", "destination": container.private,
        // Two of the largest artifacts, a journal and the learner's progress; memory is used as it is filled.
        "options": ["nosuid", "noexec", "nodev", "mode=0700", "size=131072k"],
    });
    let binds = container.binds.iter().map(|bind| {
        let access = if bind.writable { "rw" } else { "ro" };
        json!({
            "type": "bind", "source": bind.source, "destination": bind.place,
            "options": ["bind", access, "nosuid", "nodev"],
        })
    });
    kernel.chain([private]).chain(binds).collect()
}

/// The variables with what nothing can do without, each name once.
fn environment(given: &[String]) -> Vec<String> {
    let mut env: Vec<String> = vec![format!("PATH={DEFAULT_PATH}"), "HOME=/root".to_owned()];
    for variable in given {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        match env.iter_mut().find(|had| had.split_once('=').is_some_and(|(had, _)| had == name)) {
            Some(had) => had.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cpu_millis: u64, memory_bytes: u64, limits_swap: bool) -> Value {
        let bind = Bind { source: Path::new("/s/a.db"), place: "/workshop/artifact/workshop.db", writable: false };
        build_config(&Container {
            rootfs: Path::new("/s/merged"),
            arguments: vec!["/sbin/tini".into(), "--".into(), "/usr/local/bin/workshop-backend".into()],
            environment: vec!["A=1".into(), "PATH=/bin".into(), "A=2".into()],
            hostname: "alice",
            cgroup: "/workshop/w1",
            cpu_millis,
            memory_bytes,
            limits_swap,
            binds: &[bind],
            private: "/workshop/state",
        })
    }

    #[test]
    fn it_is_a_config_of_the_oci_runtime() {
        let spec: oci_spec::runtime::Spec = serde_json::from_value(config(500, 1 << 20, true)).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
        assert_eq!(spec.process().as_ref().unwrap().env().as_ref().unwrap(), &["PATH=/bin", "HOME=/root", "A=2"]);
        assert!(linux.seccomp().is_some());
    }

    #[test]
    fn limits_are_there_where_they_were_asked_for() {
        let rows = [
            (0, 0, false, Value::Null, Value::Null),
            (1500, 64 << 20, false, json!({ "period": 100_000, "quota": 150_000 }), json!({ "limit": 64 << 20 })),
            (1, 9, true, json!({ "period": 100_000, "quota": 1000 }), json!({ "limit": 9, "swap": 9 })),
        ];
        for (cpu, memory, swap, cpu_limit, memory_limit) in rows {
            let resources = &config(cpu, memory, swap)["linux"]["resources"];
            assert_eq!((&resources["cpu"], &resources["memory"]), (&cpu_limit, &memory_limit), "{cpu} {memory}");
            assert_eq!(resources["pids"]["limit"], PROCESSES);
        }
    }

    #[test]
    fn what_is_mounted_is_read_only_unless_said_otherwise() {
        let config = config(0, 0, false);
        let mounts = config["mounts"].as_array().unwrap();
        let bind = mounts.iter().find(|mount| mount["type"] == "bind").unwrap();
        assert_eq!(bind["options"], json!(["bind", "ro", "nosuid", "nodev"]));
        assert_eq!(config["process"]["capabilities"]["ambient"], json!([]));
    }
}
