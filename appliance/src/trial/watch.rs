//! A machine of a trial that is on: its console and its reports go to the client until there is a verdict.

use super::{
    Outcome, Run,
    desk::Desk,
    gone,
    machine::{Machine, Off},
};
use crate::{
    appliance::Appliance,
    http::api::{
        problem::{Answer, Kind, Problem},
        trials::{Line, Lines},
    },
};
use bennu_rules::trial::{Ending, Verdict, console::Console};
use std::collections::VecDeque;
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    time::{Instant, sleep_until, timeout_at},
};

/// How many of the console's last lines the result holds.
const TAIL: usize = 200;
/// What is told of a console; a machine that writes more than this has told enough.
const MOST_CONSOLE: usize = 16 << 20;

/// A machine that is on, as it is watched.
pub(super) struct Watch<'a> {
    pub(super) appliance: &'a Appliance,
    pub(super) lines: &'a Lines,
    pub(super) desk: &'a Desk,
    pub(super) begun: Instant,
    pub(super) until: Instant,
    pub(super) console: Console,
    pub(super) tail: VecDeque<String>,
    /// Observations that were told.
    pub(super) told: usize,
    pub(super) console_bytes: usize,
}

impl Watch<'_> {
    /// Watches until there is a verdict.
    pub(super) async fn run(mut self, mut machine: Machine, mut serial: UnixStream) -> Answer<Run> {
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
