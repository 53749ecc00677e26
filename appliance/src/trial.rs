//! Trials: an image boots in a virtual machine on this host, against the appliance itself, and nobody else hears of it.
//!
//! The machine's network is a cable to this process ([`wire`]), at whose end a router of its own answers with what this one
//! boot needs ([`crate::http::trial`]). What is decided is decided by [`bennu_rules::trial`], over records of its own.

pub mod desk;
mod files;
pub mod machine;
mod watch;
mod wire;

use crate::{
    appliance::Appliance,
    http::{
        api::{
            problem::{Answer, Kind, Problem},
            trials::{Line, Lines},
        },
        connection::{Limits, serve_stream},
        trial::router,
    },
};
use bennu_rules::{
    journey::Diagnosis,
    trial::{GUEST_CARD, Start, Trial, console::Console},
};
use desk::Desk;
use files::{Files, Unusable};
use machine::{Machine, Parts};
use std::{collections::VecDeque, io, os::unix::net::UnixStream as Pair, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::UnixStream, time::Instant};
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// A trial that may begin.
pub struct Order {
    /// Its rules.
    pub trial: Trial,
    /// What the machine is started with.
    pub start: Start,
    /// The emulator.
    pub program: PathBuf,
    /// MiB.
    pub memory: u64,
    /// When it must have come to something.
    pub timeout: Duration,
}

/// What a trial came to.
pub struct Outcome {
    /// Nothing: it passed.
    pub failure: Option<Diagnosis>,
    /// What it came to, where it passed.
    pub came_to: String,
    /// The console's last lines.
    pub tail: Vec<String>,
    /// How long the machine was on.
    pub took: Duration,
}

/// Runs a trial to its end. A client that goes away ends it: then there is nobody to hear of the problem.
pub async fn run(appliance: &Arc<Appliance>, order: Order, lines: &Lines) -> Answer<Outcome> {
    let Order { trial, start, program, memory, timeout } = order;
    let (store, watched) = (appliance.store.clone(), lines.clone());
    let (kernel, initrds) = (start.kernel, start.initrds);
    let prepared = tokio::task::spawn_blocking(move || files::prepare(&store, &kernel, &initrds, &watched));
    let files = match prepared.await.map_err(|panic| internal(&panic))? {
        Ok(files) => files,
        Err(Unusable::Damaged(failure)) => return Ok(Outcome::failed(failure)),
        Err(Unusable::Store(error)) => return Err(error.into()),
        Err(Unusable::Cancelled(_)) => return Err(gone()),
    };
    let bench = Bench {
        appliance,
        lines,
        desk: Arc::new(Desk::new(trial, appliance.clone())),
        files,
        program,
        arguments: start.arguments,
        memory,
        timeout,
    };
    let mut told = 0;
    if machine::has_kvm() {
        match bench.run(true, told).await? {
            Run::Ended(outcome) => return Ok(outcome),
            // Hosts that are virtual themselves may have one that does not work.
            Run::NeverBegan(why) => {
                tracing::warn!(why, "KVM does not work here");
                bench.say(format!("KVM does not work on this host ({why})")).await?;
                told = bench.desk.with(|trial| trial.timeline().len());
            }
        }
    }
    match bench.run(false, told).await? {
        Run::Ended(outcome) => Ok(outcome),
        Run::NeverBegan(why) => {
            let advice = "look at the memory of the appliance's host and at the version of its QEMU (7.2 or newer)";
            Err(Problem::new(Kind::Internal, why, advice))
        }
    }
}

/// What a machine came to.
enum Run {
    /// An end.
    Ended(Outcome),
    /// Nothing: QEMU gave up.
    NeverBegan(String),
}

/// All that a machine is started with, once or twice.
struct Bench<'a> {
    appliance: &'a Arc<Appliance>,
    lines: &'a Lines,
    desk: Arc<Desk>,
    files: Files,
    program: PathBuf,
    arguments: String,
    memory: u64,
    timeout: Duration,
}

impl Bench<'_> {
    async fn run(&self, kvm: bool, told: usize) -> Answer<Run> {
        let over = self.appliance.shutdown.child_token();
        let _ends = over.clone().drop_guard();
        let connected = connect(self.appliance, &self.desk, over).map_err(|error| cannot_start(&error))?;
        let (network, (console, serial), words) = connected;
        let parts = Parts {
            program: self.program.clone(),
            kernel: self.files.kernel.clone(),
            initrd: self.files.initrd.path().to_owned(),
            arguments: self.arguments.clone(),
            memory: self.memory,
            card: GUEST_CARD.to_string(),
            kvm,
            network: network.into(),
            console: console.into(),
            words,
        };
        let machine = Machine::start(parts).await.map_err(|error| cannot_start(&error))?;
        let by = if kvm { "with KVM" } else { "without KVM, which is slow" };
        self.say(format!("the machine is on, {} MiB, {by}", self.memory)).await?;
        let begun = Instant::now();
        let watch = Watch {
            appliance: self.appliance,
            lines: self.lines,
            desk: &self.desk,
            begun,
            until: begun + self.timeout,
            console: Console::default(),
            tail: VecDeque::new(),
            told,
            console_bytes: 0,
        };
        watch.run(machine, serial).await
    }

    async fn say(&self, step: String) -> Answer<()> {
        self.lines.send(Line::Step { step }).await.map_err(|_| gone())
    }
}

/// The wire and the serial port: for each the end that QEMU gets; and a file for its words.
fn connect(
    appliance: &Arc<Appliance>,
    desk: &Arc<Desk>,
    over: CancellationToken,
) -> io::Result<(Pair, (Pair, UnixStream), std::fs::File)> {
    let pair = || -> io::Result<(Pair, UnixStream)> {
        let (theirs, ours) = Pair::pair()?;
        ours.set_nonblocking(true)?;
        Ok((theirs, UnixStream::from_std(ours)?))
    };
    let (network, cable) = pair()?;
    let router = router(desk.clone(), appliance.store.clone());
    let accepted = over.clone();
    let accept = Box::new(move |stream| {
        tokio::spawn(serve_stream(stream, router.clone(), Limits::provisioning(), accepted.clone()));
    });
    let wire = wire::Wire::new(cable, rand::random(), accept);
    tokio::spawn(async move {
        tokio::select! {
            () = over.cancelled() => {}
            ended = wire.carry() => tracing::debug!(?ended, "the wire of a trial ended"),
        }
    });
    let words = appliance.store.spool().map_err(io::Error::other)?;
    Ok((network, pair()?, words))
}

impl Outcome {
    fn failed(failure: Diagnosis) -> Self {
        Self { failure: Some(failure), came_to: String::new(), tail: Vec::new(), took: Duration::ZERO }
    }
}

fn gone() -> Problem {
    Problem::new(Kind::Import, "the client went away", "")
}

fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Internal, error.to_string(), "look at the service's log")
}

fn cannot_start(error: &io::Error) -> Problem {
    let advice = "look at the package that QEMU is from, and at the memory and descriptors of the appliance's host";
    Problem::new(Kind::Internal, format!("QEMU cannot be started: {error}"), advice)
}
