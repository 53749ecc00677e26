//! Against this host's cryptsetup, on files: what needs no device mapper.

use super::*;
use crate::tpm::Sealed;

fn disk() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    file
}

fn opens(file: &Path, secret: &[u8]) -> Result<(), Failed> {
    let arguments = ["open", "--test-passphrase", "--type", "luks2", "--key-file", "-"].map(OsStr::new);
    cryptsetup(&[&arguments[..], &[file.as_os_str()]].concat(), secret).map(drop)
}

#[test]
fn both_keys_open_it_and_nothing_else_does() {
    let file = disk();
    let key = random::<32>().unwrap();
    format(file.path(), b"a recovery key").unwrap();
    assert_eq!(token::read(file.path()), Ok(None));
    add(file.path(), b"a recovery key", &key).unwrap();
    opens(file.path(), b"a recovery key").unwrap();
    opens(file.path(), &key).unwrap();
    for wrong in [&b"a recovery kez"[..], b"a recovery key\n", &key[..31]] {
        assert!(opens(file.path(), wrong).unwrap_err().is_wrong());
    }
    let sealed = Sealed { private: vec![1, 2], public: vec![3] };
    token::write(file.path(), &sealed).unwrap();
    assert_eq!(token::read(file.path()), Ok(Some(sealed)));
    // Another TPM's, in place of that.
    let other = Sealed { private: vec![4], public: vec![5, 6] };
    token::write(file.path(), &other).unwrap();
    assert_eq!(token::read(file.path()), Ok(Some(other)));
    label(file.path()).unwrap();
    assert!(std::fs::read(file.path()).unwrap()[24..].starts_with(b"BENNU-CRYPT\0"));
    let header = cryptsetup(&["luksDump".as_ref(), file.path().as_os_str()], &[]).unwrap();
    let header = String::from_utf8(header).unwrap();
    assert!(header.contains("argon2id") && header.contains("Memory:     65536"), "{header}");
}

#[test]
fn what_is_no_state_says_so() {
    let file = disk();
    let failed = opens(file.path(), b"x").unwrap_err();
    assert!(!failed.is_wrong() && failed.told().contains("not a valid LUKS"), "{}", failed.told());
}
