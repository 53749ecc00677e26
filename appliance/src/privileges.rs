//! What the service may do to its host: it starts as root, and goes on as its own user with the two capabilities that
//! its sockets need, within the directories that it works in.
//!
//! User, capabilities and Landlock domain belong to a thread and pass to the threads that it starts, so all of this
//! happens before there is a second one. There is no seccomp filter: which system calls the C library, the runtime and
//! mksquashfs make changes with their versions, and a list that is too short kills the service in the field.

mod confine;
mod emulator;
mod spare;
mod state;
pub mod user;

pub use emulator::{EMULATOR, KVM, confine_emulator};
pub use spare::receiver;

use crate::{config::Config, ports};
use caps::Capability;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, sync::OnceLock};

/// What the service keeps: raw frames and ICMPv6, and ports below 1024 on interfaces that come later.
///
/// CAP_NET_ADMIN, which large receive buffers need, is not among them: they are made before it goes ([`receiver`]).
pub const NEEDED: [Capability; 2] = [Capability::CAP_NET_RAW, Capability::CAP_NET_BIND_SERVICE];

/// How this process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Privileges {
    /// Its user's id.
    pub uid: u32,
    /// Its effective capabilities.
    pub capabilities: Vec<String>,
    /// Whether it reaches nothing but its own files.
    pub confined: bool,
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            0 => f.write_str("root"),
            uid => write!(f, "user {uid}"),
        }?;
        match &self.capabilities[..] {
            [] => f.write_str(", no capabilities")?,
            all if self.uid == 0 => write!(f, ", {} capabilities", all.len())?,
            all => write!(f, ", {}", all.join(" "))?,
        }
        f.write_str(if self.confined { ", confined to its own files" } else { ", not confined (no Landlock)" })
    }
}

/// The service cannot give its privileges up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// No such user.
    #[error(
        "there is no user '{0}' to run as. Make it (useradd --system --user-group --shell /usr/sbin/nologin {0}; \
         with systemd: systemd-sysusers, after copying appliance/install/bennu.sysusers to /usr/lib/sysusers.d/bennu.conf), \
         name another with user = \"…\", or stay root with user = \"root\""
    )]
    NoUser(String),
    /// The state directory holds what is not ours.
    #[error(
        "the state directory {} holds '{found}', which is not Bennu's, and would be given to the user that Bennu runs \
         as. Write a state_dir that is Bennu's alone", .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A name in it.
        found: String,
    },
    /// The user cannot get to the state directory.
    #[error(
        "user '{user}' cannot reach the state directory {}: {} is closed to it. Open it (chmod o+x {}), write another \
         state_dir, or stay root with user = \"root\"", .path.display(), .closed.display(), .closed.display()
    )]
    Unreachable {
        /// Who.
        user: String,
        /// Where to.
        path: PathBuf,
        /// What is in the way.
        closed: PathBuf,
    },
    /// The system refused.
    #[error(
        "cannot {what}: {reason}. Give the service the capabilities of its systemd unit, or stay root with user = \"root\""
    )]
    Refused {
        /// What was tried, as a verb.
        what: String,
        /// What the system said.
        reason: String,
    },
}

impl PrivilegeError {
    fn refused(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Refused { what: what.into(), reason: reason.to_string() }
    }
}

/// How this process runs, for the API; empty until [`enter`] has run.
static NOW: OnceLock<Privileges> = OnceLock::new();

/// How this process runs.
pub fn now() -> Option<&'static Privileges> {
    NOW.get()
}

/// Makes the state directory, hands it to the user to run as, becomes that user, and shuts itself in. To be called by a
/// process that has one thread.
///
/// Who is not root stays who they are.
pub fn enter(config: &Config) -> Result<(), PrivilegeError> {
    // Only root sees who holds a port.
    ports::remember(&[67, 69, 4011, config.settings.http_port]);
    spare::fill();
    // For the audit log.
    user::remember_names();
    let is_root = rustix::process::geteuid().is_root();
    if is_root && config.user != "root" {
        let user = user::find(&config.user)?;
        state::make(&config.state_dir)?;
        state::hand_over(&config.state_dir, &user)?;
        user::become_user(&user)?;
        state::reach(&config.state_dir, &user)?;
    } else {
        state::make(&config.state_dir)?;
        tell_what_is_missing(is_root);
    }
    nix::sys::prctl::set_no_new_privs()
        .map_err(|error| PrivilegeError::refused("refuse new privileges (no_new_privs)", error))?;
    let confined = confine::confine(config)?;
    let now = Privileges { uid: rustix::process::geteuid().as_raw(), capabilities: capabilities(), confined };
    tracing::info!("running as {now}");
    let _ = NOW.set(now);
    Ok(())
}

fn capabilities() -> Vec<String> {
    let effective = caps::read(None, caps::CapSet::Effective).unwrap_or_default();
    let mut names: Vec<String> = effective.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

fn tell_what_is_missing(is_root: bool) {
    if is_root {
        tracing::warn!("user = \"root\": the service keeps every privilege it was started with");
    }
    let held = caps::read(None, caps::CapSet::Effective).unwrap_or_default();
    for (capability, without) in [
        (Capability::CAP_NET_BIND_SERVICE, "ports below 1024 cannot be bound: DHCP, TFTP, and HTTP on port 80"),
        (Capability::CAP_NET_RAW, "no raw frames: addresses are not probed, IPv6 router solicitations stay unanswered"),
    ] {
        if !held.contains(&capability) {
            tracing::warn!(
                "the service lacks {capability}, so {without}; start it as root, or give it that capability"
            );
        }
    }
}
