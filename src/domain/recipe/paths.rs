//! The rules for one element of `files`: target path, mode, owner and the form of a source.

use super::{FileSource, Owner};
use crate::domain::yaml::{Kind, Mapping, Node, Problems, shorten};

/// Directories that are the platform's or the kernel's while a workspace runs.
const RESERVED: [&str; 5] = ["/workshop", "/persist", "/proc", "/sys", "/dev"];
/// The longest file name of Linux, in bytes.
const MAX_COMPONENT: usize = 255;
/// The longest path of Linux, in bytes.
const MAX_PATH: usize = 4095;

/// Why `path` is no target, and what to do about it.
pub(super) fn check_target(path: &str) -> Result<(), (String, String)> {
    let quoted = format!("\"{}\"", shorten(path));
    let Some(relative) = path.strip_prefix('/') else {
        let help = format!("begin it with `/`, such as /{}", shorten(path));
        return Err((format!("the path {quoted} is not absolute"), help));
    };
    let refused = |reason: &str, help: &str| Err((format!("the path {quoted} {reason}"), help.to_owned()));
    if relative.is_empty() {
        return refused("is the root itself", "name a file or directory below it");
    }
    if path.contains('\0') {
        return refused("has a NUL character", "remove it");
    }
    if path.len() > MAX_PATH {
        return refused("is longer than 4095 bytes", "shorten it");
    }
    for component in relative.split('/') {
        match component {
            "" => return refused("has an empty component", "write each `/` once and none at the end"),
            "." | ".." => {
                return refused(&format!("has the component \"{component}\""), "write the path without `.` and `..`");
            }
            _ if component.starts_with(".wh.") => {
                return refused(
                    "has a name that begins with \".wh.\", which deletes files in image layers",
                    "choose another name",
                );
            }
            _ if component.len() > MAX_COMPONENT => {
                return refused("has a name of more than 255 bytes", "shorten it");
            }
            _ => {}
        }
    }
    if let Some(reserved) = RESERVED.iter().find(|reserved| is_at_or_below(path, reserved)) {
        let whose = match *reserved {
            "/workshop" | "/persist" => "the platform's",
            _ => "the kernel's",
        };
        return refused(&format!("is in {reserved}, which is {whose}"), "put the file elsewhere");
    }
    Ok(())
}

fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads `mode` from the scalar's text, so that quotes and a leading zero make no difference.
pub(super) fn read_mode(node: &Node, field: &str, problems: &mut Problems<'_>) -> Option<u32> {
    let help = "write three or four octal digits, such as 0644 or 0755";
    let Some(text) = node.scalar() else {
        problems.wrong_type(node, field, "a mode");
        return None;
    };
    let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
    if mode.is_none() {
        let message = format!("the mode \"{}\" is not three or four octal digits", shorten(text));
        problems.error("mode", node.place, field, message, help);
    }
    mode
}

/// Reads `owner`, `UID:GID`.
pub(super) fn read_owner(node: &Node, field: &str, problems: &mut Problems<'_>) -> Option<Owner> {
    let Some(text) = node.scalar().filter(|_| node.kind() == Kind::String) else {
        problems.wrong_type(node, field, "an owner");
        return None;
    };
    let number = |text: &str| {
        text.parse::<u32>()
            .ok()
            // The highest number means "no such user" to the kernel.
            .filter(|number| *number != u32::MAX && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let owner = text.split_once(':').and_then(|(uid, gid)| Some(Owner { uid: number(uid)?, gid: number(gid)? }));
    if owner.is_none() {
        let message = format!("the owner \"{}\" is not of the form UID:GID", shorten(text));
        let help = "write two numbers, such as 0:0 for root or 1000:1000 for the learner; names differ between images";
        problems.error("owner", node.place, field, message, help);
    }
    owner
}

/// Reads `content` or `source`, of which there is exactly one.
pub(super) fn read_source(mapping: &Mapping<'_>, problems: &mut Problems<'_>) -> Option<FileSource> {
    match (mapping.get("content"), mapping.get("source")) {
        (Some(_), Some(source)) => {
            problems.error(
                "content-or-source",
                source.place,
                &mapping.path("source"),
                "the file has both `content` and `source`",
                "keep one of the two",
            );
            None
        }
        (None, None) => {
            problems.error(
                "content-or-source",
                mapping.place,
                &mapping.path("content"),
                "the file has neither `content` nor `source`",
                "add `content:` with the text, or `source:` with a path of the workshop's directory",
            );
            None
        }
        (Some(content), None) => {
            let text = problems.string(content, &mapping.path("content"))?;
            Some(FileSource::Inline(text.to_owned()))
        }
        (None, Some(source)) => {
            let field = mapping.path("source");
            let text = problems.string(source, &field)?;
            let mut refused = |reason: &str, help: &str| {
                let message = format!("the source \"{}\" {reason}", shorten(text));
                problems.error("source", source.place, &field, message, help);
            };
            if text.is_empty() {
                refused("is empty", "write a path of the workshop's directory");
            } else if text.starts_with('/') {
                refused("is absolute", "write it relative to step-spec.yaml, inside of the workshop's directory");
            } else if text.contains('\0') {
                refused("has a NUL character", "remove it");
            } else {
                return Some(FileSource::Tree(text.to_owned()));
            }
            None
        }
    }
}
