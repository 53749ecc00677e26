//! What shim and GRUB fetch: signed loaders of images, and boot scripts in GRUB's language.

use super::content::{Content, Found, Wanted};
use crate::{appliance::Appliance, config::http_origin, http::boot::refuse_stranger};
use bennu_rules::{
    MacAddress, Records,
    boot::{
        chain::{GRUB, OF_IMAGES, SHIM},
        script::{self, Script, ScriptRequest},
    },
    facts::{Architecture, Facts, Firmware},
    image::Digest,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// SUSE's shim asks for its GRUB by this name.
const GRUB_OF_SUSE: &str = "grub.efi";

/// `signed/<image>/shimx64.efi` and `…/grubx64.efi`, which shim asks for beside itself: the loaders that an image
/// brings for its kernel.
pub async fn loader_of_image(appliance: Arc<Appliance>, wanted: Wanted) -> Option<Found> {
    let (image, file) = wanted.name.strip_prefix(OF_IMAGES)?.strip_prefix('/')?.split_once('/')?;
    let image = Digest::from_hex(image).ok()?;
    let image = appliance.ledger.stored(|records| records.image(&image)).ok()??;
    let signed = image.config.signed?;
    let blob = match file {
        SHIM => signed.shim,
        GRUB | GRUB_OF_SUSE => signed.grub,
        _ => return None,
    };
    match appliance.store.open_blob(&blob.digest) {
        Ok((file, size)) => Some(Content::File(Arc::new(file), size).into()),
        Err(error) => {
            tracing::error!(%error, "the loaders of an image cannot be served");
            None
        }
    }
}

/// GRUB's first configuration. Where it looks for it is built in, and each vendor's has another place: Debian's
/// `grub/grub.cfg`, Red Hat's and SUSE's beside GRUB itself.
pub async fn entry(_: Arc<Appliance>, wanted: Wanted) -> Option<Found> {
    let IpAddr::V4(server) = wanted.local.to_canonical() else { return None };
    // Debian's GRUB looks for one of its platform before, and goes on at once without.
    let (directory, file) = wanted.name.rsplit_once('/').unwrap_or(("", &wanted.name));
    if file != "grub.cfg" || directory.ends_with("x86_64-efi") {
        return None;
    }
    Some(Content::Memory(bennu_ipxe::grub::entry(server).into()).into())
}

/// `boot/<mac>/grub.cfg`, and `again.cfg` from then on: the machine's own script. Like iPXE's it goes to that machine's
/// card alone, since it holds the token of the boot.
pub async fn script(appliance: Arc<Appliance>, wanted: Wanted) -> Option<Found> {
    let (mac, file) = wanted.name.strip_prefix("boot/")?.split_once('/')?;
    let mac: MacAddress = mac.parse().ok()?;
    let starts = match file {
        "grub.cfg" => true,
        "again.cfg" => false,
        _ => return None,
    };
    let IpAddr::V4(server) = wanted.local.to_canonical() else { return None };
    let text = match refuse_stranger(&appliance, mac, wanted.peer, "") {
        Some(refusal) => rendered(&refusal),
        None => decided(&appliance, mac, wanted.peer, server, starts).await,
    };
    Some(Found { is_told: false, ..Content::Memory(text.into()).into() })
}

async fn decided(appliance: &Appliance, mac: MacAddress, peer: IpAddr, server: Ipv4Addr, starts: bool) -> String {
    // GRUB's name for its build is all that it tells.
    let facts = Facts { architecture: Some(Architecture::X86_64), firmware: Some(Firmware::Uefi), ..Facts::default() };
    let request = ScriptRequest {
        mac,
        facts,
        origin: http_origin(server, appliance.config.settings.http_port),
        stage1: appliance.stage1.clone(),
        starts,
        vouched: appliance.machine_at(peer) == Some(mac),
        tftp: Some(server),
    };
    match appliance.ledger.decide(request, script::decide).await {
        Ok(script) => rendered(&script),
        Err(fault) => failed(&fault.to_string()),
    }
}

fn rendered(script: &Script) -> String {
    bennu_ipxe::grub::render(script).unwrap_or_else(|error| failed(&error.to_string()))
}

fn failed(reason: &str) -> String {
    tracing::error!(reason, "cannot give a boot script");
    bennu_ipxe::grub::failure(reason)
}
