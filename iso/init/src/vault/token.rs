//! What the TPM sealed, in the LUKS header: a token of our own kind, which says which key it opens.

use super::{Failed, cryptsetup};
use crate::tpm::Sealed;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::path::Path;

/// Ours (LUKS2 On-Disk Format Specification §3.5: names are anybody's).
const KIND: &str = "bennu-tpm2";
/// The place of the TPM's key. The recovery key has the one before.
pub const KEY: &str = "1";
const NUMBER: &str = "0";

#[derive(Debug, Serialize, Deserialize)]
struct Token {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    private: String,
    public: String,
}

/// Puts it there.
pub fn write(block: &Path, sealed: &Sealed) -> Result<(), Failed> {
    let text = text(sealed);
    let arguments = ["token", "import", "--token-id", NUMBER, "--token-replace", "--json-file", "-"].map(OsStr::new);
    cryptsetup(&[&arguments[..], &[block.as_os_str()]].concat(), text.as_bytes()).map(drop)
}

/// What is there; `None`: a person opens it.
pub fn read(block: &Path) -> Result<Option<Sealed>, String> {
    let arguments = ["token", "export", "--token-id", NUMBER].map(OsStr::new);
    match cryptsetup(&[&arguments[..], &[block.as_os_str()]].concat(), &[]) {
        Ok(text) => Ok(sealed(&text)),
        // Without a token it ends with 1 and says so.
        Err(Failed { status: Some(1), .. }) => Ok(None),
        Err(error) => Err(error.told()),
    }
}

fn text(sealed: &Sealed) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = Token {
        kind: KIND.into(),
        keyslots: vec![KEY.into()],
        private: hex(&sealed.private),
        public: hex(&sealed.public),
    };
    serde_json::to_string(&token).unwrap_or_default()
}

fn sealed(text: &[u8]) -> Option<Sealed> {
    let bytes = |hex: &str| -> Option<Vec<u8>> {
        let pairs = hex.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    };
    let token: Token = serde_json::from_slice(text).ok().filter(|token: &Token| token.kind == KIND)?;
    Some(Sealed { private: bytes(&token.private)?, public: bytes(&token.public)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let whole = Sealed { private: vec![0, 255, 16], public: vec![7] };
        let written = text(&whole);
        assert!(written.contains(r#""type":"bennu-tpm2","keyslots":["1"]"#), "{written}");
        assert_eq!(sealed(written.as_bytes()), Some(whole));
        for other in ["", "{}", r#"{"type":"x","keyslots":[],"private":"00","public":"00"}"#] {
            assert_eq!(sealed(other.as_bytes()), None, "{other}");
        }
        assert_eq!(sealed(written.replace("00ff", "00fx").as_bytes()), None);
    }
}
