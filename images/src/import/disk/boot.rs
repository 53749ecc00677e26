//! The files of a disk's root, and of the partitions that a system has below its `/boot`.

use crate::{
    disk::{self, Contents, Disk, DiskError, Fat, Files, Found, Part, Partition, Role},
    efi,
    import::{ImportError, Progress},
    store::Store,
    tree::{FileData, Indexed, Kind},
};
use std::rc::Rc;

/// A release is a word.
const LONGEST_RELEASE: u64 = 256;

/// Gathers them. Kernels that boot loaders find on their own terms get the names under which any system has its own.
pub fn gather(
    disk: &Rc<Disk>,
    partitions: &[Partition],
    root: &Partition,
    files: &Files,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Indexed, ImportError> {
    let mut out = disk::contents(store)?;
    let check = || progress.check();
    files.gather("", &mut out, &check)?;
    for partition in partitions.iter().filter(|partition| *partition != root) {
        let part = Part::of(disk, partition);
        let told = |place: &str| {
            progress.note(&format!("the kernel is looked for in {} too, as {place}", partition.describe()));
        };
        // What cannot be read was not the root, and need not be its /boot.
        match (disk::look(&part, partition), partition.role) {
            (Ok(Found::Ext4(_)), _) => {
                if let Ok(files) = Files::open(&part)
                    && (partition.role == Role::Boot || files.top().iter().any(|name| is_kernel(name)))
                {
                    told("/boot");
                    files.gather("boot/", &mut out, &check)?;
                }
            }
            (Ok(Found::Fat), Role::System | Role::Boot) => {
                let place = if partition.role == Role::System { "boot/efi/" } else { "boot/" };
                let fat = Fat::open(&part).and_then(|fat| fat.gather(place, &mut out).map_err(std::io::Error::other));
                match fat {
                    Ok(()) => told(&format!("/{}", place.trim_end_matches('/'))),
                    Err(error) => progress.note(&format!("{} cannot be read: {error}", partition.describe())),
                }
            }
            _ => {}
        }
    }
    for place in ["boot/efi", "boot"] {
        kernels(&mut out, place)?;
    }
    Ok(out.finish()?)
}

fn is_kernel(name: &str) -> bool {
    name.starts_with("vmlinuz-") || name.starts_with("Image-")
}

/// Kernels as the Boot Loader Specification has them: `TOKEN/RELEASE/linux`, and unified images in `EFI/Linux`.
fn kernels(out: &mut Contents<'_>, place: &str) -> Result<(), DiskError> {
    for token in names(out, place) {
        for release in names(out, &format!("{place}/{token}")) {
            let linux = out.tree().file(format!("{place}/{token}/{release}/linux").as_bytes()).cloned();
            if let Some(linux) = linux {
                out.again(&linux, None, format!("boot/vmlinuz-{release}").as_bytes())?;
            }
        }
    }
    for name in names(out, &format!("{place}/EFI/Linux")) {
        let program = out.tree().file(format!("{place}/EFI/Linux/{name}").as_bytes()).cloned();
        if let Some(program) = program {
            unified(out, &name, &program)?;
        }
    }
    Ok(())
}

/// The kernel of a unified image.
fn unified(out: &mut Contents<'_>, name: &str, program: &FileData) -> Result<(), DiskError> {
    let read = |buffer: &mut [u8], offset| out.read_exact_at(program, buffer, offset);
    let Ok(sections) = efi::sections(&read, program.size) else { return Ok(()) };
    let Some(linux) = efi::find(&sections, ".linux") else { return Ok(()) };
    let release = efi::find(&sections, ".uname").and_then(|uname| efi::text(&read, uname, LONGEST_RELEASE).ok());
    // Without one the kernel's own header tells it.
    let release = release.filter(|release| !release.is_empty() && !release.contains('/'));
    let release = release.unwrap_or_else(|| name.trim_end_matches(".efi").to_owned());
    let stretch = (linux.start, linux.length);
    out.again(program, Some(stretch), format!("boot/vmlinuz-{release}").as_bytes())
}

/// Names in a directory, the directories and files among them.
fn names(out: &Contents<'_>, path: &str) -> Vec<String> {
    let names = out.tree().directory(path.as_bytes()).into_iter().flatten();
    let plain = names.filter(|(_, id)| matches!(out.tree().inode(**id).kind, Kind::Directory(_) | Kind::File(_)));
    plain.filter_map(|(name, _)| String::from_utf8(name.clone()).ok()).collect()
}
