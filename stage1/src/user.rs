//! Who a container image's program runs as: `user[:group]`, names of the image's own files or numbers (OCI image specification,
//! "Image Configuration").

use rustix::process::{Gid, Uid};
use std::io;

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Numbers of all groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

impl Default for Account {
    fn default() -> Self {
        Self { uid: 0, gid: 0, groups: vec![0], home: "/".to_owned() }
    }
}

/// Finds who is meant, by `passwd` and `group` as they are in the image. Nothing is root.
pub fn find(wanted: &str, passwd: &str, group: &str) -> Result<Account, String> {
    let (user, named_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let known = passwd.lines().map(fields).find(|fields| fields.len() >= 6 && (fields[0] == user || fields[2] == user));
    let (name, uid, gid, home) = match (known, user.parse::<u32>()) {
        (Some(fields), _) => {
            let number =
                |text: &str| text.parse().map_err(|_| format!("/etc/passwd of the image is damaged at '{user}'"));
            (fields[0].clone(), number(&fields[2])?, number(&fields[3])?, fields[5].clone())
        }
        // A number needs no line.
        (None, Ok(uid)) => (String::new(), uid, 0, "/".to_owned()),
        (None, Err(_)) => return Err(format!("the image names the user '{user}', and its /etc/passwd has none")),
    };
    let of_group = |wanted: &str| -> Result<u32, String> {
        let known = group.lines().map(fields).find(|fields| fields.len() >= 3 && fields[0] == wanted);
        let number = known.map_or(wanted.to_owned(), |fields| fields[2].clone());
        number.parse().map_err(|_| format!("the image names the group '{wanted}', and its /etc/group has none"))
    };
    let gid = match named_group.filter(|group| !group.is_empty()) {
        Some(group) => of_group(group)?,
        None => gid,
    };
    let is_member = |fields: &Vec<String>| {
        fields.len() >= 4 && !name.is_empty() && fields[3].split(',').any(|member| member == name)
    };
    // A group that was named is the only one, as with container runtimes.
    let more = group.lines().map(fields).filter(|fields| named_group.is_none() && is_member(fields));
    let mut groups = vec![gid];
    groups.extend(more.filter_map(|fields| fields[2].parse::<u32>().ok()).filter(|more| *more != gid));
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(Account { uid, gid, groups, home })
}

/// Becomes the account; for a process with one thread.
pub fn become_account(account: &Account) -> io::Result<()> {
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    let groups: Vec<Gid> = account.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    set_thread_groups(&groups)?;
    set_thread_gid(Gid::from_raw(account.gid))?;
    Ok(set_thread_uid(Uid::from_raw(account.uid))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/usr/sbin/nologin\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nssl:x:101:web,root\nadm:x:4:other\n";

    #[test]
    fn users_are_found_as_runtimes_find_them() {
        let account = |uid, gid, groups: &[u32], home: &str| {
            Ok(Account { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
        };
        let find = |wanted| find(wanted, PASSWD, GROUP);
        assert_eq!(find(""), account(0, 0, &[0, 101], "/root"));
        assert_eq!(find("web"), account(33, 33, &[33, 101], "/var/www"));
        assert_eq!(find("33"), account(33, 33, &[33, 101], "/var/www"));
        assert_eq!(find("web:adm"), account(33, 4, &[4], "/var/www"));
        assert_eq!(find("1000:1001"), account(1000, 1001, &[1001], "/"));
        assert_eq!(find("1000"), account(1000, 0, &[0], "/"));
        assert!(find("nobody").unwrap_err().contains("'nobody'"));
        assert!(find("web:none").unwrap_err().contains("'none'"));
    }
}
