//! The learner's account in the image's user database, their shell and its environment.
//!
//! Works in images that have no user database, or one that cannot be written: the kernel knows numbers only. Starting
//! the shell is not here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::domain::container::{DEFAULT_PATH, place::PERSIST};
use crate::domain::workspace::User;

use super::config::PREFIX;
use super::exec::Identity;

/// The learner's uid and gid.
const ID: u32 = 1000;
const NAME: &str = "learner";
/// The most of a user database that is read, in bytes.
const MAX_DATABASE: u64 = 1 << 20;
/// What an image may have, in the order of preference.
const SHELLS: [&str; 6] =
    ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh", "/usr/bin/sh", "/busybox/sh"];
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
/// Shells that take `-l`.
const LOGIN_SHELLS: [&str; 8] = ["bash", "sh", "ash", "dash", "zsh", "ksh", "mksh", "fish"];

/// Who the learner is in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The numbers that the kernel goes by.
    pub identity: Identity,
    /// The name.
    pub name: String,
    /// The home directory, as seen in the container.
    pub home: PathBuf,
    /// The login shell that the database names.
    pub shell: Option<PathBuf>,
}

/// The program that the terminal runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Finds the account of `user` below `root`, or adds it. What cannot be written is logged and done without.
pub fn prepare(root: &Path, user: User) -> Account {
    let passwd = read(&root.join("etc/passwd"));
    let id = if user == User::Root { 0 } else { ID };
    let mut account = find(&passwd, id).unwrap_or_else(|| {
        let account = missing(&passwd, user);
        if user == User::Learner
            && let Err(error) = add(root, &account)
        {
            tracing::warn!(%error, "the learner's account cannot be added; only its number is known");
        }
        account
    });
    account.identity.groups = groups(&read(&root.join("etc/group")), &account);
    if !rustix::process::geteuid().is_root() {
        // Without privileges there is only who the backend itself is.
        account.identity = Identity::current();
    }
    if let Err(error) = make_home(root, &account) {
        tracing::warn!(%error, home = %account.home.display(), "the learner's home cannot be made");
    }
    if let Err(error) = give_persist(root, &account) {
        tracing::warn!(%error, "{PERSIST} cannot be given to the learner");
    }
    account
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    // No database is as good as an empty one.
    let _ = File::open(path).and_then(|file| file.take(MAX_DATABASE).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

fn find(passwd: &str, id: u32) -> Option<Account> {
    passwd.lines().map(fields).find_map(|fields| {
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        if name.is_empty() || uid.parse() != Ok(id) {
            return None;
        }
        let home = if home.starts_with('/') { home } else { "/" };
        Some(Account {
            identity: Identity { uid: id, gid: gid.parse().ok()?, groups: Vec::new() },
            name: name.to_owned(),
            home: home.into(),
            shell: Some(shell).filter(|shell| shell.starts_with('/')).map(Into::into),
        })
    })
}

fn missing(passwd: &str, user: User) -> Account {
    let (id, name, home) = match user {
        User::Root => (0, "root".to_owned(), "/root"),
        User::Learner => {
            let is_taken = passwd.lines().any(|line| fields(line)[0] == NAME);
            (ID, if is_taken { format!("{NAME}-{ID}") } else { NAME.to_owned() }, "/home/learner")
        }
    };
    Account { identity: Identity { uid: id, gid: id, groups: Vec::new() }, name, home: home.into(), shell: None }
}

/// The group of the account and all that list it as a member.
fn groups(group: &str, account: &Account) -> Vec<u32> {
    let mut groups = vec![account.identity.gid];
    for fields in group.lines().map(fields) {
        if let [_, _, gid, members] = fields[..]
            && members.split(',').any(|member| member == account.name)
            && let Ok(gid) = gid.parse()
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    }
    groups
}

/// Adds the account to the user database; a password that nothing matches, so that only we start its shell.
fn add(root: &Path, account: &Account) -> io::Result<()> {
    let etc = root.join("etc");
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&etc)?;
    let (name, id) = (&account.name, ID);
    let has_shadow = etc.join("shadow").exists();
    let password = if has_shadow { "x" } else { "*" };
    let shell = login_shell(root, None, None).map_or_else(|| "/bin/sh".into(), |shell| shell.path);
    let (home, shell) = (account.home.display(), shell.display());
    if has_shadow {
        append(&etc.join("shadow"), &format!("{name}:!:20000:0:99999:7:::"), 0o600)?;
    }
    let group = read(&etc.join("group"));
    if !group.lines().map(fields).any(|fields| fields.get(2) == Some(&"1000")) {
        append(&etc.join("group"), &format!("{name}:x:{id}:"), 0o644)?;
    }
    append(&etc.join("passwd"), &format!("{name}:{password}:{id}:{id}:Learner:{home}:{shell}"), 0o644)
}

fn append(path: &Path, line: &str, mode: u32) -> io::Result<()> {
    let mut file = File::options().read(true).append(true).create(true).mode(mode).open(path)?;
    let mut bytes = Vec::new();
    (&mut file).take(MAX_DATABASE).read_to_end(&mut bytes)?;
    let ends = bytes.last().is_none_or(|byte| *byte == b'\n');
    file.write_all(format!("{}{line}\n", if ends { "" } else { "\n" }).as_bytes())
}

fn make_home(root: &Path, account: &Account) -> io::Result<()> {
    let home = below(root, &account.home);
    if let Some(parent) = home.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let (uid, gid) = (account.identity.uid, account.identity.gid);
    match std::fs::DirBuilder::new().mode(0o755).create(&home) {
        Ok(()) => {}
        // One that the workshop's files made is root's, and its owner could write nothing.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = std::fs::symlink_metadata(&home)?;
            if !metadata.is_dir() || metadata.uid() != 0 || uid == 0 || account.home == Path::new("/") {
                return Ok(());
            }
        }
        Err(error) => return Err(error),
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(&home, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// A fresh volume is root's, and its learner could keep nothing.
fn give_persist(root: &Path, account: &Account) -> io::Result<()> {
    let volume = below(root, Path::new(PERSIST));
    let (uid, gid) = (account.identity.uid, account.identity.gid);
    match std::fs::symlink_metadata(&volume) {
        Ok(found) if found.is_dir() && found.uid() == 0 && uid != 0 && rustix::process::geteuid().is_root() => {
            std::os::unix::fs::lchown(&volume, Some(uid), Some(gid))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn is_program(root: &Path, path: &Path) -> bool {
    std::fs::metadata(below(root, path)).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The shell to start: the one that the workshop names, the account's, bash, sh, or busybox's; none in an image without.
pub fn login_shell(root: &Path, chosen: Option<&str>, account: Option<&Account>) -> Option<Program> {
    let refuses = |path: &PathBuf| {
        ["nologin", "false", "true", "sync"].iter().any(|name| path.file_name() == Some(OsStr::new(name)))
    };
    let accounts = account.and_then(|account| account.shell.clone()).filter(|shell| !refuses(shell));
    let paths = chosen.map(PathBuf::from).into_iter().chain(accounts).chain(SHELLS.map(PathBuf::from));
    let found = paths.into_iter().find(|path| is_program(root, path)).map(|path| {
        let is_login = path.file_name().and_then(OsStr::to_str).is_some_and(|name| LOGIN_SHELLS.contains(&name));
        Program { arguments: is_login.then(|| "-l".into()).into_iter().collect(), path }
    });
    found.or_else(|| {
        let path = BUSYBOX.map(PathBuf::from).into_iter().find(|path| is_program(root, path))?;
        Some(Program { path, arguments: vec!["sh".into(), "-l".into()] })
    })
}

/// Whether the image set this variable, not we and not a cluster, which puts its API's address into every container.
pub fn is_of_image(name: &OsStr) -> bool {
    let others = [PREFIX, "KUBERNETES_SERVICE_", "KUBERNETES_PORT"];
    !others.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

/// The environment of the learner's programs: the image's, without ours.
pub fn environment(
    account: &Account,
    home: &Path,
    shell: Option<&Path>,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let ours = ["HOME", "USER", "LOGNAME", "SHELL", "TERM", "PWD", "OLDPWD", "SHLVL", "_"];
    let mut environment: Vec<(OsString, OsString)> = inherited
        .filter(|(name, _)| is_of_image(name))
        .filter(|(name, _)| !ours.iter().any(|ours| name == ours))
        .collect();
    let mut default = |name: &str, value: &str| {
        if !environment.iter().any(|(it, _)| it == name) {
            environment.push((name.into(), value.into()));
        }
    };
    default("PATH", DEFAULT_PATH);
    default("LANG", "C.UTF-8");
    default("HOME", &home.to_string_lossy());
    default("USER", &account.name);
    default("LOGNAME", &account.name);
    default("TERM", "xterm-256color");
    if let Some(shell) = shell {
        default("SHELL", &shell.to_string_lossy());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Image(tempfile::TempDir);

    impl Image {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = directory.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            Self(directory)
        }

        fn text(&self, path: &str) -> String {
            std::fs::read_to_string(self.0.path().join(path)).unwrap_or_default()
        }
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn an_image_without_a_user_database_gets_one() {
        let image = Image::new(&[]);
        let account = prepare(image.0.path(), User::Learner);
        assert_eq!((account.name.as_str(), account.home.as_path()), ("learner", Path::new("/home/learner")));
        assert_eq!(image.text("etc/passwd"), "learner:*:1000:1000:Learner:/home/learner:/bin/sh\n");
        assert_eq!(image.text("etc/group"), "learner:x:1000:\n");
        assert_eq!(image.text("etc/shadow"), "");
        let home = image.0.path().join("home/learner").metadata().unwrap();
        if is_root() {
            assert_eq!(account.identity, Identity { uid: 1000, gid: 1000, groups: vec![1000] });
            assert_eq!((home.uid(), home.gid()), (1000, 1000));
        }
        // Once is enough.
        assert_eq!(prepare(image.0.path(), User::Learner).name, "learner");
        assert_eq!(image.text("etc/passwd").lines().count(), 1);
    }

    #[test]
    fn an_existing_database_is_added_to_and_its_password_locked() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nlearner:x:1001:1001::/home/other:/bin/sh";
        let image = Image::new(&[
            ("etc/passwd", passwd),
            ("etc/group", "root:x:0:\nwheel:x:10:a,learner-1000\n"),
            ("etc/shadow", "root:*:1::::::\n"),
            ("bin/bash", ""),
        ]);
        let account = prepare(image.0.path(), User::Learner);
        assert_eq!(account.name, "learner-1000");
        let added = "learner-1000:x:1000:1000:Learner:/home/learner:/bin/bash\n";
        assert_eq!(image.text("etc/passwd"), format!("{passwd}\n{added}"));
        assert_eq!(image.text("etc/shadow"), "root:*:1::::::\nlearner-1000:!:20000:0:99999:7:::\n");
        if is_root() {
            assert_eq!(account.identity.groups, [1000, 10]);
        }
    }

    #[test]
    fn whoever_has_the_number_is_the_learner() {
        let image = Image::new(&[("etc/passwd", "ubuntu:x:1000:1005:U:/home/ubuntu:/bin/zsh\n"), ("bin/zsh", "")]);
        let account = prepare(image.0.path(), User::Learner);
        assert_eq!((account.name.as_str(), account.home.as_path()), ("ubuntu", Path::new("/home/ubuntu")));
        assert_eq!(image.text("etc/passwd").lines().count(), 1);
        let shell = login_shell(image.0.path(), None, Some(&account)).unwrap();
        assert_eq!((shell.path.as_path(), shell.arguments), (Path::new("/bin/zsh"), vec![OsString::from("-l")]));
        if is_root() {
            assert_eq!((account.identity.uid, account.identity.gid), (1000, 1005));
        }
    }

    #[test]
    fn a_root_that_cannot_be_written_leaves_the_number() {
        // A file where the directory would be: nobody can write there, not even root.
        let image = Image::new(&[("etc", ""), ("home", "")]);
        let account = prepare(image.0.path(), User::Learner);
        assert_eq!(account.name, "learner");
        assert!(image.text("etc").is_empty());
    }

    #[test]
    fn the_shell_is_the_best_that_the_image_has() {
        let check = |files: &[&str], chosen: Option<&str>, expected: Option<(&str, &[&str])>| {
            let files: Vec<(&str, &str)> = files.iter().map(|path| (*path, "")).collect();
            let image = Image::new(&files);
            let account = Account { shell: Some("/sbin/nologin".into()), ..missing("", User::Learner) };
            let found = login_shell(image.0.path(), chosen, Some(&account));
            let expected = expected.map(|(path, arguments)| Program {
                path: path.into(),
                arguments: arguments.iter().map(OsString::from).collect(),
            });
            assert_eq!(found, expected, "{files:?}");
        };
        check(&[], None, None);
        check(&["sbin/nologin"], None, None);
        check(&["bin/busybox"], None, Some(("/bin/busybox", &["sh", "-l"])));
        check(&["bin/sh", "bin/busybox"], None, Some(("/bin/sh", &["-l"])));
        check(&["bin/sh", "bin/bash"], None, Some(("/bin/bash", &["-l"])));
        check(&["bin/sh", "opt/game"], Some("/opt/game"), Some(("/opt/game", &[])));
        check(&["bin/sh"], Some("/opt/game"), Some(("/bin/sh", &["-l"])));
    }

    #[test]
    fn a_volume_that_is_roots_becomes_the_learners() {
        let image = Image::new(&[]);
        std::fs::create_dir(image.0.path().join("persist")).unwrap();
        let account = prepare(image.0.path(), User::Learner);
        let owner = || std::fs::metadata(image.0.path().join("persist")).unwrap().uid();
        assert_eq!(owner(), account.identity.uid);
        // Root's own lessons and what is somebody's already stay as they are.
        prepare(image.0.path(), User::Root);
        assert_eq!(owner(), account.identity.uid);
    }

    #[test]
    fn nothing_of_ours_is_in_the_learners_environment() {
        let inherited = [("WORKSHOP_INSTANCE", "x"), ("HOME", "/root"), ("EDITOR", "vi"), ("PATH", "/opt/bin")]
            .into_iter()
            .chain([("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_PORT_443_TCP", "tcp://10.0.0.1:443")])
            .chain([("KUBERNETES_VERSION", "of the lesson")]);
        let inherited = inherited.map(|(name, value)| (name.into(), value.into()));
        let account = missing("", User::Learner);
        let found = environment(&account, Path::new("/home/learner"), Some(Path::new("/bin/sh")), inherited);
        let get = |name: &str| found.iter().find(|(it, _)| it == name).map(|(_, value)| value.to_str().unwrap());
        assert_eq!((get("HOME"), get("USER"), get("PATH")), (Some("/home/learner"), Some("learner"), Some("/opt/bin")));
        assert_eq!((get("KUBERNETES_SERVICE_HOST"), get("KUBERNETES_PORT_443_TCP")), (None, None));
        assert_eq!(get("KUBERNETES_VERSION"), Some("of the lesson"));
        assert_eq!((get("EDITOR"), get("WORKSHOP_INSTANCE"), get("SHELL")), (Some("vi"), None, Some("/bin/sh")));
    }
}
