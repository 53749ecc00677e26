//! Which boot script a machine's loader gets.

use super::{Boot, BootId, Pinned, State, arguments, metadata, mint_token, pin};
use crate::{
    Change, Decision, MacAddress, Machine, Moment, View, Volatile,
    assignment::{Origin, Resolution, resolve},
    decision::lease_key,
    facts::{Facts, Firmware},
    image::{BlobRef, Content, Digest, Image, ImageReference},
    journey::{Observation, ScriptKind, Seen},
    profile::Profile,
    settings::DhcpMode,
    signature::Judgement,
};
use serde::Serialize;
use std::net::Ipv4Addr;

/// A loader asks what to do.
#[derive(Debug, Clone)]
pub struct ScriptRequest {
    /// The card it booted from.
    pub mac: MacAddress,
    /// What it said of the hardware.
    pub facts: Facts,
    /// Where the machine reaches us, such as `http://10.77.0.1`.
    pub origin: String,
    /// The initrd with our stage 1.
    pub stage1: BlobRef,
    /// Whether a loader asks that has just started: the entry script says what it knows of the hardware, the scripts that
    /// ask again do not.
    pub starts: bool,
    /// Whether the asker's address is this card's, by a lease or by the neighbour table.
    pub vouched: bool,
    /// Where GRUB, which asks, reaches our TFTP server. Without it iPXE asks, and fetches over HTTP.
    pub tftp: Option<Ipv4Addr>,
}

/// A file and the name a script gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedUrl {
    /// Name, as `initrd=` uses it.
    pub name: String,
    /// Absolute URL; for GRUB a file with its device.
    pub url: String,
}

/// What a loader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Start this.
    Boot(BootScript),
    /// Ask again in a while.
    Wait {
        /// For the console.
        machine: MacAddress,
        /// Where to ask again.
        again: String,
    },
    /// Start again: the loaders that run would not start the image's kernel.
    Restart {
        /// For the console.
        machine: MacAddress,
        /// Why.
        reason: String,
    },
    /// Boot the machine's own disk.
    Local {
        /// For the console.
        machine: MacAddress,
        /// Decides how.
        firmware: Option<Firmware>,
    },
    /// Nothing to boot, and why.
    Refused {
        /// For the console.
        machine: MacAddress,
        /// What happened.
        reason: String,
        /// What to do next.
        advice: String,
        /// Where to ask again, after a while.
        again: String,
    },
}

/// How a loader starts what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As a Linux kernel with initrds.
    Kernel,
    /// As a program of the firmware's own kind.
    Program,
    /// As a disc in a drive.
    Disc,
}

/// A kernel with all it needs, or what is started in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootScript {
    /// For the console.
    pub machine: MacAddress,
    /// For the console.
    pub boot: BootId,
    /// Whether it boots to be discovered.
    pub discovers: bool,
    /// The image as a person wrote it.
    pub image: String,
    /// The image.
    pub digest: Digest,
    /// How it starts.
    pub way: Way,
    /// The URL of the kernel, the program or the disc.
    pub kernel: NamedUrl,
    /// Initrds in their order.
    pub initrds: Vec<NamedUrl>,
    /// Kernel arguments, but for those that the loader itself knows (addresses and `BOOTIF`).
    pub arguments: String,
    /// Whether stage 1 runs, and so needs the loader's address.
    pub stage1: bool,
    /// Where to ask again when a download fails.
    pub again: String,
}

/// Boot scripts handed out in one boot without one report in between; more is a loop. A script asks again after a
/// failed download, so a few repetitions are no sign of one.
const MAX_SCRIPTS: u32 = 12;

/// A boot that was heard of within this time goes on.
const BUSY_MS: u64 = 120_000;

/// What one machine would boot, and all that led to it.
struct Case<'a> {
    request: &'a ScriptRequest,
    machine: Machine,
    boot: Boot,
    profile: Option<&'a Profile>,
    view: &'a View<'a>,
}

/// Decides what the loader of a machine gets. Mints the boot's token with its first boot script; later ones are the same.
pub fn decide(request: &ScriptRequest, view: &View<'_>, at: &Moment) -> Decision<Script> {
    let of_card = view.records.machine(request.mac);
    let joins = of_card.is_none().then(|| joined_by_uuid(request, view)).flatten();
    if let Some(machine) = joins.as_ref().filter(|machine| is_busy(machine.id, view, at)) {
        let reason = format!("it says that it is a card of {}, which is booting from another card", machine.id);
        let advice = format!("If it is, wait a moment or join them: bennu machine join {} {}", machine.id, request.mac);
        return Decision::just(refused(request, &reason, &advice));
    }
    let is_joining = joins.is_some();
    let known = of_card.or(joins);
    let is_known = known.is_some();
    if !is_known && !may_introduce_itself(request, view, at) {
        let reason = "nobody has seen this card ask DHCP, and a machine is not put on record for a web request";
        return Decision::just(refused(
            request,
            reason,
            "Power-cycle it, or declare it: bennu machine assign MAC IMAGE",
        ));
    }
    let mut machine = known.clone().unwrap_or_else(|| Machine::new(request.mac, at.now));
    machine.facts.absorb(&request.facts);
    if !machine.macs.contains(&request.mac) {
        machine.macs.push(request.mac);
        if is_joining {
            machine.unvouched.insert(request.mac);
        }
    }
    let resolution = resolve(Some(&machine), view.records, &at.settings);
    if resolution == Resolution::Ignore {
        let reason = "this machine has no assignment, and machines without one are ignored";
        return Decision::just(refused(request, reason, "Assign an image to it: bennu machine assign MAC IMAGE"));
    }
    let mut changes = Vec::new();
    let (mut boot, mut volatile) = open_boot(request, &machine, is_known, is_joining, view, at);
    // What the machine tells of itself only now may be what a rule looks at. Nothing was handed out yet.
    if boot.token.is_none() && boot.image.is_some() && known.as_ref().map(|known| &known.facts) != Some(&machine.facts)
    {
        let before = resolve(known.as_ref(), view.records, &at.settings);
        boot.image = boot.image.filter(|_| before == resolution);
    }
    if let Some(signs) = boot.chain.learn(request.tftp.is_some(), machine.signed_loader.is_some()) {
        machine.signed_loader = signs.then_some(at.now);
    }
    if known.as_ref() != Some(&machine) {
        changes.push(Change::PutMachine(machine.clone()));
    }
    let profile = at.settings.profile(&machine.facts);
    let case = Case { request, machine, boot, profile, view };
    let mut decision = case.answer(resolution, at);
    decision.changes.splice(0..0, changes);
    volatile.append(&mut decision.volatile);
    decision.volatile = volatile;
    decision
}

/// Another card of a machine we know joins it when both say the same sane UUID and only one machine says it.
fn joined_by_uuid(request: &ScriptRequest, view: &View<'_>) -> Option<Machine> {
    let mut found = view.records.machines_with_uuid(&request.facts.sane_uuid()?);
    if found.len() == 1 { found.pop() } else { None }
}

/// A machine that boots right now does not hand its boot, and with it the token, to another card that says the same
/// UUID: firmware broadcasts it in option 97, so everybody on the wire knows it.
fn is_busy(machine: MacAddress, view: &View<'_>, at: &Moment) -> bool {
    let heard = |boot: &Boot| boot.timeline.last().map_or(boot.opened, |last| last.until.unwrap_or(last.at));
    view.live
        .boot(machine)
        .is_some_and(|boot| boot.is_open() && boot.token.is_some() && at.now.since(heard(boot)) < BUSY_MS)
}

/// In full mode every machine that boots has asked us for its address first, and holds a lease even where its boot was
/// forgotten. So a request with an invented MAC leaves no record; where others give the addresses nobody can tell.
fn may_introduce_itself(request: &ScriptRequest, view: &View<'_>, at: &Moment) -> bool {
    let leases =
        || at.settings.subnets.iter().filter_map(|subnet| view.records.lease(&lease_key(subnet.network, request.mac)));
    at.settings.dhcp != DhcpMode::Full
        || request.vouched
        || view.live.boot(request.mac).is_some()
        || leases().any(|lease| lease.is_active(at.now) && !lease.declined)
}

/// The machine's open boot, or a new one where DHCP did not open any (it may be somebody else's).
fn open_boot(
    request: &ScriptRequest,
    machine: &Machine,
    is_known: bool,
    is_joining: bool,
    view: &View<'_>,
    at: &Moment,
) -> (Boot, Vec<Volatile>) {
    // Without DHCP of ours a start of the loader is all that we see of a restart.
    let is_restart = |boot: &Boot| at.settings.dhcp == DhcpMode::Off && request.starts && boot.state > State::Waiting;
    let current = view.live.boot(machine.id).filter(|boot| boot.is_open() && !is_joining && !is_restart(boot));
    if let Some(boot) = current {
        return (boot.clone(), Vec::new());
    }
    // DHCP knew only the card; now we know whose it is.
    if let Some(boot) = view.live.boot(request.mac).filter(|boot| boot.is_open() && boot.machine != machine.id) {
        let boot = Boot { machine: machine.id, ..boot.clone() };
        return (boot.clone(), vec![Volatile::DropBoot(request.mac), Volatile::PutBoot(boot)]);
    }
    let boot = Boot::open(machine.id, is_known.then_some(machine), view, at);
    (boot.clone(), vec![Volatile::PutBoot(boot)])
}

fn again(request: &ScriptRequest) -> String {
    format!("{}/boot/{}.ipxe", request.origin, request.mac.hyphened())
}

fn refused(request: &ScriptRequest, reason: &str, advice: &str) -> Script {
    Script::Refused { machine: request.mac, reason: reason.into(), advice: advice.into(), again: again(request) }
}

impl Case<'_> {
    fn answer(mut self, resolution: Resolution, at: &Moment) -> Decision<Script> {
        if self.boot.scripts >= MAX_SCRIPTS {
            let reason = "this boot asked for its script again and again without ever starting it";
            return self.refuse(
                reason,
                "Power-cycle the machine; if it comes back, try another loader in its hardware profile",
                at,
            );
        }
        // What was pinned when the boot opened holds for the whole boot.
        let wanted = match (&self.boot.image, resolution) {
            (Some(Pinned { reference, digest }), _) => {
                Resolution::Image { reference: reference.clone(), digest: *digest, origin: Origin::Machine }
            }
            (None, resolution) => resolution,
        };
        match wanted {
            Resolution::Image { ref reference, digest, .. } => match self.view.records.image(&digest) {
                Some(image) => {
                    let was_pinned = self.boot.image.is_some();
                    self.boot.image = pin(&wanted);
                    let mut decision = self.start(&reference.clone(), &image, at);
                    if !was_pinned {
                        let seen = Seen::Assigned { image: reference.to_string(), digest };
                        decision.observed.insert(0, (self.machine.id, Observation::new(at.now, seen)));
                    }
                    decision
                }
                None => self.missing(reference, at),
            },
            Resolution::Missing { reference, origin: Origin::Rule { name } } => {
                let reason = format!("the image {reference} that the rule '{name}' gives it does not exist");
                let advice = "Import it, or give the rule another: bennu image list, bennu rule set NAME IMAGE";
                self.refuse(&reason, advice, at)
            }
            Resolution::Missing { reference, .. } => self.missing(&reference, at),
            Resolution::Discover { digest } => match self.view.records.image(&digest) {
                Some(image) => self.start(&at.settings.discovery_image.clone(), &image, at),
                None => self.simple(
                    Script::Wait { machine: self.request.mac, again: again(self.request) },
                    ScriptKind::Wait,
                    at,
                ),
            },
            Resolution::Wait | Resolution::Ignore => self.simple(
                Script::Wait { machine: self.request.mac, again: again(self.request) },
                ScriptKind::Wait,
                at,
            ),
            Resolution::Local { .. } => {
                let script = Script::Local { machine: self.request.mac, firmware: self.machine.facts.firmware };
                self.simple(script, ScriptKind::Local, at)
            }
        }
    }

    fn missing(&self, reference: &ImageReference, at: &Moment) -> Decision<Script> {
        let reason = format!("the image {reference} that it is assigned to does not exist");
        self.refuse(&reason, "Import it, or assign another: bennu image list, bennu machine assign MAC IMAGE", at)
    }

    fn refuse(&self, reason: &str, advice: &str, at: &Moment) -> Decision<Script> {
        let mut decision = self.simple(refused(self.request, reason, advice), ScriptKind::Refused, at);
        if let Some((_, Observation { seen: Seen::ScriptRead { detail, .. }, .. })) = decision.observed.last_mut() {
            reason.clone_into(detail);
        }
        decision
    }

    fn simple(&self, script: Script, kind: ScriptKind, at: &Moment) -> Decision<Script> {
        let seen = Seen::ScriptRead { script: kind, detail: String::new() };
        Decision { observed: vec![(self.machine.id, Observation::new(at.now, seen))], ..Decision::just(script) }
    }

    /// Hands out a kernel; the boot and its token are durable before the script leaves.
    fn start(&mut self, reference: &ImageReference, image: &Image, at: &Moment) -> Decision<Script> {
        let content = &image.config.content;
        let mut notice = String::new();
        match image.judged(at.settings.signatures) {
            Judgement::Boots => {}
            Judgement::BootsWithNotice(said) => notice = format!("; {said}"),
            Judgement::Refused(reason) => {
                let advice =
                    "Sign it (cosign sign, bennu image sign), or assign another: bennu machine assign MAC IMAGE";
                return self.refuse(&reason, advice, at);
            }
        }
        if self.request.tftp.is_some() && self.needs_other_loaders(image) {
            let reason = format!("the loaders that run are not those that {reference} brings for its kernel");
            let script = Script::Restart { machine: self.request.mac, reason };
            return self.simple(script, ScriptKind::Restart, at);
        }
        let (way, started) = match self.started(content) {
            Ok(started) => started,
            Err((reason, advice)) => return self.refuse(&format!("{reference} {reason}"), advice, at),
        };
        let before = self.boot.clone();
        let mut changes = Vec::new();
        let mut has_ignition = false;
        if matches!(content, Content::Root { .. } | Content::Foreign { .. }) {
            let case = metadata::Case {
                machine: &self.machine,
                reference,
                digest: image.digest,
                origin: &self.request.origin,
                settings: &at.settings,
            };
            match metadata::give(&mut self.boot, &case, self.view.records) {
                Ok(given) => {
                    notice += &given.told();
                    has_ignition = given.merged.ignition.is_some();
                    changes.extend(given.change);
                }
                Err(unrendered) => return self.refuse(&unrendered.to_string(), metadata::ADVICE, at),
            }
        }
        if !has_ignition && arguments::names(&image.config.cmdline, arguments::IGNITION) {
            let reason =
                format!("the arguments of {reference} name {{{{ignition}}}}, and no metadata document gives one");
            return self.refuse(&reason, "Write a document with `ignition` for this machine: bennu metadata set", at);
        }
        let token = self.boot.token.get_or_insert_with(|| mint_token(at)).clone();
        let uses_stage1 = content.has_stage1();
        self.boot.kernel = Some(content.kernel().digest);
        self.boot.stage1 = uses_stage1.then_some(self.request.stage1.digest);
        self.boot.name_parts(content);
        if uses_stage1 {
            self.boot.parts.insert(self.request.stage1.digest, "stage1".into());
        }
        let discovers = matches!(content, Content::Kernel { .. });
        let base = format!("{}/boot/{}/", self.request.origin, token.0);
        let script = Script::Boot(BootScript {
            machine: self.request.mac,
            boot: self.boot.id.clone(),
            discovers,
            image: reference.to_string(),
            digest: image.digest,
            way,
            kernel: NamedUrl { name: "kernel".into(), url: self.blob_url(started) },
            initrds: if way == Way::Kernel { self.initrds(content) } else { Vec::new() },
            arguments: self.arguments(image, &base, uses_stage1),
            stage1: uses_stage1,
            again: again(self.request),
        });
        let kind = match content {
            Content::Root { .. } => ScriptKind::Boot,
            Content::Kernel { .. } => ScriptKind::Discover,
            Content::Foreign { .. } | Content::Program { .. } | Content::Disc { .. } => ScriptKind::Foreign,
        };
        let detail = format!("{reference} ({}){notice}", image.digest.short());
        let seen = Observation::new(at.now, Seen::ScriptRead { script: kind, detail });
        let mut decision = Decision { changes, observed: vec![(self.machine.id, seen)], ..Decision::just(script) };
        if self.boot != before || !self.boot.is_on_record(self.view.records) {
            decision.changes.push(Change::PutBoot(self.boot.clone()));
            decision.volatile.push(Volatile::PutBoot(self.boot.clone()));
        }
        decision
    }

    /// What this firmware starts of an image, and how; or why it cannot, and what to do.
    fn started<'a>(&self, content: &'a Content) -> Result<(Way, &'a BlobRef), (&'static str, &'static str)> {
        // GRUB comes from us to UEFI alone.
        let is_uefi = self.request.tftp.is_some() || self.machine.facts.firmware == Some(Firmware::Uefi);
        match content {
            Content::Foreign { efi: Some(program), .. } if is_uefi => Ok((Way::Program, program)),
            Content::Root { kernel, .. } | Content::Kernel { kernel, .. } | Content::Foreign { kernel, .. } => {
                Ok((Way::Kernel, kernel))
            }
            Content::Program { program } if is_uefi => Ok((Way::Program, program)),
            Content::Program { .. } => Err((
                "is an EFI program, and this machine starts with BIOS",
                "Let the machine start with UEFI (its set-up), or assign another image to it",
            )),
            Content::Disc { .. } if self.request.tftp.is_some() => Err((
                "is a whole disc, and GRUB, which Secure Boot brings here, cannot start one",
                "Switch Secure Boot off, or assign another image to the machine",
            )),
            Content::Disc { disc } => Ok((Way::Disc, disc)),
        }
    }

    /// A kernel is started by the shim and GRUB of its own vendor, where the image has them: another vendor's do not
    /// trust it. They were chosen when the boot began, which may have been before its assignment.
    fn needs_other_loaders(&self, image: &Image) -> bool {
        let chain = &self.boot.chain;
        chain.signed && image.config.signed.is_some() && chain.image != Some(image.digest) && {
            let running = chain.image.and_then(|digest| self.view.records.image(&digest));
            running.and_then(|image| image.config.signed) != image.config.signed
        }
    }

    fn blob_url(&self, blob: &BlobRef) -> String {
        match self.request.tftp {
            None => blob_url(&self.request.origin, &blob.digest),
            Some(server) => format!("(tftp,{server})/blobs/sha256/{}", blob.digest.hex()),
        }
    }

    fn initrds(&self, content: &Content) -> Vec<NamedUrl> {
        let named = |name: &str, blob: &BlobRef| NamedUrl { name: name.to_owned(), url: self.blob_url(blob) };
        match content {
            Content::Root { modules, .. } | Content::Kernel { modules, .. } => {
                vec![named("modules.img", modules), named("stage1.img", &self.request.stage1)]
            }
            Content::Foreign { initrds, .. } => {
                initrds.iter().enumerate().map(|(n, blob)| named(&format!("initrd{n}.img"), blob)).collect()
            }
            Content::Program { .. } | Content::Disc { .. } => Vec::new(),
        }
    }

    /// The image's own arguments, with the URLs of its files and of its boot's metadata, which are fetched over HTTP whoever
    /// loads the kernel.
    fn filled(&self, image: &Image, base: &str) -> String {
        let Content::Foreign { files, .. } = &image.config.content else { return image.config.cmdline.clone() };
        let filled = arguments::filled(&image.config.cmdline, |name| {
            let file = files.iter().find(|file| file.name == name)?;
            Some(format!("{}/", blob_url(&self.request.origin, &file.blob.digest)))
        });
        arguments::with_metadata(filled, base)
    }

    fn arguments(&self, image: &Image, base: &str, uses_stage1: bool) -> String {
        if let Content::Program { .. } = image.config.content {
            // Who knows what it makes of a kernel's.
            return arguments::join(&[&image.config.cmdline, &self.machine.arguments]);
        }
        let (consoles, of_profile) = self.profile.map_or((String::new(), String::new()), |profile| {
            let consoles =
                profile.settings.consoles.iter().map(|console| format!("console={console}")).collect::<Vec<_>>();
            (consoles.join(" "), profile.settings.arguments.clone())
        });
        let mut ours = match uses_stage1 {
            true => format!("{}={base}", bennu_plan::ARG_BOOT),
            false => String::new(),
        };
        if self.request.tftp.is_some() {
            // iPXE's script adds this by itself, and its address. GRUB knows no netmask and no router, so stage 1 asks
            // DHCP for its own.
            ours = format!("{ours} {}=01-{}", bennu_plan::ARG_BOOTIF, self.request.mac.hyphened());
        }
        // A kernel that panics before stage 1 can speak would stay dead until somebody comes.
        let ours_first = if uses_stage1 { "panic=60" } else { "" };
        arguments::with_consoles(arguments::join(&[
            ours_first,
            &self.filled(image, base),
            &consoles,
            &of_profile,
            &self.machine.arguments,
            &ours,
        ]))
    }
}

/// Where a blob is fetched.
pub fn blob_url(origin: &str, digest: &Digest) -> String {
    format!("{origin}/blobs/sha256/{}", digest.hex())
}
