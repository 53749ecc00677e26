//! EFI programs: what a PE file's section table says (PE format specification), and what a unified kernel image holds in
//! its sections (the UAPI group's UKI specification).

use std::io;

/// Why a program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EfiError {
    /// It is none.
    #[error("the file is no EFI program: {0}. Name the program itself (….efi)")]
    None(&'static str),
    /// It is one that is damaged.
    #[error("the EFI program is damaged: {0}. Copy it again")]
    Damaged(String),
    /// It could not be read.
    #[error("cannot read the EFI program back from the store: {0}. Look at the disk of the state directory")]
    Read(#[from] io::Error),
}

/// A section that lies within its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name, at most eight bytes.
    pub name: String,
    /// Where its bytes are.
    pub start: u64,
    /// How many of them are its own; the file may have more, as padding.
    pub length: u64,
}

/// Machine, count of sections, and size of the optional header: what stands behind the signature.
const COFF: usize = 24;
const SECTION: usize = 40;
/// The specification of Windows' loader; UKIs have a dozen.
const MOST_SECTIONS: usize = 96;

/// Reads some of a program.
pub type Read<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// The sections of a program, in the order of its table.
pub fn sections(read: Read<'_>, size: u64) -> Result<Vec<Section>, EfiError> {
    let mut head = [0; 0x40];
    if size < head.len() as u64 {
        return Err(EfiError::None("it is too short"));
    }
    read(&mut head, 0)?;
    if !head.starts_with(b"MZ") {
        return Err(EfiError::None("it does not begin with MZ"));
    }
    let start = u64::from(u32_at(&head, 0x3c));
    let mut coff = [0; COFF];
    if start + COFF as u64 > size {
        return Err(EfiError::None("it has no PE header"));
    }
    read(&mut coff, start)?;
    if !coff.starts_with(b"PE\0\0") {
        return Err(EfiError::None("it has no PE header"));
    }
    let count = usize::from(u16_at(&coff, 6));
    let table = start + COFF as u64 + u64::from(u16_at(&coff, 20));
    if count > MOST_SECTIONS || table + (count * SECTION) as u64 > size {
        return Err(EfiError::Damaged(format!("its table of {count} sections does not lie within its {size} bytes")));
    }
    let mut bytes = vec![0; count * SECTION];
    read(&mut bytes, table)?;
    bytes.chunks_exact(SECTION).map(|entry| section(entry, size)).collect()
}

fn section(entry: &[u8], size: u64) -> Result<Section, EfiError> {
    let end = entry[..8].iter().position(|&b| b == 0).unwrap_or(8);
    let name = String::from_utf8_lossy(&entry[..end]).into_owned();
    let (virtual_size, raw, start) = (u32_at(entry, 8), u32_at(entry, 16), u64::from(u32_at(entry, 20)));
    // Sections without bytes in the file (.bss) may name any place.
    let length = u64::from(if virtual_size == 0 { raw } else { raw.min(virtual_size) });
    if length > 0 && start + length > size {
        let name = crate::archive::show(name.as_bytes());
        return Err(EfiError::Damaged(format!(
            "its section '{name}' ends at {}, and the file at {size}",
            start + length
        )));
    }
    Ok(Section { name, start, length })
}

/// The first section of a name.
pub fn find<'a>(sections: &'a [Section], name: &str) -> Option<&'a Section> {
    sections.iter().find(|section| section.name == name && section.length > 0)
}

/// A section's text, without the zeros behind it.
pub fn text(read: Read<'_>, section: &Section, most: u64) -> Result<String, EfiError> {
    if section.length > most {
        return Err(EfiError::Damaged(format!("its section '{}' has {} bytes", section.name, section.length)));
    }
    let mut bytes = vec![0; section.length as usize];
    read(&mut bytes, section.start)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end_matches(['\0', '\n', ' ']).to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(bytes: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<()> {
        move |buffer, offset| {
            let there = bytes.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    /// A program with these sections.
    pub fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 0x40];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes.extend(b"PE\0\0\x64\x86");
        bytes.extend((sections.len() as u16).to_le_bytes());
        bytes.resize(0x40 + COFF, 0);
        let mut start = bytes.len() + sections.len() * SECTION;
        for (name, content) in sections {
            let at = bytes.len();
            bytes.resize(at + SECTION, 0);
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            for (field, value) in [(8, content.len()), (16, content.len()), (20, start)] {
                bytes[at + field..at + field + 4].copy_from_slice(&(value as u32).to_le_bytes());
            }
            start += content.len();
        }
        sections.iter().for_each(|(_, content)| bytes.extend_from_slice(content));
        bytes
    }

    #[test]
    fn sections_are_found_and_lie_within_the_file() {
        let bytes = program(&[(".linux", b"kernel"), (".cmdline", b"quiet \n\0\0"), (".bss", b"")]);
        let file = &reading(&bytes);
        let found = sections(file, bytes.len() as u64).unwrap();
        assert_eq!(text(file, find(&found, ".linux").unwrap(), 10).unwrap(), "kernel");
        assert_eq!(text(file, find(&found, ".cmdline").unwrap(), 10).unwrap(), "quiet");
        assert!(find(&found, ".bss").is_none() && find(&found, ".initrd").is_none());
        assert!(text(file, find(&found, ".linux").unwrap(), 5).is_err());
        let error = sections(file, bytes.len() as u64 - 1).unwrap_err().to_string();
        assert!(error.contains("'.cmdline' ends at"), "{error}");
        assert!(matches!(sections(file, 0x30), Err(EfiError::None(_))));
    }

    proptest! {
        #[test]
        fn no_program_makes_it_read_outside(at in 0_usize..300, values in any::<[u8; 4]>(), cut in 0_usize..400) {
            let mut bytes = program(&[(".linux", &[1; 64]), (".initrd", &[2; 64]), (".cmdline", b"quiet")]);
            let at = at.min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&values);
            bytes.truncate(cut.max(1));
            let file = &reading(&bytes);
            for section in sections(file, bytes.len() as u64).unwrap_or_default() {
                prop_assert!(section.length == 0 || section.start + section.length <= bytes.len() as u64);
                if section.length > 0 {
                    text(file, &section, 1000).unwrap();
                }
            }
        }
    }
}
