//! Telling the appliance how far we are. A report never holds up a boot: a thread sends them, in order.

use crate::http;
use bennu_plan::{Inventory, Report, Step};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often one report is tried before the next step's turn.
const TRIES: u32 = 3;

/// Hands reports to the thread that sends them.
#[derive(Clone)]
pub struct Reports {
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
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
    /// Starts the thread; `base` is the boot's base URL.
    pub fn start(base: &str) -> Self {
        let shared = Shared { url: url(base), queue: Mutex::default(), changed: Condvar::new() };
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
    let mut queue = shared.queue();
    loop {
        let Some(report) = queue.waiting.pop_front() else {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue.sending = true;
        drop(queue);
        for attempt in 1..=TRIES {
            match post(&shared.url, &report, http::SHORT) {
                Ok(()) => break,
                Err(_) if report.step == Step::Downloading => break,
                Err(_) if attempt < TRIES => std::thread::sleep(Duration::from_millis(500)),
                // Whoever waits for the appliance says so on the console; a lost report is not worth a second line.
                Err(_) => {}
            }
        }
        queue = shared.queue();
        queue.sending = false;
        shared.changed.notify_all();
    }
}

/// Where reports go.
pub fn url(base: &str) -> String {
    format!("{base}report")
}

/// Posts one report; the error says why it did not arrive.
pub fn post(url: &str, report: &Report, patience: http::Patience) -> Result<(), String> {
    let json = serde_json::to_vec(report).map_err(|error| error.to_string())?;
    match http::post(url, &json, patience) {
        Ok(200..=299) => Ok(()),
        Ok(status) => Err(format!("the appliance answered with status {status}")),
        Err(error) => Err(error.to_string()),
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
        (base, receiver)
    }

    #[test]
    fn reports_arrive_in_order_and_a_refused_one_is_tried_again() {
        let (base, received) = appliance(vec![503, 204, 200]);
        let reports = Reports::start(&base);
        reports.step(Step::Started, "a");
        reports.step(Step::Network, "b");
        reports.flush(Duration::from_secs(20));
        let steps: Vec<_> = received.try_iter().map(|report| (report.step, report.message)).collect();
        let expected = [(Step::Started, "a"), (Step::Started, "a"), (Step::Network, "b")];
        assert_eq!(steps, expected.map(|(step, message)| (step, message.to_owned())));
    }

    #[test]
    fn a_dead_appliance_holds_nobody_up() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reports = Reports::start(&format!("http://{closed}/"));
        let started = Instant::now();
        for bytes in 0..100 {
            reports.progress(Step::Downloading, "", bytes);
        }
        reports.step(Step::Verified, "");
        assert!(started.elapsed() < Duration::from_secs(1));
        assert!(reports.shared.queue().waiting.len() <= 3, "old progress is dropped");
        reports.flush(Duration::from_secs(20));
        assert!(reports.shared.queue().waiting.is_empty());
    }
}
