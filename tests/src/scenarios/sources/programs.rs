//! Programs that are no Linux, and kernels that are programs.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    images,
    machine::{Firmware, Machine},
    workshop::{self, installed},
};

/// memtest86+ starts from one image, whichever the firmware.
pub const MEMTEST: Life = Life {
    name: "memtest86+",
    shows: &["memtest_bios", "memtest_uefi", "efi_program_and_bios"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let (kernel, program) = (memtest("bin")?, memtest("efi")?);
        let cmdline = "cmdline=console=ttyS0,115200";
        let words = [format!("kernel={kernel}"), format!("efi={program}"), cmdline.to_owned(), "memtest:6".to_owned()];
        bennu.bennu(["image", "import"].into_iter().chain(words.iter().map(String::as_str)))?;
        bennu.bennu(["image", "import", &format!("efi:{program}"), "memtest:efi"])?;
        let bios = rack.machine(Firmware::Bios).memory(256).install()?;
        story.show("memtest_bios", || tests_memory(&bennu, bios))?;
        // It looks for a screen before it looks at its arguments, and ends where UEFI has none.
        let uefi = rack.machine(Firmware::UefiPxe).memory(512).graphics().install()?;
        story.show("memtest_uefi", || tests_memory(&bennu, uefi))?;
        let bios = rack.machine(Firmware::Bios).memory(256).install()?;
        story.show("efi_program_and_bios", || is_refused(&bennu, bios))
    },
};

/// A unified kernel image starts from its sections with BIOS and as a whole with UEFI; a disc that nobody knows starts
/// as from a drive.
pub const UNIFIED: Life = Life {
    name: "unified kernel image",
    shows: &["uki_bios", "uki_uefi", "whole_disc_bios", "whole_disc_uefi"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let program = unified(rack.home().dir())?;
        bennu.bennu(["image", "import", "--cmdline", "more=given", &format!("efi:{}", program.display()), "uki:1"])?;
        let bios = rack.machine(Firmware::Bios).memory(512).install()?;
        story.show("uki_bios", || says_its_arguments(&bennu, bios))?;
        let uefi = rack.machine(Firmware::UefiPxe).memory(512).install()?;
        story.show("uki_uefi", || says_its_arguments(&bennu, uefi))?;
        let disc = disc(rack.home().dir(), &program)?;
        bennu.bennu(["image", "import", &format!("iso:{}", disc.display()), "disc:1"])?;
        let mut machine = rack.machine(Firmware::Bios).memory(256).install()?;
        story.show("whole_disc_bios", || {
            bennu.assign(&machine.mac(), "disc:1")?;
            machine.power_on()?;
            let said = machine.console()?.wait_for(images::DISK_SAYS, 120)?;
            machine.power_off()?;
            Ok(format!("its boot sector speaks after {:.1} s", said.as_secs_f64()))
        })?;
        let mut machine = rack.machine(Firmware::UefiPxe).memory(512).install()?;
        story.show("whole_disc_uefi", || {
            bennu.assign(&machine.mac(), "disc:1")?;
            machine.power_on()?;
            let started = machine.console()?.wait_for("unified, started with:", 180)?;
            Ok(format!("its program's initrd after {:.1} s", started.as_secs_f64()))
        })
    },
};

/// One of its builds, as `make setup` has unpacked it, or as it is installed.
fn memtest(kind: &str) -> Result<String> {
    let name = format!("boot/memtest86+x64.{kind}");
    let unpacked = workshop::checkout().join(".cache/memtest86+").join(&name).display().to_string();
    Ok(installed(&[&unpacked, &format!("/{name}")], "memtest86+")?.display().to_string())
}

/// The title line of its screen, and that it tests.
fn tests_memory(bennu: &Appliance, mut machine: Machine) -> Result<String> {
    bennu.assign(&machine.mac(), "memtest:6")?;
    machine.power_on()?;
    let console = machine.console()?;
    let title = console.wait_for("Memtest86+", 120)?;
    console.wait_for("Status: Testing", 60)?;
    let boot = bennu.last_boot(&machine.mac())?;
    ensure!(boot["state"] == "script", "the boot is {}", boot["state"]);
    machine.power_off()?;
    Ok(format!("its screen after {:.1} s", title.as_secs_f64()))
}

/// What only UEFI can start is refused in words that the machine's console shows.
fn is_refused(bennu: &Appliance, mut machine: Machine) -> Result<String> {
    bennu.assign(&machine.mac(), "memtest:efi")?;
    machine.power_on()?;
    machine.console()?.wait_for("this machine starts with BIOS", 120)?;
    let boot = bennu.last_boot(&machine.mac())?;
    let reason = boot["diagnosis"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("is an EFI program"), "the diagnosis says: {reason}");
    Ok(String::new())
}

/// The stub of systemd with the rack's kernel and an initrd that says its arguments.
fn unified(dir: &Path) -> Result<PathBuf> {
    let stub = installed(&["/usr/lib/systemd/boot/efi/linuxx64.efi.stub"], "systemd-boot-efi")?;
    let kernels = images::images()?.kernel().join("boot");
    let kernel = fs::read_dir(&kernels)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut kernel = kernel.filter(|path| path.display().to_string().contains("/vmlinuz-"));
    let kernel = kernel.next().with_context(|| format!("no kernel in {}", kernels.display()))?;
    let [tree, initrd, cmdline, program] = ["uki", "uki.cpio", "uki.cmdline", "uki.efi"].map(|name| dir.join(name));
    make_initrd(&tree, &initrd)?;
    fs::write(&cmdline, "own=built-in console=ttyS0,115200\n")?;
    let mut objcopy = Command::new("objcopy");
    // Behind the stub's own sections, in the order and with the room that its size asks for.
    for (name, file, place) in
        [(".cmdline", &cmdline, "0x30000"), (".linux", &kernel, "0x2000000"), (".initrd", &initrd, "0x5000000")]
    {
        objcopy.arg("--add-section").arg(format!("{name}={}", file.display()));
        objcopy.arg("--change-section-vma").arg(format!("{name}={place}"));
    }
    command::run(objcopy.arg(stub).arg(&program))?;
    Ok(program)
}

/// An initrd of busybox, the libraries it needs, and a script that says what the kernel was told.
fn make_initrd(tree: &Path, initrd: &Path) -> Result<()> {
    let busybox = installed(&["/usr/bin/busybox", "/bin/busybox"], "busybox")?;
    let libraries = Command::new("ldd").arg(&busybox).output().context("cannot run ldd")?.stdout;
    let libraries = String::from_utf8_lossy(&libraries).into_owned();
    fs::create_dir_all(tree)?;
    fs::copy(&busybox, tree.join("busybox"))?;
    // A static one has none.
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = tree.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("a library in no directory")?)?;
        fs::copy(library, place)?;
    }
    let script = "#!/busybox sh\n/busybox mkdir -p /proc /dev\n/busybox mount -t proc proc /proc\n\
                  /busybox mount -t devtmpfs dev /dev\nexec >/dev/ttyS0 2>&1\n\
                  echo \"unified, started with: $(/busybox cat /proc/cmdline)\"\n/busybox sleep 1000\n";
    fs::write(tree.join("init"), script)?;
    command::run(Command::new("chmod").arg("755").arg(tree.join("init")))?;
    let names = command::run_bytes(Command::new("find").arg(".").current_dir(tree))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "--quiet", "-H", "newc"]).current_dir(tree).stdin(Stdio::piped());
    let mut cpio = cpio.stdout(fs::File::create(initrd)?).spawn().context("cannot run cpio")?;
    cpio.stdin.take().context("cpio has no input")?.write_all(&names)?;
    ensure!(cpio.wait()?.success(), "cpio makes no initrd");
    Ok(())
}

fn says_its_arguments(bennu: &Appliance, mut machine: Machine) -> Result<String> {
    bennu.assign(&machine.mac(), "uki:1")?;
    machine.power_on()?;
    let console = machine.console()?;
    let started = console.wait_for("unified, started with:", 180)?;
    console.wait_for("own=built-in", 10)?;
    console.wait_for("more=given", 10)?;
    machine.power_off()?;
    Ok(format!("its initrd after {:.1} s", started.as_secs_f64()))
}

/// A disc without a system that is known, which starts with both firmwares: a boot sector that says so, and a program.
fn disc(dir: &Path, program: &Path) -> Result<PathBuf> {
    let (tree, disc) = (dir.join("disc"), dir.join("disc.iso"));
    fs::create_dir_all(&tree)?;
    let sector = fs::read(images::images()?.disk())?;
    fs::write(tree.join("boot.bin"), &sector[..2048])?;
    let fat = tree.join("efi.img");
    fs::File::create(&fat)?.set_len(program.metadata()?.len().next_multiple_of(1 << 20) + (2 << 20))?;
    command::run(Command::new("mkfs.vfat").arg(&fat))?;
    command::run(Command::new("mmd").arg("-i").arg(&fat).args(["::/EFI", "::/EFI/BOOT"]))?;
    command::run(Command::new("mcopy").arg("-i").arg(&fat).arg(program).arg("::/EFI/BOOT/BOOTX64.EFI"))?;
    let mut make = Command::new("genisoimage");
    make.args(["-quiet", "-R", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"]);
    make.args(["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot", "-o"]).arg(&disc).arg(&tree);
    command::run(&mut make)?;
    Ok(disc)
}
