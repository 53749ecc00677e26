//! Private keys under a password, in the form of go-securesystemslib's `encrypted`: scrypt makes a key of the password,
//! and NaCl's secretbox locks the private key with it.

use base64ct::{Base64, Encoding as _};
use crypto_secretbox::{Key, KeyInit as _, Nonce, XSalsa20Poly1305, aead::Aead as _};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

const KDF: &str = "scrypt";
const CIPHER: &str = "nacl/secretbox";
/// Powers of two that go-securesystemslib knows, and no others: each one more doubles the memory (32, 64, 128 MiB), and
/// the file says it before any password could prove that it is to be believed.
const KNOWN_LOG_N: [u8; 3] = [15, 16, 17];
/// The one that cosign writes.
const LOG_N: u8 = 16;
const R: u32 = 8;
const P: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Why it stays locked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// Not the format.
    Format(String),
    /// Another password, or changed bytes: they look alike.
    Password,
}

/// The private key in the JSON.
pub(super) fn open(json: &[u8], password: &[u8]) -> Result<Vec<u8>, Locked> {
    let garbled = |what: &str| Locked::Format(format!("its {what} is garbled"));
    let sealed: Sealed =
        serde_json::from_slice(json).map_err(|error| Locked::Format(super::told(&format!("its content: {error}"))))?;
    let Kdf { name, params: Params { n, r, p }, salt } = &sealed.kdf;
    if name != KDF || sealed.cipher.name != CIPHER {
        let (kdf, cipher) = (super::told(name), super::told(&sealed.cipher.name));
        return Err(Locked::Format(format!("it is locked by {kdf} and {cipher} instead of {KDF} and {CIPHER}")));
    }
    let known = KNOWN_LOG_N.into_iter().find(|log_n| 1 << log_n == *n && (*r, *p) == (R, P));
    let log_n =
        known.ok_or_else(|| Locked::Format(format!("its scrypt parameters N={n}, r={r}, p={p} are not cosign's")))?;
    let salt = Base64::decode_vec(salt).map_err(|_| garbled("salt"))?;
    let nonce = Base64::decode_vec(&sealed.cipher.nonce).map_err(|_| garbled("nonce"))?;
    let nonce: [u8; XSalsa20Poly1305::NONCE_SIZE] = nonce.try_into().map_err(|_| garbled("nonce"))?;
    let ciphertext = Base64::decode_vec(&sealed.ciphertext).map_err(|_| garbled("ciphertext"))?;
    let cipher = cipher(password, &salt, log_n)?;
    cipher.decrypt(&Nonce::from(nonce), &ciphertext[..]).map_err(|_| Locked::Password)
}

/// The JSON that [`open`] reads.
pub(super) fn seal(plain: &[u8], password: &[u8], chance: &dyn SecureRandom) -> Result<Vec<u8>, Locked> {
    let no_chance = |_| Locked::Format("the system gives no random numbers".into());
    let (mut salt, mut nonce) = ([0; 32], [0; XSalsa20Poly1305::NONCE_SIZE]);
    chance.fill(&mut salt).map_err(no_chance)?;
    chance.fill(&mut nonce).map_err(no_chance)?;
    let locked = cipher(password, &salt, LOG_N)?.encrypt(&Nonce::from(nonce), plain);
    let ciphertext = locked.map_err(|_| Locked::Format("it is too long to lock".into()))?;
    let sealed = Sealed {
        kdf: Kdf { name: KDF.into(), params: Params { n: 1 << LOG_N, r: R, p: P }, salt: Base64::encode_string(&salt) },
        cipher: Cipher { name: CIPHER.into(), nonce: Base64::encode_string(&nonce) },
        ciphertext: Base64::encode_string(&ciphertext),
    };
    serde_json::to_vec(&sealed).map_err(|error| Locked::Format(error.to_string()))
}

fn cipher(password: &[u8], salt: &[u8], log_n: u8) -> Result<XSalsa20Poly1305, Locked> {
    let mut key = [0; XSalsa20Poly1305::KEY_SIZE];
    let fault = |error: &dyn std::fmt::Display| Locked::Format(format!("scrypt refuses its parameters ({error})"));
    let parameters = scrypt::Params::new(log_n, R, P, key.len()).map_err(|error| fault(&error))?;
    scrypt::scrypt(password, salt, &parameters, &mut key).map_err(|error| fault(&error))?;
    Ok(XSalsa20Poly1305::new(&Key::from(key)))
}
