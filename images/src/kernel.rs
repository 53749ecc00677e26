//! Finding the kernel of a root filesystem, and reading what its header says.

use crate::{
    archive::{decompress, show},
    squashfs::Compression,
    tree::{FileData, Indexed, Tree},
};
use bennu_rules::facts::Architecture;
use std::{cmp::Ordering, collections::BTreeSet, io};

/// Kernels have some ten megabytes; this is to bound memory.
const LARGEST: u64 = 512 << 20;

/// The setup code of a bzImage is at most 32 KiB (Documentation/arch/x86/boot.rst), where its version string lies.
const HEAD: u64 = 64 << 10;

/// Why no kernel could be taken from the source.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is none.
    #[error(
        "the source has no kernel (no /boot/vmlinuz-*, no /usr/lib/modules/*/vmlinuz). Install one in it (Debian: \
         linux-image-amd64; Fedora: kernel; SUSE: kernel-default)"
    )]
    None,
    /// There is none, and no kernel image to take one from.
    #[error("the image has no kernel (no /boot/vmlinuz-*, no /usr/lib/modules/*/vmlinuz), and {0}")]
    Unpaired(String),
    /// There are kernels, and none has its modules.
    #[error(
        "the kernel '{path}' has no modules: there is no /lib/modules/{release} and no /usr/lib/modules/{release}. \
         Install the whole kernel package in the source"
    )]
    NoModules {
        /// The newest kernel.
        path: String,
        /// Its release.
        release: String,
    },
    /// It is none that we know.
    #[error(
        "'{path}' is no Linux kernel for a known architecture: neither a bzImage nor an EFI program. Install the kernel package again"
    )]
    Unknown {
        /// Its path.
        path: String,
    },
    /// It could not be read.
    #[error("cannot read the kernel '{path}': {source}")]
    Read {
        /// Its path.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
}

/// A kernel and where its modules are.
#[derive(Debug)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// As the firmware's loader starts it.
    pub bytes: Vec<u8>,
    /// Instruction set.
    pub architecture: Architecture,
    /// Its file in the tree.
    pub path: String,
    /// Directory of its modules in the tree.
    pub modules: String,
    /// What it can decompress.
    pub support: Support,
}

/// What a kernel's configuration says it can read. Where there is no configuration, all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Support {
    /// zstd initrds (since Linux 5.9).
    pub zstd_initrd: bool,
    /// zstd in squashfs (since Linux 4.14).
    pub zstd_squashfs: bool,
}

impl Support {
    fn of(config: &str) -> Self {
        let has = |key: &str| config.lines().any(|line| line.strip_prefix(key) == Some("=y"));
        Self { zstd_initrd: has("CONFIG_RD_ZSTD"), zstd_squashfs: has("CONFIG_SQUASHFS_ZSTD") }
    }

    /// How to compress a root for this kernel.
    pub fn root_compression(self, level: u32) -> Compression {
        if self.zstd_squashfs { Compression::Zstd(level) } else { Compression::Gzip }
    }
}

/// Whether a tree has anything that may be a kernel; [`find`] says whether it can be used.
pub fn has_any(tree: &Tree) -> bool {
    let names = |directory: &str| tree.directory(directory.as_bytes()).into_iter().flat_map(|names| names.keys());
    let in_boot = names("/boot").any(|name| name.starts_with(b"vmlinuz-") || name.starts_with(b"Image-"));
    in_boot
        || ["/usr/lib/modules", "/lib/modules"].iter().any(|base| {
            names(base).any(|release| {
                let path = |file: &[u8]| [base.as_bytes(), b"/", release, b"/", file].concat();
                [b"vmlinuz".as_slice(), b"Image"].iter().any(|file| tree.file(&path(file)).is_some())
            })
        })
}

struct Candidate<'a> {
    path: String,
    release: String,
    modules: Option<String>,
    data: &'a FileData,
}

/// Takes the newest kernel that has modules, and notes when there was a choice.
pub fn find(source: &Indexed, note: &mut dyn FnMut(&str)) -> Result<Kernel, KernelError> {
    let mut candidates = candidates(source)?;
    candidates.sort_by(|a, b| compare(&b.release, &a.release).then_with(|| a.path.cmp(&b.path)));
    let newest = candidates.first().ok_or(KernelError::None)?;
    let no_modules = || KernelError::NoModules { path: newest.path.clone(), release: newest.release.clone() };
    let chosen = candidates.iter().find(|candidate| candidate.modules.is_some()).ok_or_else(no_modules)?;
    let mut releases: Vec<&str> = candidates.iter().map(|candidate| candidate.release.as_str()).collect();
    releases.dedup();
    if releases.len() > 1 {
        let skipped = if chosen.release == newest.release { "" } else { ", the newest that has modules" };
        note(&format!("of the kernels {}, the image takes {}{skipped}", releases.join(", "), chosen.release));
    }
    let failed = |source| KernelError::Read { path: chosen.path.clone(), source };
    let bytes = source.spool.read(chosen.data, LARGEST).map_err(failed)?;
    let bytes = plain(bytes).map_err(failed)?;
    let architecture = architecture(&bytes).ok_or_else(|| KernelError::Unknown { path: chosen.path.clone() })?;
    let support = support(source, &chosen.release);
    let modules = chosen.modules.clone().ok_or_else(no_modules)?;
    Ok(Kernel { release: chosen.release.clone(), bytes, architecture, path: chosen.path.clone(), modules, support })
}

fn candidates(source: &Indexed) -> Result<Vec<Candidate<'_>>, KernelError> {
    let mut found = Vec::new();
    let names = |directory: &str| -> Vec<String> {
        let children = source.tree.directory(directory.as_bytes());
        children
            .into_iter()
            .flat_map(|names| names.keys())
            .filter_map(|name| String::from_utf8(name.clone()).ok())
            .collect()
    };
    let files = names("/boot");
    // SUSE's arm64 kernels are called Image-….
    let named = |name: &str| name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("Image-")).map(str::to_owned);
    // Fedora's rescue kernel is a copy of another one.
    let kernels = files.iter().filter_map(|file| Some((file, named(file).filter(|named| !named.contains("rescue"))?)));
    let kernels: Vec<_> = kernels.collect();
    for (file, named) in &kernels {
        let Some(mut candidate) = candidate(source, format!("/boot/{file}"), named)? else { continue };
        if candidate.modules.is_none() && candidate.release == *named {
            let others = kernels.iter().map(|(_, other)| other.as_str()).filter(|other| other != named);
            if let Some(release) =
                release_of_flavour(named, &others.collect::<Vec<_>>(), &releases_with_modules(source))
            {
                candidate.modules = modules_directory(source, &release);
                candidate.release = release;
            }
        }
        found.push(candidate);
    }
    let mut bases = vec!["/usr/lib/modules"];
    // Where /lib is a link to usr/lib, both are one.
    if source.tree.find(b"/lib/modules") != source.tree.find(b"/usr/lib/modules") {
        bases.push("/lib/modules");
    }
    for base in bases {
        for release in names(base) {
            for name in ["vmlinuz", "Image"] {
                found.extend(candidate(source, format!("{base}/{release}/{name}"), &release)?);
            }
        }
    }
    Ok(found)
}

fn candidate<'a>(source: &'a Indexed, path: String, named: &str) -> Result<Option<Candidate<'a>>, KernelError> {
    let Some(data) = source.tree.file(path.as_bytes()).filter(|data| data.size > 0) else { return Ok(None) };
    let modules = modules_directory(source, named);
    if modules.is_none() {
        // Arch's and Alpine's file names do not say the release; the kernel's header does.
        let head = source.head(data, HEAD).map_err(|source| KernelError::Read { path: path.clone(), source })?;
        if let Some(release) = x86_release(&head) {
            let modules = modules_directory(source, &release);
            return Ok(Some(Candidate { path, release, modules, data }));
        }
    }
    Ok(Some(Candidate { path, release: named.to_owned(), modules, data }))
}

/// Alpine's files say only the flavour (`vmlinuz-lts` beside `/lib/modules/6.12.5-0-lts`), and outside of x86 the
/// kernel's header does not say the release either. So what is taken is the only release of that flavour, or the only
/// release there is, unless another file (`others`) names its flavour.
fn release_of_flavour(named: &str, others: &[&str], releases: &BTreeSet<String>) -> Option<String> {
    // A release of its own: modules of another one would not load.
    if named.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let is_of = |release: &str, flavour: &str| {
        release == flavour || release.strip_suffix(flavour).is_some_and(|rest| rest.ends_with('-'))
    };
    let of_flavour: Vec<&String> = releases.iter().filter(|release| is_of(release, named)).collect();
    match (of_flavour.as_slice(), releases.first()) {
        ([only], _) => Some((*only).clone()),
        ([], Some(only)) if releases.len() == 1 && !others.iter().any(|other| is_of(only, other)) => Some(only.clone()),
        _ => None,
    }
}

fn releases_with_modules(source: &Indexed) -> BTreeSet<String> {
    let directories = ["/lib/modules", "/usr/lib/modules"].map(|base| source.tree.directory(base.as_bytes()));
    let names = directories.into_iter().flatten().flat_map(|names| names.keys());
    let releases = names.filter_map(|name| String::from_utf8(name.clone()).ok());
    releases.filter(|release| modules_directory(source, release).is_some()).collect()
}

fn modules_directory(source: &Indexed, release: &str) -> Option<String> {
    let path = |base: &str| format!("{base}/{release}");
    let bases = ["/lib/modules", "/usr/lib/modules"].map(path);
    // A leftover directory without modules in it does not count.
    bases.into_iter().find(|path| {
        source.tree.directory(path.as_bytes()).is_some_and(|names| {
            names.contains_key(b"kernel".as_slice()) || names.contains_key(b"modules.dep".as_slice())
        })
    })
}

fn support(source: &Indexed, release: &str) -> Support {
    let paths = [
        format!("/boot/config-{release}"),
        format!("/usr/lib/modules/{release}/config"),
        format!("/lib/modules/{release}/config"),
    ];
    let config = paths.iter().find_map(|path| source.bytes(path.as_bytes(), 4 << 20)?.ok());
    config
        .map_or(Support { zstd_initrd: true, zstd_squashfs: true }, |text| Support::of(&String::from_utf8_lossy(&text)))
}

/// Ubuntu's arm64 kernels are gzip files, which only GRUB starts.
fn plain(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if bytes.starts_with(b"\x1f\x8b") { decompress::by_name(b"kernel.gz", bytes, LARGEST) } else { Ok(bytes) }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Whether this is an x86 boot image: boot sector signature and header magic (Documentation/arch/x86/boot.rst).
fn is_bzimage(head: &[u8]) -> bool {
    word(head, 0x1fe) == Some(0xaa55) && head.get(0x202..0x206) == Some(b"HdrS")
}

/// The instruction set of a kernel, from its x86 boot header, its arm64 or RISC-V image header, or its PE header.
pub fn architecture(head: &[u8]) -> Option<Architecture> {
    const XLF_KERNEL_64: u16 = 1;
    if is_bzimage(head) {
        let protocol = word(head, 0x206)?;
        let flags = word(head, 0x236)?;
        // Boot protocol 2.12 brought xloadflags. Older kernels are 32-bit only when they say so nowhere.
        let wide = protocol < 0x020c || flags & XLF_KERNEL_64 != 0;
        return Some(if wide { Architecture::X86_64 } else { Architecture::X86 });
    }
    match head.get(0x38..0x3c) {
        Some(b"ARM\x64") => return Some(Architecture::Arm64),
        Some(b"RSC\x05") => return Some(Architecture::Riscv64),
        _ => {}
    }
    pe_machine(head)
}

/// The machine of an EFI program (PE specification, "COFF File Header").
fn pe_machine(head: &[u8]) -> Option<Architecture> {
    if !head.starts_with(b"MZ") {
        return None;
    }
    let at = u32::from_le_bytes(head.get(0x3c..0x40)?.try_into().ok()?) as usize;
    if head.get(at..at.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    Some(match word(head, at + 4)? {
        0x014c => Architecture::X86,
        0x8664 => Architecture::X86_64,
        0x01c0 | 0x01c2 | 0x01c4 => Architecture::Arm32,
        0xaa64 => Architecture::Arm64,
        0x5032 => Architecture::Riscv32,
        0x5064 => Architecture::Riscv64,
        0x6232 => Architecture::Loongarch32,
        0x6264 => Architecture::Loongarch64,
        _ => return None,
    })
}

/// The release in a bzImage's version string, its first word.
fn x86_release(head: &[u8]) -> Option<String> {
    if !is_bzimage(head) {
        return None;
    }
    let at = usize::from(word(head, 0x20e)?) + 0x200;
    let text = head.get(at..)?;
    let end = text.iter().take(200).position(|&b| b == b' ' || b == 0)?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    let plain = !release.is_empty() && !release.contains('/') && release != "." && release != "..";
    plain.then(|| show(release.as_bytes()))
}

/// Compares releases as package managers do: numbers as numbers, `~` before everything.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let rank = |text: &[u8]| match text.first() {
            Some(b'~') => 0,
            None => 1,
            Some(b) if !b.is_ascii_alphanumeric() => 2,
            Some(b) if b.is_ascii_alphabetic() => 3,
            Some(_) => 4,
        };
        let by_rank = rank(a).cmp(&rank(b));
        if by_rank != Ordering::Equal || a.is_empty() {
            return by_rank;
        }
        let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
        let (of_a, of_b) = (digits(a), digits(b));
        let order = if of_a > 0 && of_b > 0 {
            let number = |text: &[u8]| text.iter().copied().skip_while(|&b| b == b'0').collect::<Vec<u8>>();
            let (left, right) = (number(&a[..of_a]), number(&b[..of_b]));
            left.len().cmp(&right.len()).then_with(|| left.cmp(&right))
        } else {
            a[0].cmp(&b[0])
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (&a[of_a.max(1)..], &b[of_b.max(1)..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_as_packages_do() {
        for (older, newer) in [
            ("6.1.0-9-amd64", "6.1.0-56-amd64"),
            ("5.15.0-91-generic", "6.8.0-31-generic"),
            ("6.12~rc4-amd64", "6.12-amd64"),
            ("6.1", "6.1.1"),
            ("4.18.0-513.5.1.el8_9.x86_64", "4.18.0-513.24.1.el8_9.x86_64"),
            ("6.12.9+deb13-amd64", "6.12.10+deb13-amd64"),
            ("6.1.0-09", "6.1.0-10"),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older} < {newer}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{newer} > {older}");
            assert_eq!(compare(newer, newer), Ordering::Equal);
        }
    }

    fn bzimage(flags: u16) -> Vec<u8> {
        let mut head = vec![0; 0x1000];
        head[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        head[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        head[0x236..0x238].copy_from_slice(&flags.to_le_bytes());
        head[0x500..0x51c].copy_from_slice(b"6.1.0-x (builder@host) #1 SM");
        head
    }

    #[test]
    fn headers_tell_the_architecture() {
        assert_eq!(architecture(&bzimage(0x7f)), Some(Architecture::X86_64));
        assert_eq!(architecture(&bzimage(0)), Some(Architecture::X86));
        assert_eq!(x86_release(&bzimage(1)).as_deref(), Some("6.1.0-x"));
        let mut arm = vec![0; 64];
        arm[0x38..].copy_from_slice(b"ARM\x64\0\0\0\0");
        assert_eq!(architecture(&arm), Some(Architecture::Arm64));
        let mut pe = vec![0; 256];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x80;
        pe[0x80..0x86].copy_from_slice(b"PE\0\0\x64\xaa");
        assert_eq!(architecture(&pe), Some(Architecture::Arm64));
        pe[0x3c..0x40].fill(0xff);
        assert_eq!(architecture(&pe), None);
        assert_eq!(architecture(b"#!/bin/sh"), None);
    }

    #[test]
    fn a_flavour_finds_its_release() {
        let of = |named: &str, others: &[&str], releases: &[&str]| {
            release_of_flavour(named, others, &releases.iter().map(|r| (*r).to_owned()).collect())
        };
        let both = ["6.12.5-0-lts", "6.12.5-0-virt"];
        assert_eq!(of("lts", &["virt"], &both).as_deref(), Some("6.12.5-0-lts"));
        assert_eq!(of("virt", &[], &["6.12.5-0-lts"]).as_deref(), Some("6.12.5-0-lts"));
        assert_eq!(of("virt", &["lts"], &["6.12.5-0-lts"]), None, "it is the other file's");
        assert_eq!(of("lts", &[], &["6.12.5-0-lts", "6.12.6-0-lts"]), None, "nothing says which");
        assert_eq!(of("linux", &[], &both), None);
        assert_eq!(of("6.12.6-0-lts", &[], &["6.12.5-0-lts"]), None, "a release of its own");
        assert_eq!(of("lts", &[], &[]), None);
    }

    #[test]
    fn a_config_tells_what_it_can_read() {
        let el8 = "CONFIG_RD_GZIP=y\nCONFIG_SQUASHFS_ZSTD=y\n# CONFIG_RD_ZSTD is not set\n";
        assert_eq!(Support::of(el8), Support { zstd_initrd: false, zstd_squashfs: true });
    }
}
