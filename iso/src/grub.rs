//! GRUB: its configuration, and the image that a BIOS starts from the disc.

use crate::options::Options;
use anyhow::{Context, Result, bail};
use bennu_host::slots::Slot;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What starts a disc, whether that is the medium or its parts lie in a slot, in `$base`: each disc says so itself, so that a
/// later one may say it otherwise. `console=tty0` comes first so that the serial port is the one that the kernel hands on.
pub const START: &str = "linux $base/boot/vmlinuz $arguments console=tty0 console=ttyS0,115200 $quiet
initrd $base/boot/initrd.img
";

/// What is asked of the medium itself: how it looks, and what it knows before it looks for the state disk.
const HEAD: &str = r#"set timeout=3
set medium=$root
set quiet="quiet loglevel=4"
if serial --unit=0 --speed=115200; then
    terminal_input --append serial
    terminal_output --append serial
fi
set default=medium
set fallback=0
set number=2
search --no-floppy --set=state --label BENNU-STATE
set block=($state)/slots/grubenv
if [ -n "$state" -a -s "$block" ]; then
    load_env --file "$block" good trial tries a_version a_rank b_version b_rank
fi
"#;

/// `-f` asks the directory alone: for anything else UEFI's GRUB, which verifies and measures, reads a file whole.
///
/// The good slot starts by itself, unless the medium is newer: whoever puts a newer one in wants it. What cannot be started is
/// followed by the medium, and an upgrade that cannot be tried by what would have started without it; GRUB 2.06 knows these by
/// their numbers alone.
const CHOOSE_GOOD: &str = r#"if [ -f "($state)/slots/SLOT/boot/initrd.img" ]; then
    if [ "$good" = SLOT ]; then
        if [ "$SLOT_rank" -ge MEDIUM_BUILT ]; then
            set default=SLOT
            set fallback="$number 0"
        fi
    fi
    set number=3
fi
"#;

/// A slot that has its one try left comes before all else.
const CHOOSE_TRIAL: &str = r#"if [ "$trial" = SLOT -a "$tries" = 1 -a -f "($state)/slots/SLOT/boot/initrd.img" ]; then
    set default=SLOT-trial
fi
"#;

const MEDIUM_ENTRIES: &str = r#"menuentry "Bennu MEDIUM_VERSION, from this medium" --id medium {
    set root=$medium
    set base=
    source /boot/grub/start.cfg
}
menuentry "Bennu MEDIUM_VERSION, from this medium, with the kernel's messages" --id messages {
    set root=$medium
    set base=
    set quiet=
    source /boot/grub/start.cfg
}
"#;

const SLOT_ENTRIES: &str = r#"if [ -f "($state)/slots/SLOT/boot/initrd.img" ]; then
    menuentry "Bennu $SLOT_version, from slot SLOT of the state disk" --id SLOT {
        set root=$state
        set base=/slots/SLOT
        set arguments=bennu.slot=SLOT
        source $base/boot/grub/start.cfg
    }
fi
"#;

/// The try is taken away before it is used, and what cannot be taken away is not used: a disc that does not become ready would
/// be started again and again.
const TRIAL_ENTRIES: &str = r#"if [ "$trial" = SLOT -a "$tries" = 1 -a -f "($state)/slots/SLOT/boot/initrd.img" ]; then
    menuentry "Bennu $SLOT_version, from slot SLOT of the state disk, for the first time" --id SLOT-trial {
        set tries=0
        save_env --file "$block" tries
        set tries=1
        load_env --file "$block" tries
        if [ "$tries" = 0 ]; then
            set root=$state
            set base=/slots/SLOT
            set arguments="bennu.slot=SLOT bennu.trial"
            source $base/boot/grub/start.cfg
        else
            echo "The state disk cannot be written to, so that the new version is not tried"
        fi
    }
fi
"#;

/// GRUB's configuration.
pub fn configuration(options: &Options) -> String {
    let each = |template: &str| -> String { Slot::ALL.map(|slot| template.replace("SLOT", slot.name())).concat() };
    let text =
        [HEAD, &each(CHOOSE_GOOD), &each(CHOOSE_TRIAL), MEDIUM_ENTRIES, &each(SLOT_ENTRIES), &each(TRIAL_ENTRIES)]
            .concat();
    text.replace("MEDIUM_BUILT", &options.epoch.to_string()).replace("MEDIUM_VERSION", &options.version)
}

/// What GRUB needs to read its configuration, the kernel and the initrd from the disc and from the state disk.
const MODULES: [&str; 16] = [
    "biosdisk",
    "iso9660",
    "part_gpt",
    "part_msdos",
    "ext2",
    "loadenv",
    "linux",
    "normal",
    "configfile",
    "search",
    "search_fs_file",
    "search_label",
    "serial",
    "test",
    "terminal",
    "echo",
];

/// What a BIOS starts when the file is a disk.
pub fn hybrid(packages: &Path) -> PathBuf {
    packages.join("usr/lib/grub/i386-pc/boot_hybrid.img")
}

/// Makes the image that El Torito names for BIOS.
pub fn bios(packages: &Path, out: &Path) -> Result<()> {
    let made = Command::new("grub-mkimage")
        .args(["--format", "i386-pc-eltorito", "--prefix", "/boot/grub", "--directory"])
        .arg(packages.join("usr/lib/grub/i386-pc"))
        .arg("--output")
        .arg(out)
        .args(MODULES)
        .output()
        .context("cannot run grub-mkimage (package grub-common)")?;
    if !made.status.success() {
        bail!("grub-mkimage failed: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GRUB's own checker reads it.
    #[test]
    fn the_configuration_is_a_script() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("grub.cfg");
        let options = Options { epoch: 1_700_000_000, version: "1.2".into(), ..Options::default() };
        let text = configuration(&options);
        for part in ["-ge 1700000000", "Bennu 1.2, from this medium", "--id a-trial", "bennu.slot=b bennu.trial"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("SLOT") && !text.contains("MEDIUM_"), "{text}");
        for script in [text.as_str(), START] {
            std::fs::write(&file, script).unwrap();
            let checked = Command::new("grub-script-check").arg(&file).output().unwrap();
            assert!(checked.status.success(), "{}{script}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
