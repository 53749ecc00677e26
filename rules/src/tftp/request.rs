//! A packet to the well-known port: serve or refuse. Names, never paths: what is not among the known names
//! does not exist, and nothing a client writes reaches a file system.

use super::packet::{ErrorCode, Mode, Packet, Request};

/// What to say to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Look the name up, and start a transfer.
    Read {
        /// In its one form: relative, `/` between its parts, case as written.
        name: String,
        /// Whether the bytes travel as [`super::netascii`].
        netascii: bool,
    },
    /// Send an ERROR.
    Refuse(Refusal),
    /// Send nothing: the packet belongs to a transfer and came to the wrong port. An answer to it could
    /// make two servers send errors to each other for ever.
    Silence,
}

/// An ERROR to send. Its message is also the reason for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Its code.
    pub code: ErrorCode,
    /// For people.
    pub message: &'static str,
}

impl Refusal {
    /// Nothing that is served has this name.
    pub const NOT_FOUND: Self = Self { code: ErrorCode::NOT_FOUND, message: "file not found" };
    /// What travels as text is translated in memory, and this is too much for it.
    pub const TOO_LARGE: Self =
        Self { code: ErrorCode::UNDEFINED, message: "too large for netascii: use octet (binary)" };
    const WRITE: Self = Self { code: ErrorCode::ACCESS, message: "this server is read-only" };
    const MODE: Self = Self { code: ErrorCode::ILLEGAL, message: "unknown transfer mode: use octet" };
    const NO_NAME: Self = Self { code: ErrorCode::ACCESS, message: "no such name: names have no '..'" };

    /// The packet that says it.
    pub fn packet(&self) -> Packet {
        Packet::Error { code: self.code, message: self.message.to_owned() }
    }
}

/// Decides about a packet that came to port 69.
pub fn answer(packet: &Packet) -> Answer {
    match packet {
        Packet::Read(request) => read(request),
        Packet::Write(_) => Answer::Refuse(Refusal::WRITE),
        Packet::Data { .. } | Packet::Ack(_) | Packet::Error { .. } | Packet::OptionAck(_) => Answer::Silence,
    }
}

fn read(request: &Request) -> Answer {
    let netascii = match &request.mode {
        Mode::Octet => false,
        Mode::Netascii => true,
        Mode::Other(_) => return Answer::Refuse(Refusal::MODE),
    };
    match normalise(&request.name) {
        Some(name) => Answer::Read { name, netascii },
        None => Answer::Refuse(Refusal::NO_NAME),
    }
}

/// Brings a name to its one form: no leading, doubled or trailing slashes and no `.`; backslashes, which some
/// BIOS ROMs and Windows loaders write, are slashes. `None` for what climbs or is no name at all.
pub fn normalise(name: &str) -> Option<String> {
    if name.len() > 255 || name.chars().any(char::is_control) {
        return None;
    }
    let parts: Vec<&str> = name.split(['/', '\\']).filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || parts.contains(&"..") { None } else { Some(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(name: &str, mode: Mode) -> Answer {
        answer(&Packet::Read(Request { name: name.to_owned(), mode, options: Vec::new() }))
    }

    fn code(answer: Answer) -> u16 {
        match answer {
            Answer::Refuse(refusal) => refusal.code.0,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn every_way_to_write_a_name_has_one_form() {
        for name in ["ipxe.efi", "/ipxe.efi", "//ipxe.efi", "\\ipxe.efi", "./ipxe.efi", "/./\\/ipxe.efi"] {
            assert_eq!(ask(name, Mode::Octet), Answer::Read { name: "ipxe.efi".into(), netascii: false }, "{name}");
        }
        for name in ["grub/grub.cfg", "/grub//grub.cfg", "grub\\grub.cfg"] {
            assert_eq!(
                ask(name, Mode::Netascii),
                Answer::Read { name: "grub/grub.cfg".into(), netascii: true },
                "{name}"
            );
        }
    }

    #[test]
    fn names_that_climb_are_refused() {
        for name in ["../etc/passwd", "a/../ipxe.efi", "..\\ipxe.efi", "/..", "..", "", "/", "ipxe.efi\n"] {
            assert_eq!(code(ask(name, Mode::Octet)), 2, "{name:?}");
        }
    }

    #[test]
    fn writes_are_refused_and_strays_ignored() {
        let request = Request { name: "ipxe.efi".into(), mode: Mode::Octet, options: Vec::new() };
        assert_eq!(code(answer(&Packet::Write(request))), 2);
        assert_eq!(code(ask("ipxe.efi", Mode::Other("mail".into()))), 4);
        assert_eq!(answer(&Packet::Ack(0)), Answer::Silence);
    }

    proptest! {
        #[test]
        fn a_normal_name_never_climbs(name in "[./\\\\a-c\\PC]{0,40}") {
            if let Some(normal) = normalise(&name) {
                prop_assert!(!normal.starts_with('/') && !normal.contains("//") && !normal.contains('\\'));
                prop_assert!(normal.split('/').all(|part| part != ".." && part != "." && !part.is_empty()));
                prop_assert_eq!(normalise(&normal), Some(normal));
            }
        }
    }
}
