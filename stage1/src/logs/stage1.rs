//! Forwarding while stage 1 runs, in a thread of its own.

use super::To;
use super::kernel::Kernel;
use super::link::Link;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Up to where the kernel's log was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The last record.
    pub number: u64,
    /// When it was written, in microseconds since the kernel's start.
    pub at: u64,
}

#[derive(Default)]
struct State {
    sent: Option<Sent>,
    is_connected: bool,
    is_ending: bool,
    has_ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that forwards.
pub struct Forwarder(Arc<Shared>);

impl Forwarder {
    /// Starts it. Everything that the kernel's log still has is sent first.
    pub fn start(to: To) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let run = move || {
            forward(to, &own);
            own.state().has_ended = true;
            own.changed.notify_all();
        };
        drop(std::thread::Builder::new().name("logs".into()).stack_size(256 * 1024).spawn(run));
        Self(shared)
    }

    /// Ends it, once what was said so far is sent; where it waits for the appliance, at once. Answers up to where it came.
    pub fn finish(&self, patience: Duration) -> Sent {
        let until = Instant::now() + patience;
        let mut state = self.0.state();
        state.is_ending = true;
        while state.is_connected && !state.has_ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.sent.unwrap_or_default()
    }
}

fn forward(to: To, shared: &Shared) {
    // Without the kernel's log there is nothing to forward, and nobody to tell.
    let Ok(mut kernel) = Kernel::open() else { return };
    let mut link = Link::new(to);
    let is_over = || shared.state().is_ending;
    loop {
        let Ok(record) = kernel.next(LOOK) else { return };
        let Some(record) = record else {
            if is_over() {
                break;
            }
            continue;
        };
        if let Some(line) = &record.line {
            let was_sent = link.send(line, &is_over);
            shared.state().is_connected = link.is_connected();
            if !was_sent {
                return;
            }
        }
        shared.state().sent = Some(Sent { number: record.number, at: record.at });
    }
    link.finish(Duration::from_secs(1));
}
