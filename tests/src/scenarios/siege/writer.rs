//! A person, or their automation, that writes to the API at a steady rate.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Told, check_numbers, items, number};
use crate::conformance::place::Place;

const MACHINES: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(3);

/// The writer. Dropping it ends it.
#[derive(Debug)]
pub struct Writer {
    told: Arc<Mutex<BTreeMap<String, Told>>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Begins: labels of fifty machines in turn, `per_second` of them.
    pub fn start(place: &Place, per_second: u32) -> Result<Self> {
        let socket = place.socket.clone();
        let mut writer =
            Self { told: Arc::default(), done: Arc::default(), stop: Arc::new(AtomicBool::new(false)), thread: None };
        let (told, done, stop) = (writer.told.clone(), writer.done.clone(), writer.stop.clone());
        let pace = Duration::from_secs(1) / per_second;
        let thread = thread::Builder::new().name("writer".into()).spawn(move || {
            for count in 1_u64.. {
                let began = Instant::now();
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let machine = format!("52:54:5a:00:00:{:02x}", count % MACHINES);
                let note = |change: &dyn Fn(&mut Told)| {
                    change(told.lock().unwrap_or_else(PoisonError::into_inner).entry(machine.clone()).or_default());
                };
                note(&|told| told.asked = count);
                // While the appliance is dead there is nobody to write to.
                if write(&socket, &machine, count).is_ok() {
                    note(&|told| told.acked = count);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(pace.saturating_sub(began.elapsed()));
            }
        })?;
        writer.thread = Some(thread);
        Ok(writer)
    }

    /// Writes acknowledged so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Compares what was acknowledged with what is on record; how many machines had something acknowledged.
    pub fn check(&self, place: &Place) -> Result<usize> {
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let before = told();
        let listing = place.json(&["machine", "list"])?;
        let after = told();
        let label = |machine: &serde_json::Value| {
            (machine["id"].as_str().unwrap_or_default().to_owned(), number(&machine["labels"]["n"]))
        };
        let record = items(&listing)?.iter().map(label).collect();
        check_numbers("the label", &before, &record, &after)
    }
}

fn write(socket: &PathBuf, machine: &str, count: u64) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = format!("{{\"labels\":{{\"n\":\"n{count}\"}}}}");
    write!(
        stream,
        "PATCH /v1/machines/{machine} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no answer")?;
    ensure!(status == "200", "{answer}");
    Ok(())
}
