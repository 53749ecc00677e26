//! The narrow waist under the ledger: tables of bytes, snapshots, and one batch at a time.
//! redb is behind it (`redb_file`); nothing outside this folder names redb.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

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
    Uuids,
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
    /// Digest → what the registry holds under it.
    Artifacts,
    /// Name → what was pushed under it.
    Pushes,
    /// Id → token.
    Tokens,
    /// Number → record of the audit log.
    Audit,
    /// Name → metadata document.
    Metadata,
    /// MAC (or none, for every machine) and name → nothing: the documents of a machine.
    MetadataOf,
    /// Machine id → what its latest boot was given.
    Rendered,
    /// Name → secret, sealed.
    Secrets,
    /// Machine id → its SSH host keys, sealed.
    HostKeys,
    /// Name → assignment rule.
    Rules,
    /// Name → hardware profile.
    Profiles,
    /// Name → role of tokens.
    Roles,
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
    /// No room on the disk, or in the quota.
    #[error(
        "the ledger's disk is full ({0}), so nothing can be stored. Make room: the ledger tries again every second, and needs no restart"
    )]
    Full(String),
    /// The disk refused.
    #[error("the ledger's disk failed: {0}; nothing is acknowledged until bennu is restarted on a healthy disk")]
    Disk(String),
    /// Whoever asked may not change this. The ledger is well.
    #[error(
        "this token is limited to machines with {limit}, before and after, and this would change {what}; use a token without that limit"
    )]
    Beyond {
        /// To which labels.
        limit: String,
        /// What it would change beyond them.
        what: String,
    },
    /// An earlier fault closed the ledger to writes.
    #[error("the ledger is closed after an earlier disk fault; restart bennu when the disk is healthy")]
    Closed,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Part of a table, in the order of its keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span<'a> {
    /// What its keys begin with.
    pub prefix: &'a [u8],
    /// The key that it begins behind, whether or not that is there: with a larger one or, backwards, a smaller one.
    pub after: Option<&'a [u8]>,
    /// From the largest key down.
    pub backwards: bool,
}

impl<'a> Span<'a> {
    /// Every key that begins with `prefix`, in order.
    pub fn of(prefix: &'a [u8]) -> Self {
        Self { prefix, ..Self::default() }
    }

    /// The same from the largest key down.
    pub fn down(prefix: &'a [u8]) -> Self {
        Self { prefix, backwards: true, ..Self::default() }
    }
}

/// Looks at a key and its value, and says whether it has seen enough.
pub type Look<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A consistent picture of every table.
pub trait Snapshot {
    /// One value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;
    /// Shows pairs to `look`, one after the other, until it has seen enough.
    fn walk(&self, table: Table, span: Span<'_>, look: &mut Look<'_>) -> Result<(), Fault>;
    /// How many keys a table has. It does not read them.
    fn count(&self, table: Table) -> Result<u64, Fault>;
    /// Every pair whose key begins with `prefix`, in key order.
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Pair>, Fault> {
        let mut found = Vec::new();
        self.walk(table, Span::of(prefix), &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

/// A picture that readers share.
pub type Shot = dyn Snapshot + Send + Sync;

/// The one open write: sees its own changes; lost unless committed.
pub trait Batch: Snapshot {
    /// Adds or replaces.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault>;
    /// Removes, if it is there.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Fault>;
    /// What this batch sees, as a snapshot.
    fn as_snapshot(&self) -> &dyn Snapshot;
}

/// What is done inside a batch; says whether there is anything to commit.
pub type Work<'a> = dyn FnMut(&mut dyn Batch) -> Result<bool, Fault> + 'a;

/// Where the ledger lives.
pub trait Storage: Send + Sync + 'static {
    /// A picture of what is committed.
    fn snapshot(&self) -> Result<Arc<Shot>, Fault>;
    /// Runs `work` in the one batch and commits what it did: when this returns `Ok`, everything is on disk, and
    /// every later snapshot shows it. After [`Fault::Full`] nothing of it is, snapshots go on, and `recover` may
    /// mend it; after any other fault nobody knows what is on disk.
    fn write(&self, work: &mut Work<'_>) -> Result<(), Fault>;
    /// After [`Fault::Full`]: looks whether the disk takes writes again.
    fn recover(&self) -> Result<(), Fault>;
}
