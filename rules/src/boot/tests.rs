use super::{
    explain,
    plan::{self, PlanRequest},
    report::{self, ReportRequest, Taken},
    script::{self, Script, ScriptRequest, Way},
    *,
};
use crate::{
    Change, Decision, Live, Records, Volatile,
    assignment::Assignment,
    decision::lease_key,
    facts::{Architecture, Facts, Firmware},
    image::{BlobRef, Content, FileSystem, Image, ImageConfig, ImageName, Tag},
    journey::Seen,
    lease::Lease,
    memory::Memory,
    profile::{BootSettings, Fingerprint, Match, Profile},
    settings::{DhcpMode, Settings, Subnet, UnknownPolicy},
    signature::{KeyId, SignaturePolicy, Verdict},
};
use bennu_plan::{Action, Report, RootPlan};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

mod metadata;
mod session;

mod rules;

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 50));

struct World {
    memory: Memory,
    live: Live,
    settings: Settings,
    now: u64,
}

impl World {
    fn new() -> Self {
        let settings = Settings::default();
        Self { memory: Memory::default(), live: Live::default(), settings, now: 1_000_000 }
    }

    fn moment(&self) -> Moment {
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&self.now.to_le_bytes());
        entropy[16..24].copy_from_slice(&self.now.to_le_bytes());
        Moment { now: Timestamp(self.now), entropy, settings: Arc::new(self.settings.clone()) }
    }

    fn run<R, A>(&mut self, request: &R, rule: fn(&R, &View<'_>, &Moment) -> Decision<A>) -> (A, Vec<Change>) {
        self.now += 1000;
        let at = self.moment();
        let decision = rule(request, &View { records: &self.memory, live: &self.live }, &at);
        for change in decision.volatile {
            self.live.apply(change);
        }
        for change in decision.changes.clone() {
            self.memory.apply(change);
        }
        for (machine, observation) in decision.observed {
            self.live.observe(machine, observation);
        }
        (decision.answer, decision.changes)
    }

    fn image(&mut self, name: &str, content: Content) -> Digest {
        let digest = Digest([name.len() as u8 + name.as_bytes()[name.len() - 1]; 32]);
        let config = ImageConfig {
            architecture: Architecture::X86_64,
            cmdline: "quiet".into(),
            content,
            signed: None,
            derived: None,
            entry: None,
            labels: Default::default(),
            os: None,
            tools: Default::default(),
        };
        let image = Image {
            digest,
            manifest_size: 1,
            config_blob: blob(9),
            config,
            imported: Timestamp(0),
            source: "test".into(),
            verdict: None,
            adopted: false,
        };
        self.memory.apply(Change::PutImage(image));
        let name: ImageName = name.parse().unwrap();
        self.memory.apply(Change::PutTag(Tag { name, digest, others: Default::default(), history: Vec::new() }));
        digest
    }

    fn assign(&mut self, to: &str) {
        let mut machine = self.memory.machine(MAC).unwrap_or_else(|| Machine::new(MAC, Timestamp(0)));
        machine.assignment = Some(to.parse::<Assignment>().unwrap());
        self.memory.apply(Change::PutMachine(machine));
    }

    /// A decision whose batch is not committed yet, or failed: others see its volatile part, and no record.
    fn run_uncommitted<R, A>(&mut self, request: &R, rule: fn(&R, &View<'_>, &Moment) -> Decision<A>) -> A {
        let memory = self.memory.clone();
        let (answer, _) = self.run(request, rule);
        self.memory = memory;
        answer
    }

    fn script(&mut self) -> Script {
        self.run(&request(MAC), script::decide).0
    }

    fn plan(&mut self) -> Action {
        let token = self.live.boot(MAC).unwrap().token.clone().unwrap();
        let request = PlanRequest { token, origin: "http://10.77.0.1".into() };
        self.run(&request, plan::decide).0.unwrap().action
    }

    fn report(&mut self, step: Step, message: &str) {
        let token = self.live.boot(MAC).unwrap().token.clone().unwrap();
        let report = Report { step, message: message.into(), bytes: 0, uptime_ms: 0, inventory: None };
        let request = ReportRequest { token, report, proof: None, address: ADDRESS, card: None };
        assert_eq!(self.run(&request, report::decide).0, Taken::Noted);
    }

    fn firmware_starts(&mut self) -> Boot {
        self.now += 1000;
        let at = self.moment();
        let record = self.memory.machine(MAC);
        let view = View { records: &self.memory, live: &self.live };
        let boot = Boot::at_dhcp(MAC, record.as_ref(), Asker::Firmware, &view, &at).unwrap().into_owned();
        self.live.apply(Volatile::PutBoot(boot.clone()));
        boot
    }
}

fn blob(n: u8) -> BlobRef {
    BlobRef { digest: Digest([n; 32]), size: 4096 }
}

fn root(kernel: u8) -> Content {
    Content::Root {
        kernel: blob(kernel),
        modules: blob(2),
        root: blob(3),
        filesystem: FileSystem::Squashfs,
        verity: None,
        kernel_release: "6.1.0".into(),
    }
}

fn foreign(efi: Option<BlobRef>) -> Content {
    Content::Foreign { kernel: blob(1), initrds: vec![blob(2)], efi, files: Vec::new() }
}

fn request(mac: MacAddress) -> ScriptRequest {
    let origin = "http://10.77.0.1".into();
    ScriptRequest { mac, facts: Facts::default(), origin, stage1: blob(7), starts: true, vouched: true, tftp: None }
}

fn boot_script(script: Script) -> script::BootScript {
    match script {
        Script::Boot(script) => script,
        other => panic!("not a boot: {other:?}"),
    }
}

#[test]
fn an_assigned_machine_boots_its_image_with_every_initrd_named() {
    let mut world = World::new();
    let digest = world.image("web:v1", root(1));
    world.assign("web:v1");
    let script = boot_script(world.script());
    assert_eq!(script.digest, digest);
    assert_eq!(script.initrds.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["modules.img", "stage1.img"]);
    let token = world.live.boot(MAC).unwrap().token.clone().unwrap();
    assert!(script.arguments.ends_with(&format!("bennu.boot=http://10.77.0.1/boot/{}/", token.0)));
    assert!(script.arguments.starts_with("console=tty0 console=ttyS0,115200 panic=60 quiet"));
    let Action::Boot(plan) = world.plan() else { panic!() };
    assert_eq!((plan.image.as_str(), plan.root.size), ("web:v1", 4096));
}

#[test]
fn an_unsigned_image_boots_as_the_policy_says() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    world.settings.signatures = SignaturePolicy::Warn;
    boot_script(world.script());
    let told = world.live.boot(MAC).unwrap().timeline.iter().any(|seen| seen.seen.to_string().contains("not signed"));
    assert!(told, "{:?}", world.live.boot(MAC).unwrap().timeline);
    // What was pinned under another policy does not boot either.
    world.settings.signatures = SignaturePolicy::Require;
    assert!(matches!(world.plan(), Action::Restart { reason } if reason.contains("not signed")));
    let Script::Refused { reason, advice, .. } = world.script() else { panic!() };
    assert!(reason.contains("not signed") && advice.contains("bennu image sign"), "{reason} {advice}");
    let mut image = world.memory.images().remove(0);
    let key = KeyId { name: "ci".into(), fingerprint: Digest([9; 32]) };
    image.verdict = Some(Verdict::Signed { key, identity: "web".into() });
    world.memory.apply(Change::PutImage(image));
    boot_script(world.script());
    assert!(matches!(world.plan(), Action::Boot(_)));
}

#[test]
fn a_read_blob_is_named_by_its_part_of_the_image() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    boot_script(world.script());
    for (n, expected) in [(1, "kernel"), (2, "modules"), (3, "root"), (7, "stage1"), (8, "")] {
        let seen =
            Seen::BlobRead { digest: Digest([n; 32]), part: String::new(), bytes: 5, complete: true, took_ms: 1 };
        world.live.observe(MAC, Observation::new(Timestamp(world.now), seen));
        let last = &world.live.boot(MAC).unwrap().timeline.last().unwrap().seen;
        assert!(matches!(last, Seen::BlobRead { part, .. } if part == expected), "{last:?}");
    }
    assert_eq!(world.live.boot(MAC).unwrap().bytes, 25);
}

#[test]
fn a_moved_tag_waits_for_the_next_boot() {
    let mut world = World::new();
    let first = world.image("web:v1", root(1));
    world.assign("web:v1");
    let boot = world.firmware_starts();
    assert_eq!(boot.image.unwrap().digest, first);
    let second = Digest([0xee; 32]);
    let mut image = world.memory.image(&first).unwrap();
    image.digest = second;
    world.memory.apply(Change::PutImage(image));
    let name: ImageName = "web:v1".parse().unwrap();
    world.memory.apply(Change::PutTag(Tag { name, digest: second, others: Default::default(), history: Vec::new() }));
    assert_eq!(boot_script(world.script()).digest, first, "pinned when the boot opened");
    world.report(Step::Up, "");
    world.firmware_starts();
    assert_eq!(boot_script(world.script()).digest, second);
}

#[test]
fn later_layers_of_arguments_win() {
    let mut world = World::new();
    world.settings.profiles = vec![Profile {
        name: "test".parse().unwrap(),
        matches: Match { manufacturer: Some("acme".into()), product: None },
        settings: BootSettings {
            consoles: vec!["ttyS1".into()],
            arguments: "quiet=2 iommu=pt".into(),
            ..Default::default()
        },
        example: Fingerprint::default(),
    }];
    world.image("web:v1", root(1));
    let mut machine = Machine::new(MAC, Timestamp(0));
    machine.facts.manufacturer = Some("ACME".into());
    machine.arguments = "iommu=off".into();
    world.memory.apply(Change::PutMachine(machine));
    world.assign("web:v1");
    let script = boot_script(world.script());
    assert!(
        script.arguments.starts_with("panic=60 console=ttyS1 quiet=2 iommu=off bennu.boot="),
        "{}",
        script.arguments
    );
}

#[test]
fn an_unassigned_machine_waits_in_its_loader_until_discovery_exists_and_then_in_discovery() {
    let mut world = World::new();
    assert!(matches!(world.script(), Script::Wait { .. }));
    assert_eq!(world.live.boot(MAC).unwrap().state, State::Waiting);
    world.image(
        "discovery:latest",
        Content::Kernel { kernel: blob(1), modules: blob(2), kernel_release: "6.1.0".into(), layer: None },
    );
    assert!(boot_script(world.script()).discovers);
    assert!(matches!(world.plan(), Action::Discover { .. }));
    world.report(Step::Waiting, "");

    // The same kernel: it goes on in place. Another one: it restarts.
    world.image("web:v1", root(1));
    world.assign("web:v1");
    assert!(matches!(world.plan(), Action::Boot(_)));
    assert!(world.live.boot(MAC).unwrap().timeline.iter().any(|o| matches!(o.seen, Seen::Assigned { .. })));

    let mut other = World::new();
    other.image(
        "discovery:latest",
        Content::Kernel { kernel: blob(1), modules: blob(2), kernel_release: "6.1.0".into(), layer: None },
    );
    boot_script(other.script());
    other.image("web:v2", root(5));
    other.assign("web:v2");
    assert!(matches!(other.plan(), Action::Restart { .. }));
}

#[test]
fn policies_for_unknown_machines() {
    let mut world = World::new();
    world.settings.unknown = UnknownPolicy::Local;
    assert!(matches!(world.script(), Script::Local { .. }));
    assert_eq!(world.live.boot(MAC).unwrap().state, State::Local);
    world.settings.unknown = UnknownPolicy::Ignore;
    let (script, changes) = world.run(&request(MacAddress([2, 0, 0, 0, 0, 9])), script::decide);
    assert!(matches!(script, Script::Refused { .. }));
    assert!(changes.is_empty(), "an ignored machine leaves no trace");
    world.settings.unknown = UnknownPolicy::Image("web:v1".parse().unwrap());
    world.firmware_starts();
    assert!(matches!(world.script(), Script::Refused { reason, .. } if reason.contains("web:v1")));
    world.image("web:v1", root(1));
    boot_script(world.script());
}

#[test]
fn a_loop_of_scripts_is_broken_and_diagnosed_and_a_power_cycle_mends_it() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    let refused = (0..20).find_map(|n| match world.script() {
        Script::Refused { reason, .. } => Some((n, reason)),
        _ => None,
    });
    assert!(matches!(refused, Some((12, reason)) if reason.contains("again and again")));
    let boot = world.live.boot(MAC).unwrap();
    assert_eq!(boot.state, State::Failed);
    assert!(boot.diagnosis.is_some());
    world.firmware_starts();
    boot_script(world.script());
}

#[test]
fn a_card_with_a_known_uuid_joins_its_machine_but_never_takes_over_a_running_boot() {
    let uuid = Some("4c4c4544-0042-4710-8051-b4c04f4d3132".to_owned());
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    let mut first = request(MAC);
    first.facts.uuid.clone_from(&uuid);
    world.run(&first, script::decide);
    let running = world.live.boot(MAC).unwrap().clone();
    let other = MacAddress([0x52, 0x54, 0, 0, 0, 2]);
    let mut second = request(other);
    second.facts.uuid = uuid;
    let (script, changes) = world.run(&second, script::decide);
    assert!(matches!(script, Script::Refused { .. }), "{script:?}");
    assert!(changes.is_empty());
    assert_eq!(world.live.boot(MAC).unwrap().token, running.token);

    // Two silent minutes later it is a machine that came back on another card.
    world.now += 121_000;
    let (script, _) = world.run(&second, script::decide);
    assert!(matches!(script, Script::Boot(_)));
    assert_eq!(world.memory.machine(other).unwrap().id, MAC);
    assert_ne!(world.live.boot(MAC).unwrap().token, running.token);
}

#[test]
fn a_card_that_nobody_saw_leaves_no_record() {
    let mut world = World::new();
    let stranger = ScriptRequest { vouched: false, ..request(MAC) };
    let (script, changes) = world.run(&stranger, script::decide);
    assert!(matches!(script, Script::Refused { .. }));
    assert!(changes.is_empty() && world.live.boot(MAC).is_none());
    // It asked DHCP, also where so many others did that its boot was forgotten, or others give the addresses here: then
    // it may.
    world.firmware_starts();
    assert!(matches!(world.run(&stranger, script::decide).0, Script::Wait { .. }));
    let lease = |expires, declined| {
        let mut world = World::new();
        let subnet = Subnet::new("10.77.0.0/24".parse().unwrap());
        let key = lease_key(subnet.network, MAC);
        world.settings.subnets.push(subnet);
        let (address, granted) = ("10.77.0.9".parse().unwrap(), Timestamp(0));
        let lease = Lease { key, address, granted, expires: Timestamp(expires), hostname: None, declined };
        world.memory.apply(Change::PutLease(lease));
        world.run(&stranger, script::decide).0
    };
    assert!(matches!(lease(9_000_000, false), Script::Wait { .. }));
    assert!(matches!(lease(9_000, false), Script::Refused { .. }), "a lease that has ended says nothing");
    assert!(matches!(lease(9_000_000, true), Script::Refused { .. }), "a quarantined address is nobody's lease");
    let mut proxy = World::new();
    proxy.settings.dhcp = DhcpMode::Proxy;
    assert!(matches!(proxy.run(&stranger, script::decide).0, Script::Wait { .. }));
}

#[test]
fn without_dhcp_of_ours_a_start_of_the_loader_opens_the_next_boot() {
    let mut world = World::new();
    world.settings.dhcp = DhcpMode::Off;
    world.image("web:v1", root(1));
    world.image("web:v2", root(5));
    world.assign("web:v1");
    let first = boot_script(world.script());
    let again = ScriptRequest { starts: false, ..request(MAC) };
    assert_eq!(boot_script(world.run(&again, script::decide).0), first, "asking again is no restart");
    world.assign("web:v2");
    assert_eq!(boot_script(world.script()).image, "web:v2");
    assert_eq!(world.live.take_ended().len(), 1);
}

#[test]
fn a_foreign_image_is_not_called_dead_for_its_silence_and_ours_is() {
    let mut world = World::new();
    world.image("inst:1", foreign(None));
    world.assign("inst:1");
    boot_script(world.script());
    let later = Timestamp(world.now + 600_000);
    assert_eq!(crate::journey::diagnose(world.live.boot(MAC).unwrap(), later), None);
    let mut other = World::new();
    other.image("web:v1", root(1));
    other.assign("web:v1");
    boot_script(other.script());
    let later = Timestamp(other.now + 600_000);
    assert!(crate::journey::diagnose(other.live.boot(MAC).unwrap(), later).unwrap().reason.contains("stage 1"));
}

#[test]
fn each_firmware_starts_what_it_can() {
    let script = |content: Content, firmware: Firmware, tftp: Option<Ipv4Addr>| {
        let mut world = World::new();
        world.image("tool:1", content);
        world.assign("tool:1");
        let facts = Facts { firmware: Some(firmware), ..Facts::default() };
        world.run(&ScriptRequest { facts, tftp, ..request(MAC) }, script::decide).0
    };
    let started = |content: Content, firmware, tftp| {
        let script = boot_script(script(content, firmware, tftp));
        (script.way, script.kernel.url.rsplit('/').next().unwrap()[..2].to_owned(), script.initrds.len())
    };
    let grub = Some(Ipv4Addr::new(10, 77, 0, 1));
    let (bios, uefi) = (Firmware::Bios, Firmware::Uefi);
    let of = |n: &str| n.to_owned();
    assert_eq!(started(foreign(None), bios, None), (Way::Kernel, of("01"), 1));
    assert_eq!(started(foreign(None), uefi, None), (Way::Kernel, of("01"), 1));
    assert_eq!(started(foreign(Some(blob(5))), bios, None), (Way::Kernel, of("01"), 1));
    assert_eq!(started(foreign(Some(blob(5))), uefi, None), (Way::Program, of("05"), 0));
    assert_eq!(started(foreign(Some(blob(5))), uefi, grub), (Way::Program, of("05"), 0));
    let program = || Content::Program { program: blob(6) };
    assert_eq!(started(program(), uefi, None), (Way::Program, of("06"), 0));
    let Script::Refused { reason, .. } = script(program(), bios, None) else { panic!("BIOS starts no EFI program") };
    assert_eq!(reason, "tool:1 is an EFI program, and this machine starts with BIOS");
    let disc = || Content::Disc { disc: blob(8) };
    assert_eq!(started(disc(), bios, None), (Way::Disc, of("08"), 0));
    assert_eq!(started(disc(), uefi, None), (Way::Disc, of("08"), 0));
    assert!(matches!(script(disc(), uefi, grub), Script::Refused { .. }));
}

#[test]
fn a_program_gets_no_arguments_that_are_a_kernels() {
    let mut world = World::new();
    world.image("shell:1", Content::Program { program: blob(6) });
    world.assign("shell:1");
    let facts = Facts { firmware: Some(Firmware::Uefi), ..Facts::default() };
    let script = boot_script(world.run(&ScriptRequest { facts, ..request(MAC) }, script::decide).0);
    assert_eq!(script.arguments, "quiet", "the image's own alone");
}

#[test]
fn a_live_system_is_told_where_its_root_is() {
    let mut world = World::new();
    let file = crate::image::NamedBlob { name: "root.squashfs".into(), blob: blob(7) };
    let live = Content::Foreign { kernel: blob(1), initrds: vec![blob(2)], efi: None, files: vec![file] };
    let digest = world.image("live:1", live);
    let mut image = world.memory.image(&digest).unwrap().clone();
    image.config.cmdline = "boot=live fetch={{url:root.squashfs}}".into();
    world.memory.apply(Change::PutImage(image));
    world.assign("live:1");
    let arguments = boot_script(world.script()).arguments;
    let url = format!("http://10.77.0.1/blobs/sha256/{}/root.squashfs", "07".repeat(32));
    assert!(arguments.ends_with(&format!("boot=live fetch={url}")), "{arguments}");
}

#[test]
fn a_mended_refusal_is_forgotten() {
    let mut world = World::new();
    world.assign("web:v1");
    assert!(matches!(world.script(), Script::Refused { .. }));
    assert!(world.live.boot(MAC).unwrap().diagnosis.is_some());
    world.image("web:v1", root(1));
    boot_script(world.script());
    assert_eq!(world.live.boot(MAC).unwrap().diagnosis, None);
    world.report(Step::Up, "");
    world.report(Step::Failed, "late");
    assert_eq!(world.live.boot(MAC).unwrap().diagnosis, None);
}

#[test]
fn a_damaged_root_ends_a_boot_that_is_up_and_nothing_mends_it() {
    for up_before in [true, false] {
        let mut world = World::new();
        world.image("web:v1", root(1));
        world.assign("web:v1");
        boot_script(world.script());
        world.report(Step::HandedOver, "");
        if up_before {
            world.report(Step::Up, "");
        }
        world.report(Step::Damaged, "block 7 is not what it was");
        world.report(Step::Up, "");
        let boot = world.live.boot(MAC).unwrap();
        assert_eq!(boot.state, State::Failed);
        let diagnosis = boot.diagnosis.as_ref().unwrap();
        assert_eq!(diagnosis.reason, "block 7 is not what it was");
        assert!(diagnosis.advice.contains("memory"));
        if !up_before {
            // A loader that needs no DHCP of ours: the same boot, begun again.
            boot_script(world.script());
            world.report(Step::Up, "");
            assert_eq!(world.live.boot(MAC).unwrap().state, State::Up);
        }
        world.firmware_starts();
        assert_eq!(world.live.boot(MAC).unwrap().diagnosis, None, "a new boot");
    }
}

#[test]
fn failures_and_recoveries_move_the_state_and_the_diagnosis() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    boot_script(world.script());
    world.report(Step::Started, "");
    world.report(Step::Failed, "the root's digest is wrong");
    let boot = world.live.boot(MAC).unwrap();
    assert_eq!(boot.state, State::Failed);
    assert_eq!(boot.diagnosis.as_ref().unwrap().reason, "the root's digest is wrong");
    world.report(Step::Downloading, "");
    assert_eq!(world.live.boot(MAC).unwrap().state, State::Stage1);
    assert_eq!(world.live.boot(MAC).unwrap().diagnosis, None);
    world.report(Step::Up, "");
    assert_eq!(world.live.boot(MAC).unwrap().state, State::Up);
    world.report(Step::HandedOver, "late");
    assert_eq!(world.live.boot(MAC).unwrap().state, State::Up);
    let ended = world.live.boot(MAC).unwrap().id.clone();
    world.firmware_starts();
    let ended_boot = world.live.take_ended().into_iter().find(|boot| boot.id == ended).unwrap();
    assert_eq!(ended_boot.state, State::Up, "a boot that came up stays up in the history");
}

#[test]
fn explain_mints_nothing_and_shows_the_next_boot() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    let (explained, changes) = world.run(&request(MAC), explain::decide);
    assert!(changes.is_empty());
    assert!(world.live.boot(MAC).is_none());
    assert!(boot_script(explained.script).arguments.contains("/boot/00000000000000000000000000000000/"));
    assert!(matches!(explained.plan.unwrap().action, Action::Boot(_)));
}

#[test]
fn a_local_bios_is_told_apart_from_uefi() {
    let mut world = World::new();
    world.assign("local");
    let mut asked = request(MAC);
    asked.facts.firmware = Some(Firmware::Bios);
    let (script, _) = world.run(&asked, script::decide);
    assert!(matches!(script, Script::Local { firmware: Some(Firmware::Bios), .. }));
}

#[test]
fn a_token_that_is_not_on_record_yet_is_written_before_its_script_leaves() {
    let mut world = World::new();
    world.image("web:v1", root(1));
    world.assign("web:v1");
    let Script::Boot(lost) = world.run_uncommitted(&request(MAC), script::decide) else { panic!() };
    // Its volatile part is there, and says nothing: whoever asks next waits for the disk like the first.
    let token = world.live.boot(MAC).unwrap().token.clone().unwrap();
    let (again, changes) = world.run(&request(MAC), script::decide);
    let written = changes.iter().find_map(|change| match change {
        Change::PutBoot(boot) => boot.token.clone(),
        _ => None,
    });
    assert_eq!((boot_script(again), written), (lost, Some(token)));
    let (_, changes) = world.run(&request(MAC), script::decide);
    assert!(changes.is_empty(), "once it is on record, nothing more is written: {changes:?}");
}

#[test]
fn an_image_that_was_pinned_in_vain_is_pinned_on_record_before_its_plan_leaves() {
    let mut world = World::new();
    world.image(
        "discovery:latest",
        Content::Kernel { kernel: blob(1), modules: blob(2), kernel_release: "6.1.0".into(), layer: None },
    );
    boot_script(world.script());
    let digest = world.image("web:v1", root(1));
    world.assign("web:v1");
    let token = world.live.boot(MAC).unwrap().token.clone().unwrap();
    let asked = PlanRequest { token, origin: "http://10.77.0.1".into() };
    world.run_uncommitted(&asked, plan::decide).unwrap();
    let (plan, changes) = world.run(&asked, plan::decide);
    assert!(matches!(plan.unwrap().action, Action::Boot(_)));
    assert!(
        changes
            .iter()
            .any(|change| matches!(change, Change::PutBoot(boot) if boot.image.as_ref().unwrap().digest == digest))
    );
    assert!(world.run(&asked, plan::decide).1.is_empty());
}
