//! The container of one command as the OCI runtime's `config.json`.
//!
//! Pure: what the command is given is decided here, starting it is `process`. The container sees nothing of the machine
//! but its kernel, and its network when that is allowed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResourcesBuilder, Mount, MountBuilder,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder, get_default_maskedpaths, get_default_readonly_paths,
};

use super::Account;
use crate::domain::container::DEFAULT_PATH;

/// The host name that every command sees: the machine's own must not get into an image.
const HOST_NAME: &str = "workshop";

/// What one command may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time from start to end.
    pub timeout: Duration,
    /// Memory of all its processes, in bytes.
    pub memory: u64,
    /// Processes and threads at one time.
    pub processes: u32,
    /// Output, in bytes.
    pub output: u64,
    /// Whether it sees the machine's network; else it has a loopback interface only.
    pub network: bool,
}

/// One command and what the image config says about running it.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec<'a> {
    /// The shell's arguments before the command, e.g. `/bin/sh -c`.
    pub shell: &'a [String],
    /// The command's text.
    pub text: &'a str,
    /// Environment, `NAME=value`.
    pub env: &'a [String],
    /// Working directory; empty means the root.
    pub directory: &'a str,
    /// The image's `User`; empty means root.
    pub user: &'a str,
    /// What it may use.
    pub limits: Limits,
}

/// What the container mounts over the image, besides the kernel's own file systems.
pub struct Files<'a> {
    /// A copy of the machine's `/etc/resolv.conf` and the place in the image for it.
    pub resolver: Option<(&'a Path, &'a str)>,
}

/// The file systems of every container: type, place, options.
pub const KERNEL_MOUNTS: [(&str, &str, &[&str]); 6] = [
    ("proc", "/proc", &["nosuid", "noexec", "nodev"]),
    ("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
    ("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
];

/// Where the kernel's file systems are mounted in every container, those inside another mount left out.
pub fn mount_points<'a>() -> impl Iterator<Item = &'a str> {
    KERNEL_MOUNTS.iter().map(|(_, place, _)| *place).filter(|place| place.matches('/').count() == 1)
}

/// The capabilities that docker gives by default, which is what images are written for.
pub const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The `config.json` of a container that runs `command` in `rootfs`.
pub fn build_config(
    command: &CommandSpec<'_>,
    account: &Account,
    rootfs: &Path,
    cgroup: &str,
    files: &Files<'_>,
) -> Result<Spec, OciSpecError> {
    // The network that a command may see is the machine's own, where raw sockets would read everybody's packets.
    let allowed = |capability: &Capability| *capability != Capability::NetRaw || !command.limits.network;
    let bounding: oci_spec::runtime::Capabilities = CAPABILITIES.into_iter().filter(allowed).collect();
    let capabilities = if account.uid == 0 { bounding.clone() } else { oci_spec::runtime::Capabilities::new() };
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(
            UserBuilder::default()
                .uid(account.uid)
                .gid(account.gid)
                .additional_gids(account.groups.clone())
                .umask(0o022_u32)
                .build()?,
        )
        .args(command.shell.iter().cloned().chain([script(command)]).collect::<Vec<_>>())
        .env(environment(command.env, &account.home))
        .cwd(if command.directory.is_empty() { "/" } else { command.directory })
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(bounding)
                .effective(capabilities.clone())
                .permitted(capabilities)
                .inheritable(oci_spec::runtime::Capabilities::new())
                .ambient(oci_spec::runtime::Capabilities::new())
                .build()?,
        )
        .rlimits(Vec::new())
        .no_new_privileges(false)
        .build()?;
    let mut namespaces =
        vec![LinuxNamespaceType::Pid, LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts, LinuxNamespaceType::Mount];
    if !command.limits.network {
        namespaces.push(LinuxNamespaceType::Network);
    }
    let namespaces = namespaces
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
    let resources = LinuxResourcesBuilder::default()
        // Everything is denied; the runtime itself allows the harmless devices that it makes.
        .devices(vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?])
        .memory(LinuxMemoryBuilder::default().limit(i64::try_from(command.limits.memory).unwrap_or(i64::MAX)).build()?)
        .pids(LinuxPidsBuilder::default().limit(i64::from(command.limits.processes)).build()?)
        .build()?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(resources)
        .cgroups_path(PathBuf::from(cgroup))
        .masked_paths(get_default_maskedpaths())
        .readonly_paths(get_default_readonly_paths())
        .build()?;
    SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path(rootfs).readonly(false).build()?)
        .mounts(mounts(files)?)
        .process(process)
        .hostname(HOST_NAME)
        .linux(linux)
        .build()
}

/// What the shell is given. The runtime carries both outputs in pipes of their own, which would lose the order in which
/// a log is to be read; a POSIX shell can join them before that.
fn script(command: &CommandSpec<'_>) -> String {
    let shell = command.shell.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let joins = ["sh", "ash", "bash", "dash", "ksh", "zsh"].contains(&shell);
    if joins { format!("exec 2>&1; {}", command.text) } else { command.text.to_owned() }
}

/// The image's environment, with what a shell cannot do without.
fn environment(given: &[String], home: &str) -> Vec<String> {
    let has =
        |name: &str| given.iter().any(|variable| variable.split_once('=').is_some_and(|(given, _)| given == name));
    let mut env = Vec::new();
    if !has("PATH") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !has("HOME") {
        env.push(format!("HOME={home}"));
    }
    env.extend(given.iter().cloned());
    env
}

fn mounts(files: &Files<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let strings = |options: &[&str]| options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
    let mut mounts = KERNEL_MOUNTS
        .iter()
        .map(|(kind, place, options)| {
            MountBuilder::default().typ(*kind).source(*kind).destination(*place).options(strings(options)).build()
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let Some((source, place)) = files.resolver {
        mounts.push(
            MountBuilder::default()
                .typ("bind")
                .source(source)
                .destination(place)
                .options(strings(&["bind", "ro", "nosuid", "nodev"]))
                .build()?,
        );
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: &Account, network: bool) -> serde_json::Value {
        let limits = Limits { timeout: Duration::from_secs(1), memory: 1 << 20, processes: 7, output: 1, network };
        let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
        let env = ["A=1".to_owned(), "HOME=/x".to_owned()];
        let command = CommandSpec { shell: &shell, text: "echo $A", env: &env, directory: "", user: "", limits };
        let files = Files { resolver: network.then_some((Path::new("/s/resolv.conf"), "/etc/resolv.conf")) };
        serde_json::to_value(build_config(&command, user, Path::new("/r"), "/c", &files).unwrap()).unwrap()
    }

    #[test]
    fn the_command_is_one_argument_of_the_shell() {
        let root = Account { uid: 0, gid: 0, groups: vec![], home: "/root".into() };
        let config = config(&root, true);
        assert_eq!(config["process"]["args"], serde_json::json!(["/bin/sh", "-c", "exec 2>&1; echo $A"]));
        assert_eq!(config["process"]["env"], serde_json::json!([format!("PATH={DEFAULT_PATH}"), "A=1", "HOME=/x"]));
        assert_eq!(config["process"]["cwd"], "/");
        assert_eq!(config["linux"]["resources"]["pids"]["limit"], 7);
        assert_eq!(config["hostname"], HOST_NAME);
    }

    #[test]
    fn a_user_has_no_capabilities_and_no_network_unless_allowed() {
        let learner = Account { uid: 1000, gid: 1000, groups: vec![10], home: "/home/learner".into() };
        for (network, namespaces) in [(true, 4), (false, 5)] {
            let config = config(&learner, network);
            assert_eq!(config["process"]["capabilities"]["effective"], serde_json::json!([]));
            assert_eq!(config["linux"]["namespaces"].as_array().unwrap().len(), namespaces);
            let binds = config["mounts"].as_array().unwrap().iter().filter(|mount| mount["type"] == "bind").count();
            assert_eq!(binds, usize::from(network));
        }
    }

    #[test]
    fn on_the_machines_own_network_nobody_reads_other_peoples_packets() {
        let root = Account { uid: 0, gid: 0, groups: vec![], home: "/root".into() };
        for network in [true, false] {
            let config = config(&root, network);
            for set in ["bounding", "effective", "permitted"] {
                let has = config["process"]["capabilities"][set].as_array().unwrap().contains(&"CAP_NET_RAW".into());
                assert_eq!(has, !network, "{set}");
            }
        }
    }
}
