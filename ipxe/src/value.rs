//! Values that may stand in a script.

/// A value that would change the meaning of a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} {value:?} cannot stand in a boot script: {problem}")]
pub struct UnsafeValue {
    what: &'static str,
    value: String,
    problem: &'static str,
}

impl UnsafeValue {
    pub(crate) fn new(what: &'static str, value: &str, problem: &'static str) -> Self {
        Self { what, value: value.chars().take(120).collect(), problem }
    }
}

/// Checks a value that stands in a line of a script, spaces allowed.
pub fn check(what: &'static str, value: &str) -> Result<(), UnsafeValue> {
    let problem = if value.chars().any(char::is_control) {
        "it holds a line break or another control character"
    } else if value.contains("${") {
        "the loader would expand ${…}"
    } else if value.split_whitespace().any(|word| matches!(word, "||" | "&&")) {
        "the loader would take || or && as the end of its command"
    } else if value.len() > 4000 {
        "it is longer than 4000 bytes"
    } else {
        return Ok(());
    };
    Err(UnsafeValue::new(what, value, problem))
}

/// Checks a value that must be one word.
pub fn check_word(what: &'static str, value: &str) -> Result<(), UnsafeValue> {
    check(what, value)?;
    if value.is_empty() || value.contains(char::is_whitespace) {
        return Err(UnsafeValue::new(what, value, "it must be one word"));
    }
    Ok(())
}

/// Any text made fit to be shown by `echo`.
pub fn harmless(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    plain.replace("${", "$ {").replace("||", "| |").replace("&&", "& &")
}
