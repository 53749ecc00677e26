//! Programs that are no Linux.

use anyhow::{Result, ensure};

use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    machine::{Firmware, Machine},
    workshop::installed,
};

/// memtest86+ starts from one image, whichever the firmware.
pub const MEMTEST: Life = Life {
    name: "memtest86+",
    shows: &["memtest_bios", "memtest_uefi", "efi_program_and_bios"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let [kernel, program] = ["/boot/memtest86+x64.bin", "/boot/memtest86+x64.efi"]
            .map(|path| installed(&[path], "memtest86+").map(|path| path.display().to_string()));
        let (kernel, program) = (kernel?, program?);
        let cmdline = "cmdline=console=ttyS0,115200";
        let words = [format!("kernel={kernel}"), format!("efi={program}"), cmdline.to_owned(), "memtest:6".to_owned()];
        bennu.bennu(["image", "import"].into_iter().chain(words.iter().map(String::as_str)))?;
        bennu.bennu(["image", "import", &format!("efi:{program}"), "memtest:efi"])?;
        let bios = rack.machine(Firmware::Bios).memory(256).install()?;
        story.show("memtest_bios", || starts(&bennu, bios))?;
        let uefi = rack.machine(Firmware::UefiPxe).memory(512).graphics().install()?;
        story.show("memtest_uefi", || starts(&bennu, uefi))?;
        let bios = rack.machine(Firmware::Bios).memory(256).install()?;
        story.show("efi_program_and_bios", || is_refused(&bennu, bios))
    },
};

/// The title line of its screen, and that it tests.
fn starts(bennu: &Appliance, mut machine: Machine) -> Result<String> {
    bennu.assign(&machine.mac(), "memtest:6")?;
    machine.power_on()?;
    let console = machine.console()?;
    let title = console.wait_for("Memtest86+", 120)?;
    console.wait_for("Test #", 60)?;
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
