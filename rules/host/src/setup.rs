//! What the disc's `/init` and the set-up, which is another process, leave for each other.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where. In memory, and root's alone.
pub const DIRECTORY: &str = "/run/bennu-setup";
/// There: the disks that may hold the state, for the set-up.
pub const DISKS: &str = "disks.toml";
/// There: the configuration that a person made, for init. It appears whole.
pub const MADE: &str = "bennu.toml";
/// There, before the configuration: the serial number of the disk that is to lose what is on it, as a person typed it.
pub const ERASE: &str = "erase";

/// The disks of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disks {
    /// The state disk that is in use already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// Whether there is a TPM 2.0.
    pub tpm: bool,
    /// The medium, where its free space could hold the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stick: Option<Disk>,
    /// Those that could become it.
    pub disk: Vec<Disk>,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its device.
    pub device: PathBuf,
    /// What its maker calls it; empty when it does not say.
    pub serial: String,
    /// Bytes.
    pub size: u64,
    /// Whether nothing at all is on it.
    pub blank: bool,
}
