//! What this machine says, on its way to the appliance: the kernel's log, where stage 1's own lines are too, and later the
//! booted system's journal. Nobody waits for it, it keeps little, and a machine whose log arrives nowhere runs as well.

mod devlog;
mod journal;
mod kernel;
mod line;
mod link;
mod stage1;
mod system;

pub use kernel::{limit_own_lines, unlimit_own_lines};
pub use stage1::{Forwarder, Sent};
pub use system::{SENT, VERB, beside_another_init, run};

use crate::http::Url;
use crate::laydown::{self, LaydownError};
use crate::reporter::{BINARY, FILE};
use crate::session::Proof;
use bennu_plan::LogsWanted;
use std::net::SocketAddr;
use std::path::Path;

const UNIT: &str = "bennu-logs.service";

/// Where lines go, and what proves them.
#[derive(Debug, Clone)]
pub struct To {
    address: SocketAddr,
    proof: Proof,
}

impl To {
    /// By the boot's base URL.
    pub fn new(base: &str, wanted: LogsWanted, proof: Proof) -> Option<Self> {
        let server = Url::parse(base).ok()?.server;
        Some(Self { address: SocketAddr::new(server.ip(), wanted.port), proof })
    }
}

/// The unit that forwards the journal. It ends with nothing else and holds nothing up: it is neither ordered before anything
/// but the shutdown, nor required by anything, and has little memory and the least share of the processors.
fn unit() -> String {
    format!(
        "[Unit]\nDescription=Forward the journal of this machine to Bennu\nDefaultDependencies=no\n\
         Conflicts=shutdown.target\nBefore=shutdown.target\nAfter=systemd-journald.socket\nConditionPathExists={FILE}\n\
         StartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={BINARY} {VERB}\nRestart=always\nRestartSec=10\nOOMScoreAdjust=500\nNice=10\n\
         CPUWeight=10\nMemoryMax=64M\nTasksMax=16\nNoNewPrivileges=yes\nCapabilityBoundingSet=\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n"
    )
}

/// Lays the unit down in what will be `/run`.
pub fn lay_down_unit(run: &Path) -> Result<(), LaydownError> {
    laydown::write(run, &format!("systemd/system/{UNIT}"), unit(), 0o644)?;
    laydown::enable(run, UNIT, "sysinit.target")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_found_by_systemd_and_holds_nothing_up() {
        let run = tempfile::tempdir().unwrap();
        lay_down_unit(run.path()).unwrap();
        let link = run.path().join("systemd/system/sysinit.target.wants/bennu-logs.service");
        assert_eq!(std::fs::read_link(link).unwrap(), Path::new("/run/systemd/system/bennu-logs.service"));
        let text = std::fs::read_to_string(run.path().join("systemd/system/bennu-logs.service")).unwrap();
        assert!(text.contains("ExecStart=/run/bennu/stage1 logs\n") && text.contains("DefaultDependencies=no\n"));
        assert!(!text.contains("Requires") && text.matches("Before=").count() == 1, "{text}");
    }
}
