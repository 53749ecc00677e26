//! Number fields of a tar header.

/// Octal digits, padded with spaces or NULs; or base-256 (GNU) when the top bit is set, two's complement.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let start: i128 = if first & 0x40 != 0 { -1 } else { 0 };
        let value = field.iter().enumerate().try_fold(start, |value, (at, &byte)| {
            // The first byte's top bit only marks the form; what is below it belongs to the number.
            let byte = if at == 0 && start == 0 { byte & 0x7f } else { byte };
            let value = (value << 8) | i128::from(byte);
            (-(1 << 80)..1 << 80).contains(&value).then_some(value)
        })?;
        return value.try_into().ok();
    }
    let text = field.trim_ascii_start();
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if !rest.first().is_none_or(|&b| b == 0 || b == b' ') {
        return None;
    }
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Octal with a closing NUL, when it fits.
pub(super) fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() > digits {
        return false;
    }
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
    true
}

/// A decimal number as pax records write them; fractions of seconds are cut off, towards the past.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i64 = whole.parse().ok()?;
    let below = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    value.checked_sub(below.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_base_256() {
        assert_eq!(parse(b"0000644\0"), Some(0o644));
        assert_eq!(parse(b"   644 \0"), Some(0o644));
        assert_eq!(parse(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(parse(b"        "), Some(0));
        assert_eq!(parse(b"00008\0\0\0"), None);
        assert_eq!(parse(b"12x\0\0\0\0\0"), None);
        assert_eq!(parse(b"77777777777\0"), Some(0o77777777777));
        assert_eq!(parse(&[0x80, 0, 0, 0, 0x01, 0, 0, 0]), Some(1 << 24));
        assert_eq!(parse(&[0xff; 12]), Some(-1));
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]), Some(-256));
        assert_eq!(parse(&[0x80, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn octal_is_refused_where_it_does_not_fit() {
        let mut field = [0; 8];
        assert!(octal(&mut field, 0o7777777));
        assert_eq!(&field, b"7777777\0");
        assert!(!octal(&mut field, 0o10000000));
    }

    #[test]
    fn decimals_are_floored() {
        assert_eq!(decimal(b"12.75"), Some(12));
        assert_eq!(decimal(b"-1.5"), Some(-2));
        assert_eq!(decimal(b"-1.0"), Some(-1));
        assert_eq!(decimal(b"-0.5"), Some(-1));
        assert_eq!(decimal(b"1e9"), None);
        assert_eq!(decimal(b""), None);
    }
}
