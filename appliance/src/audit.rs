//! The audit log's chain: how a record is sealed, and how a log is found whole or not. The appliance walks its own log
//! with it, and the command line one that was exported.

use bennu_rules::{
    audit::{Action, canonical},
    image::Digest,
};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the first record follows.
pub const GENESIS: Digest = Digest([0; 32]);

/// A record as it is kept, and its hash: SHA-256 over the canonical JSON of all but the hash.
pub fn sealed(mut record: Value) -> (String, Digest) {
    let hash = hash_of(&mut record);
    record["hash"] = json!(hash);
    (canonical(&record), hash)
}

fn hash_of(record: &mut Value) -> Digest {
    if let Some(fields) = record.as_object_mut() {
        fields.remove("hash");
    }
    let mut hash = GENESIS;
    hash.0.copy_from_slice(digest(&SHA256, canonical(record).as_bytes()).as_ref());
    hash
}

/// The first record that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditBad)]
pub struct Bad {
    /// Which.
    pub seq: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// What a walk over the log came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditVerified)]
pub struct Verified {
    /// Whether nothing was edited, removed or moved.
    pub intact: bool,
    /// Records that were found good.
    pub records: u64,
    /// The oldest of them; 0: there is none.
    pub first: u64,
    /// The newest of them.
    pub last: u64,
    /// Its hash: who keeps it elsewhere can tell later whether the log was cut off or written anew.
    pub head: Digest,
    /// The first record that is not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<Bad>,
}

/// Walks over a log, oldest record first.
#[derive(Debug, Default)]
pub struct Walk {
    first: u64,
    last: Option<(u64, Digest)>,
    records: u64,
    /// What the first record follows, where that is not kept any more.
    floor: Option<(u64, Digest)>,
    vouched: bool,
    /// A head that was kept elsewhere, and whether it was met.
    expected: Option<Digest>,
    met: bool,
    bad: Option<Bad>,
}

impl Walk {
    /// A walk that must meet `head`, where one was kept.
    pub fn expecting(head: Option<Digest>) -> Self {
        Self { expected: head, met: head == Some(GENESIS), ..Self::default() }
    }

    /// Looks at the next record, as text; `place` is the number it should have, where that is known. `false`: it is
    /// bad, and nothing after it can be told.
    pub fn see(&mut self, text: &str, place: Option<u64>) -> bool {
        if self.bad.is_none()
            && let Err(bad) = self.step(text, place)
        {
            self.bad = Some(bad);
        }
        self.bad.is_none()
    }

    /// A record is missing where `seq` should be.
    pub fn miss(&mut self, seq: u64) {
        self.bad.get_or_insert(Bad { seq, reason: "it is missing: it was removed".into() });
    }

    fn step(&mut self, text: &str, place: Option<u64>) -> Result<(), Bad> {
        let next = self.last.map(|(seq, _)| seq + 1);
        let expected = place.or(next);
        let at = |seq: u64, reason: String| Bad { seq, reason };
        let mut record: Value = serde_json::from_str(text)
            .map_err(|error| at(expected.unwrap_or(1), format!("it is no record: it was edited ({error})")))?;
        let digest = |record: &Value, field: &str| record[field].as_str().and_then(|text| text.parse::<Digest>().ok());
        let (seq, said, previous) = (record["seq"].as_u64(), digest(&record, "hash"), digest(&record, "previous"));
        let (Some(seq), Some(said), Some(previous)) = (seq, said, previous) else {
            return Err(at(expected.unwrap_or(1), "it lacks its number or hashes: it was edited".into()));
        };
        if let Some(expected) = expected.filter(|expected| *expected != seq) {
            let reason = format!("record {seq} stands in its place: records were removed or moved");
            return Err(at(expected, reason));
        }
        if hash_of(&mut record) != said {
            return Err(at(seq, "its hash is another: it was edited".into()));
        }
        match self.last {
            Some((last, head)) if head != previous => {
                let reason = format!("it does not follow record {last}: that one was replaced, or this one");
                return Err(at(seq, reason));
            }
            None if seq == 1 && previous != GENESIS => {
                return Err(at(seq, "it follows no record, and says it does: it was replaced".into()));
            }
            None => {
                self.first = seq;
                self.floor = (seq > 1).then_some((seq - 1, previous));
            }
            Some(_) => {}
        }
        if record["action"] == json!(Action::Trimmed) && self.floor.is_some() {
            let said = record["after"]["through"].as_u64().zip(digest(&record["after"], "hash"));
            self.vouched |= said == self.floor;
        }
        self.met |= self.expected.is_some_and(|head| head == said || head == previous);
        self.last = Some((seq, said));
        self.records += 1;
        Ok(())
    }

    /// What it came to. `end` is where the log should end, where that is known.
    pub fn end(mut self, end: Option<(u64, Digest)>) -> Verified {
        let (last, head) = self.last.unwrap_or((0, GENESIS));
        if let (None, Some((floor, _)), false) = (&self.bad, self.floor, self.vouched) {
            let reason = "it is missing, and no record says that the oldest ones were trimmed: it was removed".into();
            self.bad = Some(Bad { seq: floor, reason });
        }
        if let (None, Some(end)) = (&self.bad, end.filter(|end| *end != (last, head))) {
            let reason = format!("the log ends there, and should with record {}: its end was removed", end.0);
            self.bad = Some(Bad { seq: (last + 1).min(end.0).max(1), reason });
        }
        if self.bad.is_none()
            && !self.met
            && let Some(kept) = self.expected
        {
            let reason = format!("no record has the hash {kept}: the log's end was removed, or it was written anew");
            self.bad = Some(Bad { seq: last + 1, reason });
        }
        let Self { first, records, bad, .. } = self;
        Verified { intact: bad.is_none(), records, first, last, head, bad }
    }
}

#[cfg(test)]
mod tests;
