//! `[logs]`, as written and as used.

use bennu_plan::LogsWanted;
use serde::Deserialize;

/// Syslog's own port (RFC 5426 §3.3).
pub(super) const SYSLOG: u16 = 514;

/// What is kept of what machines say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Syslog's port on the provisioning plane, UDP and TCP; `None`: nobody listens.
    pub port: Option<u16>,
    /// Bytes of one boot; the newest are kept.
    pub of_boot: u64,
    /// Whose logs are asked for.
    pub forward: Forward,
    /// Bytes of all boots of one machine; its oldest boots' go first.
    pub of_machine: u64,
    /// Bytes of all; the oldest boots' go first.
    pub of_all: u64,
    /// Days that a boot's are kept after its last line.
    pub days: u32,
}

/// Whose logs machines are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Stage 1's, and those of the booted systems.
    #[default]
    System,
    /// Stage 1's alone.
    Stage1,
    /// Nobody's: what comes was set up in the images.
    Off,
}

impl Default for LogSettings {
    /// What a configuration means that says nothing of logs.
    fn default() -> Self {
        Self {
            port: Some(SYSLOG),
            forward: Forward::System,
            of_boot: 16 << 20,
            of_machine: 128 << 20,
            of_all: 1 << 30,
            days: 30,
        }
    }
}

impl LogSettings {
    /// What stage 1 is told.
    pub fn wanted(&self) -> Option<LogsWanted> {
        let port = self.port.filter(|_| self.forward != Forward::Off)?;
        Some(LogsWanted { port, system: self.forward == Forward::System })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenLogs {
    port: Option<u16>,
    forward: Forward,
    boot_mib: Option<u64>,
    machine_mib: Option<u64>,
    keep_mib: Option<u64>,
    keep_days: Option<u32>,
}

impl WrittenLogs {
    pub fn check(&self) -> Result<LogSettings, String> {
        let (of_boot, of_all) = (self.boot_mib.unwrap_or(16), self.keep_mib.unwrap_or(1024));
        let of_machine = self.machine_mib.unwrap_or_else(|| of_boot.max(128).min(of_all));
        for (key, mib) in [("boot_mib", of_boot), ("machine_mib", of_machine), ("keep_mib", of_all)] {
            if !(1..=1 << 20).contains(&mib) {
                return Err(format!("logs.{key}: write how many MiB to keep, 1 to 1048576"));
            }
        }
        if of_boot > of_all {
            return Err("logs.boot_mib: one boot may not have more than logs.keep_mib holds".into());
        }
        if !(of_boot..=of_all).contains(&of_machine) {
            return Err("logs.machine_mib: write at least logs.boot_mib and at most logs.keep_mib".into());
        }
        if self.keep_days == Some(0) {
            return Err("logs.keep_days: write for how many days to keep them, at least 1".into());
        }
        let port = Some(self.port.unwrap_or(SYSLOG)).filter(|port| *port != 0);
        Ok(LogSettings {
            port,
            forward: self.forward,
            of_boot: of_boot << 20,
            of_machine: of_machine << 20,
            of_all: of_all << 20,
            days: self.keep_days.unwrap_or(30),
        })
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
        assert_eq!(check("").unwrap(), LogSettings::default());
        assert_eq!(check("port = 0").unwrap().port, None);
        assert_eq!(check("keep_mib = 64").unwrap().of_machine, 64 << 20);
        for text in [
            "keep_mib = 0",
            "machine_mib = 8",
            "machine_mib = 2000",
            "boot_mib = 0",
            "keep_days = 0",
            "boot_mib = 20\nkeep_mib = 10",
        ] {
            assert!(check(text).unwrap_err().starts_with("logs."), "{text}");
        }
    }

    #[test]
    fn machines_are_asked_for_what_the_configuration_says() {
        let wanted = |text: &str| check(text).unwrap().wanted();
        assert_eq!(wanted(""), Some(LogsWanted { port: 514, system: true }));
        assert_eq!(wanted("port = 1514\nforward = \"stage1\""), Some(LogsWanted { port: 1514, system: false }));
        assert_eq!((wanted("forward = \"off\""), wanted("port = 0")), (None, None));
        assert!(toml::from_str::<WrittenLogs>("forward = \"some\"").is_err());
    }
}
