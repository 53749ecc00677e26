//! Trials: an image boots in a virtual machine on this host, against the appliance itself, and nobody else hears of it.
//!
//! The machine's network is a cable to this process ([`wire`]), at whose end a router of its own answers with what this one
//! boot needs ([`crate::http::trial`]). What is decided is decided by [`bennu_rules::trial`], over records of its own.

pub mod desk;
mod files;
pub mod machine;
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
    trial::{Ending, GUEST_CARD, Start, Trial, Verdict, console::Console},
};
use desk::Desk;
use files::{Files, Unusable};
use machine::{Machine, Off, Parts};
use std::{collections::VecDeque, io, os::unix::net::UnixStream as Pair, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How many of the console's last lines the result holds.
const TAIL: usize = 200;
/// What is told of a console; a machine that writes more than this has told enough.
const MOST_CONSOLE: usize = 16 << 20;

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

/// A machine that is on, as it is watched.
struct Watch<'a> {
    appliance: &'a Appliance,
    lines: &'a Lines,
    desk: &'a Desk,
    begun: Instant,
    until: Instant,
    console: Console,
    tail: VecDeque<String>,
    /// Observations that were told.
    told: usize,
    console_bytes: usize,
}

impl Watch<'_> {
    async fn run(mut self, mut machine: Machine, mut serial: UnixStream) -> Answer<Run> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let off = tokio::select! {
                () = self.appliance.shutdown.cancelled() => {
                    return Err(Problem::new(Kind::Unavailable, "the service was stopped while it tested", "test it again"));
                }
                () = self.lines.closed() => return Err(gone()),
                () = sleep_until(self.until) => {
                    let seconds = self.begun.elapsed().as_secs();
                    return Ok(Run::Ended(self.ended(Ending::TimeOver(seconds))));
                }
                () = self.desk.changed() => None,
                read = serial.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => {
                        self.show(&buffer[..count]).await?;
                        None
                    }
                    // It hangs up as it ends.
                    _ => timeout_at(self.until, machine.off()).await.ok(),
                },
                off = machine.off() => {
                    while let Ok(count) = serial.try_read(&mut buffer) && count > 0 {
                        self.show(&buffer[..count]).await?;
                    }
                    Some(off)
                }
            };
            self.tell().await?;
            if let Some(verdict) = self.desk.with(|trial| trial.verdict()) {
                return Ok(Run::Ended(self.outcome(verdict)));
            }
            if let Some(off) = off {
                return Ok(self.went_off(&off));
            }
        }
    }

    /// Passes the console on.
    async fn show(&mut self, bytes: &[u8]) -> Answer<()> {
        let whole = self.console.push(bytes);
        let unfinished = self.console.unfinished();
        self.desk.with(|trial| whole.iter().chain([&unfinished]).for_each(|line| trial.read_console(line)));
        for line in whole {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(line.clone());
            self.console_bytes += line.len() + 1;
            if self.console_bytes < MOST_CONSOLE {
                self.send(Line::Console { console: line }).await?;
            }
        }
        Ok(())
    }

    /// Tells what was seen since.
    async fn tell(&mut self) -> Answer<()> {
        let new: Vec<String> = self.desk.with(|trial| {
            let seen = trial.timeline().iter().skip(self.told);
            seen.map(|observation| observation.seen.to_string()).collect()
        });
        self.told += new.len();
        for step in new {
            self.send(Line::Step { step }).await?;
        }
        Ok(())
    }

    /// A client that reads nothing holds nothing up for longer than the test may last.
    async fn send(&self, line: Line) -> Answer<()> {
        match timeout_at(self.until, self.lines.send(line)).await {
            Ok(Err(_)) => Err(gone()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn went_off(self, off: &Off) -> Run {
        match &off.status {
            Ok(status) if status.success() => Run::Ended(self.ended(Ending::MachineOff)),
            status => {
                let how = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
                let said = if off.words.is_empty() { String::new() } else { format!(": {}", off.words) };
                Run::NeverBegan(format!("QEMU ended with {how}{said}"))
            }
        }
    }

    fn ended(self, how: Ending) -> Outcome {
        let verdict = self.desk.with(|trial| trial.end(how));
        self.outcome(verdict)
    }

    fn outcome(mut self, verdict: Verdict) -> Outcome {
        let unfinished = self.console.unfinished();
        if !unfinished.is_empty() {
            self.tail.push_back(unfinished.clone());
            // A client that is behind has it with the result.
            let _ = self.lines.hint(Line::Console { console: unfinished });
        }
        let failure = match verdict {
            Verdict::Passed => None,
            Verdict::Failed(diagnosis) => Some(diagnosis),
        };
        let came_to = self.desk.with(|trial| trial.came_to());
        Outcome { failure, came_to, tail: self.tail.into(), took: self.begun.elapsed() }
    }
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
