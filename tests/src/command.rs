//! Running other programs, with errors that say which, how and why.

use anyhow::{Context, Result, bail};
use std::{
    ffi::OsStr,
    process::{Command, Stdio},
};

/// Runs to the end; its standard output, or an error with its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run_bytes(command)?).into_owned())
}

/// Like [`run`], for output that is not text.
pub fn run_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let line = spoken(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {line}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{line}: {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

/// Runs a program with arguments.
pub fn call<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    run(Command::new(program).args(arguments))
}

/// Runs a fixed command line, split at blanks.
pub fn sh(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    call(words.next().unwrap_or_default(), words)
}

/// The command line as one would type it.
pub fn spoken(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
