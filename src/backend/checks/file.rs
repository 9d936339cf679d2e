//! Facts of files: read with the links themselves in view, as goss does.
//!
//! Contents are streamed past the patterns; only a matcher that wants the whole text gets it, up to a size.

use std::fs::{File, Metadata};
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::account;
use super::fact::{Fact, Missing, failed, reason, unknown, value};
use crate::domain::goss::Found;
use crate::domain::goss::matcher::Matcher;
use crate::domain::goss::pattern::Search;

/// The longest line that patterns are sought in.
const MAX_LINE: u64 = 1 << 20;
/// The most that is read of one file.
const MAX_READ: u64 = 1 << 30;
/// The longest text that is compared as a whole.
const MAX_TEXT: u64 = 8 << 20;

pub fn fact(path: &str, attribute: &str, matcher: &Matcher) -> Fact {
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
        "contents" | "contains" => contents(&path, matcher),
        "md5" => hash::<md5::Md5>(&path),
        "sha256" => hash::<sha2::Sha256>(&path),
        "sha512" => hash::<sha2::Sha512>(&path),
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

fn open(path: &Path) -> Result<BufReader<std::io::Take<File>>, Missing> {
    let cannot = |error: std::io::Error| Missing::Failed(format!("cannot read {}: {}", path.display(), reason(&error)));
    // A pipe without a writer would not open.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return failed(format!("cannot read {}: it is a {}", path.display(), file_type(&metadata)));
    }
    Ok(BufReader::with_capacity(64 << 10, file.take(MAX_READ + 1)))
}

fn contents(path: &Path, matcher: &Matcher) -> Fact {
    let mut reader = open(path)?;
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

fn hash<D: md5::Digest>(path: &Path) -> Fact {
    let mut reader = open(path)?;
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
