//! How much memory there is, and whether a root fits.

use crate::console::mib;

/// What a system needs beside its root to start at all.
const MARGIN: u64 = 128 << 20;

/// Bytes, from `/proc/meminfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All.
    pub total: u64,
    /// What can be had without swapping.
    pub available: u64,
}

/// The root does not fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "not enough memory: the root needs {} and the system at least {} more, and of {} only {} are available. Give the machine more memory or assign a smaller image",
    mib(*.root), mib(MARGIN), mib(.memory.total), mib(.memory.available)
)]
pub struct TooLittle {
    root: u64,
    memory: Memory,
}

impl Memory {
    /// Of this machine, now.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some(Self { total: field("MemTotal")?, available: field("MemAvailable")? })
    }

    /// Whether `root` bytes, of which `have` are here already, leave enough to run.
    pub fn check(self, root: u64, have: u64) -> Result<(), TooLittle> {
        let missing = root.saturating_sub(have);
        if missing.saturating_add(MARGIN) > self.available {
            return Err(TooLittle { root, memory: self });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_judges() {
        let text = "MemTotal:        1048576 kB\nMemFree:          1 kB\nMemAvailable:     524288 kB\n";
        let memory = Memory::parse(text).unwrap();
        assert_eq!((memory.total, memory.available), (1 << 30, 512 << 20));
        assert!(memory.check(384 << 20, 0).is_ok());
        let error = memory.check(385 << 20, 0).unwrap_err().to_string();
        assert!(error.contains("385.0 MiB") && error.contains("512.0 MiB"), "{error}");
        assert!(memory.check(600 << 20, 300 << 20).is_ok());
        assert!(memory.check(u64::MAX, 0).is_err());
        assert_eq!(Memory::parse("MemTotal: x kB"), None);
    }
}
