//! `bench`: measures Bennu beside its peers, and writes what came out.

mod bars;
mod contenders;
mod disk;
mod lab;
mod load;
mod measure;
mod report;
mod servers;
mod suites;

use anyhow::{Context, Result};
use bennu_tests::{home, workshop};
use clap::{Parser, Subcommand};
use std::{fs, path::PathBuf, process::ExitCode, time::Instant};
use suites::{Run, Suite};

/// Measures Bennu beside its peers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Puts one load, which it reads as JSON, on a server; for the bench's own use.
    #[command(hide = true)]
    Load,
}

#[derive(Debug, clap::Args)]
struct Choice {
    /// Parts of the bench; all of them without any.
    #[arg(long = "suite", value_enum)]
    suites: Vec<Suite>,
    /// Rounds of the longer suites; the shorter ones get two or three times as many.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// One round with small numbers: shows that the bench works, and judges nothing.
    #[arg(long)]
    quick: bool,
    /// Where the report goes: bench/RESULTS.md for a whole run, else .cache/bench/RESULTS.md.
    #[arg(long)]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Task::Load) => put(),
        None => bench(&arguments.choice),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn put() -> Result<()> {
    let load: load::Load = serde_json::from_reader(std::io::stdin().lock()).context("this is no load")?;
    println!("{}", serde_json::to_string(&load.run()?)?);
    Ok(())
}

fn bench(choice: &Choice) -> Result<()> {
    home::clean()?;
    let started = Instant::now();
    let lab = lab::Lab::new()?;
    let rounds = if choice.quick { 1 } else { choice.rounds };
    let mut run = Run { lab: &lab, samples: measure::Samples::default(), rounds, quick: choice.quick };
    let suites = if choice.suites.is_empty() { suites::ALL } else { &choice.suites };
    for suite in suites {
        run.suite(*suite)?;
    }
    let whole = !choice.quick && suites.len() == suites::ALL.len();
    let output = match &choice.output {
        Some(output) => output.clone(),
        None if whole => workshop::checkout().join("bench/RESULTS.md"),
        None => workshop::cache("bench")?.join("RESULTS.md"),
    };
    let samples = serde_json::to_string(&run.samples)?;
    fs::write(workshop::cache("bench")?.join("samples.json"), samples)?;
    let report = report::written(&run, started.elapsed())?;
    fs::write(&output, &report).with_context(|| format!("cannot write {}", output.display()))?;
    println!("\n{report}\n{}", output.display());
    Ok(())
}
