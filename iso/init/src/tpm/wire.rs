//! What is said to a TPM 2.0, byte by byte (TPM 2.0 Library, parts 2 and 3): numbers are big-endian, and what has a length has it
//! in two bytes before it.

use zeroize::Zeroizing;

/// `TPM_ST_NO_SESSIONS`, `TPM_ST_SESSIONS`.
const PLAIN: u16 = 0x8001;
const AUTHORIZED: u16 = 0x8002;
/// `TPM_RH_OWNER`, `TPM_RH_NULL`, `TPM_RS_PW`.
pub const OWNER: u32 = 0x4000_0001;
const NULL: u32 = 0x4000_0007;
const PASSWORD: u32 = 0x4000_0009;
/// `TPM_ALG_SHA256`, `_NULL`, `_AES`, `_CFB`, `_KEYEDHASH`, `_ECC`; `TPM_ECC_NIST_P256`.
const SHA256: u16 = 0x000b;
const NO_ALGORITHM: u16 = 0x0010;
const AES: u16 = 0x0006;
const CFB: u16 = 0x0043;
const KEYED_HASH: u16 = 0x0008;
const ECC: u16 = 0x0023;
const P256: u16 = 0x0003;
/// `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`, `userWithAuth`, `noDA`, `restricted`, `decrypt`.
const PARENT: u32 = 0x0003_0472;
/// `fixedTPM`, `fixedParent`, `noDA`: without `userWithAuth` only the policy gives it out.
const SEALED: u32 = 0x0000_0412;
/// The register that tells of Secure Boot: whether it is on, its keys, and which of them vouched for what was started (PC Client
/// Platform Firmware Profile §3.3.4).
const REGISTER: u8 = 7;
const HEAD: usize = 10;

/// Bytes with their length before them.
fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}

fn command(code: u32, handles: &[u32], session: Option<u32>, parameters: &[u8]) -> Vec<u8> {
    let tag = if session.is_some() { AUTHORIZED } else { PLAIN };
    let mut body = Zeroizing::new(Vec::with_capacity(64 + parameters.len()));
    body.extend(handles.iter().flat_map(|handle| handle.to_be_bytes()));
    if let Some(session) = session {
        // The session, no nonce, no attributes, no password.
        body.extend([0, 0, 0, 9]);
        body.extend(session.to_be_bytes());
        body.extend([0; 5]);
    }
    body.extend(parameters);
    let mut whole = Vec::with_capacity(HEAD + body.len());
    whole.extend(tag.to_be_bytes());
    whole.extend(u32::try_from(HEAD + body.len()).unwrap_or(u32::MAX).to_be_bytes());
    whole.extend(code.to_be_bytes());
    whole.extend(body.iter());
    whole
}

/// The one register, of the bank of SHA-256.
fn selection() -> Vec<u8> {
    let mut out = vec![0, 0, 0, 1];
    out.extend(SHA256.to_be_bytes());
    out.extend([3, 1 << REGISTER, 0, 0]);
    out
}

/// Makes the key that things are sealed under: the same on the same TPM every time, until its owner clears it.
pub fn create_primary() -> Vec<u8> {
    let mut public = Vec::new();
    for word in [ECC, SHA256] {
        public.extend(word.to_be_bytes());
    }
    public.extend(PARENT.to_be_bytes());
    sized(&mut public, &[]);
    for word in [AES, 128, CFB, NO_ALGORITHM, P256, NO_ALGORITHM] {
        public.extend(word.to_be_bytes());
    }
    sized(&mut public, &[]);
    sized(&mut public, &[]);
    create(0x131, OWNER, &[], &public)
}

/// Seals a secret under a key and a policy.
pub fn seal(parent: u32, policy: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut public = Vec::new();
    for word in [KEYED_HASH, SHA256] {
        public.extend(word.to_be_bytes());
    }
    public.extend(SEALED.to_be_bytes());
    sized(&mut public, policy);
    public.extend(NO_ALGORITHM.to_be_bytes());
    sized(&mut public, &[]);
    create(0x153, parent, secret, &public)
}

fn create(code: u32, parent: u32, secret: &[u8], public: &[u8]) -> Vec<u8> {
    // With room for all of it: what grows leaves copies behind.
    let room = || Zeroizing::new(Vec::with_capacity(256));
    let (mut parameters, mut sensitive) = (room(), room());
    sized(&mut sensitive, &[]);
    sized(&mut sensitive, secret);
    sized(&mut parameters, &sensitive);
    sized(&mut parameters, public);
    // Nothing from outside, and no registers to remember.
    sized(&mut parameters, &[]);
    parameters.extend([0; 4]);
    command(code, &[parent], Some(PASSWORD), &parameters)
}

/// Loads what was sealed.
pub fn load(parent: u32, sealed: &Sealed) -> Vec<u8> {
    let mut parameters = Vec::new();
    sized(&mut parameters, &sealed.private);
    sized(&mut parameters, &sealed.public);
    command(0x157, &[parent], Some(PASSWORD), &parameters)
}

/// Begins a policy: to learn its digest, or to use it.
pub fn begin_policy(nonce: &[u8; 16], is_trial: bool) -> Vec<u8> {
    let mut parameters = Vec::new();
    sized(&mut parameters, nonce);
    sized(&mut parameters, &[]);
    parameters.push(if is_trial { 3 } else { 1 });
    parameters.extend(NO_ALGORITHM.to_be_bytes());
    parameters.extend(SHA256.to_be_bytes());
    command(0x176, &[NULL, NULL], None, &parameters)
}

/// The register has its value of now.
pub fn policy_register(session: u32) -> Vec<u8> {
    let mut parameters = Vec::new();
    sized(&mut parameters, &[]);
    parameters.extend(selection());
    command(0x17f, &[session], None, &parameters)
}

/// What a policy comes to.
pub fn policy_digest(session: u32) -> Vec<u8> {
    command(0x189, &[session], None, &[])
}

/// Gives a secret out, if the policy is met.
pub fn unseal(item: u32, session: u32) -> Vec<u8> {
    command(0x15e, &[item], Some(session), &[])
}

/// Reads the register.
pub fn read_register() -> Vec<u8> {
    command(0x17e, &[], None, &selection())
}

/// What a TPM seals: neither part tells the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Encrypted by the TPM's own key.
    pub private: Vec<u8>,
    /// The policy.
    pub public: Vec<u8>,
}

/// What a TPM did not do: its response code (part 2, §6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub u32);

impl Refused {
    /// It asks to be asked again.
    pub fn is_for_now(self) -> bool {
        const RETRY: u32 = 0x922;
        const TESTING: u32 = 0x90a;
        [RETRY, TESTING].contains(&self.0)
    }

    /// In words.
    pub fn told(self) -> String {
        // A code of "format 1" names the parameter, handle or session that it is about.
        let about = if self.0 & 0x80 == 0 { self.0 } else { self.0 & 0xbf };
        let what = match about {
            0x9d => "Secure Boot, its keys, or what they vouched for is not what it was when the disk was made",
            0x9f => "this is another TPM than the disk was made with, or it was cleared",
            0x8e | 0xa2 => "its owner set a password; clear it in the firmware's set-up",
            0x921 => "it is locked after too many wrong passwords; leave the machine on for some hours",
            _ => "it refused",
        };
        format!("{what} (TPM's code {:#x})", self.0)
    }
}

/// What it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(Zeroizing<Vec<u8>>);

impl Answer {
    /// The answer's body. `None`: these bytes are no answer.
    pub fn read(bytes: &[u8]) -> Option<Result<Self, Refused>> {
        let size = u32::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        let code = u32::from_be_bytes(*bytes.get(6..)?.first_chunk()?);
        (usize::try_from(size) == Ok(bytes.len())).then_some(())?;
        Some(if code == 0 { Ok(Self(Zeroizing::new(bytes[HEAD..].to_vec()))) } else { Err(Refused(code)) })
    }

    /// A handle comes first.
    pub fn handle(&self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.0.first_chunk()?))
    }

    /// The parts that have lengths, `skip` bytes into the body.
    fn parts(&self, skip: usize, count: usize) -> Option<Vec<Vec<u8>>> {
        let mut rest = self.0.get(skip..)?;
        let part = |_| {
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
            let part = rest.get(2..2 + length)?.to_vec();
            rest = &rest[2 + length..];
            Some(part)
        };
        (0..count).map(part).collect()
    }

    /// Of [`seal`].
    pub fn sealed(&self) -> Option<Sealed> {
        let [private, public] = self.parts(4, 2)?.try_into().ok()?;
        Some(Sealed { private, public })
    }

    /// Of [`unseal`].
    pub fn secret(&self) -> Option<Vec<u8>> {
        self.parts(4, 1)?.pop()
    }

    /// Of [`policy_digest`].
    pub fn digest(&self) -> Option<Vec<u8>> {
        self.parts(0, 1)?.pop()
    }

    /// Of [`read_register`]: whether there is such a register at all. A policy over one that is not would always be met.
    pub fn has_register(&self) -> bool {
        let selected = self.0.get(4..4 + selection().len()) == Some(&selection());
        let digests = self.0.get(4 + selection().len()..).and_then(|rest| rest.first_chunk());
        selected && digests == Some(&1u32.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_as_long_as_they_say() {
        let sealed = Sealed { private: vec![1; 100], public: vec![2; 50] };
        for command in [
            create_primary(),
            seal(1, &[0; 32], &[7; 32]),
            load(1, &sealed),
            begin_policy(&[0; 16], true),
            policy_register(3),
            policy_digest(3),
            unseal(1, 3),
            read_register(),
        ] {
            assert_eq!(u32::from_be_bytes(*command[2..].first_chunk().unwrap()) as usize, command.len());
        }
        // Part 3, §23.7: tag, size, code, session, no digest, one selection of three bytes of SHA-256, register 7.
        let expected = [0x80, 1, 0, 0, 0, 26, 0, 0, 1, 0x7f, 3, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0x0b, 3, 0x80, 0, 0];
        assert_eq!(policy_register(0x0300_0001), expected);
    }

    #[test]
    fn answers_that_are_cut_short_are_none() {
        let good = [0x80, 2, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 6, 0, 4, 1, 2, 3, 4];
        assert_eq!(Answer::read(&good).unwrap().unwrap().secret().unwrap(), [1, 2, 3, 4]);
        for length in 0..good.len() {
            assert_eq!(Answer::read(&good[..length]), None, "{length}");
            let mut short = good[..length].to_vec();
            if length >= HEAD {
                short[5] = length as u8;
                let secret = Answer::read(&short).unwrap().unwrap().secret();
                assert_eq!(secret, None, "{length}");
            }
        }
        let refused = Answer::read(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x9d]).unwrap().unwrap_err();
        assert!(refused.told().starts_with("Secure Boot"), "{}", refused.told());
        assert!(Refused(0x1df).told().starts_with("this is another TPM"));
        assert!(Refused(0x9a2).told().starts_with("its owner set a password"));
        assert!(Refused(0x922).is_for_now() && !Refused(0x921).is_for_now());
    }

    #[test]
    fn a_register_that_is_not_there_is_none() {
        let body = |selection: &[u8], digests: u32| {
            Answer([&[0; 4], selection, &digests.to_be_bytes()[..]].concat().into()).has_register()
        };
        assert!(body(&selection(), 1));
        assert!(!body(&selection(), 0));
        assert!(!body(&[0; 4], 0));
        assert!(!Answer(Vec::new().into()).has_register());
    }
}
