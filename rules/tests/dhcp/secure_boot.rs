//! Which chain of loaders UEFI firmware is given, boot after boot.

use crate::kit::*;
use bennu_rules::{
    Change, Machine, Moment, Records, Timestamp, View,
    boot::{
        Boot, State,
        chain::{GRUB, SHIM, Why},
        script::{self, Script, ScriptRequest},
    },
    facts::{Architecture, Facts},
    image::{BlobRef, Content, Digest, FileSystem, Image, ImageConfig, ImageName, SignedLoaders, Tag},
    journey::{Observation, Seen, diagnose},
    profile::{BootSettings, Fingerprint, Match, Profile},
    settings::SecureBoot,
};
use std::sync::Arc;

const PLAIN: &str = "snponly.efi";
const GRUB_CFG: &str = "grub/grub.cfg";

impl Wire {
    fn read(&mut self, by: &str, file: &str) {
        let seen = Seen::LoaderRead {
            by: by.into(),
            file: file.into(),
            bytes: 300_000,
            complete: true,
            detail: String::new(),
            took_ms: 900,
        };
        self.live.observe(mac(1), Observation::new(self.now, seen));
    }

    /// The firmware starts; the file that it is told to fetch.
    fn starts(&mut self) -> String {
        self.wait(30);
        self.boot(Ask::new(DISCOVER, 1).pxe(7)).file
    }

    /// The firmware starts, fetches what it is told to, and refuses it.
    fn refuses(&mut self) -> String {
        let file = self.starts();
        self.read("tftp", &file);
        file
    }

    /// A loader asks for the machine's script: iPXE, or GRUB.
    fn asks(&mut self, grub: bool) -> Script {
        let request = ScriptRequest {
            mac: mac(1),
            facts: Facts::default(),
            origin: "http://10.77.0.1".into(),
            stage1: blob(7),
            starts: true,
            vouched: true,
            tftp: grub.then_some(OURS),
        };
        let at = Moment { now: self.now, entropy: [7; 32], settings: Arc::new(self.settings.clone()) };
        let decision = script::decide(&request, &View { records: &self.records, live: &self.live }, &at);
        decision.changes.into_iter().for_each(|change| self.records.apply(change));
        decision.volatile.into_iter().for_each(|change| self.live.apply(change));
        for (machine, observation) in decision.observed {
            self.live.observe(machine, observation);
        }
        decision.answer
    }

    /// The firmware starts and boots through shim and GRUB to its script.
    fn comes_through_shim(&mut self) -> Script {
        assert_eq!(self.starts(), SHIM);
        for file in [SHIM, GRUB, GRUB_CFG] {
            self.read("tftp", file);
        }
        self.asks(true)
    }

    fn last(&self) -> &Boot {
        self.live.boot(mac(1)).unwrap()
    }

    fn remembers(&self) -> bool {
        self.records.machine(mac(1)).is_some_and(|machine| machine.signed_loader.is_some())
    }

    fn image(&mut self, name: &str, seed: u8, signed: Option<SignedLoaders>) -> Digest {
        let content = Content::Root {
            kernel: blob(seed),
            modules: blob(2),
            root: blob(3),
            filesystem: FileSystem::Squashfs,
            verity: None,
            kernel_release: "6.1.0".into(),
        };
        let digest = Digest([seed; 32]);
        self.records.apply(Change::PutImage(Image {
            digest,
            manifest_size: 1,
            config_blob: blob(9),
            config: ImageConfig {
                architecture: Architecture::X86_64,
                cmdline: String::new(),
                content,
                signed,
                os: None,
                derived: None,
                entry: None,
                labels: Default::default(),
                tools: Default::default(),
            },
            imported: Timestamp(0),
            source: "test".into(),
            verdict: None,
            adopted: false,
        }));
        let name: ImageName = name.parse().unwrap();
        self.records.apply(Change::PutTag(Tag { name, digest, others: Default::default(), history: Vec::new() }));
        digest
    }

    fn assign(&mut self, image: &str) {
        let mut machine = self.records.machine(mac(1)).unwrap_or_else(|| Machine::new(mac(1), Timestamp(0)));
        machine.assignment = Some(image.parse().unwrap());
        self.add(machine);
    }
}

fn blob(seed: u8) -> BlobRef {
    BlobRef { digest: Digest([seed; 32]), size: 4096 }
}

fn vendor(seed: u8) -> Option<SignedLoaders> {
    Some(SignedLoaders { shim: blob(seed), grub: blob(seed + 1) })
}

#[test]
fn a_refused_loader_is_followed_by_shim_and_then_by_memory() {
    let mut wire = Wire::full();
    assert_eq!(wire.refuses(), PLAIN);
    let told = diagnose(wire.last(), wire.now.plus_seconds(91)).unwrap();
    assert!(told.reason.contains("fetched snponly.efi and did not run it: Secure Boot refuses"), "{told:?}");
    assert!(told.advice.starts_with("The next boot uses shim and GRUB"), "{told:?}");

    assert!(matches!(wire.comes_through_shim(), Script::Wait { .. }));
    let refused = wire.live.take_ended().pop().unwrap();
    assert_eq!((refused.state, refused.diagnosis), (State::Superseded, Some(told)));
    let lines: Vec<String> = refused.timeline.iter().map(|line| line.seen.to_string()).collect();
    assert!(
        lines.contains(
            &"the firmware fetched snponly.efi and did not run it: Secure Boot refuses unsigned loaders; the next boot \
              is given shim and GRUB: its firmware did not run the unsigned loader"
                .to_owned()
        ),
        "{lines:#?}"
    );
    assert_eq!(wire.last().chain.why, Why::Refused);
    assert!(wire.remembers());
    assert_eq!(wire.starts(), SHIM);
    assert_eq!(wire.last().chain.why, Why::Record);
    // A restart forgets the boots, not the machine.
    wire.restart();
    assert_eq!(wire.starts(), SHIM);
}

#[test]
fn one_attempt_is_one_choice() {
    let mut wire = Wire::full();
    wire.refuses();
    for _ in 0..3 {
        assert_eq!(wire.starts(), SHIM, "nothing was fetched since: the boot goes on, and so does its choice");
    }
    let chosen =
        |wire: &Wire| wire.last().timeline.iter().filter(|l| matches!(l.seen, Seen::ChainChosen { .. })).count();
    assert_eq!(chosen(&wire), 1);
}

#[test]
fn a_loader_that_speaks_was_not_refused() {
    let mut wire = Wire::full();
    assert_eq!(wire.refuses(), PLAIN);
    wire.ask(&Ask::new(DISCOVER, 1).ipxe(7, HTTP_FEATURE)).unwrap();
    assert_eq!(wire.starts(), PLAIN, "it asked DHCP");
    wire.read("tftp", PLAIN);
    wire.asks(false);
    assert_eq!(wire.starts(), PLAIN, "it asked for its script");
    assert!(!wire.remembers());
    // A transfer that was cut, as by a size probe or a power cut, says nothing.
    let cut = Seen::LoaderRead {
        by: "tftp".into(),
        file: PLAIN.into(),
        bytes: 1000,
        complete: false,
        detail: String::new(),
        took_ms: 9,
    };
    wire.live.observe(mac(1), Observation::new(wire.now, cut));
    wire.wait(400);
    assert_eq!(wire.starts(), PLAIN);
}

#[test]
fn two_refusals_take_turns_and_say_so() {
    let mut wire = Wire::full();
    let turns: Vec<bool> = (0..12).map(|_| wire.refuses() == SHIM).collect();
    // Each is tried twice; from then on mostly shim, which runs with Secure Boot on and off.
    assert_eq!(
        turns,
        [false, true, false, true, true, true, false, true, true, true, false, true],
        "plain, shim, plain, shim, then three of four"
    );
    assert_eq!(wire.last().chain.why, Why::Alternates);
    let told = diagnose(wire.last(), wire.now.plus_seconds(91)).unwrap();
    assert!(told.reason.contains("3rd Party UEFI CA") && told.advice.contains("in turn"), "{told:?}");
    assert!(!wire.remembers());
    // Secure Boot is switched off: whichever comes next, it runs, and the counting ends.
    assert_eq!(wire.starts(), SHIM);
    wire.asks(true);
    assert!(wire.remembers());
    assert_eq!((wire.starts(), wire.last().chain.unheard.plain), (SHIM.to_owned(), 0));
}

#[test]
fn what_was_learnt_is_unlearnt_when_shim_fails_and_the_plain_loader_runs() {
    let mut wire = Wire::full();
    wire.refuses();
    wire.comes_through_shim();
    assert_eq!(wire.refuses(), SHIM);
    assert_eq!(wire.refuses(), PLAIN);
    wire.asks(false);
    assert!(!wire.remembers());
    assert_eq!(wire.starts(), PLAIN);
}

#[test]
fn the_hop_that_failed_is_named() {
    let mut wire = Wire::full();
    wire.refuses();
    let mut told = Vec::new();
    assert_eq!(wire.starts(), SHIM);
    for file in [SHIM, GRUB, GRUB_CFG] {
        wire.read("tftp", file);
        told.push(diagnose(wire.last(), wire.now.plus_seconds(91)).unwrap().reason);
    }
    for (reason, says) in told.iter().zip([
        "shim did not ask for GRUB",
        "GRUB did not ask for its configuration",
        "did not ask for the machine's script",
    ]) {
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn settings_and_profiles_decide_without_a_refusal() {
    let mut wire = Wire::full();
    wire.settings.secure_boot = SecureBoot::Always;
    assert_eq!((wire.refuses(), wire.refuses()), (SHIM.into(), SHIM.into()));
    let mut wire = Wire::full();
    wire.settings.secure_boot = SecureBoot::Never;
    assert_eq!((wire.refuses(), wire.refuses()), (PLAIN.into(), PLAIN.into()));
    assert!(diagnose(wire.last(), wire.now.plus_seconds(91)).unwrap().advice.contains("secure_boot = \"auto\""));
    let mut wire = Wire::full();
    wire.settings.profiles = vec![Profile {
        name: "test".parse().unwrap(),
        matches: Match { manufacturer: Some("acme".into()), product: None },
        settings: BootSettings { signed_loader: true, ..BootSettings::default() },
        example: Fingerprint::default(),
    }];
    let mut machine = Machine::new(mac(1), Timestamp(0));
    machine.facts.manufacturer = Some("ACME".into());
    wire.add(machine);
    assert_eq!((wire.starts(), wire.last().chain.why), (SHIM.into(), Why::Profile));
    // Neither BIOS nor other processors have a signed chain.
    wire.settings.secure_boot = SecureBoot::Always;
    assert_eq!(wire.boot(Ask::new(DISCOVER, 2).pxe(0)).file, "undionly.kpxe");
    assert_eq!(wire.ask(&Ask::new(DISCOVER, 3).pxe(11)).unwrap().file, "");
}

#[test]
fn http_boot_has_no_signed_chain_and_says_so() {
    let mut wire = Wire::full();
    let file = |wire: &mut Wire| wire.ask(&Ask::new(DISCOVER, 1).http(16)).unwrap().file;
    for _ in 0..4 {
        wire.wait(30);
        assert_eq!(file(&mut wire), "http://10.77.0.1/loader/snponly.efi");
        wire.read("http", PLAIN);
        assert!(diagnose(wire.last(), wire.now.plus_seconds(91)).unwrap().advice.contains("Secure Boot needs PXE"));
    }
    // What was refused by HTTP will be by PXE; but it is no turn of its own, since PXE was not tried.
    assert_eq!(wire.starts(), SHIM);
}

#[test]
fn a_proxy_learns_it_too() {
    let mut wire = Wire::proxy();
    let file = |wire: &mut Wire| {
        wire.wait(30);
        let file = wire.ask(&Ask::new(DISCOVER, 1).pxe(7)).unwrap().file;
        wire.read("tftp", &file);
        file
    };
    assert_eq!((file(&mut wire), file(&mut wire)), (PLAIN.into(), SHIM.into()));
}

#[test]
fn the_image_of_the_boot_brings_its_own_shim() {
    let mut wire = Wire::full();
    wire.settings.secure_boot = SecureBoot::Always;
    let of = |digest: Digest| format!("signed/{}/{SHIM}", digest.hex());
    let web = wire.image("web:v1", 40, vendor(50));
    wire.assign("web:v1");
    assert_eq!(wire.starts(), of(web));
    assert!(wire.starts().len() < 127, "BOOTP's field has 128 bytes with the NUL");
    wire.read("tftp", &of(web));
    assert!(matches!(wire.asks(true), Script::Boot(_)));
    // An image without keeps Bennu's own.
    wire.image("web:v2", 60, None);
    wire.assign("web:v2");
    assert_eq!(wire.starts(), SHIM);
}

#[test]
fn loaders_of_another_vendor_are_left_for_the_images_own() {
    let mut wire = Wire::full();
    wire.settings.secure_boot = SecureBoot::Always;
    assert!(matches!(wire.comes_through_shim(), Script::Wait { .. }));
    let web = wire.image("web:v1", 40, vendor(50));
    wire.assign("web:v1");
    assert!(matches!(wire.asks(true), Script::Restart { .. }));
    assert_eq!(wire.starts(), format!("signed/{}/{SHIM}", web.hex()));
    wire.read("tftp", SHIM);
    assert!(matches!(wire.asks(true), Script::Boot(_)));
}

#[test]
fn loaders_that_two_images_share_start_both() {
    let mut wire = Wire::full();
    wire.settings.secure_boot = SecureBoot::Always;
    let discovery = wire.image("bennu/discovery:latest", 40, vendor(50));
    assert_eq!(wire.starts(), format!("signed/{}/{SHIM}", discovery.hex()), "an unassigned machine discovers");
    wire.read("tftp", SHIM);
    wire.image("web:v2", 60, vendor(50));
    wire.assign("web:v2");
    assert!(matches!(wire.asks(true), Script::Boot(_)));
}

#[test]
fn grub_gets_files_over_tftp_and_no_address() {
    let mut wire = Wire::full();
    wire.settings.secure_boot = SecureBoot::Always;
    wire.image("web:v1", 40, None);
    wire.assign("web:v1");
    let Script::Boot(script) = wire.comes_through_shim() else { panic!("no boot") };
    assert_eq!(script.kernel.url, format!("(tftp,10.77.0.1)/blobs/sha256/{}", "28".repeat(32)));
    assert!(script.arguments.ends_with(" BOOTIF=01-52-54-00-12-00-01"), "{}", script.arguments);
    assert!(script.arguments.contains("bennu.boot=http://10.77.0.1/boot/") && !script.arguments.contains("bennu.ip"));
}

#[test]
fn records_from_before_secure_boot_are_read() {
    let mut wire = Wire::full();
    wire.image("web:v1", 40, None);
    wire.assign("web:v1");
    wire.starts();
    let without = |record: serde_json::Value, key: &str| {
        let serde_json::Value::Object(mut fields) = record else { panic!("no object: {record}") };
        fields.remove(key);
        serde_json::Value::Object(fields)
    };
    let boot = without(serde_json::to_value(wire.last()).unwrap(), "chain");
    assert_eq!(&serde_json::from_value::<Boot>(boot).unwrap(), wire.last());
    let machine = wire.records.machine(mac(1)).unwrap();
    let record = serde_json::to_value(&machine).unwrap();
    assert!(record.get("signed_loader").is_none(), "what is not known is not written");
    assert_eq!(serde_json::from_value::<Machine>(record).unwrap(), machine);
    let image = wire.records.image(&Digest([40; 32])).unwrap();
    let record = serde_json::to_value(&image).unwrap();
    assert!(record["config"].get("signed").is_none(), "it would change the image's digest");
    assert_eq!(serde_json::from_value::<Image>(record).unwrap(), image);
}
