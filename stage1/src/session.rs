//! Our session with the appliance: a fresh key, and what it seals to it. The private half of the key never leaves this
//! process; what is handed on to the booted system is the secret that its reports are proved with.

use crate::entropy::Backoff;
use crate::http::{self, HttpError};
use bennu_plan::{SessionGranted, SessionKey, SessionRequest, proved};
use crypto_box::SecretKey;
use ring::hmac;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// The appliance's bound on what it seals is far lower.
const LIMIT: u64 = 8 << 20;

/// What proves that a report is this boot's; 64 hex digits as text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(String);

impl fmt::Debug for Proof {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(…)")
    }
}

impl Proof {
    /// The header's value for one report, sent now.
    pub fn of(&self, report: &[u8]) -> String {
        let sequence = now();
        format!("{sequence} {}", self.mac(&proved(sequence, report)))
    }

    /// The MAC over what is to be proved.
    pub fn mac(&self, proved: &[u8]) -> String {
        // Read as a key is, and never wrong: the appliance wrote it.
        let SessionKey(secret) = self.0.parse().unwrap_or(SessionKey([0; 32]));
        crate::download::hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), proved).as_ref())
    }
}

/// Nanoseconds since the kernel started: all our processes share them, and no two reports are made within one.
pub fn now() -> u64 {
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    uptime.tv_sec.unsigned_abs() * 1_000_000_000 + uptime.tv_nsec.unsigned_abs()
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// The network, or an appliance that cannot answer now.
    #[error("{0}")]
    Away(String),
    /// The appliance knows no sessions, or not this boot; the plan will tell which.
    #[error("the appliance has no sessions")]
    Unknown,
    /// It will not change its mind.
    #[error("the appliance refuses this machine's key: {0}")]
    Refused(String),
    /// What came is not for us.
    #[error("what the appliance sealed cannot be opened: {0}")]
    Unreadable(&'static str),
}

impl From<HttpError> for NoSession {
    fn from(error: HttpError) -> Self {
        Self::Away(error.to_string())
    }
}

/// The key of this boot.
pub struct Session {
    url: String,
    key: SecretKey,
}

impl Session {
    /// With a new key. Waits for the kernel's random numbers, which come within a second or so of its start.
    pub fn new(base: &str) -> Self {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        let mut backoff = Backoff::new(std::time::Duration::from_millis(100), std::time::Duration::from_secs(1));
        while getrandom(&mut bytes[..], GetRandomFlags::empty()) != Ok(bytes.len()) {
            std::thread::sleep(backoff.step());
        }
        Self { url: format!("{base}session"), key: SecretKey::from(*bytes) }
    }

    /// Asks once, for the first time or again.
    pub fn ask(&self) -> Result<(Proof, SessionGranted), NoSession> {
        let request = SessionRequest { key: SessionKey(*self.key.public_key().as_bytes()) };
        let json = serde_json::to_vec(&request).unwrap_or_default();
        let response = http::post_for(&self.url, &json, http::NORMAL)?;
        let status = response.status;
        let body = response.bytes(LIMIT)?;
        let said = || String::from_utf8_lossy(&body).lines().next().unwrap_or_default().chars().take(200).collect();
        match status {
            200 => self.open(&body),
            404 | 405 => Err(NoSession::Unknown),
            403 | 409 => Err(NoSession::Refused(said())),
            status => Err(NoSession::Away(format!("the appliance answers {status}: {}", said()))),
        }
    }

    fn open(&self, sealed: &[u8]) -> Result<(Proof, SessionGranted), NoSession> {
        let plain = self.key.unseal(sealed).map_err(|_| NoSession::Unreadable("it is not sealed to our key"))?;
        let granted: SessionGranted = serde_json::from_slice(&Zeroizing::new(plain))
            .map_err(|_| NoSession::Unreadable("it is not as this stage 1 knows it"))?;
        if granted.secret.parse::<SessionKey>().is_err() {
            return Err(NoSession::Unreadable("its secret is none"));
        }
        Ok((Proof(granted.secret.clone()), granted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto_box::{PublicKey, aead::OsRng};

    fn sealed(to: &PublicKey, secret: &str) -> Vec<u8> {
        let granted = SessionGranted { boot: "b".into(), secret: secret.into(), files: Vec::new(), logs: None };
        to.seal(&mut OsRng, &serde_json::to_vec(&granted).unwrap()).unwrap()
    }

    #[test]
    fn only_what_is_sealed_to_our_key_is_believed() {
        let (ours, theirs) = (Session::new("http://x/"), Session::new("http://x/"));
        let secret = "07".repeat(32);
        let sealed_to_us = sealed(&ours.key.public_key(), &secret);
        assert_eq!(ours.open(&sealed_to_us).unwrap().0.0, secret);
        assert!(theirs.open(&sealed_to_us).is_err());
        let mut bent = sealed_to_us.clone();
        bent[40] ^= 1;
        assert!(ours.open(&bent).is_err() && ours.open(b"").is_err());
        assert!(ours.open(&sealed(&ours.key.public_key(), "short")).is_err());
        assert!(!format!("{:?}", Proof(secret.clone())).contains(&secret));
    }

    #[test]
    fn each_proof_is_of_its_report_and_comes_after_the_last() {
        let proof = Proof("07".repeat(32));
        let (first, second) = (proof.of(b"{}"), proof.of(b"{}"));
        let sequence = |text: &str| text.split(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(sequence(&second) > sequence(&first));
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), &proved(sequence(&first), b"{}"));
        assert_eq!(first.split(' ').nth(1).unwrap(), crate::download::hex(mac.as_ref()));
    }
}
