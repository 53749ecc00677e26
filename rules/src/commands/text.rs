//! Checks of what people write into records.

use super::Refusal;
use crate::selector::is_reserved;

const MAX_ARGUMENTS: usize = 1024;

/// A label's key and value.
pub fn check_label(key: &str, value: Option<&str>) -> Result<(), Refusal> {
    let refuse = |reason: &str| {
        Err(Refusal::BadLabel {
            key: key.chars().filter(|c| !c.is_control()).take(80).collect(),
            reason: reason.into(),
        })
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if key.is_empty() || key.len() > 63 || !key.bytes().all(allowed) {
        return refuse("the key is empty, too long or has characters that keys cannot have");
    }
    if value.is_some() && is_reserved(key) {
        return refuse("keys that begin with 'bennu.' are for what Bennu knows of the hardware");
    }
    match value {
        Some(value) if value.chars().count() > 255 => refuse("the value is longer than 255 characters"),
        Some(value) if value.chars().any(char::is_control) => refuse("the value has a control character"),
        _ => Ok(()),
    }
}

/// How many labels a machine has. Every packet of its looks at its record.
const MAX_LABELS: usize = 64;

/// That a machine has no more labels than it may; `key` is one that was added.
pub fn check_labels(count: usize, key: Option<&String>) -> Result<(), Refusal> {
    match key {
        Some(key) if count > MAX_LABELS => Err(Refusal::BadLabel {
            key: key.chars().take(80).collect(),
            reason: format!("with it the machine has more than {MAX_LABELS} labels"),
        }),
        _ => Ok(()),
    }
}

/// Kernel arguments: they enter boot scripts, where a line break would begin a command and `${` a setting.
pub fn check_arguments(arguments: &str) -> Result<(), Refusal> {
    let refuse = |reason: String| Err(Refusal::BadArguments(reason));
    if arguments.len() > MAX_ARGUMENTS {
        return refuse(format!("{} bytes are more than the {MAX_ARGUMENTS} that fit", arguments.len()));
    }
    if let Some(bad) = arguments.chars().find(|c| !matches!(c, ' '..='~')) {
        return refuse(format!("{bad:?} cannot be part of kernel arguments"));
    }
    if arguments.contains("${") {
        return refuse("'${' would be read as a setting of the loader".into());
    }
    Ok(())
}
