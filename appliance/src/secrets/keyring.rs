//! The key that secrets are kept under. It lies beside the ledger and not in it, so that a copy of the ledger (a backup, a
//! disk that was sent back) gives nothing away.

use base64::{Engine, prelude::BASE64_STANDARD};
use bennu_plan::SessionKey;
use bennu_rules::{boot::BootId, secret::Sealed};
use ring::{aead, hkdf, hmac};
use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Where the key lies in the state directory.
const NAME: &str = "secrets.key";
/// What tells keys of ours from those that others derive.
const SALT: &[u8] = b"bennu secrets 1";

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It is not there, and something was kept under it.
    #[error(
        "the ledger holds secrets, and the key that they are kept under is not in {}. Put that file back from your \
         backup. If it is lost, so are they: without the key they cannot be read", .0.display()
    )]
    Missing(PathBuf),
    /// It is another one.
    #[error(
        "the key in {} is not the one that the ledger's secrets are kept under (they name {wanted}, it is {found}). Put \
         the right file back from your backup", .path.display()
    )]
    Other {
        /// Where.
        path: PathBuf,
        /// The key that records name.
        wanted: String,
        /// The key that is there.
        found: String,
    },
    /// A person named a file that is not there.
    #[error(
        "secrets_key: {} is not there. Make it, for root or the user that bennu runs as alone: \
         (umask 077; openssl rand -hex 32 > {})", .0.display(), .0.display()
    )]
    NotMade(PathBuf),
    /// It cannot be read.
    #[error("cannot read the key of secrets {}: {reason}. It must be a file of 64 hex digits", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Others may read it.
    #[error("the key of secrets {} can be read by others than its owner. Close it: chmod 600 {}", .0.display(), .0.display())]
    Open(PathBuf),
}

/// The key's file as it was read, while we were who may read it.
pub struct KeyFile {
    path: PathBuf,
    is_chosen: bool,
    key: Option<Zeroizing<[u8; 32]>>,
}

impl KeyFile {
    /// Reads the file that a person named, or else ours, where there is one.
    pub fn read(chosen: Option<&Path>, state_dir: &Path) -> Result<Self, KeyringError> {
        let path = chosen.map_or_else(|| state_dir.join(NAME), Path::to_owned);
        let key = match fs::read_to_string(&path) {
            Ok(text) => Some(parse(&path, &Zeroizing::new(text))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && chosen.is_some() => {
                return Err(KeyringError::NotMade(path));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(KeyringError::Read { path, reason: error.to_string() }),
        };
        if key.is_some() && fs::metadata(&path).is_ok_and(|file| file.mode() & 0o077 != 0) {
            return Err(KeyringError::Open(path));
        }
        Ok(Self { path, is_chosen: chosen.is_some(), key })
    }
}

fn parse(path: &Path, text: &str) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
    let key = text.trim().parse::<SessionKey>();
    let reason = "it does not hold 64 hex digits".to_owned();
    key.map(|SessionKey(bytes)| Zeroizing::new(bytes)).map_err(|_| KeyringError::Read { path: path.to_owned(), reason })
}

/// What is made of the key.
pub struct Keyring {
    at_rest: aead::LessSafeKey,
    sessions: hmac::Key,
    id: String,
    lasts: bool,
}

/// The key of a session's proofs.
pub struct SessionSecret(Zeroizing<[u8; 32]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.id)
    }
}

impl Keyring {
    /// Takes up the key, or makes one where nothing was ever kept; `used` are the ids of the keys that records name.
    pub fn open(file: KeyFile, used: &BTreeSet<String>) -> Result<Self, KeyringError> {
        let Some(key) = file.key else {
            if !used.is_empty() {
                return Err(KeyringError::Missing(file.path));
            }
            let key = Zeroizing::new(rand::random());
            let made = write(&file.path, &key);
            // A disk that is full keeps no machine from booting.
            if let Err(error) = &made {
                tracing::error!(
                    %error, path = %file.path.display(),
                    "cannot make the key of secrets: no secret can be kept until bennu is restarted with room on that disk"
                );
            }
            return Ok(Self::of(&key, made.is_ok()));
        };
        let keyring = Self::of(&key, true);
        match used.iter().find(|used| **used != keyring.id) {
            Some(wanted) => Err(KeyringError::Other { path: file.path, wanted: wanted.clone(), found: keyring.id }),
            None => {
                if file.is_chosen {
                    tracing::info!(key = keyring.id, path = %file.path.display(), "secrets are kept under this key");
                }
                Ok(keyring)
            }
        }
    }

    /// A key that nobody has.
    #[cfg(test)]
    pub fn made_up() -> Self {
        Self::of(&rand::random(), true)
    }

    fn of(key: &[u8; 32], lasts: bool) -> Self {
        let derived = |purpose: &[u8]| {
            let mut bytes = Zeroizing::new([0; 32]);
            let drawn = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
                .extract(key)
                .expand(&[purpose], hkdf::HKDF_SHA256)
                .and_then(|drawn| drawn.fill(&mut *bytes));
            // 32 bytes are what one block of HKDF-SHA256 gives (RFC 5869 §2.3).
            assert!(drawn.is_ok(), "HKDF gives its own length");
            bytes
        };
        let at_rest = aead::UnboundKey::new(&aead::AES_256_GCM, &*derived(b"at rest"));
        #[expect(clippy::expect_used, reason = "the length is that of the algorithm")]
        let at_rest = aead::LessSafeKey::new(at_rest.expect("a key of 32 bytes"));
        Self {
            at_rest,
            sessions: hmac::Key::new(hmac::HMAC_SHA256, &*derived(b"sessions")),
            id: hex(&derived(b"id")[..8]),
            lasts,
        }
    }

    /// Whether what is kept under it can be read after a restart.
    pub fn lasts(&self) -> bool {
        self.lasts
    }

    /// Encrypts for the ledger. `place` says what it is and whose; it opens for nothing else.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Sealed {
        let nonce: [u8; aead::NONCE_LEN] = rand::random();
        let mut bytes = Zeroizing::new(plain.to_vec());
        let tag = self.at_rest.seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(place.as_bytes()),
            &mut bytes,
        );
        #[expect(clippy::expect_used, reason = "it fails for 64 GiB and more")]
        let tag = tag.expect("a text of a few KiB");
        Sealed { key: self.id.clone(), text: BASE64_STANDARD.encode([&nonce, &bytes[..], tag.as_ref()].concat()) }
    }

    /// What [`Keyring::seal`] was given for `place`; `None`: it was made under another key or for another place, or changed.
    pub fn open_sealed(&self, place: &str, sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(BASE64_STANDARD.decode(&sealed.text).ok()?);
        let (nonce, text) = bytes.split_first_chunk_mut::<{ aead::NONCE_LEN }>()?;
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let plain = self.at_rest.open_in_place(nonce, aead::Aad::from(place.as_bytes()), text).ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }

    /// The key of the proofs of one session. The same whenever it is asked for, so it is kept nowhere.
    pub fn session(&self, boot: &BootId, key: &SessionKey) -> SessionSecret {
        let tag = hmac::sign(&self.sessions, &[boot.0.as_bytes(), &[0], &key.0].concat());
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(tag.as_ref());
        SessionSecret(secret)
    }
}

impl SessionSecret {
    /// 64 hex digits, for the machine alone.
    pub fn reveal(&self) -> String {
        hex(&*self.0)
    }

    /// Whether `mac` is a proof over `text`.
    pub fn verifies(&self, text: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0), text, mac).is_ok()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file is whole or absent, and its owner's alone.
fn write(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    use std::io::Write;
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(Zeroizing::new(hex(key) + "\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn used(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn open(state: &Path, ids: &[&str]) -> Result<Keyring, KeyringError> {
        Keyring::open(KeyFile::read(None, state)?, &used(ids))
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let state = tempfile::tempdir().unwrap();
        let sealed = open(state.path(), &[]).unwrap().seal("place", b"hunter2");
        let file = state.path().join(NAME);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = open(state.path(), &[&sealed.key]).unwrap();
        assert_eq!(&*again.open_sealed("place", &sealed).unwrap(), b"hunter2");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(state.path(), &[]), Err(KeyringError::Open(_))));
    }

    #[test]
    fn a_key_that_is_missing_wrong_or_damaged_is_named() {
        let state = tempfile::tempdir().unwrap();
        let error = open(state.path(), &["0011"]).unwrap_err();
        assert!(matches!(error, KeyringError::Missing(_)) && error.to_string().contains("secrets.key"), "{error}");
        assert!(!state.path().join(NAME).exists(), "no new key takes the place of the lost one");
        open(state.path(), &[]).unwrap();
        let error = open(state.path(), &["0011"]).unwrap_err();
        assert!(matches!(error, KeyringError::Other { .. }), "{error}");
        fs::write(state.path().join(NAME), "zz").unwrap();
        let error = open(state.path(), &[]).unwrap_err();
        assert!(error.to_string().contains("64 hex digits"), "{error}");
        let chosen = state.path().join("elsewhere");
        let error = KeyFile::read(Some(&chosen), state.path()).err().unwrap();
        assert!(error.to_string().contains("openssl rand -hex 32"), "{error}");
    }

    #[test]
    fn a_disk_without_room_leaves_an_appliance_without_secrets() {
        let nowhere = Path::new("/proc/self/none");
        assert!(!open(nowhere, &[]).unwrap().lasts());
    }

    #[test]
    fn what_is_sealed_opens_in_its_own_place_alone_and_unchanged() {
        let keyring = Keyring::made_up();
        let sealed = keyring.seal("secret db", b"hunter2");
        assert!(!sealed.text.contains("hunter2") && !format!("{sealed:?}").contains(&sealed.text));
        assert_ne!(sealed.text, keyring.seal("secret db", b"hunter2").text);
        assert_eq!(keyring.open_sealed("secret other", &sealed), None);
        assert_eq!(Keyring::made_up().open_sealed("secret db", &sealed), None);
        let raw = BASE64_STANDARD.decode(&sealed.text).unwrap();
        for at in 0..raw.len() {
            let mut bent = raw.clone();
            bent[at] ^= 1;
            let text = BASE64_STANDARD.encode(bent);
            assert_eq!(keyring.open_sealed("secret db", &Sealed { text, ..sealed.clone() }), None, "byte {at}");
        }
        for text in ["", "AAAA", "no base64!"] {
            assert_eq!(keyring.open_sealed("secret db", &Sealed { text: text.into(), ..sealed.clone() }), None);
        }
    }

    #[test]
    fn sessions_differ_by_boot_and_key_and_stay_the_same() {
        let keyring = Keyring::made_up();
        let secret = |boot: &str, key| keyring.session(&BootId(boot.into()), &SessionKey([key; 32])).reveal();
        assert_eq!(secret("a", 1), secret("a", 1));
        assert!(secret("a", 1) != secret("b", 1) && secret("a", 1) != secret("a", 2));
    }
}
