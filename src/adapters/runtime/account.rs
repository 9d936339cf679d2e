//! Who a command runs as: the image's `User` resolved in the image's own user database.
//!
//! Pure parsing of `/etc/passwd` and `/etc/group`; reading them is the caller's.

use super::RuntimeError;

/// The numeric identity of a process and its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further groups, sorted.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

impl Account {
    /// Resolves `user` (`name`, `uid`, `name:group`, `uid:gid`, or empty for root) as docker does: a number needs no
    /// entry, a name does; a group that is given replaces all groups of the database.
    pub fn resolve(user: &str, passwd: &str, group: &str) -> Result<Self, RuntimeError> {
        let unknown = || RuntimeError::UnknownUser(user.to_owned());
        let (name, wanted_group) = match user.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (user, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = name.parse::<u32>().ok();
        let entry = lines(passwd).find_map(|fields| {
            let &[entry_name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
            let (uid, gid) = (uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?);
            (entry_name == name || number == Some(uid)).then(|| (entry_name.to_owned(), uid, gid, home.to_owned()))
        });
        let (entry_name, uid, own_gid, home) = match (entry, number) {
            (Some(entry), _) => entry,
            (None, Some(uid)) => (String::new(), uid, 0, if uid == 0 { "/root" } else { "/" }.to_owned()),
            (None, None) => return Err(unknown()),
        };
        let home = if home.is_empty() { "/".to_owned() } else { home };
        let Some(wanted) = wanted_group else {
            let mut groups: Vec<u32> = lines(group)
                .filter_map(|fields| {
                    let &[_, _, gid, members] = fields.as_slice() else { return None };
                    let is_member = !entry_name.is_empty() && members.split(',').any(|member| member == entry_name);
                    is_member.then(|| gid.parse().ok()).flatten()
                })
                .filter(|gid| *gid != own_gid)
                .collect();
            groups.sort_unstable();
            groups.dedup();
            return Ok(Self { uid, gid: own_gid, groups, home });
        };
        let wanted_number = wanted.parse::<u32>().ok();
        let gid = lines(group)
            .find_map(|fields| {
                let &[group_name, _, gid, ..] = fields.as_slice() else { return None };
                let gid = gid.parse::<u32>().ok()?;
                (group_name == wanted || wanted_number == Some(gid)).then_some(gid)
            })
            .or(wanted_number)
            .ok_or_else(unknown)?;
        Ok(Self { uid, gid, groups: Vec::new(), home })
    }
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.trim().split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nlearner:x:1000:1000::/home/learner:/bin/sh\nbroken:x:\n";
    const GROUP: &str = "root:x:0:\nlearner:x:1000:\nwheel:x:10:root,learner\naudio:x:29:learner\n";

    #[test]
    fn users_resolve_as_docker_resolves_them() {
        let account = |uid, gid, groups: &[u32], home: &str| {
            Some(Account { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
        };
        let rows = [
            ("", account(0, 0, &[10], "/root")),
            ("root", account(0, 0, &[10], "/root")),
            ("learner", account(1000, 1000, &[10, 29], "/home/learner")),
            ("1000", account(1000, 1000, &[10, 29], "/home/learner")),
            ("4242", account(4242, 0, &[], "/")),
            ("learner:wheel", account(1000, 10, &[], "/home/learner")),
            ("4242:4343", account(4242, 4343, &[], "/")),
            ("nobody", None),
            ("broken", None),
            ("learner:nogroup", None),
        ];
        for (user, expected) in rows {
            let found = Account::resolve(user, PASSWD, GROUP).ok();
            assert_eq!(found, expected, "{user}");
        }
    }

    #[test]
    fn an_image_without_a_user_database_has_root() {
        let account = Account::resolve("", "", "").unwrap();
        assert_eq!((account.uid, account.gid, account.home.as_str()), (0, 0, "/root"));
    }
}
