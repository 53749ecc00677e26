//! The last lines that the service said, in memory: a service that has given up its privileges reads no log of its host.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
};

/// Bytes of it.
const MOST: usize = 512 << 10;

static LINES: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());

/// Where they are written.
#[derive(Debug, Default)]
pub struct Memory;

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut lines, bytes, MOST);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that is left of them.
pub fn said() -> String {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let (first, second) = lines.as_slices();
    String::from_utf8_lossy(&[first, second].concat()).into_owned()
}

/// The oldest lines give way, whole.
fn keep(lines: &mut VecDeque<u8>, bytes: &[u8], most: usize) {
    lines.extend(&bytes[bytes.len().saturating_sub(most)..]);
    if let Some(surplus) = lines.len().checked_sub(most + 1) {
        let end = lines.iter().skip(surplus).position(|byte| *byte == b'\n').map_or(lines.len(), |at| surplus + at + 1);
        lines.drain(..end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_give_way_whole() {
        let mut lines = VecDeque::new();
        for line in ["one\n", "two\n", "three\n"] {
            keep(&mut lines, line.as_bytes(), 10);
        }
        assert_eq!(lines, b"two\nthree\n");
        keep(&mut lines, b"four\n", 10);
        assert_eq!(lines, b"four\n");
        keep(&mut lines, &[b'x'; 30], 10);
        assert!(lines.len() <= 10, "{lines:?}");
    }
}
