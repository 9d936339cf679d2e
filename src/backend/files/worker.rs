//! The child's half: does what is asked with the rights that it has.
//!
//! One thread, no runtime. The kernel's permissions decide; on top of them the system's own trees and the backend's
//! are refused, and nothing but regular files is opened.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use super::protocol::{Answer, Entry, EntryKind, FailureKind, MAX_CONTENT, MAX_ENTRIES, MAX_HEAD, Request};
use crate::domain::digest::Digest;

/// Trees that are no files of the learner's.
const CLOSED: [&str; 4] = ["/proc", "/sys", "/dev", "/workshop"];

/// Answers requests until the other side is gone.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    loop {
        let Some(head) = read_part(&mut input, MAX_HEAD)? else { return Ok(()) };
        let body = read_part(&mut input, MAX_CONTENT)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let request = serde_json::from_slice(&head).map_err(io::Error::other)?;
        let (answer, body) = answer(&request, &body)
            .unwrap_or_else(|failure| (Answer::Failed { kind: failure.0, message: failure.1 }, Vec::new()));
        let head = serde_json::to_vec(&answer).map_err(io::Error::other)?;
        for part in [&head, &body] {
            output.write_all(&u32::try_from(part.len()).map_err(io::Error::other)?.to_be_bytes())?;
            output.write_all(part)?;
        }
        output.flush()?;
    }
}

/// One part; none at the end of the stream.
fn read_part(input: &mut impl Read, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if let Err(error) = input.read_exact(&mut length) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut part = vec![0; length];
    input.read_exact(&mut part)?;
    Ok(Some(part))
}

struct Failure(FailureKind, String);

fn failed(attempt: &str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let message = format!("failed to {attempt} \"{}\"", path.display());
    move |error| {
        use io::ErrorKind::*;
        let kind = match error.kind() {
            NotFound => FailureKind::NotFound,
            PermissionDenied | ReadOnlyFilesystem => FailureKind::Forbidden,
            AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory => FailureKind::Conflict,
            _ => FailureKind::Io,
        };
        Failure(kind, format!("{message}: {error}"))
    }
}

fn closed(path: &Path) -> Failure {
    Failure(FailureKind::Forbidden, format!("\"{}\" is closed here", path.display()))
}

fn is_closed(path: &Path) -> bool {
    CLOSED.iter().any(|closed| path.starts_with(closed))
}

/// A path as the client may name it: absolute, without `..`.
fn parse(text: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(text);
    let plain = |component: Component<'_>| matches!(component, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || text.contains('\0') || !path.components().all(plain) {
        return Err(Failure(FailureKind::Path, format!("\"{text}\" is no absolute path without \"..\"")));
    }
    if is_closed(&path) { Err(closed(&path)) } else { Ok(path) }
}

/// The same, with all links followed.
fn resolve(text: &str) -> Result<PathBuf, Failure> {
    let path = parse(text)?;
    let real = path.canonicalize().map_err(failed("open", &path))?;
    if is_closed(&real) { Err(closed(&path)) } else { Ok(real) }
}

/// The same, for something that need not be there: its parent is followed, its name is not.
pub(super) fn resolve_name(text: &str) -> Result<PathBuf, (FailureKind, String)> {
    name(text).map_err(|failure| (failure.0, failure.1))
}

fn name(text: &str) -> Result<PathBuf, Failure> {
    let path = parse(text)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(closed(&path)) };
    let real = parent.canonicalize().map_err(failed("open", parent))?.join(name);
    if is_closed(&real) { Err(closed(&path)) } else { Ok(real) }
}

fn answer(request: &Request, body: &[u8]) -> Result<(Answer, Vec<u8>), Failure> {
    match request {
        Request::List { path } => list(path).map(|answer| (answer, Vec::new())),
        Request::Read { path } => {
            let path = resolve(path)?;
            let content = read(&path)?;
            Ok((Answer::Content { tag: tag(&content) }, content))
        }
        Request::Write { path, if_match, is_new } => {
            let tag = write(path, body, if_match.as_deref(), *is_new)?;
            Ok((Answer::Content { tag }, Vec::new()))
        }
        Request::Remove { path } => {
            let path = name(path)?;
            let found = std::fs::symlink_metadata(&path).map_err(failed("remove", &path))?;
            let removed = if found.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(failed("remove", &path))?;
            Ok((Answer::Done, Vec::new()))
        }
        Request::Directory { path } => {
            let path = name(path)?;
            std::fs::create_dir(&path).map_err(failed("make", &path))?;
            Ok((Answer::Done, Vec::new()))
        }
        Request::Move { from, to } => {
            let (from, to) = (name(from)?, name(to)?);
            if std::fs::symlink_metadata(&to).is_ok() {
                return Err(Failure(FailureKind::Conflict, format!("\"{}\" is there already", to.display())));
            }
            std::fs::rename(&from, &to).map_err(failed("move", &from))?;
            Ok((Answer::Done, Vec::new()))
        }
    }
}

fn list(text: &str) -> Result<Answer, Failure> {
    let path = resolve(text)?;
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(failed("list", &path))? {
        let entry = entry.map_err(failed("list", &path))?;
        // What vanishes between the two calls is not there.
        let Ok(metadata) = entry.metadata() else { continue };
        if entries.len() == MAX_ENTRIES {
            let message = format!("\"{text}\" has more than {MAX_ENTRIES} entries");
            return Err(Failure(FailureKind::TooLarge, message));
        }
        let target = metadata.is_symlink().then(|| std::fs::read_link(entry.path()).ok()).flatten();
        entries.push(Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            kind: kind(&metadata),
            size: metadata.len(),
            mode: format!("{:04o}", metadata.permissions().mode() & 0o7777),
            modified_at: jiff::Timestamp::new(metadata.mtime(), 0).ok().map(|time| time.to_string()),
            target: target.map(|target| target.to_string_lossy().into_owned()),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Answer::Entries { path: text.to_owned(), entries })
}

fn kind(metadata: &Metadata) -> EntryKind {
    let kind = metadata.file_type();
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else {
        EntryKind::Other
    }
}

fn tag(content: &[u8]) -> String {
    format!("\"{}\"", &Digest::of(content).hex()[..32])
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    // A pipe would block, and a device do something: without waiting, and only what is a file.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("open", path))?;
    if !metadata.is_file() {
        return Err(Failure(FailureKind::Conflict, format!("\"{}\" is no file", path.display())));
    }
    let mut content = Vec::new();
    file.take(MAX_CONTENT as u64 + 1).read_to_end(&mut content).map_err(failed("read", path))?;
    if content.len() > MAX_CONTENT {
        let message = format!("\"{}\" has more than {MAX_CONTENT} bytes", path.display());
        return Err(Failure(FailureKind::TooLarge, message));
    }
    Ok(content)
}

fn write(text: &str, content: &[u8], if_match: Option<&str>, is_new: bool) -> Result<String, Failure> {
    let named = name(text)?;
    // A link is written through, as an editor does; one that leads nowhere is not.
    let path =
        if std::fs::symlink_metadata(&named).is_ok_and(|found| found.is_symlink()) { resolve(text)? } else { named };
    let changed = |what: &str| Failure(FailureKind::Changed, format!("\"{text}\" {what}"));
    let found = match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => Some(found),
        Ok(_) => return Err(Failure(FailureKind::Conflict, format!("\"{text}\" is no file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("open", &path)(error)),
    };
    if is_new && found.is_some() {
        return Err(changed("is there already"));
    }
    if let Some(expected) = if_match {
        let there = found.as_ref().ok_or_else(|| changed("is not there any more")).and_then(|_| read(&path))?;
        if expected != "*" && expected != tag(&there) {
            return Err(changed("was changed by somebody else"));
        }
    }
    replace(&path, content, found.as_ref())?;
    Ok(tag(content))
}

/// Puts new content in place at once, so that nobody reads a half; in place where the directory cannot be written.
fn replace(path: &Path, content: &[u8], found: Option<&Metadata>) -> Result<(), Failure> {
    let mode = found.map_or(0o644, |found| found.permissions().mode() & 0o7777);
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(hidden);
    // Another owner or a second name would be lost by a new file.
    let own = rustix::process::geteuid().as_raw();
    let is_own = found.is_none_or(|found| found.uid() == own && found.nlink() == 1);
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
    match created {
        Ok(file) if is_own => {
            let written = write_all(file, content, mode).and_then(|()| std::fs::rename(&new, path));
            if written.is_err() {
                let _ = std::fs::remove_file(&new);
            }
            written.map_err(failed("write", path))
        }
        created => {
            if created.is_ok() {
                let _ = std::fs::remove_file(&new);
            }
            let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
            let mut options = OpenOptions::new();
            options.write(true).truncate(true).custom_flags(flags);
            if found.is_none() {
                options.create_new(true).mode(mode);
            }
            let mut file = options.open(path).map_err(failed("write", path))?;
            file.write_all(content).map_err(failed("write", path))
        }
    }
}

fn write_all(mut file: File, content: &[u8], mode: u32) -> io::Result<()> {
    file.write_all(content)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}
