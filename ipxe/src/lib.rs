//! Boot scripts in iPXE's language (<https://ipxe.org/scripting>), and in GRUB's ([`grub`]).
//!
//! Every value that enters a script is checked first: a line break would start a command of its own, and `${` would be
//! expanded by the loader. `netX` is the interface iPXE opened last, the one it booted from.

pub mod grub;
mod value;

pub use value::UnsafeValue;

use askama::Template;
use bennu_rules::{
    boot::script::{BootScript, NamedUrl, Script, Way},
    facts::Firmware,
};

#[derive(Template)]
#[template(path = "entry.ipxe")]
struct Entry<'a> {
    origin: &'a str,
}

#[derive(Template)]
#[template(path = "boot.ipxe")]
struct Boot<'a> {
    machine: String,
    boot: String,
    verb: &'a str,
    image: &'a str,
    short: String,
    kernel: &'a NamedUrl,
    initrds: &'a [NamedUrl],
    arguments: &'a str,
    way: Way,
    stage1: bool,
    again: &'a str,
}

#[derive(Template)]
#[template(path = "wait.ipxe")]
struct Wait<'a> {
    machine: String,
    again: &'a str,
}

#[derive(Template)]
#[template(path = "local.ipxe")]
struct Local {
    machine: String,
    bios: bool,
}

#[derive(Template)]
#[template(path = "refused.ipxe")]
struct Refused<'a> {
    machine: String,
    reason: &'a str,
    advice: &'a str,
    again: &'a str,
}

#[derive(Template)]
#[template(path = "error.ipxe")]
struct Failure<'a> {
    reason: String,
    again: &'a str,
}

/// The first script, the same for every machine: it says what the loader knows of the hardware and goes on.
pub fn entry(origin: &str) -> Result<String, UnsafeValue> {
    value::check("origin", origin)?;
    Ok(rendered(&Entry { origin }))
}

/// A machine's script.
pub fn render(script: &Script) -> Result<String, UnsafeValue> {
    match script {
        Script::Boot(script) => boot(script),
        Script::Wait { machine, again } => {
            value::check("again", again)?;
            Ok(rendered(&Wait { machine: machine.to_string(), again }))
        }
        // Only shim and GRUB are tied to a vendor's kernels.
        Script::Restart { .. } => Ok("#!ipxe\nreboot\n".to_owned()),
        Script::Local { machine, firmware } => {
            Ok(rendered(&Local { machine: machine.to_string(), bios: *firmware != Some(Firmware::Uefi) }))
        }
        Script::Refused { machine, reason, advice, again } => {
            value::check("reason", reason)?;
            value::check("advice", advice)?;
            value::check("again", again)?;
            Ok(rendered(&Refused { machine: machine.to_string(), reason, advice, again }))
        }
    }
}

/// The script for a machine that the appliance cannot answer now. `reason` may be any text.
pub fn failure(reason: &str, again: &str) -> Result<String, UnsafeValue> {
    value::check("again", again)?;
    Ok(rendered(&Failure { reason: value::harmless(reason), again }))
}

fn boot(script: &BootScript) -> Result<String, UnsafeValue> {
    value::check("image", &script.image)?;
    value::check("kernel arguments", &script.arguments)?;
    value::check("again", &script.again)?;
    for file in script.initrds.iter().chain([&script.kernel]) {
        value::check_word("file name", &file.name)?;
        value::check_word("URL", &file.url)?;
    }
    Ok(rendered(&Boot {
        machine: script.machine.to_string(),
        boot: script.boot.to_string(),
        verb: if script.discovers { "is discovered by" } else { "boots" },
        image: &script.image,
        short: script.digest.short(),
        kernel: &script.kernel,
        initrds: &script.initrds,
        arguments: &script.arguments,
        way: script.way,
        stage1: script.stage1,
        again: &script.again,
    }))
}

fn rendered(template: &impl Template) -> String {
    // Writing to a String cannot fail, and the templates call nothing that can.
    template.render().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bennu_rules::{MacAddress, boot::BootId, image::Digest};

    const MACHINE: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
    const AGAIN: &str = "http://10.77.0.1/boot/52-54-00-00-00-01.ipxe";

    fn file(name: &str) -> NamedUrl {
        NamedUrl { name: name.into(), url: format!("http://10.77.0.1/blobs/sha256/{}", "ab".repeat(32)) }
    }

    fn boot_script() -> BootScript {
        BootScript {
            machine: MACHINE,
            boot: BootId("0199c0ffee0-12345678".into()),
            discovers: false,
            image: "web:v3".into(),
            digest: Digest([0xab; 32]),
            way: Way::Kernel,
            kernel: file("kernel"),
            initrds: vec![file("modules.img"), file("stage1.img")],
            arguments: "console=tty0 console=ttyS0 bennu.boot=http://10.77.0.1/boot/00ff/".into(),
            stage1: true,
            again: AGAIN.into(),
        }
    }

    #[test]
    fn every_script_reads_as_reviewed() {
        insta::assert_snapshot!("entry", entry("http://10.77.0.1").unwrap());
        insta::assert_snapshot!("boot", render(&Script::Boot(boot_script())).unwrap());
        insta::assert_snapshot!(
            "discover",
            render(&Script::Boot(BootScript { discovers: true, ..boot_script() })).unwrap()
        );
        let foreign = BootScript {
            stage1: false,
            initrds: vec![file("initrd0.img")],
            arguments: "quiet".into(),
            ..boot_script()
        };
        insta::assert_snapshot!("foreign", render(&Script::Boot(foreign.clone())).unwrap());
        let program = BootScript { way: Way::Program, initrds: Vec::new(), ..foreign };
        insta::assert_snapshot!("program", render(&Script::Boot(program.clone())).unwrap());
        insta::assert_snapshot!("disc", render(&Script::Boot(BootScript { way: Way::Disc, ..program })).unwrap());
        insta::assert_snapshot!("wait", render(&Script::Wait { machine: MACHINE, again: AGAIN.into() }).unwrap());
        let local = |firmware| render(&Script::Local { machine: MACHINE, firmware: Some(firmware) }).unwrap();
        insta::assert_snapshot!("local_bios", local(Firmware::Bios));
        insta::assert_snapshot!("local_uefi", local(Firmware::Uefi));
        let refused = Script::Refused {
            machine: MACHINE,
            reason: "the image web:v9 that it is assigned to does not exist".into(),
            advice: "Import it".into(),
            again: AGAIN.into(),
        };
        insta::assert_snapshot!("refused", render(&refused).unwrap());
        insta::assert_snapshot!("failure", failure("the ledger's disk failed:\n${evil}", AGAIN).unwrap());
    }

    #[test]
    fn no_value_can_add_a_command_or_an_expansion() {
        for evil in ["a\nreboot", "a\rreboot", "${net0/ip}", "a\0b", "a || reboot", "a && b", "a ; b"] {
            let script = BootScript { arguments: evil.into(), ..boot_script() };
            let rendered = render(&Script::Boot(script));
            if evil != "a ; b" {
                assert!(rendered.is_err(), "{evil:?} came through");
            }
        }
    }
}
