//! Boot scripts in GRUB's language (GRUB manual, "Writing your own configuration file"), for the chain of loaders that
//! Secure Boot accepts.
//!
//! A signed GRUB has one fixed first configuration, so there are two: [`entry`], the same for every machine, runs the
//! machine's own again and again until that one boots something. GRUB's `source` keeps variables and returns, so a
//! script that has nothing to boot says so, sets `pause`, and ends.
//!
//! Every value from elsewhere stands between single quotes, where GRUB's language has nothing special (`value`).

mod value;

use crate::{UnsafeValue, rendered};
use askama::Template;
use bennu_rules::boot::{
    arguments,
    script::{BootScript, Script, Way},
};
use std::net::Ipv4Addr;
use value::{line, quoted, word};

/// What x86 kernels take (COMMAND_LINE_SIZE, 2048 with the NUL). GRUB cuts longer ones without a word, and the last
/// argument is the one without which stage 1 knows nothing.
const LONGEST_ARGUMENTS: usize = 2047;
/// `BOOT_IMAGE=` with the kernel's name, which GRUB puts in front.
const GRUBS_OWN: usize = 128;

/// What installers put below `EFI` on a disk's system partition, first those that Secure Boot accepts.
const SYSTEMS: &[&str] = &[
    "debian/shimx64.efi",
    "ubuntu/shimx64.efi",
    "redhat/shimx64.efi",
    "rocky/shimx64.efi",
    "almalinux/shimx64.efi",
    "centos/shimx64.efi",
    "fedora/shimx64.efi",
    "opensuse/shim.efi",
    "sles/shim.efi",
    "systemd/systemd-bootx64.efi",
    "Microsoft/Boot/bootmgfw.efi",
    "BOOT/BOOTX64.EFI",
];

#[derive(Template)]
#[template(path = "grub/entry.cfg")]
struct Entry {
    server: Ipv4Addr,
}

#[derive(Template)]
#[template(path = "grub/boot.cfg")]
struct Boot {
    machine: String,
    boot: String,
    verb: String,
    /// A program of EFI's, and no kernel.
    is_program: bool,
    kernel: String,
    initrds: Vec<String>,
    /// Each with a space before it.
    arguments: String,
    failed: String,
}

#[derive(Template)]
#[template(path = "grub/wait.cfg")]
struct Wait {
    machine: String,
}

#[derive(Template)]
#[template(path = "grub/local.cfg")]
struct Local {
    machine: String,
    vendors: &'static [&'static str],
}

#[derive(Template)]
#[template(path = "grub/restart.cfg")]
struct Restart {
    machine: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "grub/refused.cfg")]
struct Refused {
    machine: String,
    reason: String,
    advice: String,
}

#[derive(Template)]
#[template(path = "grub/error.cfg")]
struct Failure {
    reason: String,
}

/// The first script, the same for every machine: it fetches the machine's own over TFTP from `server`.
pub fn entry(server: Ipv4Addr) -> String {
    rendered(&Entry { server })
}

/// A machine's script.
pub fn render(script: &Script) -> Result<String, UnsafeValue> {
    match script {
        Script::Boot(script) => boot(script),
        Script::Wait { machine, .. } => Ok(rendered(&Wait { machine: machine.to_string() })),
        Script::Local { machine, .. } => Ok(rendered(&Local { machine: machine.to_string(), vendors: SYSTEMS })),
        Script::Restart { machine, reason } => {
            let reason = line("reason", &format!("Bennu: {machine} starts again: {reason}."))?;
            Ok(rendered(&Restart { machine: machine.to_string(), reason }))
        }
        Script::Refused { machine, reason, advice, .. } => {
            let reason = line("reason", &format!("Bennu: {machine} gets nothing to boot: {reason}."))?;
            let advice = line("advice", &format!("Bennu: {advice}"))?;
            Ok(rendered(&Refused { machine: machine.to_string(), reason, advice }))
        }
    }
}

/// The script for a machine that the appliance cannot answer now. `reason` may be any text.
pub fn failure(reason: &str) -> String {
    let plain: String = reason.chars().map(|c| if c.is_control() || c == '\\' { ' ' } else { c }).take(300).collect();
    rendered(&Failure { reason: quoted(&format!("Bennu: the appliance cannot answer now: {plain}.")) })
}

fn boot(script: &BootScript) -> Result<String, UnsafeValue> {
    if script.way == Way::Disc {
        // The rules refuse it before.
        return Err(UnsafeValue::new("image", &script.image, "GRUB cannot start a disc from the network"));
    }
    let BootScript { machine, boot, image, .. } = script;
    let verb = if script.discovers { "is discovered by" } else { "boots" };
    let said = format!("Bennu: {machine} {verb} {image} ({}), boot {boot}", script.digest.short());
    let failed = format!("Bennu: {image} could not be loaded or started; asking again in 5 seconds.");
    Ok(rendered(&Boot {
        machine: machine.to_string(),
        boot: boot.to_string(),
        verb: line("image", &said)?,
        is_program: script.way == Way::Program,
        kernel: word("file", &script.kernel.url)?,
        initrds: script.initrds.iter().map(|file| word("file", &file.url)).collect::<Result<_, _>>()?,
        arguments: kernel_arguments(&script.arguments)?,
        failed: line("image", &failed)?,
    }))
}

/// The kernel's arguments as words of GRUB's. GRUB takes the quotes off, and puts a word with a space in it between
/// double quotes again (`grub_create_loader_cmdline`), as the kernel wants it.
fn kernel_arguments(text: &str) -> Result<String, UnsafeValue> {
    let what = "kernel arguments";
    if text.len() + GRUBS_OWN > LONGEST_ARGUMENTS {
        return Err(UnsafeValue::new(what, text, "they are longer than the kernel takes"));
    }
    let words = arguments::split(text).into_iter().map(|argument| {
        if !argument.matches('"').count().is_multiple_of(2) {
            return Err(UnsafeValue::new(what, argument, "a double quote is not closed"));
        }
        word(what, &argument.replace('"', "")).map(|word| format!(" {word}"))
    });
    words.collect()
}

#[cfg(test)]
mod tests;
