//! `[logs]`, as written and as used.

use serde::Deserialize;

/// What is kept of what machines say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Syslog's port on the provisioning plane, UDP and TCP; `None`: nobody listens.
    pub port: Option<u16>,
    /// Bytes of one boot; the newest are kept.
    pub of_boot: u64,
    /// Bytes of all; the oldest boots' go first.
    pub of_all: u64,
    /// Days that a boot's are kept after its last line.
    pub days: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenLogs {
    port: Option<u16>,
    boot_mib: Option<u64>,
    keep_mib: Option<u64>,
    keep_days: Option<u32>,
}

impl WrittenLogs {
    pub fn check(&self) -> Result<LogSettings, String> {
        let (of_boot, of_all) = (self.boot_mib.unwrap_or(16), self.keep_mib.unwrap_or(1024));
        for (key, mib) in [("boot_mib", of_boot), ("keep_mib", of_all)] {
            if !(1..=1 << 20).contains(&mib) {
                return Err(format!("logs.{key}: write how many MiB to keep, 1 to 1048576"));
            }
        }
        if of_boot > of_all {
            return Err("logs.boot_mib: one boot may not have more than logs.keep_mib holds".into());
        }
        if self.keep_days == Some(0) {
            return Err("logs.keep_days: write for how many days to keep them, at least 1".into());
        }
        let port = Some(self.port.unwrap_or(514)).filter(|port| *port != 0);
        Ok(LogSettings { port, of_boot: of_boot << 20, of_all: of_all << 20, days: self.keep_days.unwrap_or(30) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<LogSettings, String> {
        toml::from_str::<WrittenLogs>(text).unwrap().check()
    }

    #[test]
    fn limits_are_sane_and_port_0_is_off() {
        let usual = check("").unwrap();
        assert_eq!((usual.port, usual.of_boot, usual.of_all, usual.days), (Some(514), 16 << 20, 1 << 30, 30));
        assert_eq!(check("port = 0").unwrap().port, None);
        for text in ["keep_mib = 0", "boot_mib = 0", "keep_days = 0", "boot_mib = 20\nkeep_mib = 10"] {
            assert!(check(text).unwrap_err().starts_with("logs."), "{text}");
        }
    }
}
