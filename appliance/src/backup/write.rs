//! A backup, written in one go.

use super::{BackupError, Hashing};
use crate::{appliance::Appliance, http::tls};
use bennu_images::store::StoreError;
use bennu_rules::{
    backup::{End, FORMAT, Head, Part, Reason},
    image::{BlobRef, Digest},
};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use tar::{Builder, Header};
use zeroize::Zeroizing;

/// Of the rows of the ledger: quick, and a third of the size.
const LEVEL: i32 = 3;

/// Writes everything that makes this appliance, with the blobs of images or without. What is stored meanwhile is not in it, and
/// nothing waits for it.
pub fn write(appliance: &Appliance, images: bool, reason: Reason, out: impl Write) -> Result<Head, BackupError> {
    // Before the picture: what it names is not collected while it is read.
    let hold = appliance.store.hold();
    let picture = appliance.ledger.picture()?;
    let named = picture.stored(|records| appliance.blobs_named(records, &BTreeSet::new(), &BTreeSet::new()))?;
    let named: Vec<Digest> = named.into_iter().filter(|digest| appliance.store.keep(digest) || images).collect();
    let sized = |digest: Digest| appliance.store.blob_size(&digest).map(|size| BlobRef { digest, size });
    let blobs: Vec<BlobRef> = named.into_iter().map(sized).collect::<Result<_, StoreError>>()?;
    let head = Head {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        at: appliance.ledger.now(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        reason,
        images,
        blobs,
        elsewhere: elsewhere(appliance),
    };
    let mut file = Parts { tar: Builder::new(out), parts: Vec::new(), at: head.at.0 / 1000 };
    file.json("bennu-backup.json", &head)?;
    file.bytes("bennu.toml", appliance.config.text.as_bytes()).map_err(BackupError::Gone)?;
    for (name, path) in own_files(appliance) {
        file.secret(name, &path)?;
    }
    let mut number = 0;
    picture.dump(|table, rows| {
        number += 1;
        file.bytes(&format!("ledger/{table}.{number:06}.zst"), &zstd::bulk::compress(rows, LEVEL)?)
    })?;
    if images {
        for blob in &head.blobs {
            file.blob(appliance, blob)?;
        }
    }
    drop(hold);
    let end = End { parts: std::mem::take(&mut file.parts) };
    file.json("bennu-backup.end.json", &end)?;
    file.tar.into_inner().and_then(|mut out| out.flush()).map_err(BackupError::Gone)?;
    Ok(head)
}

/// What people keep elsewhere: it is theirs to keep.
fn elsewhere(appliance: &Appliance) -> Vec<String> {
    let certificate = appliance.config.api.certificate.iter();
    let files = certificate.flat_map(|files| [&files.certificate, &files.key]);
    appliance.config.secrets_key.iter().chain(files).map(|path| path.display().to_string()).collect()
}

fn own_files(appliance: &Appliance) -> Vec<(&'static str, PathBuf)> {
    let state = &appliance.config.state_dir;
    let mut files = Vec::new();
    if appliance.config.secrets_key.is_none() {
        files.push(("secrets.key", state.join("secrets.key")));
    }
    if appliance.config.api.certificate.is_none() {
        let own = tls::own_files(&state.join("tls"));
        files.extend([("tls/cert.pem", own.certificate), ("tls/key.pem", own.key)]);
    }
    files
}

struct Parts<W: Write> {
    tar: Builder<W>,
    parts: Vec<Part>,
    at: u64,
}

impl<W: Write> Parts<W> {
    fn json(&mut self, name: &str, value: &impl serde::Serialize) -> Result<(), BackupError> {
        let text = serde_json::to_vec_pretty(value).map_err(|error| BackupError::Gone(error.into()))?;
        self.bytes(name, &text).map_err(BackupError::Gone)
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.part(name, bytes.len() as u64, bytes).map(drop)
    }

    /// A file that there may be: without secrets or an API over the network there is none.
    fn secret(&mut self, name: &str, path: &Path) -> Result<(), BackupError> {
        match fs::read(path).map(Zeroizing::new) {
            Ok(bytes) => self.bytes(name, &bytes).map_err(BackupError::Gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BackupError::io("read", path)(error)),
        }
    }

    fn blob(&mut self, appliance: &Appliance, blob: &BlobRef) -> Result<(), BackupError> {
        let hex = blob.digest.hex();
        let (file, size) = appliance.store.open_blob(&blob.digest)?;
        let sha256 = self.part(&format!("images/blobs/sha256/{hex}"), size, file).map_err(BackupError::Gone)?;
        if sha256 == hex { Ok(()) } else { Err(BackupError::Damaged(format!("blob sha256:{hex} in the store"))) }
    }

    fn part(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<String> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.at);
        header.set_cksum();
        let mut content = Hashing::new(content.take(size));
        self.tar.append(&header, &mut content)?;
        let part = content.part(name.to_owned());
        if part.size != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter meanwhile")));
        }
        let sha256 = part.sha256.clone();
        self.parts.push(part);
        Ok(sha256)
    }
}
