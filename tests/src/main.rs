//! `rack`: runs the end-to-end tests and the demo, and removes what they may have left.

use anyhow::Result;
use bennu_tests::{demo, harness, home, scenarios};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The virtual rack.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Boots machines and checks what they do; tests whose names hold FILTER, or all. With RACK_KEEP set, consoles
    /// and logs are kept in .cache/evidence even when all is well. A long test is run, once, by its whole name.
    Test {
        /// Parts of test names.
        filter: Vec<String>,
        /// Racks at a time; each has at most one machine running.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Lists the tests; with --long, those of the long tests alone.
        #[arg(long)]
        list: bool,
        /// The long tests: repetitions, in parts that a later run resumes.
        #[arg(long)]
        long: bool,
    },
    /// Boots three machines before your eyes.
    Demo,
    /// Removes racks whose process was killed.
    Clean,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Test { list: true, long, .. } => {
            for life in if long { scenarios::LONG_LIVES } else { scenarios::LIVES } {
                println!("{}: {}", life.name, life.shows.join(", "));
            }
            Ok(true)
        }
        Task::Test { filter, jobs, long, .. } => {
            clean()?;
            if long { scenarios::long::run(&filter) } else { Ok(harness::run(&scenarios::named(&filter), &[], jobs)) }
        }
        Task::Demo => {
            clean()?;
            demo::run()?;
            Ok(true)
        }
        Task::Clean => clean().map(|()| true),
    }
}

fn clean() -> Result<()> {
    for rack in home::clean()? {
        println!("removed {rack}, which a killed run had left");
    }
    Ok(())
}
