//! A relay in a machine's network cable: sees, changes or drops every frame that the machine sends.
//!
//! QEMU hands the frames over by a filter-redirector and takes them back by another; on the two sockets each
//! frame comes after its length as four bytes, big-endian (QEMU's `net/filter-mirror.c`).

use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Something that looks at each frame, may change it, and says whether it goes on.
pub type Look = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

/// Tells QEMU to route what the machine sends on `net0` through two sockets.
pub fn splice(qemu: &mut Command, from_machine: &Path, to_wire: &Path) {
    // What a machine sends passes the filters from the last to the first: the way back in must come first here, or
    // every frame would go around in a circle.
    for (name, socket, queue) in [("to", to_wire, "indev"), ("from", from_machine, "outdev")] {
        qemu.arg("-chardev").arg(format!("socket,id=relay-{name},path={},server=on,wait=off", socket.display()));
        qemu.arg("-object")
            .arg(format!("filter-redirector,id=relay-{name}-filter,netdev=net0,queue=rx,{queue}=relay-{name}"));
    }
}

/// Runs the relay until the machine is switched off.
pub fn start(from_machine: &Path, to_wire: &Path, mut look: Look) -> Result<()> {
    let mut input = connect(from_machine)?;
    let mut output = connect(to_wire)?;
    let mut relay = move || -> std::io::Result<()> {
        let mut length = [0; 4];
        loop {
            input.read_exact(&mut length)?;
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            input.read_exact(&mut frame)?;
            if look(&mut frame) {
                let length = u32::try_from(frame.len()).unwrap_or_default();
                output.write_all(&[&length.to_be_bytes(), frame.as_slice()].concat())?;
            }
        }
    };
    // It ends with an error when QEMU closes the sockets: the machine is off.
    thread::Builder::new().name("relay".into()).spawn(move || drop(relay())).context("cannot start a relay")?;
    Ok(())
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error).with_context(|| format!("no answer at {}", socket.display())),
        }
    }
}

/// Makes an iPXE in ROM look like one that was built without HTTP: takes that feature out of its option 175,
/// until it asks TFTP for a file. What runs then is not the ROM any more.
pub fn rom_without_http() -> Look {
    let mut is_rom = true;
    Box::new(move |frame| {
        match destination_port(frame) {
            Some(67) if is_rom => hide_http(frame),
            Some(69) => is_rom = false,
            _ => {}
        }
        true
    })
}

/// Ethernet, then IPv4 without options.
const UDP: usize = 14 + 20;
const DHCP_OPTIONS: usize = UDP + 8 + 240;

fn destination_port(frame: &[u8]) -> Option<u16> {
    let is_udp = frame.get(12..15)? == [0x08, 0x00, 0x45] && *frame.get(23)? == 17;
    is_udp.then(|| Some(u16::from_be_bytes([*frame.get(UDP + 2)?, *frame.get(UDP + 3)?])))?
}

/// iPXE's encapsulated options (175), and in it the feature HTTP (19), as `src/include/ipxe/dhcp.h` of iPXE numbers them.
fn hide_http(frame: &mut [u8]) {
    let Some(encapsulated) = option(frame, DHCP_OPTIONS..frame.len(), 175) else { return };
    let Some(http) = option(frame, encapsulated, 19) else { return };
    // Pads in its place; then no UDP checksum, which IPv4 allows.
    frame[http.start - 2..http.end].fill(0);
    frame[UDP + 6..UDP + 8].fill(0);
}

/// Where the value of an option is.
fn option(frame: &[u8], within: std::ops::Range<usize>, wanted: u8) -> Option<std::ops::Range<usize>> {
    let mut at = within.start;
    while at < within.end {
        match *frame.get(at)? {
            0 => at += 1,
            255 => return None,
            code => {
                let value = at + 2..at + 2 + usize::from(*frame.get(at + 1)?);
                if value.end > within.end {
                    return None;
                }
                if code == wanted {
                    return Some(value);
                }
                at = value.end;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discover(options: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; DHCP_OPTIONS];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = 17;
        frame[UDP + 2..UDP + 4].copy_from_slice(&67u16.to_be_bytes());
        frame[UDP + 6] = 1;
        frame.extend(options);
        frame
    }

    #[test]
    fn http_vanishes_from_the_rom_alone() {
        let options = [53, 1, 1, 175, 9, 0xb1, 1, 19, 19, 1, 1, 21, 1, 1, 255];
        let mut look = rom_without_http();
        let mut frame = discover(&options);
        assert!(look(&mut frame));
        assert_eq!(frame[DHCP_OPTIONS..], [53, 1, 1, 175, 9, 0xb1, 1, 19, 0, 0, 0, 21, 1, 1, 255]);
        assert_eq!(frame[UDP + 6], 0);

        let mut request = discover(&[]);
        request[UDP + 2..UDP + 4].copy_from_slice(&69u16.to_be_bytes());
        assert!(look(&mut request));
        let mut later = discover(&options);
        assert!(look(&mut later));
        assert_eq!(later[DHCP_OPTIONS..], options);
    }

    #[test]
    fn cut_and_foreign_frames_pass_as_they_are() {
        let mut look = rom_without_http();
        for options in [&[175, 9, 19][..], &[175], &[53, 200, 1], &[]] {
            let mut frame = discover(options);
            let before = frame.clone();
            assert!(look(&mut frame));
            assert_eq!(frame, before);
        }
        for length in 0..40 {
            assert!(look(&mut vec![8; length]));
        }
    }
}
