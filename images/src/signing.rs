//! What Secure Boot will say to an image: signatures of its kernel and modules, and the loaders that its vendor signed.
//!
//! Nothing is verified here: the firmware, shim and the kernel do that on the machine. This tells beforehand what they
//! are bound to refuse.

use crate::{
    kernel::Kernel,
    store::{Store, StoreError},
    tree::Indexed,
};
use bennu_rules::{facts::Architecture, image::SignedLoaders};
use std::collections::BTreeSet;

/// The largest GRUB has some four megabytes.
const LARGEST: u64 = 64 << 20;
/// What the kernel looks for at a module's end (Documentation/admin-guide/module-signing.rst).
const MODULE_MAGIC: &[u8] = b"~Module signature appended~\n";
/// X.520's common name, object identifier 2.5.4.3, in DER.
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
/// GRUB sets this variable from its network module: without that it cannot boot from the network.
const GRUB_NETWORK: &[u8] = b"net_default_mac";

/// Where distributions' packages have shim and the GRUB it starts: Debian and Ubuntu, Ubuntu's alternatives, SUSE.
const PLACES: [(&str, &str); 3] = [
    ("/usr/lib/shim/shimx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
    ("/usr/lib/shim/shimx64.efi.signed.latest", "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
    ("/usr/share/efi/x86_64/shim.efi", "/usr/share/efi/x86_64/grub.efi"),
];
/// Red Hat's packages put both onto the EFI system partition, in a directory with the vendor's name.
const SYSTEM_PARTITION: &str = "/boot/efi/EFI";

/// shim and GRUB of a source.
struct Found {
    shim: Vec<u8>,
    grub: Vec<u8>,
}

/// Stores the signed loaders that the source carries for its kernel, and says what Secure Boot would refuse. `trusted`
/// are the names that the appliance's own shim trusts, which starts kernels of images without one.
pub fn examine(
    source: &Indexed,
    kernel: &Kernel,
    trusted: &BTreeSet<String>,
    store: &Store,
    note: &mut dyn FnMut(&str),
) -> Result<Option<SignedLoaders>, StoreError> {
    // The chain of signed loaders is one for x86-64.
    if kernel.architecture != Architecture::X86_64 {
        return Ok(None);
    }
    let found = find(source, note);
    let own = found.as_ref().map(|found| trusted_by(&found.shim));
    let name = format!("kernel {}", kernel.release);
    if let Some(said) = objection(&kernel.bytes, &name, own.as_ref(), trusted) {
        note(&said);
    }
    let Some(Found { shim, grub }) = found else { return Ok(None) };
    Ok(Some(SignedLoaders { shim: store.put(&shim)?, grub: store.put(&grub)? }))
}

/// What to say of a kernel, if anything; `own` are the names that the image's own shim trusts.
pub fn objection(
    kernel: &[u8],
    name: &str,
    own: Option<&BTreeSet<String>>,
    trusted: &BTreeSet<String>,
) -> Option<String> {
    const REFUSE: &str = "machines with Secure Boot on will refuse it";
    if !is_signed(kernel) {
        return Some(format!("the {name} is not signed: {REFUSE}"));
    }
    let signers = common_names(certificates(kernel));
    let (whose, names, help) = match own {
        Some(names) => ("the shim in this image trusts", names, ""),
        None => ("Bennu's own shim trusts", trusted, ". Install the vendor's signed shim and GRUB in the image"),
    };
    let named = |names: &BTreeSet<String>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let is_foreign = !names.is_empty() && !signers.is_empty() && signers.is_disjoint(names);
    is_foreign.then(|| {
        let (by, trusts) = (named(&signers), named(names));
        format!("the {name} is signed by {by}, and {whose} {trusts}: {REFUSE}{help}")
    })
}

fn find(source: &Indexed, note: &mut dyn FnMut(&str)) -> Option<Found> {
    let vendors = source.tree.directory(SYSTEM_PARTITION.as_bytes()).into_iter().flat_map(|names| names.keys());
    let vendors = vendors.filter_map(|name| std::str::from_utf8(name).ok());
    let on_partition = vendors.map(|vendor| {
        let file = |name: &str| format!("{SYSTEM_PARTITION}/{vendor}/{name}");
        (file("shimx64.efi"), file("grubx64.efi"))
    });
    let packaged = PLACES.iter().map(|(shim, grub)| ((*shim).to_owned(), (*grub).to_owned()));
    let mut unfit = None;
    for (shim, grub) in packaged.chain(on_partition) {
        let read = |path: &str| source.bytes(path.as_bytes(), LARGEST)?.ok().filter(|bytes| is_signed(bytes));
        let (Some(shim), Some(bytes)) = (read(&shim), read(&grub)) else { continue };
        if contains(&bytes, GRUB_NETWORK) {
            return Some(Found { shim, grub: bytes });
        }
        unfit.get_or_insert(grub);
    }
    if let Some(grub) = unfit {
        note(&format!("'{grub}' cannot boot from the network, so Secure Boot goes through Bennu's own shim and GRUB"));
    }
    None
}

/// The certificate table of an EFI program (PE format specification, "The Attribute Certificate Table"); empty where it
/// has none, or is no such program.
pub fn certificates(program: &[u8]) -> &[u8] {
    find_certificates(program).unwrap_or_default()
}

fn find_certificates(program: &[u8]) -> Option<&[u8]> {
    const OPTIONAL_HEADER: usize = 24;
    const CERTIFICATE_TABLE: usize = 4;
    let number = |at: usize| Some(u32::from_le_bytes(program.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize);
    if !program.starts_with(b"MZ") {
        return None;
    }
    let header = number(0x3c)?;
    if program.get(header..header.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    // Where the directories begin depends on the width of addresses: PE32 or PE32+.
    let directories = match program.get(header + OPTIONAL_HEADER..header + OPTIONAL_HEADER + 2)? {
        [0x0b, 0x01] => 96,
        [0x0b, 0x02] => 112,
        _ => return None,
    };
    let entry = header + OPTIONAL_HEADER + directories + 8 * CERTIFICATE_TABLE;
    let (start, size) = (number(entry)?, number(entry + 4)?);
    program.get(start..start.checked_add(size)?)
}

/// Whether an EFI program carries a signature.
pub fn is_signed(program: &[u8]) -> bool {
    !certificates(program).is_empty()
}

/// Whether a module carries a signature.
pub fn is_signed_module(module: &[u8]) -> bool {
    module.ends_with(MODULE_MAGIC)
}

/// The names of the certificates that a shim has built in: those that it trusts, not those that signed it.
pub fn trusted_by(shim: &[u8]) -> BTreeSet<String> {
    let signature = certificates(shim).len();
    common_names(&shim[..shim.len() - signature])
}

/// The common names in DER-encoded certificates and signatures, wherever they are: those of subjects and issuers, so a
/// signature and the certificate that it goes back to have one in common.
fn common_names(bytes: &[u8]) -> BTreeSet<String> {
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    let mut names = BTreeSet::new();
    let mut rest = bytes;
    while let Some(at) = position(rest, COMMON_NAME) {
        rest = &rest[at + COMMON_NAME.len()..];
        let [UTF8 | PRINTABLE, length, text @ ..] = rest else { continue };
        let text = text.get(..usize::from(*length)).and_then(|text| std::str::from_utf8(text).ok());
        names.extend(text.filter(|text| !text.is_empty() && !text.contains(char::is_control)).map(str::to_owned));
    }
    names
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    position(bytes, wanted).is_some()
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EFI program with these names built in and, unless there are none, signed by those.
    fn program(built_in: &[&str], signers: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x98..0x9a].copy_from_slice(&[0x0b, 0x02]);
        bytes.extend(der(built_in));
        let (start, table) = (bytes.len() as u32, der(signers));
        if !table.is_empty() {
            let entry = 0x98 + 112 + 32;
            bytes[entry..entry + 4].copy_from_slice(&start.to_le_bytes());
            bytes[entry + 4..entry + 8].copy_from_slice(&(table.len() as u32).to_le_bytes());
        }
        bytes.extend(table);
        bytes
    }

    fn der(names: &[&str]) -> Vec<u8> {
        let name = |name: &&str| [COMMON_NAME, &[0x0c, name.len() as u8], name.as_bytes()].concat();
        names.iter().flat_map(name).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn signatures_are_found_and_damage_is_none() {
        let signed = program(&["Vendor CA"], &["Microsoft UEFI CA"]);
        assert!(is_signed(&signed) && !is_signed(&program(&["Vendor CA"], &[])));
        assert_eq!(common_names(certificates(&signed)), set(&["Microsoft UEFI CA"]));
        assert_eq!(trusted_by(&signed), set(&["Vendor CA"]));
        for cut in 0..signed.len() {
            assert!(!is_signed(&signed[..cut]), "cut at {cut}");
            let _ = common_names(&signed[..cut]);
        }
        let mut wild = signed;
        wild[0x3c..0x40].fill(0xff);
        assert!(!is_signed(&wild) && !is_signed(b"MZ") && !is_signed(b""));
        assert!(is_signed_module(b"\x7fELF~Module signature appended~\n") && !is_signed_module(b"\x7fELF"));
    }

    #[test]
    fn a_kernel_is_judged_by_the_shim_that_starts_it() {
        let ours = set(&["Debian Secure Boot CA"]);
        let kernel = program(&[], &["Canonical Ltd. Secure Boot Signing", "Canonical CA"]);
        let debian = program(&[], &["Debian Secure Boot CA", "Debian Secure Boot Signer 2022 - linux"]);
        assert_eq!(objection(&debian, "kernel 6.1", None, &ours), None);
        assert_eq!(objection(&kernel, "kernel 6.8", Some(&set(&["Canonical CA"])), &ours), None);
        let said = objection(&kernel, "kernel 6.8", None, &ours).unwrap();
        assert!(said.contains("'Canonical CA'") && said.contains("Bennu's own shim trusts 'Debian"), "{said}");
        let said = objection(&kernel, "kernel 6.8", Some(&set(&["Fedora CA"])), &ours).unwrap();
        assert!(said.contains("the shim in this image trusts 'Fedora CA'"), "{said}");
        let said = objection(&program(&[], &[]), "kernel 6.8", None, &ours).unwrap();
        assert!(said.contains("6.8 is not signed"), "{said}");
    }
}
