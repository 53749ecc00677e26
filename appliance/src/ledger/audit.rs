//! The audit log's records: derived from the changes of a proposal, chained by their hashes, and written in its batch.

use super::{
    records::{self, Stored},
    storage::{Batch, Fault, Snapshot, Table},
};
use crate::audit::{GENESIS, sealed};
use bennu_rules::{
    Change, Records, Timestamp,
    audit::{Action, AuditRecord, Author, Target, TargetName, look, may_be_of_a_person, target},
    image::Digest,
};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const STATE_KEY: &[u8] = b"audit";

/// What one record shows before and after is cut to its digest beyond this.
const LARGEST_VALUE: usize = 16 << 10;

/// Where the log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The oldest record that is kept.
    pub first: u64,
    /// The newest; 0: there is none yet.
    pub last: u64,
    /// Its hash.
    pub head: Digest,
}

impl Default for Extent {
    fn default() -> Self {
        Self { first: 1, last: 0, head: GENESIS }
    }
}

/// How many records are kept, and how many go at once when there are more.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// So many stay.
    pub kept: u64,
    /// So many go at once, which a record tells of.
    pub trimmed: u64,
}

impl Retention {
    /// About 100 MB of the ledger at most; at a hundred writes a day, more than two years.
    pub const DEFAULT: Self = Self { kept: 100_000, trimmed: 1_000 };
}

/// What a proposal is about to change of people's.
pub struct Watch(Vec<(Target, Option<Value>)>);

impl Watch {
    /// Looks at what `changes` will change.
    pub fn before(changes: &[Change], author: Option<&Author>, records: &dyn Records) -> Self {
        let mut seen = BTreeSet::new();
        let mut watched = Vec::new();
        for change in changes {
            let Some(target) = target(change) else { continue };
            if (author.is_some() || may_be_of_a_person(change, records)) && seen.insert(target.clone()) {
                let before = look(&target, records);
                watched.push((target, before));
            }
        }
        Self(watched)
    }

    /// Writes what has become of it: one record a target that is another than before.
    pub fn write(
        self,
        batch: &mut dyn Batch,
        author: Option<&Author>,
        at: Timestamp,
        retention: Retention,
    ) -> Result<Vec<AuditRecord>, Fault> {
        let changed = {
            let stored = Stored::new(batch.as_snapshot());
            let now = |(target, before): (Target, Option<Value>)| {
                let after = look(&target, &stored);
                (before != after).then_some((target, before, after))
            };
            let changed: Vec<_> = self.0.into_iter().filter_map(now).collect();
            stored.check()?;
            changed
        };
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let unknown = Author::unknown();
        let author = author.unwrap_or_else(|| {
            tracing::warn!("a write of people's records came without an author; the audit log says so");
            &unknown
        });
        let mut log = Log { extent: extent(batch.as_snapshot())?, batch, at, written: Vec::new() };
        for (target, before, after) in changed {
            let action = match (&before, &after) {
                (None, _) => Action::Created,
                (_, None) => Action::Removed,
                _ => Action::Changed,
            };
            log.add(author, action, target.name(), before.map(abridged), after.map(abridged))?;
        }
        log.trim(retention)?;
        log.close()
    }
}

/// The log while a proposal adds to it.
struct Log<'a> {
    batch: &'a mut dyn Batch,
    extent: Extent,
    at: Timestamp,
    written: Vec<AuditRecord>,
}

impl Log<'_> {
    fn add(
        &mut self,
        author: &Author,
        action: Action,
        target: TargetName,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Fault> {
        let Author { who, from, request, limit: _ } = author.clone();
        let (seq, previous) = (self.extent.last + 1, self.extent.head);
        let record = AuditRecord {
            seq,
            at: self.at,
            who,
            from,
            request,
            action,
            target,
            before,
            after,
            previous,
            hash: GENESIS,
        };
        let (text, hash) = sealed(json!(record));
        let bytes = [&[records::VERSION][..], text.as_bytes()].concat();
        self.batch.put(Table::Audit, &seq.to_be_bytes(), &bytes)?;
        (self.extent.last, self.extent.head) = (seq, hash);
        self.written.push(AuditRecord { hash, ..record });
        Ok(())
    }

    /// Removes the oldest records where there are too many, and says so in a record: a log whose beginning is missing
    /// is whole only where one of its own records vouches for that.
    fn trim(&mut self, retention: Retention) -> Result<(), Fault> {
        while self.extent.last + 1 - self.extent.first >= retention.kept + retention.trimmed {
            let (from, through) = (self.extent.first, self.extent.first + retention.trimmed - 1);
            let newest = record(self.batch.as_snapshot(), through)?;
            let Some(newest) = newest else { return Ok(()) };
            for seq in from..=through {
                self.batch.delete(Table::Audit, &seq.to_be_bytes())?;
            }
            self.extent.first = through + 1;
            let target = TargetName { kind: "audit".into(), name: format!("{from}-{through}") };
            let after = json!({ "through": through, "hash": newest.hash });
            self.add(&Author::bennu(None), Action::Trimmed, target, None, Some(after))?;
        }
        Ok(())
    }

    fn close(self) -> Result<Vec<AuditRecord>, Fault> {
        self.batch.put(Table::Meta, STATE_KEY, &records::encode(Table::Meta, &self.extent)?)?;
        Ok(self.written)
    }
}

/// What is too large to be kept with each change of it, as its digest.
fn abridged(value: Value) -> Value {
    let text = bennu_rules::audit::canonical(&value);
    if text.len() <= LARGEST_VALUE {
        return value;
    }
    let mut hash = Digest([0; 32]);
    hash.0.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    json!({ "too_large": { "size": text.len(), "digest": hash } })
}

/// Where the log begins and ends.
pub fn extent(snapshot: &dyn Snapshot) -> Result<Extent, Fault> {
    let stored = snapshot.get(Table::Meta, STATE_KEY)?;
    stored.map_or(Ok(Extent::default()), |bytes| records::decode(Table::Meta, &bytes))
}

/// One record; `None`: it is not there.
pub fn record(snapshot: &dyn Snapshot, seq: u64) -> Result<Option<AuditRecord>, Fault> {
    let stored = snapshot.get(Table::Audit, &seq.to_be_bytes())?;
    stored.map(|bytes| records::decode(Table::Audit, &bytes)).transpose()
}

/// One record as it is stored, read by nobody: what the hashes are over.
pub fn text(snapshot: &dyn Snapshot, seq: u64) -> Result<Option<String>, Fault> {
    let stored = snapshot.get(Table::Audit, &seq.to_be_bytes())?;
    Ok(stored.map(|bytes| String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned()))
}
