//! What the appliance and stage 1 say to each other: the plan a machine fetches at
//! `/boot/<token>/plan.json`, and the reports it posts to `/boot/<token>/report`.
//!
//! Both sides are built from this crate, but never assume the same version: an initrd may be
//! older than the appliance that answers it. So unknown fields are ignored and new fields have defaults.

mod logs;
mod session;

pub use logs::{ARG_LOGS, LogClaim, LogsWanted, log_message, proved_line};
pub use session::{PROOF, SealedFile, SessionGranted, SessionKey, SessionRequest, proved};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of this conversation. Raised only when an old stage 1 could misread a new plan.
pub const PLAN_VERSION: u32 = 1;

/// Kernel argument that carries the base URL of the boot: `bennu.boot=http://10.77.0.1/boot/<token>/`.
pub const ARG_BOOT: &str = "bennu.boot";

/// Kernel argument with the address that the loader holds: `bennu.ip=<address>/<netmask>/<gateway>/<dns>`.
/// Netmask is dotted. Empty fields are allowed; without it stage 1 asks DHCP itself.
pub const ARG_IP: &str = "bennu.ip";

/// Kernel argument naming the boot interface in PXELINUX's form: `BOOTIF=01-52-54-00-12-34-56`.
pub const ARG_BOOTIF: &str = "BOOTIF";

/// Where a boot's NoCloud data are, under its base URL.
pub const NOCLOUD: &str = "nocloud";

/// Where a boot's Ignition configuration is, under its base URL.
pub const IGNITION: &str = "ignition.json";

/// Where an image's init may be, in the order in which it is looked for: the kernel's own list without its shell, and
/// systemd without its link. The import takes an image that has one, stage 1 starts it.
pub const INITS: [&str; 8] = [
    "/sbin/init",
    "/usr/sbin/init",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd",
    "/init",
    "/bin/init",
    "/usr/bin/init",
    "/etc/init",
];

/// Everything stage 1 needs for one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the appliance that wrote it.
    pub version: u32,
    /// The boot's id, for people: consoles and logs name it.
    pub boot: String,
    /// The machine's id (a MAC address, lower case with colons).
    pub machine: String,
    /// What to do now.
    pub action: Action,
}

/// What a machine shall do with itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Fetch, verify and mount the root, then hand over to its init.
    Boot(Box<RootPlan>),
    /// Post an inventory, then ask for the plan again every `poll_seconds`: nobody assigned an image yet.
    Discover {
        /// Seconds between two looks at the plan.
        poll_seconds: u32,
    },
    /// Restart at once, because what was assigned needs another kernel.
    Restart {
        /// For the console.
        reason: String,
    },
}

/// The root of a machine and how to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootPlan {
    /// The name a person gave, such as `web:v3`, or the digest where there is none.
    pub image: String,
    /// Digest of the image, `sha256:…`.
    pub digest: String,
    /// The root filesystem.
    pub root: Blob,
    /// What it is, as mount(2) calls it.
    #[serde(default = "squashfs", skip_serializing_if = "is_squashfs")]
    pub filesystem: String,
    /// What the kernel is to check the root's blocks with; `None`: an image of before, which has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Verity>,
    /// What runs where the root has no init; `None`: its init does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// Kernel release the image's modules belong to (`uname -r`); stage 1 refuses another.
    pub kernel_release: String,
    /// Size limit of the writable overlay, in bytes; `None`: half of the memory that is free then.
    #[serde(default)]
    pub overlay_limit: Option<u64>,
    /// Host name to lay down; `None` leaves the image's own.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Whether stage 1 lays down an fstab of ours over the image's.
    #[serde(default = "yes")]
    pub own_fstab: bool,
    /// The appliance's time when the plan was made, in milliseconds since 1970: machines with a dead clock battery are set to it.
    #[serde(default)]
    pub time_ms: u64,
    /// What else makes this machine this machine.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

fn yes() -> bool {
    true
}

/// A container image's own program (OCI image specification, "Image Configuration").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    /// The program and its arguments: Entrypoint, then Cmd.
    pub args: Vec<String>,
    /// `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty is root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Working directory; empty is `/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workdir: String,
}

/// What all roots were when plans did not say.
fn squashfs() -> String {
    "squashfs".to_owned()
}

fn is_squashfs(filesystem: &str) -> bool {
    filesystem == "squashfs"
}

/// dm-verity's hashes over the root: SHA-256 without a salt, blocks of 4096 bytes, the tree behind one block with the
/// superblock of `veritysetup format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// The tree.
    pub tree: Blob,
    /// 64 lower-case hex digits.
    pub root_hash: String,
}

/// What stage 1 lays down in a root of what people wrote about its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Lines of `authorized_keys`, by user.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ssh_authorized_keys: BTreeMap<String, Vec<String>>,
    /// Files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PlannedFile>,
    /// For cloud-init, where the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nocloud: Option<NoCloud>,
    /// File systems that outlive boots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub persistent: Vec<PersistentMount>,
}

impl Metadata {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A file to lay down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFile {
    /// Where, from the root on.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// `user[:group]`, by the image's names or by number.
    pub owner: String,
    /// What is in it.
    pub content: String,
}

/// The files of cloud-init's NoCloud data source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoCloud {
    /// `meta-data`.
    pub meta_data: String,
    /// `user-data`.
    pub user_data: String,
    /// `vendor-data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<String>,
    /// `network-config`; without it cloud-init leaves the network alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<String>,
}

/// A file system that outlives boots, made once where its disk is blank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentMount {
    /// Which disk.
    pub disk: DiskWanted,
    /// The file system's label, by which it is known again.
    pub label: String,
    /// `ext4` or `xfs`.
    pub filesystem: String,
    /// Where it is mounted.
    pub mount: String,
    /// Mount options, as in fstab.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
}

/// Which disk: all that is said must be so of one disk alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskWanted {
    /// A name in `/dev/disk/by-id`, such as `nvme-MODEL_SERIAL`, `ata-MODEL_SERIAL`, `wwn-0x…` or `virtio-SERIAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_id: Option<String>,
    /// Its serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its world wide name, such as `0x5000c500a1b2c3d4` or `eui.…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The label of a file system that is on it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Bytes at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// Bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
}

/// A file in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Absolute URL.
    pub url: String,
    /// `sha256:` and 64 lower-case hex digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// One report of a machine about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The step that was reached.
    pub step: Step,
    /// What a person should read; for failures the reason and what to do.
    #[serde(default)]
    pub message: String,
    /// Bytes moved so far in this step, where that says anything.
    #[serde(default)]
    pub bytes: u64,
    /// Milliseconds since the machine's kernel started.
    #[serde(default)]
    pub uptime_ms: u64,
    /// Hardware found, with [`Step::Inventory`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
}

/// The steps of stage 1 and of the health reporter, in the order of a good boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(as = ReportStep))]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Stage 1 runs.
    Started,
    /// A network interface carries us to the appliance.
    Network,
    /// The inventory was taken ([`Report::inventory`]).
    Inventory,
    /// Waits for an assignment.
    Waiting,
    /// The root is being fetched; sent again while it goes on.
    Downloading,
    /// The root's digest is right.
    Verified,
    /// Root and overlay are mounted.
    Mounted,
    /// The image's init takes over.
    HandedOver,
    /// The booted system says that it is up.
    Up,
    /// The machine restarts because the appliance said so.
    Restarting,
    /// Something failed; stage 1 tries again.
    Failed,
    /// A block of the root is not what it was: the kernel refuses it, and the machine starts again. Ends a boot that is up, too.
    Damaged,
}

/// What discovery found in a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Inventory {
    /// SMBIOS system manufacturer.
    pub manufacturer: String,
    /// SMBIOS product name.
    pub product: String,
    /// SMBIOS serial number.
    pub serial: String,
    /// SMBIOS UUID, lower case.
    pub uuid: String,
    /// Processor model.
    pub cpu_model: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Block devices.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub nics: Vec<Nic>,
}

/// A block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Disk {
    /// Kernel name, `sda`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Model as the device says it.
    pub model: String,
    /// Serial number as the device says it.
    pub serial: String,
    /// Whether it spins.
    pub rotational: bool,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Nic {
    /// Kernel name, `eth0`.
    pub name: String,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// Driver module.
    pub driver: String,
    /// Whether the link is up.
    pub link: bool,
    /// Mbit/s; 0 when unknown.
    pub speed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_documented_and_ignores_what_it_does_not_know() {
        let json = r#"{"version":1,"boot":"b1","machine":"52:54:00:00:00:01","later":true,
            "action":{"do":"boot","image":"web:v1","digest":"sha256:00","kernel_release":"6.1.0",
            "root":{"url":"http://10.77.0.1/blobs/sha256/00","digest":"sha256:00","size":4096}}}"#;
        let plan: Plan = serde_json::from_str(json).unwrap();
        let Action::Boot(root) = &plan.action else { panic!("not a boot: {plan:?}") };
        assert!(root.own_fstab);
        assert_eq!(root.overlay_limit, None);
        assert_eq!(root.filesystem, "squashfs");
        let again: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(again, plan);
    }
}
