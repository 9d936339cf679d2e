//! Facts of files: read with the links themselves in view, as goss does.
//!
//! Where a learner's links lead is the learner's choice, so nothing of the platform is opened by them, and what the
//! learner may not read is compared but not shown. Contents are streamed past the patterns; only a matcher that wants the whole text gets it, up to a size.

use std::fs::{File, Metadata};
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::account;
use super::fact::{Fact, Missing, failed, reason, unknown, value};
use crate::backend::exec::Identity;
use crate::domain::goss::Found;
use crate::domain::goss::matcher::Matcher;
use crate::domain::goss::pattern::Search;

/// Nothing below is opened: what the platform keeps, and what the kernel tells root of other processes.
const FORBIDDEN: [&str; 2] = ["/workshop", "/proc"];
/// The longest line that patterns are sought in.
const MAX_LINE: u64 = 1 << 20;
/// The most that is read of one file.
const MAX_READ: u64 = 1 << 30;
/// The longest text that is compared as a whole.
const MAX_TEXT: u64 = 8 << 20;

/// What is found for an attribute.
#[derive(Debug)]
pub struct Look {
    /// It.
    pub fact: Fact,
    /// True when the learner may not read the file that it comes from.
    pub is_closed: bool,
}

/// What is found for `attribute`, and whether `learner`, none for root, may see it.
pub fn look(path: &str, attribute: &str, matcher: &Matcher, learner: Option<&Identity>) -> Look {
    let mut is_closed = false;
    let fact = fact(path, attribute, matcher, &mut |file: &Opened| {
        is_closed = learner.is_some_and(|learner| !file.is_readable_by(learner));
    });
    Look { fact, is_closed }
}

fn fact(path: &str, attribute: &str, matcher: &Matcher, seen: &mut dyn FnMut(&Opened)) -> Fact {
    let path = expand(path)?;
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(_) if attribute == "exists" && is_absent(&path) => return value(false),
        Err(error) => return failed(format!("cannot look at {}: {}", path.display(), reason(&error))),
    };
    match attribute {
        "exists" => value(true),
        "mode" => value(format!("{:04o}", metadata.mode() & 0o7777)),
        "size" => value(metadata.size()),
        "uid" => value(metadata.uid()),
        "gid" => value(metadata.gid()),
        "owner" => account::user_name(metadata.uid()).map_or_else(|| value(metadata.uid().to_string()), value),
        "group" => account::group_name(metadata.gid()).map_or_else(|| value(metadata.gid().to_string()), value),
        "filetype" => value(file_type(&metadata)),
        "linkedto" => match path.read_link() {
            Ok(target) => value(target.to_string_lossy()),
            Err(_) => failed(format!("{} is no symbolic link", path.display())),
        },
        "contents" | "contains" => contents(&path, matcher, seen),
        "md5" => hash::<md5::Md5>(&path, seen),
        "sha256" => hash::<sha2::Sha256>(&path, seen),
        "sha512" => hash::<sha2::Sha512>(&path, seen),
        other => unknown(format!("a file has no attribute \"{other}\"")),
    }
}

/// True when nothing has that name; a directory that may not be entered is another matter.
fn is_absent(path: &Path) -> bool {
    let Err(error) = path.symlink_metadata() else { return false };
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn file_type(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        "symlink"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "pipe"
    } else if kind.is_char_device() {
        "character-device"
    } else if kind.is_block_device() {
        "block-device"
    } else {
        "file"
    }
}

/// `~` and `~name` as the home directories of `/etc/passwd`.
fn expand(path: &str) -> Result<PathBuf, Missing> {
    let Some(rest) = path.strip_prefix('~') else {
        return Ok(Path::new("/").join(path));
    };
    let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
    let home =
        if name.is_empty() { account::home_of_uid(rustix::process::getuid().as_raw()) } else { account::home_of(name) };
    match home {
        Some(home) => Ok(Path::new("/").join(home).join(below)),
        None => failed(format!("there is no user for \"~{name}\"")),
    }
}

/// A file behind all links, before anything of it is read.
struct Opened {
    path: PathBuf,
    metadata: Metadata,
}

impl Opened {
    /// By the modes of the file and the directories above it; access lists are not looked at.
    fn is_readable_by(&self, who: &Identity) -> bool {
        let allows = |metadata: &Metadata, bit: u32| {
            let shift = if metadata.uid() == who.uid {
                6
            } else if metadata.gid() == who.gid || who.groups.contains(&metadata.gid()) {
                3
            } else {
                0
            };
            who.uid == 0 || (metadata.mode() >> shift) & bit == bit
        };
        let is_way_open = |directory: &Path| directory.metadata().is_ok_and(|metadata| allows(&metadata, 0o1));
        allows(&self.metadata, 0o4) && self.path.ancestors().skip(1).all(is_way_open)
    }
}

/// Finds the file that `path` leads to, without opening it for reading. No magic link of `/proc` is followed: it
/// would lead into places that a learner made, under names that say nothing.
fn locate(path: &Path) -> std::io::Result<OwnedFd> {
    let (flags, mode) = (OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    match rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_MAGICLINKS) {
        // Kernels and sandboxes without that call.
        Err(Errno::NOSYS | Errno::PERM) => Ok(rustix::fs::open(path, flags, mode)?),
        found => Ok(found?),
    }
}

fn open(path: &Path, seen: &mut dyn FnMut(&Opened)) -> Result<BufReader<std::io::Take<File>>, Missing> {
    let cannot = |error: std::io::Error| Missing::Failed(format!("cannot read {}: {}", path.display(), reason(&error)));
    let place = File::from(locate(path).map_err(cannot)?);
    let metadata = place.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return failed(format!("cannot read {}: it is a {}", path.display(), file_type(&metadata)));
    }
    let link = format!("/proc/self/fd/{}", place.as_raw_fd());
    let resolved = std::fs::read_link(&link).map_err(cannot)?;
    if FORBIDDEN.iter().any(|forbidden| resolved.starts_with(forbidden)) {
        return failed(format!("{} leads to what is not the learner's", path.display()));
    }
    seen(&Opened { path: resolved, metadata });
    // The very file that was looked at, wherever the links lead meanwhile.
    let file = File::open(link).map_err(cannot)?;
    Ok(BufReader::with_capacity(64 << 10, file.take(MAX_READ + 1)))
}

fn contents(path: &Path, matcher: &Matcher, seen: &mut dyn FnMut(&Opened)) -> Fact {
    let mut reader = open(path, seen)?;
    let cannot = |error: std::io::Error| Missing::Failed(format!("cannot read {}: {}", path.display(), reason(&error)));
    let Matcher::HavePatterns(patterns) = matcher else {
        let mut bytes = Vec::new();
        reader.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > MAX_TEXT {
            return failed(format!("{} is larger than the {MAX_TEXT} bytes that are compared", path.display()));
        }
        return Ok(Found::Text(String::from_utf8_lossy(&bytes).into_owned()));
    };
    let mut search = Search::new(patterns).map_err(|error| Missing::Unknown(error.to_string()))?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(cannot)?;
        if read == 0 {
            break;
        }
        if line.len() as u64 > MAX_LINE {
            return failed(format!("{} has a line longer than {MAX_LINE} bytes", path.display()));
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if !search.line(&String::from_utf8_lossy(text)) {
            break;
        }
        if reader.get_ref().limit() == 0 {
            return failed(format!("{} is larger than the {MAX_READ} bytes that are searched", path.display()));
        }
    }
    Ok(Found::Searched(search.finish()))
}

fn hash<D: md5::Digest>(path: &Path, seen: &mut dyn FnMut(&Opened)) -> Fact {
    let mut reader = open(path, seen)?;
    let mut digest = D::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) if reader.get_ref().limit() == 0 => {
                return failed(format!("{} is larger than the {MAX_READ} bytes that are hashed", path.display()));
            }
            Ok(0) => break,
            Ok(read) => digest.update(&buffer[..read]),
            Err(error) => return failed(format!("cannot read {}: {}", path.display(), reason(&error))),
        }
    }
    value(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const LEARNER: Identity = Identity { uid: 54_321, gid: 54_322, groups: Vec::new() };

    fn look_at(path: &Path) -> Look {
        look(&path.to_string_lossy(), "contents", &Matcher::Boolean(true), Some(&LEARNER))
    }

    #[test]
    fn nothing_of_the_platform_is_read_through_a_learners_link() {
        let directory = tempfile::tempdir().unwrap();
        for target in ["/proc/self/environ", "/proc/1/root/etc/passwd", "/proc/version"] {
            let link = directory.path().join("link");
            symlink(target, &link).unwrap();
            assert!(matches!(look_at(&link).fact, Err(Missing::Failed(_))), "{target}");
            std::fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn what_the_learner_may_not_read_is_marked() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "amber").unwrap();
        symlink("file", &link).unwrap();
        for (above, mode, expected) in [(0o755, 0o644, false), (0o755, 0o640, true), (0o700, 0o644, true)] {
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(above)).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let look = look_at(&link);
            assert!(matches!(look.fact, Ok(Found::Text(text)) if text == "amber"));
            assert_eq!(look.is_closed, expected, "{above:o} {mode:o}");
            assert!(!super::look(&link.to_string_lossy(), "contents", &Matcher::Boolean(true), None).is_closed);
        }
    }
}
