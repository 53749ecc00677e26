//! The door of the disc's `/init`: what the service, or root, asks the first process of an appliance for.
//!
//! It is a Unix stream socket, [`SOCKET`]. A connection carries one [`Request`] and then one [`Answer`], a line of JSON
//! each. Root is heard, and the service's user.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where it is.
pub const SOCKET: &str = "/run/bennu-init.sock";
/// Bytes that a line has at most, its end included.
pub const LONGEST_LINE: usize = 64 << 10;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// To tell what runs.
    Describe,
    /// To end the service, let go of the state disk, and start the machine again.
    Restart,
    /// To do that and switch the machine off.
    PowerOff,
}

/// What is said to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done, or begins once this is read.
    Done,
    /// What runs.
    Running(Running),
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Medium => "medium",
            Self::SlotA => "slot a",
            Self::SlotB => "slot b",
        })
    }
}
