//! Backups: what one says of itself, when the appliance makes one of its ledger by itself, and which of those it keeps.

use crate::{Change, Decision, Moment, Timestamp, View, image::BlobRef};
use serde::{Deserialize, Serialize};

/// Format of the file as this Bennu writes it, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// So many backups of the ledger are kept beside it.
pub const KEPT: usize = 7;
/// One is made when the newest is older than this.
pub const PACE_MS: u64 = 24 * 3_600_000;
/// The first is of an appliance that nobody had told anything: the second comes soon.
const FIRST_PACE_MS: u64 = 3_600_000;

/// The first part of a backup: what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Format of the file.
    pub format: u32,
    /// The Bennu that wrote it.
    pub version: String,
    /// When.
    pub at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Why it was made.
    pub reason: Reason,
    /// Whether the blobs of images are in it.
    pub images: bool,
    /// The blobs that its records need, by digest.
    pub blobs: Vec<BlobRef>,
    /// Files that were kept elsewhere, which it therefore lacks: the key of secrets, the API's certificate and key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
}

/// Why a backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = BackupReason)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Somebody asked for it.
    Asked,
    /// A day had passed.
    Daily,
    /// The state was about to be replaced by a backup's.
    Restore,
    /// The appliance was about to be upgraded.
    Upgrade,
    /// The state was about to be emptied.
    Reset,
}

/// One part, as the last part lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, in hex.
    pub sha256: String,
}

/// The last part of a backup: every part before it, in order. Without it the file was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// What came before.
    pub parts: Vec<Part>,
}

/// What the ledger remembers of backups, so that the audit log tells who took the state away and who replaced it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noted {
    /// Somebody was given everything.
    Taken {
        /// When.
        at: Timestamp,
        /// Whether with the blobs of images.
        images: bool,
    },
    /// The state is a backup's.
    Restored {
        /// When it was put in place.
        at: Timestamp,
        /// When that backup was made.
        of: Timestamp,
        /// On which host.
        host: String,
    },
}

/// Somebody takes a backup.
#[derive(Debug, Clone, Copy)]
pub struct Take {
    /// With the blobs of images.
    pub images: bool,
}

/// Puts on record that it was taken.
pub fn take(request: &Take, _view: &View<'_>, at: &Moment) -> Decision<()> {
    let noted = Noted::Taken { at: at.now, images: request.images };
    Decision { changes: vec![Change::NoteBackup(noted)], ..Decision::just(()) }
}

/// The state came out of a backup.
#[derive(Debug, Clone)]
pub struct Restored {
    /// When that was made.
    pub of: Timestamp,
    /// On which host.
    pub host: String,
}

/// Puts on record where the state came from.
pub fn restored(request: &Restored, _view: &View<'_>, at: &Moment) -> Decision<()> {
    let noted = Noted::Restored { at: at.now, of: request.of, host: request.host.clone() };
    Decision { changes: vec![Change::NoteBackup(noted)], ..Decision::just(()) }
}

/// Whether it is time for one, by when those that there are were made. Clocks are set back too: what claims to be of the future
/// counts for nothing.
pub fn is_due(made: &[Timestamp], now: Timestamp) -> bool {
    let pace = if made.len() < 2 { FIRST_PACE_MS } else { PACE_MS };
    made.iter().filter(|made| **made <= now).max().is_none_or(|newest| now.since(*newest) >= pace)
}

/// Whether a backup that is made before an upgrade now, by this version, takes an earlier one's place: where both are of tries
/// of one upgrade. What another version wrote is the only way back to it.
pub fn is_same_try(before: &Head, version: &str, now: Timestamp) -> bool {
    const TRIES_MS: u64 = 3_600_000;
    before.reason == Reason::Upgrade && before.version == version && now.0.abs_diff(before.at.0) < TRIES_MS
}

/// How many of the oldest go when there are so many. Names sort by when they were made.
pub fn surplus(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    let count = names.len().saturating_sub(KEPT);
    names.truncate(count);
    names
}

/// Whether a disk has room for another backup of a ledger of `length` bytes: twice that, and what the ledger itself may need.
pub fn has_room(free: u64, length: u64) -> bool {
    const FOR_THE_LEDGER: u64 = 128 << 20;
    free > length.saturating_mul(2).saturating_add(FOR_THE_LEDGER)
}

/// What a backup's file may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartName {
    /// [`Head`].
    Head,
    /// The configuration.
    Configuration,
    /// The key of secrets.
    SecretsKey,
    /// The API's certificate.
    Certificate,
    /// Its key.
    CertificateKey,
    /// Rows of one table of the ledger.
    Rows(String),
    /// A blob, by its digest in hex.
    Blob(String),
    /// [`End`].
    End,
}

impl PartName {
    /// A part by its name; `None`: this Bennu knows none that is called so.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(hex) = name.strip_prefix("images/blobs/sha256/") {
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            return (hex.len() == 64 && hex.bytes().all(is_hex)).then(|| Self::Blob(hex.to_owned()));
        }
        if let Some(rows) = name.strip_prefix("ledger/").and_then(|rest| rest.strip_suffix(".zst")) {
            let (table, number) = rows.split_once('.')?;
            let is_table = !table.is_empty() && table.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            return (is_table && digits(number)).then(|| Self::Rows(table.to_owned()));
        }
        Some(match name {
            "bennu-backup.json" => Self::Head,
            "bennu.toml" => Self::Configuration,
            "secrets.key" => Self::SecretsKey,
            "tls/cert.pem" => Self::Certificate,
            "tls/key.pem" => Self::CertificateKey,
            "bennu-backup.end.json" => Self::End,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_a_day_whatever_the_clock_says() {
        let day = |n: u64| Timestamp(n * PACE_MS);
        assert!(is_due(&[], day(0)));
        assert!(is_due(&[day(1)], day(1).plus_seconds(3600)) && !is_due(&[day(1)], day(1).plus_seconds(3599)));
        assert!(is_due(&[day(1), day(2)], day(3)));
        assert!(!is_due(&[day(2), day(1)], Timestamp(day(3).0 - 1)));
        assert!(is_due(&[day(900), day(901)], day(3)), "those of the future");
    }

    #[test]
    fn tries_of_one_upgrade_leave_one() {
        let now = Timestamp(PACE_MS);
        let before = |version: &str, reason, at| Head {
            format: FORMAT,
            version: version.into(),
            at,
            host: "rack".into(),
            reason,
            images: false,
            blobs: Vec::new(),
            elsewhere: Vec::new(),
        };
        let earlier = Timestamp(now.0 - 3_599_999);
        assert!(is_same_try(&before("1.2.0", Reason::Upgrade, earlier), "1.2.0", now));
        assert!(!is_same_try(&before("1.1.0", Reason::Upgrade, earlier), "1.2.0", now), "that upgrade succeeded");
        assert!(!is_same_try(&before("1.2.0", Reason::Daily, earlier), "1.2.0", now));
        assert!(!is_same_try(&before("1.2.0", Reason::Upgrade, Timestamp(earlier.0 - 1)), "1.2.0", now));
    }

    #[test]
    fn the_oldest_go() {
        let names: Vec<String> = (0..10).rev().map(|n| format!("ledger-2026-11-{n:02}.tar")).collect();
        assert_eq!(surplus(&names), ["ledger-2026-11-00.tar", "ledger-2026-11-01.tar", "ledger-2026-11-02.tar"]);
        assert_eq!(surplus(&names[..3]), [""; 0]);
    }

    #[test]
    fn a_short_disk_gets_none() {
        assert!(has_room(1 << 30, 10 << 20));
        assert!(!has_room(140 << 20, 10 << 20));
        assert!(!has_room(u64::MAX - 1, u64::MAX));
    }

    #[test]
    fn no_part_is_called_what_could_lead_elsewhere() {
        assert_eq!(
            PartName::parse("ledger/boots_of_machine.000001.zst"),
            Some(PartName::Rows("boots_of_machine".into()))
        );
        let hex = "ab".repeat(32);
        assert_eq!(PartName::parse(&format!("images/blobs/sha256/{hex}")), Some(PartName::Blob(hex)));
        assert_eq!(PartName::parse("tls/key.pem"), Some(PartName::CertificateKey));
        for other in [
            "",
            "/etc/passwd",
            "../secrets.key",
            "ledger/../x.1.zst",
            "ledger/boots.zst",
            "ledger/.1.zst",
            "images/blobs/sha256/../../../x",
            "images/blobs/sha256/AB",
            "tls/other.pem",
            "secrets.key/",
        ] {
            assert_eq!(PartName::parse(other), None, "{other}");
        }
    }
}
