//! Firmware over a bad cable: OVMF in QEMU reads a loader of 1.05 MB by TFTP while frames are lost both ways.

use anyhow::Result;
use bennu_tests::{rack::Rack, scenarios::loss};

use super::Run;
use crate::{contenders::OURS, load::Figures};

/// A fiftieth is lost.
pub const FIFTIETH: &str = "OVMF, 1.05 MB at 2 % loss";
/// A tenth is lost.
pub const TENTH: &str = "OVMF, 1.05 MB at 10 % loss";

/// A round of ours: the peers take minutes.
pub fn round(run: &mut Run<'_>, round: u32) -> Result<()> {
    for (test, per_mille) in [(FIFTIETH, 20), (TENTH, 100)] {
        let mut figures = Figures::default();
        match loss::fetch(&Rack::new()?, per_mille) {
            Ok(fetched) => {
                figures.set("transfer_s", fetched.transfer_ms as f64 / 1e3);
                figures.set("since_ack_s", fetched.since_ack_ms as f64 / 1e3);
            }
            Err(error) => {
                figures.set("failed", 1.0);
                figures.count_error(&format!("{error:#}"));
            }
        }
        run.samples.add(round, test, OURS, figures);
    }
    Ok(())
}
