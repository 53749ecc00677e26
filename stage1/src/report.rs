//! Telling the appliance how far we are. A report never holds up a boot: a thread sends them, in order.

use crate::http;
use crate::session::Proof;
use bennu_plan::{Inventory, PROOF, Report, Step};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a report is tried that the appliance refuses.
const TRIES: u32 = 3;
/// Pause before an appliance that is away is tried again. Its reports wait meanwhile, so that it misses no step.
const AWAY: Duration = Duration::from_secs(2);

/// Hands reports to the thread that sends them.
#[derive(Clone)]
pub struct Reports {
    shared: Arc<Shared>,
}

struct Shared {
    to: To,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Report>,
    sending: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reports {
    /// Starts the thread.
    pub fn start(to: To) -> Self {
        let shared = Shared { to, queue: Mutex::default(), changed: Condvar::new() };
        let reports = Self { shared: Arc::new(shared) };
        let shared = Arc::clone(&reports.shared);
        drop(
            std::thread::Builder::new().name("reports".into()).stack_size(256 * 1024).spawn(move || send_all(&shared)),
        );
        reports
    }

    /// Reports a step.
    pub fn step(&self, step: Step, message: impl Into<String>) {
        self.push(report(step, message.into(), 0, None));
    }

    /// Reports how much has been moved; a newer such report takes the place of one that still waits.
    pub fn progress(&self, step: Step, message: impl Into<String>, bytes: u64) {
        self.push(report(step, message.into(), bytes, None));
    }

    /// Reports what discovery found.
    pub fn inventory(&self, message: impl Into<String>, inventory: Inventory) {
        self.push(report(Step::Inventory, message.into(), 0, Some(inventory)));
    }

    /// Waits until everything is sent, but no longer than this.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = self.shared.queue();
        while !queue.waiting.is_empty() || queue.sending {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn push(&self, report: Report) {
        let mut queue = self.shared.queue();
        if report.step == Step::Downloading {
            queue.waiting.retain(|waiting| waiting.step != Step::Downloading);
        }
        queue.waiting.push_back(report);
        self.shared.changed.notify_all();
    }
}

fn send_all(shared: &Shared) {
    let mut refused = 0;
    let mut queue = shared.queue();
    loop {
        let Some(report) = queue.waiting.pop_front() else {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue.sending = true;
        drop(queue);
        let outcome = post(&shared.to, &report, http::SHORT);
        refused = if matches!(outcome, Err(Unsent::Refused(_))) { refused + 1 } else { 0 };
        // Whoever waits for the appliance says so on the console; a report is not worth a second line.
        let again = match outcome {
            Ok(()) => None,
            Err(_) if report.step == Step::Downloading => None,
            Err(Unsent::Refused(_)) if refused >= TRIES => None,
            Err(_) => Some(report),
        };
        let pause = if again.is_some() { AWAY } else { Duration::ZERO };
        if again.is_none() {
            refused = 0;
        }
        queue = shared.queue();
        if let Some(report) = again {
            queue.waiting.push_front(report);
        }
        queue.sending = false;
        shared.changed.notify_all();
        if !pause.is_zero() {
            drop(queue);
            std::thread::sleep(pause);
            queue = shared.queue();
        }
    }
}

/// Why a report did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// The appliance was not reached.
    #[error("{0}")]
    Away(#[from] http::HttpError),
    /// It was, and did not take it.
    #[error("the appliance answers {0}")]
    Refused(u16),
}

/// Where reports go, and what proves them.
#[derive(Debug, Clone)]
pub struct To {
    url: String,
    proof: Option<Proof>,
}

impl To {
    /// By the boot's base URL; without a proof where the boot has no session.
    pub fn new(base: &str, proof: Option<Proof>) -> Self {
        Self { url: format!("{base}report"), proof }
    }
}

/// Posts one report.
pub fn post(to: &To, report: &Report, patience: http::Patience) -> Result<(), Unsent> {
    // Our own types have no keys or values that JSON cannot hold.
    let json = serde_json::to_vec(report).unwrap_or_default();
    // Made anew with each try: the appliance takes none twice.
    let proof = to.proof.as_ref().map_or(String::new(), |proof| format!("{PROOF}: {}\r\n", proof.of(&json)));
    match http::post(&to.url, &proof, &json, patience)? {
        200..=299 => Ok(()),
        status => Err(Unsent::Refused(status)),
    }
}

/// A report of this moment.
pub fn report(step: Step, message: String, bytes: u64, inventory: Option<Inventory>) -> Report {
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let uptime_ms = uptime.tv_sec.unsigned_abs() * 1000 + uptime.tv_nsec.unsigned_abs() / 1_000_000;
    Report { step, message, bytes, uptime_ms, inventory }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    /// A server that answers each request with the next status and hands on what was posted.
    fn appliance(statuses: Vec<u16>) -> (String, mpsc::Receiver<Report>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/boot/t/", listener.local_addr().unwrap());
        (base, serve(listener, statuses))
    }

    fn serve(listener: TcpListener, statuses: Vec<u16>) -> mpsc::Receiver<Report> {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for status in statuses {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).unwrap() > 2 {
                    if let Some(value) = line.strip_prefix("Content-Length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                write!(reader.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
                sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
            }
        });
        receiver
    }

    #[test]
    fn reports_arrive_in_order_and_a_refused_one_is_tried_again() {
        let (base, received) = appliance(vec![503, 204, 200]);
        let reports = Reports::start(To::new(&base, None));
        reports.step(Step::Started, "a");
        reports.step(Step::Network, "b");
        reports.flush(Duration::from_secs(20));
        let steps: Vec<_> = received.try_iter().map(|report| (report.step, report.message)).collect();
        let expected = [(Step::Started, "a"), (Step::Started, "a"), (Step::Network, "b")];
        assert_eq!(steps, expected.map(|(step, message)| (step, message.to_owned())));
    }

    #[test]
    fn a_report_that_is_never_taken_does_not_hold_back_the_next() {
        let (base, received) = appliance(vec![400, 400, 400, 200]);
        let reports = Reports::start(To::new(&base, None));
        reports.step(Step::Started, "");
        reports.step(Step::Network, "");
        reports.flush(Duration::from_secs(20));
        let steps: Vec<_> = received.try_iter().map(|report| report.step).collect();
        assert_eq!(steps, [Step::Started, Step::Started, Step::Started, Step::Network]);
    }

    #[test]
    fn a_dead_appliance_holds_nobody_up_and_misses_no_step_when_it_returns() {
        let place = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reports = Reports::start(To::new(&format!("http://{place}/"), None));
        let started = Instant::now();
        reports.step(Step::Network, "");
        for bytes in 0..100 {
            reports.progress(Step::Downloading, "", bytes);
        }
        reports.step(Step::Verified, "");
        reports.flush(Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_secs(1));
        assert!(reports.shared.queue().waiting.len() <= 3, "old progress is dropped");
        let received = serve(TcpListener::bind(place).unwrap(), vec![200; 3]);
        reports.flush(Duration::from_secs(20));
        let steps: Vec<_> = received.try_iter().map(|report| report.step).collect();
        assert_eq!(steps, [Step::Network, Step::Downloading, Step::Verified]);
    }
}
