//! Facts of mount points, from `/proc/self/mountinfo`; how full one is, from the file system itself.

use super::fact::{Fact, Missing, failed, read_text, reason, unknown, value};

const TABLE: &str = "/proc/self/mountinfo";

#[derive(Debug, PartialEq)]
struct Mount {
    path: String,
    options: Vec<String>,
    filesystem: String,
    source: String,
    super_options: Vec<String>,
}

pub fn fact(path: &str, attribute: &str) -> Fact {
    let mount = find(path)?;
    if attribute == "exists" {
        return value(mount.is_some());
    }
    let Some(mount) = mount else { return failed(format!("nothing is mounted at {path}")) };
    match attribute {
        "opts" => value(mount.options),
        "vfs-opts" => value(mount.super_options),
        "source" => value(mount.source),
        "filesystem" => value(mount.filesystem),
        "usage" => usage(&mount.path),
        other => unknown(format!("a mount has no attribute \"{other}\"")),
    }
}

/// The last mount there, which covers those before.
fn find(path: &str) -> Result<Option<Mount>, Missing> {
    let table = match read_text(TABLE, 16 << 20) {
        Ok(table) => table.unwrap_or_default(),
        Err(error) => return unknown(format!("cannot read {TABLE}: {}", reason(&error))),
    };
    let trimmed = path.trim_end_matches('/');
    let path = if trimmed.is_empty() { "/" } else { trimmed };
    Ok(table.lines().rev().filter_map(parse).find(|mount| mount.path == path))
}

fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    let after: Vec<&str> = after.split(' ').collect();
    let list = |text: &str| {
        let mut options: Vec<String> = Vec::new();
        for option in text.split(',').map(unescape) {
            if !options.contains(&option) {
                options.push(option);
            }
        }
        options
    };
    Some(Mount {
        path: unescape(before.get(4)?),
        options: list(before.get(5)?),
        filesystem: unescape(after.first()?),
        source: unescape(after.get(1)?),
        super_options: list(after.get(2)?),
    })
}

/// `\040` is a space.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The part of the space that is used, in percent.
fn usage(path: &str) -> Fact {
    let space = match rustix::fs::statvfs(path) {
        Ok(space) => space,
        Err(error) => return failed(format!("cannot tell how full {path} is: {error}")),
    };
    let used = space.f_blocks.saturating_sub(space.f_bfree);
    value(used.saturating_mul(100).checked_div(space.f_blocks).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::goss::Found;

    #[test]
    fn the_root_and_proc_are_mounted_and_have_their_attributes() {
        assert_eq!(fact("/proc", "exists"), value(true));
        assert_eq!(fact("/proc/", "filesystem"), value("proc"));
        assert_eq!(fact("/etc/passwd/nothing", "exists"), value(false));
        let Ok(Found::Value(options)) = fact("/proc", "opts") else { panic!("/proc has options") };
        assert!(options.as_array().is_some_and(|options| !options.is_empty()));
        let Ok(Found::Value(usage)) = fact("/", "usage") else { panic!("/ has a size") };
        assert!(usage.as_u64().is_some_and(|usage| usage <= 100));
    }

    #[test]
    fn escaped_paths_and_optional_fields_are_read() {
        let mount =
            parse(r"36 35 98:0 /m /a\040b rw,noatime,rw shared:1 master:2 - ext3 /dev/root rw,errors=x").unwrap();
        assert_eq!(
            (mount.path.as_str(), mount.filesystem.as_str(), mount.source.as_str()),
            ("/a b", "ext3", "/dev/root")
        );
        assert_eq!(mount.options, ["rw", "noatime"]);
        assert_eq!(mount.super_options, ["rw", "errors=x"]);
        assert_eq!(parse("broken"), None);
    }
}
