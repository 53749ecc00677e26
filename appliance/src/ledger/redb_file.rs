//! The ledger's storage in a redb database.

use super::{
    disk::{Attended, Disk, FileDisk, Vitals, fault_of},
    storage::{Batch, Fault, Look, Shot, Snapshot, Span, Storage, Table, Work},
};
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition, TableError, TableHandle, WriteTransaction,
};
use std::{
    cell::RefCell,
    fs::{self, File},
    io,
    ops::Bound,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type OpenTable<'w> = redb::Table<'w, &'static [u8], &'static [u8]>;

/// redb's page cache. Its default of 1 GiB would make the appliance's memory grow with its history.
const CACHE_BYTES: usize = 12 << 20;

const TABLES: [(Table, Definition); 23] = [
    (Table::Meta, TableDefinition::new("meta")),
    (Table::Machines, TableDefinition::new("machines")),
    (Table::Macs, TableDefinition::new("macs")),
    (Table::Reservations, TableDefinition::new("reservations")),
    (Table::Uuids, TableDefinition::new("uuids")),
    (Table::Leases, TableDefinition::new("leases")),
    (Table::Addresses, TableDefinition::new("addresses")),
    (Table::Images, TableDefinition::new("images")),
    (Table::Tags, TableDefinition::new("tags")),
    (Table::Boots, TableDefinition::new("boots")),
    (Table::BootsOfMachine, TableDefinition::new("boots_of_machine")),
    (Table::Artifacts, TableDefinition::new("artifacts")),
    (Table::Pushes, TableDefinition::new("pushes")),
    (Table::Tokens, TableDefinition::new("tokens")),
    (Table::Audit, TableDefinition::new("audit")),
    (Table::Metadata, TableDefinition::new("metadata")),
    (Table::MetadataOf, TableDefinition::new("metadata_of")),
    (Table::Rendered, TableDefinition::new("rendered")),
    (Table::Secrets, TableDefinition::new("secrets")),
    (Table::HostKeys, TableDefinition::new("host_keys")),
    (Table::Rules, TableDefinition::new("rules")),
    (Table::Profiles, TableDefinition::new("profiles")),
    (Table::Roles, TableDefinition::new("roles")),
];

/// Every table, and what it is called on the disk.
pub(super) fn tables() -> impl Iterator<Item = (Table, &'static str)> {
    static LISTED: [(Table, Definition); TABLES.len()] = TABLES;
    LISTED.iter().map(|(table, definition)| (*table, definition.name()))
}

/// Files up to this length commit in one phase, unless a test says otherwise.
const ONE_PHASE_BYTES: u64 = 256 << 20;

/// Written to see whether the disk takes commits again.
const PROBE_KEY: &[u8] = b"probe";

/// A redb database on a disk.
pub struct RedbFile {
    disk: Box<dyn Disk>,
    one_phase_bytes: u64,
    /// Held by whoever writes or exchanges it.
    database: Mutex<Option<Opened>>,
    /// What readers look at: replaced after each commit, so that tables are opened once for all of them.
    picture: RwLock<Result<Arc<Picture>, Fault>>,
    /// Set from a fault until `database` is another: pictures taken meanwhile may not be readable.
    exchanging: AtomicBool,
}

struct Opened {
    database: Database,
    vitals: Arc<Vitals>,
    /// Writes go to memory, so that nothing may be promised on them.
    frozen: bool,
    /// It had not been closed, so that every checksum was looked at.
    repaired: bool,
}

impl RedbFile {
    /// Opens the file, or makes it with every table.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        if !path.exists() {
            make(path).map_err(|error| Fault::Open { path: path.to_owned(), reason: error.to_string() })?;
        } else {
            examine(path)?;
        }
        Self::on(Box::new(FileDisk::new(path)))
    }

    /// Opens the database on `disk`.
    pub fn on(disk: Box<dyn Disk>) -> Result<Self, Fault> {
        Self::with_one_phase_up_to(ONE_PHASE_BYTES, disk)
    }

    /// Commits in one phase as long as the file has up to `bytes` bytes.
    pub(super) fn with_one_phase_up_to(bytes: u64, disk: Box<dyn Disk>) -> Result<Self, Fault> {
        let opened = open(&*disk, false)?;
        let picture = Picture::of(&opened.database)?;
        Ok(Self {
            disk,
            one_phase_bytes: bytes,
            database: Mutex::new(Some(opened)),
            picture: RwLock::new(Ok(picture)),
            exchanging: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, picture: Result<Arc<Picture>, Fault>) {
        *self.picture.write().unwrap_or_else(PoisonError::into_inner) = picture;
    }

    /// Goes on reading what is on the full disk.
    fn freeze(&self, database: &mut Option<Opened>, fault: Fault) -> Fault {
        *database = None;
        let picture = open(&*self.disk, true).and_then(|opened| {
            let picture = Picture::of(&opened.database);
            *database = Some(opened);
            picture
        });
        self.show(picture.map_err(|_| fault.clone()));
        fault
    }
}

/// Compares what the file holds with the checksums in it. A start after a crash does that by itself; a disk that has changed a
/// byte meanwhile does not crash anybody.
fn examine(path: &Path) -> Result<(), Fault> {
    let mut opened = open(&FileDisk::new(path), false)?;
    if opened.repaired || opened.vitals.length() > ONE_PHASE_BYTES {
        return Ok(());
    }
    match opened.database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => {
            tracing::error!(
                path = %path.display(),
                "the ledger was damaged, and is what it was one commit earlier: the last write is lost. Look at the disk"
            );
            Ok(())
        }
        // A full disk heals.
        Err(_) if matches!(opened.vitals.met(), Some(Fault::Full(_))) => Ok(()),
        Err(error) => Err(Fault::Open { path: path.to_owned(), reason: error.to_string() }),
    }
}

/// Makes a ledger aside and gives it its name when it is whole: a database that lost the power while it was made
/// does not open.
fn make(path: &Path) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = RedbFile::on(Box::new(FileDisk::new(&aside))).map_err(io::Error::other)?;
    drop(made);
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn open(disk: &dyn Disk, frozen: bool) -> Result<Opened, Fault> {
    let path = disk.path();
    let refuse = |reason: String| Fault::Open { path: path.to_owned(), reason };
    let backend = disk.open().map_err(|error| refuse(error.to_string()))?;
    let attended = if frozen { Attended::frozen(backend) } else { Attended::new(backend) };
    let (backend, vitals) = attended.map_err(|error| refuse(error.to_string()))?;
    let repaired = Arc::new(AtomicBool::new(false));
    let noting = repaired.clone();
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(move |_| noting.store(true, Ordering::Relaxed));
    let opened = builder.create_with_backend(backend);
    let database = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => Fault::InUse(path.to_owned()),
        other => match vitals.met() {
            Some(full @ Fault::Full(_)) => full,
            _ => refuse(other.to_string()),
        },
    })?;
    let opened = Opened { database, vitals, frozen, repaired: repaired.load(Ordering::Relaxed) };
    make_tables(&opened).map_err(|fault| match fault {
        Fault::Full(_) => fault,
        other => refuse(other.to_string()),
    })?;
    Ok(opened)
}

/// Writes only where a table is missing, so that a ledger on a full disk opens.
fn make_tables(opened: &Opened) -> Result<(), Fault> {
    let read = opened.database.begin_read().map_err(disk_fault)?;
    if TABLES.iter().all(|(_, table)| read.open_table(*table).is_ok()) {
        return Ok(());
    }
    drop(read);
    commit(opened, ONE_PHASE_BYTES, &mut |_, write| {
        for (_, table) in TABLES {
            write.open_table(table).map_err(disk_fault)?;
        }
        Ok(true)
    })
}

/// One write transaction.
fn commit(
    opened: &Opened,
    one_phase_bytes: u64,
    work: &mut dyn FnMut(&mut dyn Batch, &WriteTransaction) -> Result<bool, Fault>,
) -> Result<(), Fault> {
    opened.vitals.forget();
    let mut run = || {
        let mut write = opened.database.begin_write().map_err(disk_fault)?;
        // A commit in one phase takes one sync, and half the time where syncs are slow. A start after a crash then
        // looks through the whole file for the last commit whose checksums hold, and reads a few hundred MB in a
        // second: a longer file gets its allocator's state with each commit (quick repair, which takes two phases).
        write.set_quick_repair(opened.vitals.length() > one_phase_bytes);
        let mut tables = Tables { write: &write, open: Default::default() };
        let changed = work(&mut tables, &write)?;
        drop(tables);
        if changed { write.commit().map_err(disk_fault) } else { Ok(()) }
    };
    run().map_err(|fault| opened.vitals.met().unwrap_or(fault))
}

impl Storage for RedbFile {
    fn snapshot(&self) -> Result<Arc<Shot>, Fault> {
        if self.exchanging.load(Ordering::Acquire) {
            drop(self.lock());
        }
        let picture = self.picture.read().unwrap_or_else(PoisonError::into_inner);
        picture.as_ref().map(|picture| picture.clone() as Arc<Shot>).map_err(Clone::clone)
    }

    fn write(&self, work: &mut Work<'_>) -> Result<(), Fault> {
        let mut database = self.lock();
        let opened = database.as_ref().ok_or(Fault::Closed)?;
        if opened.frozen {
            return Err(Fault::Full("since an earlier write".into()));
        }
        let mut changed = false;
        let outcome = commit(opened, self.one_phase_bytes, &mut |batch, _| {
            changed = work(batch)?;
            Ok(changed)
        });
        match outcome {
            Ok(()) if changed => {
                let picture = Picture::of(&opened.database);
                self.show(picture.clone());
                picture.map(drop)
            }
            Ok(()) => Ok(()),
            Err(fault @ Fault::Full(_)) => {
                self.exchanging.store(true, Ordering::Release);
                let fault = self.freeze(&mut database, fault);
                self.exchanging.store(false, Ordering::Release);
                Err(fault)
            }
            Err(fault) => Err(fault),
        }
    }

    fn recover(&self) -> Result<(), Fault> {
        self.disk.has_room().map_err(|error| fault_of(&error))?;
        let mut database = self.lock();
        self.exchanging.store(true, Ordering::Release);
        *database = None;
        let opened = open(&*self.disk, false).and_then(|opened| {
            commit(&opened, self.one_phase_bytes, &mut |batch, _| {
                batch.put(Table::Meta, PROBE_KEY, &[0]).map(|()| true)
            })?;
            Ok((Picture::of(&opened.database)?, opened))
        });
        let outcome = match opened {
            Ok((picture, opened)) => {
                *database = Some(opened);
                self.show(Ok(picture));
                Ok(())
            }
            Err(fault @ Fault::Full(_)) => Err(self.freeze(&mut database, fault)),
            Err(fault) => {
                self.show(Err(fault.clone()));
                Err(fault)
            }
        };
        self.exchanging.store(false, Ordering::Release);
        outcome
    }
}

fn disk_fault(error: impl std::fmt::Display) -> Fault {
    Fault::Disk(error.to_string())
}

fn get(table: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    Ok(table.get(key).map_err(disk_fault)?.map(|value| value.value().to_vec()))
}

fn walk(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    span: Span<'_>,
    look: &mut Look<'_>,
) -> Result<(), Fault> {
    let end = next_prefix(span.prefix);
    let mut bounds = (Bound::Included(span.prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
    match span.after {
        Some(after) if span.backwards => {
            if after <= span.prefix {
                return Ok(());
            }
            if end.as_deref().is_none_or(|end| after < end) {
                bounds.1 = Bound::Excluded(after);
            }
        }
        Some(after) if after >= span.prefix => {
            if end.as_deref().is_some_and(|end| after >= end) {
                return Ok(());
            }
            bounds.0 = Bound::Excluded(after);
        }
        _ => {}
    }
    let mut range = table.range::<&[u8]>(bounds).map_err(disk_fault)?;
    while let Some(pair) = if span.backwards { range.next_back() } else { range.next() } {
        let (key, value) = pair.map_err(disk_fault)?;
        if look(key.value(), value.value()).is_break() {
            break;
        }
    }
    Ok(())
}

/// The smallest key behind all that begin with `prefix`, if there is one.
fn next_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let place = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=place].to_vec();
    next[place] += 1;
    Some(next)
}

fn count(table: &impl ReadableTableMetadata) -> Result<u64, Fault> {
    table.len().map_err(disk_fault)
}

/// What is committed, for every reader until the next commit.
struct Picture {
    tables: [OnceLock<ReadOnlyTable<&'static [u8], &'static [u8]>>; TABLES.len()],
    read: ReadTransaction,
}

impl Picture {
    fn of(database: &Database) -> Result<Arc<Self>, Fault> {
        let read = database.begin_read().map_err(disk_fault)?;
        Ok(Arc::new(Self { tables: Default::default(), read }))
    }

    fn table(&self, table: Table) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>, Fault> {
        let (place, definition) = (&self.tables[table as usize], TABLES[table as usize].1);
        match place.get() {
            Some(open) => Ok(open),
            None => {
                let open = self.read.open_table(definition).map_err(table_fault)?;
                Ok(place.get_or_init(|| open))
            }
        }
    }
}

impl Snapshot for Picture {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        get(self.table(table)?, key)
    }

    fn walk(&self, table: Table, span: Span<'_>, look: &mut Look<'_>) -> Result<(), Fault> {
        walk(self.table(table)?, span, look)
    }

    fn count(&self, table: Table) -> Result<u64, Fault> {
        count(self.table(table)?)
    }
}

/// The tables of a write transaction, each opened once.
struct Tables<'w> {
    write: &'w WriteTransaction,
    open: [RefCell<Option<OpenTable<'w>>>; TABLES.len()],
}

impl<'w> Tables<'w> {
    fn with<T>(&self, table: Table, act: impl FnOnce(&mut OpenTable<'w>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.open(table)?;
        let mut place = self.open[table as usize].borrow_mut();
        place.as_mut().map_or_else(|| Err(Fault::Closed), act)
    }

    /// As often at once as there are readers: whoever walks over a table may look up something in it.
    fn read<T>(&self, table: Table, look: impl FnOnce(&OpenTable<'w>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.open(table)?;
        let place = self.open[table as usize].borrow();
        place.as_ref().map_or_else(|| Err(Fault::Closed), look)
    }

    fn open(&self, table: Table) -> Result<(), Fault> {
        let place = &self.open[table as usize];
        if place.borrow().is_none() {
            *place.borrow_mut() = Some(self.write.open_table(TABLES[table as usize].1).map_err(table_fault)?);
        }
        Ok(())
    }
}

impl Snapshot for Tables<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.read(table, |open| get(open, key))
    }

    fn walk(&self, table: Table, span: Span<'_>, look: &mut Look<'_>) -> Result<(), Fault> {
        self.read(table, |open| walk(open, span, look))
    }

    fn count(&self, table: Table) -> Result<u64, Fault> {
        self.read(table, count)
    }
}

impl Batch for Tables<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.with(table, |open| open.insert(key, value).map(drop).map_err(disk_fault))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Fault> {
        self.with(table, |open| open.remove(key).map(drop).map_err(disk_fault))
    }

    fn as_snapshot(&self) -> &dyn Snapshot {
        self
    }
}

fn table_fault(error: TableError) -> Fault {
    disk_fault(error)
}
