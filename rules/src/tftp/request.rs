//! A packet to the well-known port: serve or refuse. Names, never paths: what is not among the known names
//! does not exist, and nothing a client writes reaches a file system.

use super::packet::{ErrorCode, Mode, Packet, Request};

/// What is served, by name.
pub trait Names {
    /// Stands for one file's bytes.
    type File;
    /// The file of this name: relative, `/` between its parts, case as written.
    fn find(&self, name: &str) -> Option<Self::File>;
}

/// What to say to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<F> {
    /// Start a transfer.
    Serve {
        /// The file.
        file: F,
        /// Its name as it was found.
        name: String,
        /// Whether its bytes travel as [`super::netascii`].
        netascii: bool,
    },
    /// Send an ERROR.
    Refuse {
        /// Its code.
        code: ErrorCode,
        /// Its message, which is also the reason for the log.
        message: String,
    },
    /// Send nothing: the packet belongs to a transfer and came to the wrong port. An answer to it could
    /// make two servers send errors to each other for ever.
    Silence,
}

/// Decides about a packet that came to port 69.
pub fn answer<N: Names + ?Sized>(packet: &Packet, names: &N) -> Answer<N::File> {
    let refuse = |code, message: &str| Answer::Refuse { code, message: message.to_owned() };
    match packet {
        Packet::Read(request) => read(request, names),
        Packet::Write(_) => refuse(ErrorCode::ACCESS, "this server is read-only"),
        Packet::Data { .. } | Packet::Ack(_) | Packet::Error { .. } | Packet::OptionAck(_) => Answer::Silence,
    }
}

fn read<N: Names + ?Sized>(request: &Request, names: &N) -> Answer<N::File> {
    let netascii = match &request.mode {
        Mode::Octet => false,
        Mode::Netascii => true,
        Mode::Other(_) => {
            let message = "unknown transfer mode: use octet".to_owned();
            return Answer::Refuse { code: ErrorCode::ILLEGAL, message };
        }
    };
    let Some(name) = normalise(&request.name) else {
        return Answer::Refuse { code: ErrorCode::ACCESS, message: "no such name: names have no '..'".to_owned() };
    };
    match names.find(&name) {
        Some(file) => Answer::Serve { file, name, netascii },
        None => Answer::Refuse { code: ErrorCode::NOT_FOUND, message: "file not found".to_owned() },
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

    struct Known;

    impl Names for Known {
        type File = usize;
        fn find(&self, name: &str) -> Option<usize> {
            ["ipxe.efi", "grub/grub.cfg"].iter().position(|known| *known == name)
        }
    }

    fn ask(name: &str, mode: Mode) -> Answer<usize> {
        answer(&Packet::Read(Request { name: name.to_owned(), mode, options: Vec::new() }), &Known)
    }

    fn code(answer: Answer<usize>) -> u16 {
        match answer {
            Answer::Refuse { code, .. } => code.0,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn every_way_to_write_a_known_name_finds_it() {
        for name in ["ipxe.efi", "/ipxe.efi", "//ipxe.efi", "\\ipxe.efi", "./ipxe.efi", "/./\\/ipxe.efi"] {
            assert!(matches!(ask(name, Mode::Octet), Answer::Serve { file: 0, netascii: false, .. }), "{name}");
        }
        for name in ["grub/grub.cfg", "/grub//grub.cfg", "grub\\grub.cfg"] {
            assert!(matches!(ask(name, Mode::Netascii), Answer::Serve { file: 1, netascii: true, .. }), "{name}");
        }
    }

    #[test]
    fn names_that_are_not_known_do_not_exist() {
        for name in ["autoexec.ipxe", "revocations_sbat.efi", "shim_certificate_0.efi", "IPXE.EFI", "ipxe.efi/x"] {
            assert_eq!(code(ask(name, Mode::Octet)), 1, "{name}");
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
        assert_eq!(code(answer(&Packet::Write(request), &Known)), 2);
        assert_eq!(code(ask("ipxe.efi", Mode::Other("mail".into()))), 4);
        assert_eq!(answer(&Packet::Ack(0), &Known), Answer::Silence);
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
