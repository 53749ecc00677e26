//! The long tests: the same scenarios again and again, in parts that a later run resumes.
//!
//! Each part that passed is on record in `.cache/long-<build>`; a new build of the appliance begins anew.

use anyhow::Result;
use std::{fs, path::PathBuf};

use super::{LIVES, LONG_LIVES, faults, imports, loss, siege};
use crate::{
    harness::{self, Life},
    images::short_digest,
    workshop,
};

const JOBS: usize = 2;

/// How often each life is lived.
fn repetitions(life: &Life) -> usize {
    let often = [
        faults::SIGKILL.name,
        siege::KILLS.name,
        siege::FULL_DISK.name,
        loss::TENTH.name,
        loss::FIFTIETH.name,
        imports::CUT.name,
    ];
    if often.contains(&life.name) { 20 } else { 5 }
}

/// Lives every life that a filter names as often as it should; whether all went well.
pub fn run(filters: &[String]) -> Result<bool> {
    let record = record()?;
    let mut all_well = true;
    let lives: Vec<Life> = LIVES.iter().chain(LONG_LIVES).copied().collect();
    let rounds = lives.iter().map(repetitions).max().unwrap_or_default();
    for round in 1..=rounds {
        let part = |life: &Life| record.join(format!("{}-{round}", life.name.replace(' ', "-")));
        let wanted = |life: &&Life| life.is_wanted(filters) && round <= repetitions(life) && !part(life).exists();
        let due: Vec<Life> = lives.iter().filter(wanted).copied().collect();
        if due.is_empty() {
            continue;
        }
        println!("round {round} of {rounds}: {}", due.iter().map(|life| life.name).collect::<Vec<_>>().join(", "));
        for pair in due.chunks(JOBS) {
            if harness::run(pair, &[], JOBS) {
                pair.iter().try_for_each(|life| fs::write(part(life), ""))?;
            } else {
                all_well = false;
            }
        }
    }
    println!(
        "{}",
        if all_well { "the long tests are done" } else { "some long tests failed; run again to repeat only those" }
    );
    Ok(all_well)
}

/// Where the parts of this build are on record.
fn record() -> Result<PathBuf> {
    let binary = fs::read(workshop::bennu_binary()?)?;
    workshop::cache(&format!("long-{}", short_digest(&binary)))
}
