//! State that whoever takes its disk away cannot read: what opens it, and where it lies.

use serde::{Deserialize, Serialize};

/// The label of an encrypted state, in its LUKS header. What is inside is labelled as a state in clear is.
pub const LABEL: &str = "BENNU-CRYPT";
/// A passphrase that a person chooses is at least so long.
pub const SHORTEST: usize = 8;
/// Bytes of a recovery key: so many cannot be tried out, however little time a trial takes.
pub const RECOVERY_BYTES: usize = 20;
/// What takes a place where state lies, beside discs' serial numbers and `auto`: the medium's own free space.
pub const STICK: &str = "stick";
/// Where state begins on the medium. A disc is smaller, so that a newer one is written over its beginning alone.
pub const STICK_FROM: u64 = 1 << 30;
/// Left at its end, where tools that repair partition tables put a second one.
const STICK_END: u64 = 1 << 20;
/// Less has no room for images.
pub const SMALLEST: u64 = 1 << 30;

/// What opens the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Nothing is needed: it is in clear.
    #[default]
    None,
    /// A person at the console, at each start.
    Passphrase,
    /// The TPM 2.0 of this machine, as long as Secure Boot stands as it did.
    Tpm,
}

impl Encryption {
    /// In the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::None, Self::Passphrase, Self::Tpm];

    /// As the configuration has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Passphrase => "passphrase",
            Self::Tpm => "tpm",
        }
    }

    /// Whether it is in clear.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Whether a new passphrase, typed twice, is one.
pub fn judge(first: &str, again: &str) -> Result<(), &'static str> {
    if first.chars().count() < SHORTEST {
        return Err("it is too short: a passphrase has 8 characters at least");
    }
    if first != again {
        return Err("the two are not the same");
    }
    Ok(())
}

/// Crockford's alphabet: no letter is taken for a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const GROUP: usize = 4;

/// A recovery key as a person writes it down: groups of four letters and digits.
pub fn recovery_key(bytes: &[u8; RECOVERY_BYTES]) -> String {
    let mut text = String::with_capacity(RECOVERY_BYTES * 2);
    for (at, place) in (0..RECOVERY_BYTES * 8).step_by(5).enumerate() {
        if at > 0 && at % GROUP == 0 {
            text.push('-');
        }
        let two = u16::from_be_bytes([bytes[place / 8], bytes.get(place / 8 + 1).copied().unwrap_or_default()]);
        text.push(char::from(ALPHABET[usize::from(two >> (11 - place % 8) & 31)]));
    }
    text
}

/// What a person typed of it, as [`recovery_key`] writes it; `None`: it is none.
pub fn read_recovery_key(typed: &str) -> Option<String> {
    let mut text = String::with_capacity(RECOVERY_BYTES * 2);
    let letters = typed.chars().filter(|c| !c.is_whitespace() && *c != '-');
    for (at, letter) in letters.enumerate() {
        let letter = match letter.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        if at > 0 && at % GROUP == 0 {
            text.push('-');
        }
        u8::try_from(letter).ok().filter(|letter| ALPHABET.contains(letter))?;
        text.push(letter);
    }
    let letters = RECOVERY_BYTES * 8 / 5;
    (text.len() == letters + letters / GROUP - 1).then_some(text)
}

/// How many bytes state may have on a medium of this size.
pub fn room_on_stick(size: u64) -> Result<u64, String> {
    let room = size.saturating_sub(STICK_FROM + STICK_END) >> 20 << 20;
    if room < SMALLEST {
        let megabytes = (STICK_FROM + STICK_END + SMALLEST).div_ceil(1_000_000);
        return Err(format!("it has {} MB, and needs {megabytes}: take a larger stick", size / 1_000_000));
    }
    Ok(room)
}

/// Why no disc can be installed beside such a state, and what to do: GRUB must read the slots, and knows neither.
pub fn no_slots(is_locked: bool, is_on_stick: bool) -> Option<(&'static str, &'static str)> {
    match (is_on_stick, is_locked) {
        (true, _) => Some((
            "the state is on the stick that this machine starts from, where no second disc has room",
            "write the new disc to the stick, over the old one: the state stays",
        )),
        (false, true) => Some((
            "the state disk is encrypted, and what starts this machine cannot read a disc there",
            "write the new version on the medium, and start from that: the state stays",
        )),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_key_is_read_as_people_write_it() {
        let bytes: [u8; RECOVERY_BYTES] = std::array::from_fn(|n| (n * 37 + 11) as u8);
        let written = recovery_key(&bytes);
        assert_eq!(written.len(), 39);
        assert_eq!(recovery_key(&[0xff; RECOVERY_BYTES]), ["zzzz"; 8].join("-"));
        // 0x00443214c7 is 00000 00001 00010 00011 00100 00101 00110 00111.
        let mut counted = [0; RECOVERY_BYTES];
        counted[..5].copy_from_slice(&[0x00, 0x44, 0x32, 0x14, 0xc7]);
        assert!(recovery_key(&counted).starts_with("0123-4567-0000"));
        for typed in [written.clone(), written.to_uppercase(), written.replace('-', " "), format!(" {written}\r\n")] {
            assert_eq!(read_recovery_key(&typed), Some(written.clone()), "{typed}");
        }
        let confused = "oOiI-lL00-0000-0000-0000-0000-0000-0000";
        assert_eq!(read_recovery_key(confused).as_deref(), Some("0011-1100-0000-0000-0000-0000-0000-0000"));
        for none in ["", "a passphrase", &written[..38], &format!("{written}0"), &written.replace('-', "u")] {
            assert_eq!(read_recovery_key(none), None, "{none}");
        }
    }

    #[test]
    fn every_bit_of_a_recovery_key_counts() {
        let zero = recovery_key(&[0; RECOVERY_BYTES]);
        for bit in 0..RECOVERY_BYTES * 8 {
            let mut bytes = [0; RECOVERY_BYTES];
            bytes[bit / 8] = 0x80 >> (bit % 8);
            assert_ne!(recovery_key(&bytes), zero, "{bit}");
        }
    }

    #[test]
    fn a_passphrase_is_long_enough_and_typed_twice() {
        assert_eq!(judge("correct horse", "correct horse"), Ok(()));
        assert!(judge("correct horse", "correct hose").is_err_and(|why| why.contains("not the same")));
        assert!(judge("short", "short").is_err_and(|why| why.contains("8 characters")));
        assert!(judge("ääääääää", "ääääääää").is_ok());
    }

    #[test]
    fn state_on_a_stick_ends_before_its_last_mebibyte() {
        let gib = 1 << 30;
        assert_eq!(room_on_stick(4 * gib), Ok(3 * gib - (1 << 20)));
        assert_eq!(room_on_stick(4 * gib + 512), Ok(3 * gib - (1 << 20)));
        assert_eq!(room_on_stick(2 * gib + (1 << 20)), Ok(gib));
        for small in [0, 100 << 20, 2 * gib] {
            assert!(room_on_stick(small).is_err_and(|why| why.contains("larger stick")), "{small}");
        }
    }
}
