//! Errors of commands: what happened and where, what to do, and the exit code.

use crate::http::api::problem::{Problem, parted};
use std::{fmt, process::ExitCode};

/// Why a command ends without having done what was asked.
#[derive(Debug)]
pub struct CliError {
    /// What happened, and where.
    pub what: String,
    /// What to do next.
    pub help: String,
    /// Which part of what was sent is wrong, as the appliance says (RFC 6901).
    pub pointer: Option<String>,
    code: u8,
    is_refusal: bool,
}

/// What a command gives.
pub type Done<T = ()> = Result<T, CliError>;

impl CliError {
    /// The command failed.
    pub fn failed(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into(), pointer: None, code: 1, is_refusal: false }
    }

    /// The command failed with an error that says what to do itself.
    pub fn told(text: &str) -> Self {
        let (what, help) = parted(text);
        Self::failed(what, help)
    }

    /// The same with an exit code of its own.
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// The command was written wrongly.
    pub fn usage(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into(), pointer: None, code: 2, is_refusal: false }
    }

    /// A dry run found something to do: that is no error, but has an exit code of its own.
    pub fn difference() -> Self {
        Self { what: String::new(), help: String::new(), pointer: None, code: 3, is_refusal: false }
    }

    /// Whether the appliance will not say otherwise when it is asked again (a status of 4xx).
    pub fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.what.is_empty() {
            return Ok(());
        }
        write!(f, "error: {}", self.what)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "\nhelp: {}", self.help) }
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        let what = match &problem.pointer {
            Some(pointer) if !pointer.is_empty() => format!("{} (at {pointer})", problem.detail),
            _ => problem.detail,
        };
        let is_refusal = (400..500).contains(&problem.status) && problem.status != 429;
        Self { pointer: problem.pointer, is_refusal, ..Self::failed(what, problem.advice) }
    }
}

/// An error of this process itself, with every cause in one line.
impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::told(&format!("{error:#}"))
    }
}
