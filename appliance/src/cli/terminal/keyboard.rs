//! What is typed, without waiting where something else happens.

use super::keys::{Decoder, Key};
use std::{collections::VecDeque, io::Read, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// The bytes of one key come within this, over a serial line too.
const WITHIN: Duration = Duration::from_millis(100);

/// The keys of standard input.
#[derive(Debug)]
pub struct Keyboard {
    bytes: mpsc::UnboundedReceiver<Vec<u8>>,
    decoder: Decoder,
    ready: VecDeque<Key>,
}

impl Keyboard {
    /// Reads from now on. The thread that waits for a key ends with the process.
    pub fn open() -> Self {
        let (sender, bytes) = mpsc::unbounded_channel();
        let read = move || {
            let mut buffer = [0; 256];
            let mut input = std::io::stdin().lock();
            while let Ok(length @ 1..) = input.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        };
        drop(std::thread::Builder::new().name("keyboard".into()).spawn(read));
        Self { bytes, decoder: Decoder::default(), ready: VecDeque::new() }
    }

    /// The next key; `None` once the terminal is gone. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Key> {
        loop {
            if let Some(key) = self.ready.pop_front() {
                return Some(key);
            }
            let bytes = if self.decoder.is_open() {
                match timeout(WITHIN, self.bytes.recv()).await {
                    Ok(bytes) => bytes?,
                    Err(_) => {
                        self.ready.extend(self.decoder.close());
                        continue;
                    }
                }
            } else {
                self.bytes.recv().await?
            };
            self.ready.extend(bytes.iter().filter_map(|byte| self.decoder.take(*byte)));
        }
    }
}
