//! The user that the service runs as.

use super::{NEEDED, PrivilegeError};
use caps::{CapSet, CapsHashSet};
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, User, setgroups, setresgid, setresuid},
};
use std::{collections::BTreeMap, sync::OnceLock};

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: Uid,
    /// Its group's id.
    pub gid: Gid,
}

/// Looks a user up.
pub fn find(name: &str) -> Result<Account, PrivilegeError> {
    let found = User::from_name(name)
        .map_err(|error| PrivilegeError::refused(format!("look up the user '{name}'"), error.desc()))?;
    let user = found.ok_or_else(|| PrivilegeError::NoUser(name.to_owned()))?;
    Ok(Account { name: user.name, uid: user.uid, gid: user.gid })
}

static NAMES: OnceLock<BTreeMap<u32, String>> = OnceLock::new();

/// Takes note of the users of this host: once the service is confined, it can look nobody up.
pub fn remember_names() {
    NAMES.get_or_init(names);
}

/// The name that a user had when the service began.
pub fn name(uid: u32) -> Option<String> {
    NAMES.get()?.get(&uid).cloned()
}

fn names() -> BTreeMap<u32, String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        Some((rest.split(':').nth(1)?.parse().ok()?, name.to_owned()))
    };
    // Of several names of one id the first counts, as it does for the system.
    passwd.lines().rev().filter_map(user).collect()
}

/// Becomes that user, with what is [`NEEDED`] of the capabilities that there are and no way to others.
pub fn become_user(user: &Account) -> Result<(), PrivilegeError> {
    let refused =
        |error: &dyn std::fmt::Display| PrivilegeError::refused(format!("become user '{}'", user.name), error);
    let permitted = caps::read(None, CapSet::Permitted).map_err(|error| refused(&error))?;
    let kept: CapsHashSet = NEEDED.into_iter().filter(|capability| permitted.contains(capability)).collect();
    for missing in NEEDED.iter().filter(|capability| !permitted.contains(capability)) {
        tracing::warn!("the service was started without {missing}");
    }
    // A change of user clears it, and whoever started us may rely on it.
    let parent_death = prctl::get_pdeathsig().map_err(|error| refused(&error))?;
    let parent = rustix::process::getppid();
    for capability in caps::runtime::thread_all_supported().difference(&NEEDED.into_iter().collect()) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(|error| refused(&error))?;
    }
    prctl::set_keepcaps(true).map_err(|error| refused(&error))?;
    setgroups(&[]).map_err(|error| refused(&error))?;
    setresgid(user.gid, user.gid, user.gid).map_err(|error| refused(&error))?;
    setresuid(user.uid, user.uid, user.uid).map_err(|error| refused(&error))?;
    prctl::set_keepcaps(false).map_err(|error| refused(&error))?;
    // Effective first where it grows and last where it shrinks: it must stay within permitted.
    caps::clear(None, CapSet::Inheritable).map_err(|error| refused(&error))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(|error| refused(&error))?;
    caps::set(None, CapSet::Effective, &kept).map_err(|error| refused(&error))?;
    prctl::set_pdeathsig(parent_death).map_err(|error| refused(&error))?;
    if parent_death.is_some() && rustix::process::getppid() != parent {
        return Err(refused(&"the process that started it has ended"));
    }
    Ok(())
}
