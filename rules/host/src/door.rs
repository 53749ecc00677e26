//! The door of the disc's `/init`: what the service, or root, asks the first process of an appliance for.
//!
//! It is a Unix stream socket, [`SOCKET`]. A connection carries one [`Request`] and then one [`Answer`], a line of JSON
//! each. Root is heard, and the service's user. After [`Request::Install`] and its [`Answer::Send`] the disc's bytes follow, and
//! then a second answer.

use crate::reset::Reset;
use crate::slots::{Release, Slot};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where it is.
pub const SOCKET: &str = "/run/bennu-init.sock";
/// Bytes that a line has at most, its end included.
pub const LONGEST_LINE: usize = 64 << 10;
/// Bytes of the end of each log that is asked for.
pub const LOG_TAIL: usize = 512 << 10;
/// Bytes that [`Answer::Logs`] has at most: the two logs, each byte of them escaped.
pub const LONGEST_LOGS: usize = 2 * 6 * LOG_TAIL + 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// To tell what runs.
    Describe,
    /// The ends of the logs that only the first process may read.
    Logs,
    /// To end the service, let go of the state disk, and start the machine again.
    Restart,
    /// To do that and switch the machine off.
    PowerOff,
    /// To put another disc into the slot that does not run, and try it at the next start.
    Install(Disc),
    /// To end the service, to have everything go that the appliance keeps but the discs in its slots, and to start again.
    Reset(Reset),
}

/// A disc that is to be installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disc {
    /// Its bytes.
    pub size: u64,
    /// The signature over them, as `cosign sign-blob` writes it: base64.
    pub signature: String,
    /// Whether it may be older than what runs.
    pub allow_older: bool,
}

/// What is said to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done, or begins once this is read.
    Done,
    /// What runs.
    Running(Running),
    /// The disc may be sent.
    Send,
    /// The disc is in its slot, and is tried at the next start.
    Installed {
        /// Which.
        slot: Slot,
        /// What is in it.
        release: Release,
    },
    /// The ends of logs, each of [`LOG_TAIL`] bytes at most.
    Logs {
        /// The kernel's.
        kernel: String,
        /// What the first process and the service said, in this run and before.
        appliance: String,
    },
    /// It is not done, and nothing has changed.
    Refused {
        /// Why.
        what: String,
        /// What to do next.
        advice: String,
    },
}

impl Answer {
    /// A refusal.
    pub fn refused(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), advice: advice.into() }
    }
}

/// What runs on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The version of the disc that runs.
    pub version: String,
    /// When its contents were made, in seconds since 1970: a later disc has a greater number.
    pub built: u64,
    /// Where it was started from.
    pub from: Source,
    /// The disk that holds the state; `None`: memory does.
    pub state_disk: Option<String>,
    /// The discs in the slots of the state disk.
    pub slots: Vec<InSlot>,
    /// The version of an upgrade that did not become ready, until the next one is installed.
    pub failed: Option<String>,
    /// Whether the disc that runs has a key, without which it takes up no other.
    pub upgradable: bool,
}

/// A disc in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSlot {
    /// Which slot.
    pub slot: Slot,
    /// Which disc.
    pub release: Release,
    /// What becomes of it.
    pub standing: Standing,
}

/// What becomes of a disc in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It starts, unless the medium is newer.
    Good,
    /// It is tried at the next start, or is being tried.
    Trial,
    /// It did not become ready.
    Failed,
    /// It ran before, and starts when a person chooses it.
    Kept,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Trial => "on trial",
            Self::Failed => "did not become ready",
            Self::Kept => "kept",
        })
    }
}

/// Where an appliance was started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The disc or stick.
    Medium,
    /// The first slot of the state disk.
    SlotA,
    /// The second.
    SlotB,
}

impl From<Option<Slot>> for Source {
    fn from(slot: Option<Slot>) -> Self {
        match slot {
            None => Self::Medium,
            Some(Slot::A) => Self::SlotA,
            Some(Slot::B) => Self::SlotB,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Medium => "medium",
            Self::SlotA => "slot a",
            Self::SlotB => "slot b",
        })
    }
}
