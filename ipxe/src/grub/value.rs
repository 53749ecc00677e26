//! Values that may stand in a script of GRUB's (GRUB manual, "Shell-like scripting": "Quoting").

use crate::UnsafeValue;

/// Longer values are a mistake.
const LONGEST: usize = 4000;

/// A line of text for `echo`, quoted. `echo` gives backslashes a meaning of its own.
pub fn line(what: &'static str, value: &str) -> Result<String, UnsafeValue> {
    check(what, value)?;
    Ok(quoted(value))
}

/// One word, quoted where it holds anything but what file names and plain arguments have.
pub fn word(what: &'static str, value: &str) -> Result<String, UnsafeValue> {
    check(what, value)?;
    if value.is_empty() {
        return Err(UnsafeValue::new(what, value, "it is empty"));
    }
    // GRUB escapes these for the kernel, which knows no escapes.
    if value.contains(['\'', '"']) {
        return Err(UnsafeValue::new(what, value, "GRUB would put a backslash before its quote"));
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=,+@%()".contains(&b);
    Ok(if value.bytes().all(is_plain) { value.to_owned() } else { quoted(value) })
}

/// A text between single quotes, in which nothing is special; a single quote itself stands outside of them.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn check(what: &'static str, value: &str) -> Result<(), UnsafeValue> {
    let problem = if value.chars().any(char::is_control) {
        "it holds a line break or another control character"
    } else if value.contains('\\') {
        "it holds a backslash, which GRUB or the kernel would read as something else"
    } else if value.len() > LONGEST {
        "it is longer than 4000 bytes"
    } else {
        return Ok(());
    };
    Err(UnsafeValue::new(what, value, problem))
}
