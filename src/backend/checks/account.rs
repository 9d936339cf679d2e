//! Facts of users and groups, from `/etc/passwd` and `/etc/group` alone.
//!
//! The image's own lookups (LDAP and the like) would need its libc and are not asked; goss does the same.

use super::fact::{Fact, Missing, failed, read_text, reason, unknown, value};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const MAX_SIZE: u64 = 16 << 20;

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

pub fn user(name: &str, attribute: &str) -> Fact {
    let users = users()?;
    let user = users.iter().find(|user| user.name == name);
    if attribute == "exists" {
        return value(user.is_some());
    }
    let Some(user) = user else { return failed(format!("there is no user \"{name}\"")) };
    match attribute {
        "uid" => value(user.uid),
        "gid" => value(user.gid),
        "home" => value(user.home.as_str()),
        "shell" => value(user.shell.as_str()),
        "groups" => value(groups_of(user)?),
        other => unknown(format!("a user has no attribute \"{other}\"")),
    }
}

pub fn group(name: &str, attribute: &str) -> Fact {
    let groups = groups()?;
    let group = groups.iter().find(|group| group.name == name);
    match (attribute, group) {
        ("exists", group) => value(group.is_some()),
        ("gid", Some(group)) => value(group.gid),
        ("gid", None) => failed(format!("there is no group \"{name}\"")),
        (other, _) => unknown(format!("a group has no attribute \"{other}\"")),
    }
}

/// The name of a user.
pub fn user_name(uid: u32) -> Option<String> {
    users().ok()?.into_iter().find(|user| user.uid == uid).map(|user| user.name)
}

/// The name of a group.
pub fn group_name(gid: u32) -> Option<String> {
    groups().ok()?.into_iter().find(|group| group.gid == gid).map(|group| group.name)
}

/// The home directory of a user.
pub fn home_of(name: &str) -> Option<String> {
    users().ok()?.into_iter().find(|user| user.name == name).map(|user| user.home)
}

/// The home directory of a user, by number.
pub fn home_of_uid(uid: u32) -> Option<String> {
    users().ok()?.into_iter().find(|user| user.uid == uid).map(|user| user.home)
}

/// The primary group and those that name the user, sorted.
fn groups_of(user: &User) -> Result<Vec<String>, Missing> {
    let groups = groups()?;
    let mut names: Vec<String> = groups
        .into_iter()
        .filter(|group| group.gid == user.gid || group.members.contains(&user.name))
        .map(|group| group.name)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn users() -> Result<Vec<User>, Missing> {
    Ok(parse_users(&read(PASSWD)?))
}

fn groups() -> Result<Vec<Group>, Missing> {
    Ok(parse_groups(&read(GROUP)?))
}

fn read(path: &str) -> Result<String, Missing> {
    match read_text(path, MAX_SIZE) {
        Ok(text) => Ok(text.unwrap_or_default()),
        Err(error) => failed(format!("cannot read {path}: {}", reason(&error))),
    }
}

fn parse_users(text: &str) -> Vec<User> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let users = fields.filter_map(|fields| match fields[..] {
        [name, _, uid, gid, _, home, shell] if !name.starts_with('#') => Some(User {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
            shell: shell.to_owned(),
        }),
        _ => None,
    });
    users.collect()
}

fn parse_groups(text: &str) -> Vec<Group> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let groups = fields.filter_map(|fields| match fields[..] {
        [name, _, gid, members] if !name.starts_with('#') => Some(Group {
            name: name.to_owned(),
            gid: gid.parse().ok()?,
            members: members.split(',').map(|member| member.trim().to_owned()).collect(),
        }),
        _ => None,
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::goss::Found;

    #[test]
    fn root_is_found_with_all_its_attributes() {
        for (attribute, expected) in
            [("exists", json!(true)), ("uid", json!(0)), ("gid", json!(0)), ("home", json!("/root"))]
        {
            assert_eq!(user("root", attribute), Ok(Found::Value(expected)), "{attribute}");
        }
        assert_eq!(group("root", "gid"), value(0));
        assert_eq!(user("nobody-has-this-name", "exists"), value(false));
        assert!(user("nobody-has-this-name", "uid").is_err());
        let Ok(Found::Value(groups)) = user("root", "groups") else { panic!("root has groups") };
        assert!(groups.as_array().is_some_and(|groups| groups.contains(&json!("root"))));
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let users = parse_users("a:x:1:2:c:/h:/s\nbroken\n#b:x:1:2:c:/h:/s\nc:x:-1:2:c:/h:/s\n");
        assert_eq!(users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(parse_groups("g:x:5:a, b\n:\n")[0].members, ["a", "b"]);
    }
}
