//! Paths inside of a mounted root, with links followed as a process in it would follow them, never outside.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// More links on one path than any honest image has, as in the kernel.
const MAX_LINKS: usize = 40;

/// The text of a file of the image; none where there is no such file, cut at `max_bytes`.
pub fn read_text(root: &Path, path: &str, max_bytes: u64) -> io::Result<Option<String>> {
    let root = File::open(root)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&root, path.trim_start_matches('/'), flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Where `path` really is in the root, relative to it, and which of the directories on the way and itself are missing.
pub fn resolve(root: &Path, path: &str) -> io::Result<(PathBuf, Vec<PathBuf>)> {
    let mut pending: Vec<PathBuf> = components(Path::new(path));
    let (mut real, mut missing, mut links) = (PathBuf::new(), Vec::new(), 0);
    while let Some(component) = pending.pop() {
        if component.as_os_str() == ".." {
            real.pop();
            continue;
        }
        real.push(component);
        match fs::symlink_metadata(root.join(&real)) {
            Ok(data) if data.is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other(format!("\"{path}\" goes through more than {MAX_LINKS} links")));
                }
                let target = fs::read_link(root.join(&real))?;
                real = if target.is_absolute() {
                    PathBuf::new()
                } else {
                    real.parent().unwrap_or(Path::new("")).to_owned()
                };
                pending.extend(components(&target));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(real.clone()),
            Err(error) => return Err(error),
        }
    }
    Ok((real, missing))
}

/// The components in reverse, so that the next one is the last.
fn components(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| PathBuf::from(component.as_os_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_inside_of_the_root_only() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        symlink("../run/resolved/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("/usr/bin", root.join("bin")).unwrap();
        symlink("../../../../usr", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let rows: [(&str, &str, &[&str]); 5] = [
            ("/etc/hosts", "etc/hosts", &["etc/hosts"]),
            ("/etc/resolv.conf", "run/resolved/resolv.conf", &["run", "run/resolved", "run/resolved/resolv.conf"]),
            ("/bin", "usr/bin", &[]),
            ("/up/bin", "usr/bin", &[]),
            ("/../../etc", "etc", &[]),
        ];
        for (path, real, missing) in rows {
            let missing: Vec<_> = missing.iter().map(PathBuf::from).collect();
            assert_eq!(resolve(root, path).unwrap(), (PathBuf::from(real), missing), "{path}");
        }
        assert!(resolve(root, "/loop").is_err());
    }

    #[test]
    fn a_link_to_a_file_of_the_machine_reads_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("secret"), "inside").unwrap();
        symlink("/secret", root.path().join("absolute")).unwrap();
        symlink("/etc/hostname", root.path().join("outside")).unwrap();
        assert_eq!(read_text(root.path(), "/absolute", 100).unwrap().as_deref(), Some("inside"));
        assert_eq!(read_text(root.path(), "/outside", 100).unwrap(), None);
        assert_eq!(read_text(root.path(), "/secret", 3).unwrap().as_deref(), Some("ins"));
    }
}
