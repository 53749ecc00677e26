//! The narrow waist under the ledger: tables of bytes, snapshots, and one batch at a time.
//! redb is behind it (`redb_file`); nothing outside this folder names redb.

use std::{io, path::PathBuf};

/// The tables. A new one is added at the end; names on disk never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Format of the ledger itself.
    Meta,
    /// Machine id → machine.
    Machines,
    /// Any MAC → machine id.
    Macs,
    /// Reserved address → machine id.
    Reservations,
    /// Subnet and MAC → lease.
    Leases,
    /// Address → subnet and MAC of its latest lease.
    Addresses,
    /// Digest → image.
    Images,
    /// Name → tag.
    Tags,
    /// Boot id → boot.
    Boots,
    /// Machine id and boot id → nothing: a machine's boots in their order.
    BootsOfMachine,
}

/// The ledger cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// Another process has it open.
    #[error(
        "the ledger {0} is in use by another process: another bennu runs on this state directory. Stop it (systemctl stop bennu), or give this one a state_dir of its own"
    )]
    InUse(PathBuf),
    /// A directory or file cannot be made or opened.
    #[error("cannot open the ledger {path}: {reason}. Look at the disk and at who owns the file")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Written by a newer Bennu.
    #[error("the ledger has format {found}, and this bennu reads up to {known}; start the newer bennu that wrote it")]
    TooNew {
        /// On disk.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A record does not decode.
    #[error("a record of table {table:?} does not decode ({reason}); restore a backup of the ledger")]
    Record {
        /// Where.
        table: Table,
        /// How.
        reason: String,
    },
    /// The disk refused.
    #[error("the ledger's disk failed: {0}; nothing is acknowledged until bennu is restarted on a healthy disk")]
    Disk(String),
    /// An earlier fault closed the ledger to writes.
    #[error("the ledger is closed after an earlier disk fault; restart bennu when the disk is healthy")]
    Closed,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A consistent picture of every table.
pub trait Snapshot {
    /// One value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;
    /// Every pair whose key begins with `prefix`, in key order.
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Pair>, Fault>;
}

/// The one open write: sees its own changes; lost unless committed.
pub trait Batch: Snapshot {
    /// Adds or replaces.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault>;
    /// Removes, if it is there.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Fault>;
    /// Returns when everything is on disk.
    fn commit(self: Box<Self>) -> Result<(), Fault>;
    /// What this batch sees, as a snapshot.
    fn as_snapshot(&self) -> &dyn Snapshot;
}

/// Where the ledger lives.
pub trait Storage: Send + Sync + 'static {
    /// A picture of what is committed.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Fault>;
    /// Opens the one batch; waits while another is open.
    fn begin(&self) -> Result<Box<dyn Batch>, Fault>;
}
