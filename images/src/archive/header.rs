//! The 512-byte header block.

use super::{BLOCK, numbers};

/// A header as it lies in the stream, its checksum known to be good.
pub(super) struct Header {
    bytes: [u8; BLOCK],
}

impl Header {
    /// `None` when the checksum does not match: then it is no tar header.
    pub fn parse(bytes: [u8; BLOCK]) -> Option<Self> {
        let sum = |signed: bool| -> i64 {
            let of = |b: u8| if signed { i64::from(b as i8) } else { i64::from(b) };
            bytes.iter().enumerate().map(|(at, &b)| of(if (148..156).contains(&at) { b' ' } else { b })).sum()
        };
        let stored = numbers::parse(&bytes[148..156])?;
        // Some historical tars summed signed characters.
        (stored == sum(false) || stored == sum(true)).then_some(Self { bytes })
    }

    pub fn kind(&self) -> u8 {
        self.bytes[156]
    }

    /// The name, with the ustar prefix. GNU's magic ends in a space and uses those bytes otherwise.
    pub fn path(&self) -> Vec<u8> {
        let name = text(&self.bytes[..100]);
        let prefix = text(&self.bytes[345..500]);
        if self.is_gnu() || !self.bytes[257..].starts_with(b"ustar") || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub fn link(&self) -> Vec<u8> {
        text(&self.bytes[157..257]).to_vec()
    }

    pub fn is_gnu(&self) -> bool {
        &self.bytes[257..265] == b"ustar  \0"
    }

    pub fn mode(&self) -> Option<i64> {
        numbers::parse(&self.bytes[100..108])
    }

    pub fn uid(&self) -> Option<i64> {
        numbers::parse(&self.bytes[108..116])
    }

    pub fn gid(&self) -> Option<i64> {
        numbers::parse(&self.bytes[116..124])
    }

    pub fn size(&self) -> Option<i64> {
        numbers::parse(&self.bytes[124..136])
    }

    pub fn mtime(&self) -> Option<i64> {
        numbers::parse(&self.bytes[136..148])
    }

    pub fn device(&self) -> (Option<i64>, Option<i64>) {
        (numbers::parse(&self.bytes[329..337]), numbers::parse(&self.bytes[337..345]))
    }

    /// GNU's old sparse form: four map entries, whether more follow in blocks of their own, the real size.
    pub fn sparse(&self) -> (&[u8], bool, Option<i64>) {
        (&self.bytes[386..482], self.bytes[482] != 0, numbers::parse(&self.bytes[483..495]))
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// What goes into a header we write. Values that do not fit are zero here and true in a pax record before it.
pub(super) struct Fields<'a> {
    pub path: &'a [u8],
    pub link: &'a [u8],
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: u64,
    pub device: (u32, u32),
}

impl Fields<'_> {
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        let mut copy = |at: usize, room: usize, text: &[u8]| {
            let length = text.len().min(room);
            bytes[at..at + length].copy_from_slice(&text[..length]);
        };
        copy(0, 100, self.path);
        copy(157, 100, self.link);
        copy(257, 8, b"ustar\x0000");
        for (range, value) in [
            (100..108, u64::from(self.mode)),
            (108..116, self.uid),
            (116..124, self.gid),
            (124..136, self.size),
            (136..148, self.mtime),
            (329..337, u64::from(self.device.0)),
            (337..345, u64::from(self.device.1)),
        ] {
            let field = &mut bytes[range];
            if !numbers::octal(field, value) {
                numbers::octal(field, 0);
            }
        }
        bytes[156] = self.kind;
        bytes[148..156].fill(b' ');
        let sum: u64 = bytes.iter().map(|&b| u64::from(b)).sum();
        numbers::octal(&mut bytes[148..155], sum);
        bytes
    }
}
