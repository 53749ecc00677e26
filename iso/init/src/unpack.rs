//! What starts a disc, taken out of its file. GRUB could start it from the file as it is, in a loop device; but UEFI's GRUB reads
//! a file whole before it gives a byte of it, to verify and measure it, and on a machine with 512 MiB it has no room for that.

use bennu_stage1::root::attach_loop;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// All that GRUB asks for.
const PARTS: [&str; 3] = ["boot/vmlinuz", "boot/initrd.img", "boot/grub/start.cfg"];
/// Where the disc is while they are read.
const PLACE: &str = "/run/new-disc";

/// Copies the parts of a disc, which was verified, into a directory, and to the state disk.
pub fn unpack(disc: &Path, into: &Path) -> Result<(), String> {
    let (device, _open) =
        attach_loop(&disc.display().to_string(), "bennu new disc").map_err(|error| error.to_string())?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = fs::create_dir_all(PLACE).and_then(|()| Ok(mount(&device, PLACE, "iso9660", flags, None)?));
    mounted.map_err(|error| format!("cannot read the disc: {error}"))?;
    let copied = copy(Path::new(PLACE), into).map_err(|error| format!("cannot take the disc apart: {error}"));
    let _ = unmount(PLACE, UnmountFlags::DETACH);
    copied
}

fn copy(disc: &Path, into: &Path) -> io::Result<()> {
    match fs::remove_dir_all(into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for part in PARTS {
        let path = into.join(part);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        io::copy(&mut File::open(disc.join(part))?, &mut File::create(&path)?)?;
        File::open(&path)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_an_earlier_one_goes_and_a_part_that_lacks_is_told() {
        let place = tempfile::tempdir().unwrap();
        let (disc, into) = (place.path().join("disc"), place.path().join("parts"));
        fs::create_dir_all(disc.join("boot/grub")).unwrap();
        fs::create_dir_all(&into).unwrap();
        fs::write(into.join("older"), "").unwrap();
        for part in PARTS {
            assert!(copy(&disc, &into).is_err(), "without {part}");
            fs::write(disc.join(part), part).unwrap();
        }
        copy(&disc, &into).unwrap();
        assert!(!into.join("older").exists());
        for part in PARTS {
            assert_eq!(fs::read_to_string(into.join(part)).unwrap(), part);
        }
    }
}
