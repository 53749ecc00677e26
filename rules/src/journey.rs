//! What was seen of a boot, and what it means when it goes no further.

mod progress;
mod stages;
mod trouble;

pub use progress::{Furthest, MARKS};
pub use stages::{Stage, stages};
pub use trouble::{Trouble, diagnose, trouble};

use crate::{
    Timestamp,
    boot::{State, session::Attempt},
    image::Digest,
};
use bennu_plan::Step;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// One thing seen, on the wire or in a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Observation {
    /// When, first.
    pub at: Timestamp,
    /// When last, if it went on or came again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// How often it came again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeated: u32,
    /// What.
    #[serde(flatten)]
    pub seen: Seen,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Observation {
    /// Something seen at one moment.
    pub fn new(at: Timestamp, seen: Seen) -> Self {
        Self { at, until: None, repeated: 0, seen }
    }
}

/// The kinds of boot script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ScriptKind {
    Boot,
    Discover,
    Foreign,
    Wait,
    Local,
    Refused,
    Restart,
}

impl ScriptKind {
    /// The state of a boot whose machine was given it.
    pub fn state(self) -> State {
        match self {
            Self::Boot | Self::Discover | Self::Foreign => State::Script,
            Self::Wait => State::Waiting,
            Self::Local => State::Local,
            Self::Refused => State::Failed,
            Self::Restart => State::Loader,
        }
    }
}

/// What can be seen. Byte counts are of this observation alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "seen", rename_all = "snake_case")]
pub enum Seen {
    /// A DISCOVER, or a proxy's or INIT-REBOOT REQUEST that opens a conversation.
    DhcpDiscover {
        /// `pxe`, `http`, `ipxe` or `system`.
        asker: String,
        /// Option 93, first entry.
        arch: Option<u16>,
    },
    /// Our OFFER.
    DhcpOffer {
        /// The address; `None` in proxy mode.
        #[schema(value_type = Option<String>, format = Ipv4)]
        address: Option<Ipv4Addr>,
        /// The boot file named.
        file: Option<String>,
    },
    /// Our ACK.
    DhcpAck {
        /// The address; `None` in proxy mode.
        #[schema(value_type = Option<String>, format = Ipv4)]
        address: Option<Ipv4Addr>,
        /// The boot file named.
        file: Option<String>,
    },
    /// Our NAK.
    DhcpNak {
        /// Why.
        reason: String,
    },
    /// We kept silent.
    DhcpIgnored {
        /// Why.
        reason: String,
    },
    /// It asks for a loader that we do not have.
    NoLoader {
        /// What it runs on.
        system: String,
    },
    /// A loader or file was read, by TFTP or HTTP, to its end or not.
    LoaderRead {
        /// `tftp` or `http`.
        by: String,
        /// Its name.
        file: String,
        /// Bytes sent.
        bytes: u64,
        /// Whether the whole file arrived.
        complete: bool,
        /// What cut it short, or figures worth knowing (block size, window, resends).
        #[serde(default)]
        detail: String,
        /// Milliseconds it took.
        #[serde(default)]
        took_ms: u64,
    },
    /// A script was handed out.
    ScriptRead {
        /// Which.
        script: ScriptKind,
        /// For refusals the reason.
        #[serde(default)]
        detail: String,
    },
    /// A blob was read, over HTTP or TFTP.
    BlobRead {
        /// Which.
        digest: Digest,
        /// `kernel`, `modules`, `stage1`, `root` or `initrd`, when the boot's image tells.
        #[serde(default)]
        part: String,
        /// Bytes sent.
        bytes: u64,
        /// Whether everything that was asked for was sent.
        complete: bool,
        /// Milliseconds it took.
        #[serde(default)]
        took_ms: u64,
    },
    /// The machine reported.
    Reported {
        /// How far it is.
        step: Step,
        /// In its words.
        message: String,
        /// Bytes of this step so far (already counted as sent).
        #[serde(default)]
        progress: u64,
    },
    /// An image was pinned to the waiting boot.
    Assigned {
        /// As written.
        image: String,
        /// As resolved.
        digest: Digest,
    },
    /// The firmware fetched a loader and nothing was heard of it.
    LoaderNotRun {
        /// What happened.
        reason: String,
        /// What the next boot is given.
        next: String,
    },
    /// Which loaders the firmware is given, where that is not the usual one.
    ChainChosen {
        /// Which, and why.
        given: String,
    },
    /// The firmware started again.
    Superseded,
    /// Stage 1 posted the key that owns the boot.
    SessionOpened {
        /// From where.
        #[schema(value_type = String)]
        address: IpAddr,
    },
    /// Somebody acted as this boot who does not own it, and was refused.
    Intrusion {
        /// What was tried.
        attempt: Attempt,
        /// From where.
        #[schema(value_type = String)]
        address: IpAddr,
    },
}

impl Seen {
    /// Bytes that this observation adds to what the boot has moved.
    pub fn bytes_moved(&self) -> u64 {
        match self {
            Self::LoaderRead { bytes, .. } | Self::BlobRead { bytes, .. } => *bytes,
            _ => 0,
        }
    }

    /// Whether `next` says the same of the same thing, so that one line of the timeline holds both.
    pub fn continues_as(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Reported { step: a, message: m, .. }, Self::Reported { step: b, message: n, .. }) => {
                a == b && (*a == Step::Downloading || m == n)
            }
            (Self::LoaderRead { .. } | Self::BlobRead { .. }, _) => false,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |address: &Option<Ipv4Addr>| address.map_or("no address".to_owned(), |a| a.to_string());
        let named = |file: &Option<String>| file.as_deref().map_or(String::new(), |file| format!(", boot file {file}"));
        let whole = |complete: &bool| if *complete { "" } else { ", cut short" };
        match self {
            Self::DhcpDiscover { asker, arch } => {
                write!(f, "DHCP discover from {asker}")?;
                arch.map_or(Ok(()), |arch| write!(f, " (architecture {arch})"))
            }
            Self::DhcpOffer { address, file } => write!(f, "DHCP offer: {}{}", at(address), named(file)),
            Self::DhcpAck { address, file } => write!(f, "DHCP ack: {}{}", at(address), named(file)),
            Self::DhcpNak { reason } => write!(f, "DHCP nak: {reason}"),
            Self::DhcpIgnored { reason } => write!(f, "DHCP not answered: {reason}"),
            Self::NoLoader { system } => write!(f, "no loader for {system}"),
            Self::LoaderRead { by, file, bytes, complete, detail, took_ms } => {
                write!(f, "{by} read {file}: {bytes} bytes in {took_ms} ms{}", whole(complete))?;
                if detail.is_empty() { Ok(()) } else { write!(f, " ({detail})") }
            }
            Self::ScriptRead { script, detail } => {
                let name = match script {
                    ScriptKind::Boot => "boot script handed out",
                    ScriptKind::Discover => "discovery script handed out",
                    ScriptKind::Foreign => {
                        "script of a foreign image handed out; Bennu cannot see what that image does"
                    }
                    ScriptKind::Wait => "asked to wait for an assignment",
                    ScriptKind::Local => "sent to its own disk",
                    ScriptKind::Refused => "refused",
                    ScriptKind::Restart => "sent to start again, for the loaders of its image",
                };
                f.write_str(name)?;
                if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
            }
            Self::BlobRead { digest, part, bytes, complete, took_ms } => {
                let part = if part.is_empty() { "blob" } else { part };
                write!(f, "read {part} {}: {bytes} bytes in {took_ms} ms{}", digest.short(), whole(complete))
            }
            Self::Reported { step, message, progress } => {
                let name = match step {
                    Step::Started => "stage 1 started",
                    Step::Network => "network is up",
                    Step::Inventory => "inventory taken",
                    Step::Waiting => "waits for an assignment",
                    Step::Downloading => "fetches its root",
                    Step::Verified => "root verified",
                    Step::Mounted => "root mounted read-only under an overlay",
                    Step::HandedOver => "handed over to the image's init",
                    Step::Up => "up",
                    Step::Restarting => "restarts",
                    Step::Failed => "failed",
                    Step::Damaged => "its root is damaged",
                };
                f.write_str(name)?;
                if !message.is_empty() {
                    write!(f, ": {message}")?;
                }
                if *progress > 0 { write!(f, " ({progress} bytes)") } else { Ok(()) }
            }
            Self::Assigned { image, digest } => write!(f, "assigned {image} ({})", digest.short()),
            Self::LoaderNotRun { reason, next } => write!(f, "{reason}; the next boot is given {next}"),
            Self::ChainChosen { given } => write!(f, "given {given}"),
            Self::Superseded => f.write_str("the firmware started again"),
            Self::SessionOpened { address } => write!(f, "stage 1 opened its session from {address}"),
            Self::Intrusion { attempt, address } => write!(f, "ALARM: {attempt}, from {address}; it was refused"),
        }
    }
}

/// Why a boot failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Diagnosis {
    /// What happened.
    pub reason: String,
    /// What to do next.
    pub advice: String,
}

impl Diagnosis {
    /// From what stage 1 said; it knows best and says what to do itself.
    pub fn from_report(message: &str) -> Self {
        Self {
            reason: message.to_owned(),
            advice: "Stage 1 tries again by itself; the machine's console shows each attempt.".to_owned(),
        }
    }

    /// From what the booted system said of its root: it was whole when it was fetched.
    pub fn damaged(message: &str) -> Self {
        Self {
            reason: message.to_owned(),
            advice:
                "The machine starts again and fetches its root anew. If that happens again, test this machine's memory."
                    .to_owned(),
        }
    }

    /// From a refusal: the machine's console shows the same words.
    pub fn refused(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            advice:
                "bennu machine explain MAC shows what it would get; once that is mended the machine goes on by itself."
                    .to_owned(),
        }
    }
}
