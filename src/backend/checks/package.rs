//! Facts of installed packages, from the databases of dpkg, apk and pacman, and by asking rpm.
//!
//! No package tool is run where its database can be read: the image may have the one without the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::command;
use super::fact::{Fact, Missing, failed, read_text, reason, unknown, value};

const MAX_SIZE: u64 = 256 << 20;
const DPKG: &str = "/var/lib/dpkg/status";
const DPKG_PARTS: &str = "/var/lib/dpkg/status.d";
const APK: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
const PACMAN: &str = "/var/lib/pacman/local";
const RPM: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];

pub async fn fact(name: &str, attribute: &str, environment: &[(OsString, OsString)]) -> Fact {
    let sought = name.to_owned();
    let read = tokio::task::spawn_blocking(move || versions(&sought)).await;
    let versions = match read {
        Ok(versions) => versions?,
        Err(error) => return unknown(format!("the package database could not be read: {error}")),
    };
    let versions = match versions {
        Some(versions) => versions,
        None => rpm(name, environment).await?,
    };
    match attribute {
        "installed" => value(!versions.is_empty()),
        "versions" if versions.is_empty() => failed(format!("the package {name} is not installed")),
        "versions" => value(versions),
        other => unknown(format!("a package has no attribute \"{other}\"")),
    }
}

/// The installed versions by the first database that is there; none where there is none that can be read.
fn versions(name: &str) -> Result<Option<Vec<String>>, Missing> {
    let cannot = |path: &str, error: &std::io::Error| Missing::Failed(format!("cannot read {path}: {}", reason(error)));
    if let Some(text) = read_text(DPKG, MAX_SIZE).map_err(|error| cannot(DPKG, &error))? {
        return Ok(Some(dpkg(&text, name)));
    }
    if let Ok(parts) = std::fs::read_dir(DPKG_PARTS) {
        let mut found = Vec::new();
        for part in parts.flatten().take(10_000) {
            let text = read_text(part.path(), MAX_SIZE).map_err(|error| cannot(DPKG_PARTS, &error))?;
            found.extend(dpkg_part(&text.unwrap_or_default(), name));
        }
        return Ok(Some(found));
    }
    for path in APK {
        if let Some(text) = read_text(path, MAX_SIZE).map_err(|error| cannot(path, &error))? {
            return Ok(Some(apk(&text, name)));
        }
    }
    if Path::new(PACMAN).is_dir() {
        return Ok(Some(pacman(Path::new(PACMAN), name)));
    }
    Ok(None)
}

/// Paragraphs of `Field: value`; one package may be there for several architectures.
fn dpkg(text: &str, name: &str) -> Vec<String> {
    let is_installed = |fields: &BTreeMap<&str, &str>| {
        matches!(fields.get("Status"), Some(&("install ok installed" | "hold ok installed")))
    };
    paragraphs(text, ": ").filter(is_installed).filter_map(|fields| deb_version(&fields, name)).collect()
}

/// As in images without dpkg: the files say what is installed by being there.
fn dpkg_part(text: &str, name: &str) -> Vec<String> {
    paragraphs(text, ": ").filter_map(|fields| deb_version(&fields, name)).collect()
}

fn deb_version(fields: &BTreeMap<&str, &str>, name: &str) -> Option<String> {
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    let is_it = fields.get("Package") == Some(&name)
        && architecture.is_none_or(|architecture| fields.get("Architecture") == Some(&architecture));
    if is_it { fields.get("Version").map(|version| (*version).to_owned()) } else { None }
}

fn apk(text: &str, name: &str) -> Vec<String> {
    let is_it = |fields: &BTreeMap<&str, &str>| fields.get("P") == Some(&name);
    let versions = paragraphs(text, ":").filter(is_it).filter_map(|fields| fields.get("V").map(|it| (*it).to_owned()));
    versions.collect()
}

/// The first line of each field; what goes on in further lines is not needed.
fn paragraphs<'t>(text: &'t str, between: &'static str) -> impl Iterator<Item = BTreeMap<&'t str, &'t str>> {
    text.split("\n\n").map(move |paragraph| {
        paragraph
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(between))
            .collect()
    })
}

/// Directories `name-version-release`, each with a `desc`.
fn pacman(directory: &Path, name: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let of_name = |file: &str| {
        let mut parts = file.rsplitn(3, '-');
        let (release, version) = (parts.next()?, parts.next()?);
        (parts.next() == Some(name)).then(|| format!("{version}-{release}"))
    };
    entries.flatten().filter_map(|entry| of_name(&entry.file_name().to_string_lossy())).collect()
}

async fn rpm(name: &str, environment: &[(OsString, OsString)]) -> Result<Vec<String>, Missing> {
    let program = command::find("rpm", environment);
    let (Some(program), true) = (program, RPM.iter().any(|path| Path::new(path).is_dir())) else {
        return unknown("there is no package database here");
    };
    if name.starts_with('-') {
        return Ok(Vec::new());
    }
    let mut asking = Command::new(program);
    asking.args(["-q", "--nosignature", "--nodigest", "--qf", "%{VERSION}\n", name]).current_dir("/");
    let ended = command::run_bounded(asking, Duration::from_secs(20), environment, 64 << 10).await?;
    Ok(if ended.code == 0 { ended.stdout.text.lines().map(str::to_owned).collect() } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_gives_the_installed_versions() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.3-4\nDescription: x\n Package: b\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: a\nStatus: hold ok installed\nArchitecture: i386\nVersion: 5\n";
        assert_eq!(dpkg(status, "a"), ["1:2.3-4", "5"]);
        assert_eq!(dpkg(status, "a:i386"), ["5"]);
        assert_eq!(dpkg(status, "b"), Vec::<String>::new());
        assert_eq!(dpkg_part("Package: c\nVersion: 7\n", "c"), ["7"]);
        assert_eq!(apk("C:x\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nP:busybox\nV:1.36\n", "musl"), ["1.2.5-r0"]);
        let directory = tempfile::tempdir().unwrap();
        for name in ["gcc-libs-14.1.1-1", "gcc-14.1.1-2"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        assert_eq!(pacman(directory.path(), "gcc"), ["14.1.1-2"]);
        assert_eq!(pacman(directory.path(), "gcc-libs"), ["14.1.1-1"]);
    }

    #[tokio::test]
    async fn dpkg_is_an_installed_package_of_debian() {
        assert!(Path::new(DPKG).exists(), "the test reads {DPKG}: run it on Debian");
        assert_eq!(fact("dpkg", "installed", &[]).await, value(true));
        assert_eq!(fact("no-such-package", "installed", &[]).await, value(false));
        assert!(fact("no-such-package", "versions", &[]).await.is_err());
    }
}
