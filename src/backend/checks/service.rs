//! Facts of services, from whatever service manager the image has running.
//!
//! Without one nothing can be told, which is an error of the check and not the learner's.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::command;
use super::fact::{Fact, Missing, unknown, value};

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_OUTPUT: usize = 64 << 10;
const LEVELS: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];

type Environment = [(OsString, OsString)];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Manager {
    Systemd,
    OpenRc,
    Upstart,
    /// Scripts in `/etc/init.d`, with or without a program that starts them.
    Scripts,
}

pub async fn fact(name: &str, attribute: &str, environment: &Environment) -> Fact {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"@._:-\\".contains(&byte);
    if name.is_empty() || name.starts_with(['-', '.']) || !name.bytes().all(is_letter) {
        return unknown(format!("\"{name}\" is no name of a service"));
    }
    let Some(manager) = detect(environment) else {
        return unknown("there is no service manager here: check for the process or the port instead");
    };
    match (attribute, manager) {
        ("enabled", Manager::Systemd) => succeeds("systemctl", &["-q", "is-enabled", name], environment).await,
        ("running", Manager::Systemd) => succeeds("systemctl", &["-q", "is-active", name], environment).await,
        ("running", Manager::OpenRc) => succeeds("rc-service", &["-q", name, "status"], environment).await,
        ("running", Manager::Upstart) => prints("initctl", &["status", name], "running", environment).await,
        ("running", Manager::Scripts) => script_runs(name, environment).await,
        ("enabled", Manager::OpenRc) => value(!open_rc_levels(name).is_empty()),
        ("enabled", Manager::Scripts) => value(script_levels(name).iter().any(|level| "2345".contains(level.as_str()))),
        ("enabled", Manager::Upstart) => value(
            Path::new("/etc/init").join(format!("{name}.conf")).exists()
                && !super::fact::read_text(Path::new("/etc/init").join(format!("{name}.override")), 1 << 20)
                    .ok()
                    .flatten()
                    .is_some_and(|text| text.lines().any(|line| line.trim() == "manual")),
        ),
        ("runlevels", Manager::OpenRc) => value(open_rc_levels(name)),
        ("runlevels", Manager::Scripts | Manager::Upstart) => value(script_levels(name)),
        ("runlevels", Manager::Systemd) => unknown("systemd has no run levels"),
        (other, _) => unknown(format!("a service has no attribute \"{other}\"")),
    }
}

fn detect(environment: &Environment) -> Option<Manager> {
    let has = |program| command::find(program, environment).is_some();
    if Path::new("/run/systemd/system").is_dir() && has("systemctl") {
        Some(Manager::Systemd)
    } else if has("rc-service") && Path::new("/etc/init.d").is_dir() {
        Some(Manager::OpenRc)
    } else if has("initctl") && Path::new("/etc/init").is_dir() {
        Some(Manager::Upstart)
    } else if has("service") && Path::new("/etc/init.d").is_dir() {
        Some(Manager::Scripts)
    } else {
        None
    }
}

async fn run(program: &str, arguments: &[&str], environment: &Environment) -> Result<command::Ended, Missing> {
    let found = command::find(program, environment).unwrap_or_else(|| PathBuf::from(program));
    let mut running = Command::new(found);
    running.args(arguments.iter().map(OsStr::new)).current_dir("/");
    command::run_bounded(running, TIMEOUT, environment, MAX_OUTPUT).await
}

async fn succeeds(program: &str, arguments: &[&str], environment: &Environment) -> Fact {
    value(run(program, arguments, environment).await?.code == 0)
}

async fn prints(program: &str, arguments: &[&str], word: &str, environment: &Environment) -> Fact {
    let ended = run(program, arguments, environment).await?;
    value(ended.code == 0 && ended.stdout.text.contains(word))
}

/// A service without a script is one that is not installed yet.
async fn script_runs(name: &str, environment: &Environment) -> Fact {
    if !Path::new("/etc/init.d").join(name).exists() {
        return value(false);
    }
    succeeds("service", &[name, "status"], environment).await
}

fn open_rc_levels(name: &str) -> Vec<String> {
    let Ok(levels) = std::fs::read_dir("/etc/runlevels") else { return Vec::new() };
    let mut levels: Vec<String> = levels
        .flatten()
        .filter(|level| level.path().join(name).symlink_metadata().is_ok())
        .map(|level| level.file_name().to_string_lossy().into_owned())
        .collect();
    levels.sort();
    levels
}

/// The levels whose directory has a link `S20name`.
fn script_levels(name: &str) -> Vec<String> {
    let starts = |entry: std::fs::DirEntry| {
        let file = entry.file_name().to_string_lossy().into_owned();
        let rest = file.strip_prefix('S').and_then(|rest| rest.get(2..).filter(|_| rest.is_char_boundary(2)));
        rest == Some(name)
    };
    let is_on = |level: &&str| {
        std::fs::read_dir(format!("/etc/rc{level}.d")).is_ok_and(|entries| entries.flatten().any(starts))
    };
    LEVELS.iter().filter(|level| is_on(level)).map(|level| (*level).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_service_manager_it_is_an_error_and_no_failure() {
        let nothing = [("PATH".into(), "/nowhere".into())];
        let found = fact("sshd", "running", &nothing).await;
        assert!(matches!(&found, Err(Missing::Unknown(reason)) if reason.contains("no service manager")), "{found:?}");
        for name in ["", "../x", "-x", "a b", "a;b"] {
            assert!(matches!(fact(name, "running", &nothing).await, Err(Missing::Unknown(_))), "{name}");
        }
    }
}
