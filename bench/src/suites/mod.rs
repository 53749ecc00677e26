//! What is measured, one file a protocol. Every round visits all servers, in an order that rotates, so that the
//! noise of the machine spreads over them.

pub mod dhcp;
pub mod http;
pub mod lossy;
pub mod storm;
pub mod tftp;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::{
    lab::Lab,
    load::Load,
    measure::{Samples, measure},
    servers::{Running, Spec},
};

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Suite {
    /// Addresses.
    Dhcp,
    /// Loaders.
    Tftp,
    /// Images and boot scripts.
    Http,
    /// A rack that is switched on.
    Storm,
    /// Firmware over a bad cable, in QEMU.
    Lossy,
}

/// All of them, in the order of the report.
pub const ALL: &[Suite] = &[Suite::Dhcp, Suite::Tftp, Suite::Http, Suite::Storm, Suite::Lossy];

impl Suite {
    /// How often it is measured where `rounds` are asked for: what takes seconds more often, as a few bad seconds of the
    /// machine are all of it; and QEMU without hardware virtualisation takes a minute or two.
    fn rounds(self, rounds: u32, quick: bool) -> u32 {
        match self {
            _ if quick => rounds,
            Self::Dhcp => rounds * 3,
            Self::Http | Self::Storm => rounds * 2,
            Self::Tftp => rounds,
            Self::Lossy => rounds.min(3),
        }
    }
}

/// One run of the bench.
#[derive(Debug)]
pub struct Run<'a> {
    /// Where.
    pub lab: &'a Lab,
    /// What came out so far.
    pub samples: Samples,
    /// Rounds of the longer suites.
    pub rounds: u32,
    /// Whether only to see that everything works: smaller numbers, and the slow peers left out.
    pub quick: bool,
}

impl Run<'_> {
    /// Runs a part.
    pub fn suite(&mut self, suite: Suite) -> Result<()> {
        let rounds = suite.rounds(self.rounds, self.quick);
        for round in 1..=rounds {
            println!("{suite:?}, round {round} of {rounds}");
            match suite {
                Suite::Dhcp => dhcp::round(self, round)?,
                Suite::Tftp => tftp::round(self, round)?,
                Suite::Http => http::round(self, round)?,
                Suite::Storm => storm::round(self, round)?,
                Suite::Lossy => lossy::round(self, round)?,
            }
        }
        if suite == Suite::Dhcp {
            dhcp::starts(self)?;
        }
        Ok(())
    }

    /// Measures one load and notes what came out.
    pub fn measure(&mut self, round: u32, test: &str, servers: &Running<'_>, load: &Load) -> Result<()> {
        let figures = measure(self.lab, servers, load)?;
        self.samples.add(round, test, servers.name(), figures);
        Ok(())
    }
}

/// A server, or some that work together, in the order of a round.
pub type Stack = Vec<Spec>;

/// The order of a round.
pub fn rotated(mut stacks: Vec<Stack>, round: u32) -> Vec<Stack> {
    let by = round.saturating_sub(1) as usize % stacks.len().max(1);
    stacks.rotate_left(by);
    stacks
}
