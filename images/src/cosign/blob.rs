//! Signatures over files, as `cosign sign-blob --key` makes and `cosign verify-blob --key` reads them: base64 of the signature
//! over the file's bytes.

use super::{private_key::SigningKey, public_key::TrustedKey, sign::CannotSign};
use base64ct::{Base64, Encoding as _};

/// A file whose signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It is no signature.
    #[error("the signature is not base64; it is the file that cosign sign-blob or bennu appliance sign writes")]
    Encoding,
    /// The key did not make it, or not over this.
    #[error(
        "the key '{key}' has not signed these bytes: another key has, or they were changed on their way. Copy the file and its \
         signature again, and compare their checksums with their publisher's"
    )]
    Other {
        /// Which key was tried.
        key: String,
    },
}

/// Signs a file's bytes.
pub fn sign_blob(key: &SigningKey, bytes: &[u8]) -> Result<String, CannotSign> {
    Ok(Base64::encode_string(&key.sign(bytes).map_err(|_| CannotSign::Key)?))
}

/// Whether the key has signed a file's bytes.
pub fn verify_blob(key: &TrustedKey, bytes: &[u8], signature: &str) -> Result<(), BadSignature> {
    let plain: String = signature.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let signature = Base64::decode_vec(&plain).map_err(|_| BadSignature::Encoding)?;
    match key.has_signed(bytes, &signature) {
        true => Ok(()),
        false => Err(BadSignature::Other { key: key.id().name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosign::KeyPair;

    fn pair() -> (SigningKey, TrustedKey) {
        let pair = KeyPair::generate(b"").unwrap();
        let key = SigningKey::from_pem(pair.private.as_bytes(), Some(b"")).unwrap();
        (key, TrustedKey::from_pem("release", pair.public.as_bytes()).unwrap())
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_file() {
        let (key, trusted) = pair();
        let signature = sign_blob(&key, b"disc").unwrap();
        assert_eq!(verify_blob(&trusted, b"disc", &format!("{signature}\n")), Ok(()));
        assert!(matches!(verify_blob(&trusted, b"disk", &signature), Err(BadSignature::Other { .. })));
        assert!(matches!(verify_blob(&pair().1, b"disc", &signature), Err(BadSignature::Other { .. })));
        assert_eq!(verify_blob(&trusted, b"disc", "no signature"), Err(BadSignature::Encoding));
        assert!(matches!(verify_blob(&trusted, b"disc", ""), Err(BadSignature::Other { .. })));
    }
}
