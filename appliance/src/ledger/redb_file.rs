//! The ledger's storage in a redb file.

use super::storage::{Batch, Fault, Pair, Snapshot, Storage, Table};
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use std::path::Path;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// redb's page cache. Its default of 1 GiB would make the appliance's memory grow with its history.
const CACHE_BYTES: usize = 12 << 20;

const TABLES: [(Table, Definition); 10] = [
    (Table::Meta, TableDefinition::new("meta")),
    (Table::Machines, TableDefinition::new("machines")),
    (Table::Macs, TableDefinition::new("macs")),
    (Table::Reservations, TableDefinition::new("reservations")),
    (Table::Leases, TableDefinition::new("leases")),
    (Table::Addresses, TableDefinition::new("addresses")),
    (Table::Images, TableDefinition::new("images")),
    (Table::Tags, TableDefinition::new("tags")),
    (Table::Boots, TableDefinition::new("boots")),
    (Table::BootsOfMachine, TableDefinition::new("boots_of_machine")),
];

fn definition(table: Table) -> Definition {
    TABLES[table as usize].1
}

/// A redb database file.
pub struct RedbFile {
    database: Database,
}

impl RedbFile {
    /// Opens the file, or makes it with every table.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let refuse = |reason: String| Fault::Open { path: path.to_owned(), reason };
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Fault::InUse(path.to_owned()),
            other => refuse(other.to_string()),
        })?;
        let file = Self { database };
        let batch = file.database.begin_write().map_err(|error| refuse(error.to_string()))?;
        for (_, table) in TABLES {
            batch.open_table(table).map_err(|error| refuse(error.to_string()))?;
        }
        batch.commit().map_err(|error| refuse(error.to_string()))?;
        Ok(file)
    }
}

impl Storage for RedbFile {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Fault> {
        self.database.begin_read().map(|read| Box::new(read) as Box<dyn Snapshot>).map_err(disk)
    }

    fn begin(&self) -> Result<Box<dyn Batch>, Fault> {
        let mut write = self.database.begin_write().map_err(disk)?;
        // Quick repair writes the allocator state with each commit (and implies two-phase commit), so that a
        // crashed ledger of any size opens in milliseconds.
        write.set_quick_repair(true);
        Ok(Box::new(write))
    }
}

fn disk(error: impl std::fmt::Display) -> Fault {
    Fault::Disk(error.to_string())
}

fn get(table: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    Ok(table.get(key).map_err(disk)?.map(|value| value.value().to_vec()))
}

fn scan(table: &impl ReadableTable<&'static [u8], &'static [u8]>, prefix: &[u8]) -> Result<Vec<Pair>, Fault> {
    let mut found = Vec::new();
    for pair in table.range(prefix..).map_err(disk)? {
        let (key, value) = pair.map_err(disk)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(found)
}

fn table_fault(error: TableError) -> Fault {
    disk(error)
}

impl Snapshot for ReadTransaction {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        get(&self.open_table(definition(table)).map_err(table_fault)?, key)
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Pair>, Fault> {
        scan(&self.open_table(definition(table)).map_err(table_fault)?, prefix)
    }
}

impl Snapshot for WriteTransaction {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        get(&self.open_table(definition(table)).map_err(table_fault)?, key)
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Pair>, Fault> {
        scan(&self.open_table(definition(table)).map_err(table_fault)?, prefix)
    }
}

impl Batch for WriteTransaction {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.open_table(definition(table)).map_err(table_fault)?.insert(key, value).map_err(disk)?;
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Fault> {
        self.open_table(definition(table)).map_err(table_fault)?.remove(key).map_err(disk)?;
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Fault> {
        (*self).commit().map_err(disk)
    }

    fn as_snapshot(&self) -> &dyn Snapshot {
        self
    }
}
