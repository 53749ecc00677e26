//! What a boot's machine is given beside its image: settled once, with the image.

use super::{Boot, Token};
use crate::{
    Change, Decision, Machine, Moment, Records, View,
    image::{Digest, ImageReference},
    metadata::{self, Merged, Occasion, Rendered, Unrendered},
    settings::Settings,
};

/// What to do about documents that do not come to anything.
pub const ADVICE: &str =
    "Mend the document or the machine's labels: bennu metadata render MAC shows what comes of them";

/// A machine that boots an image.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The image as a person wrote it.
    pub reference: &'a ImageReference,
    /// The image.
    pub digest: Digest,
    /// Where the machine reaches us.
    pub origin: &'a str,
    /// The configuration.
    pub settings: &'a Settings,
}

/// What a machine is given.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What its documents say.
    pub merged: Merged,
    /// What makes it hold for the whole boot, where it was settled just now.
    pub change: Option<Change>,
}

impl Given {
    /// For the boot's timeline, behind what it was given else.
    pub fn told(&self) -> String {
        match self.merged.documents.as_slice() {
            [] => String::new(),
            names => {
                let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                format!("; metadata {}", names.join(", "))
            }
        }
    }
}

/// What a boot's machine is given: what was settled before, else what its documents say now.
pub fn give(boot: &mut Boot, case: &Case<'_>, records: &dyn Records) -> Result<Given, Unrendered> {
    if let Some(settled) = settled(boot, records) {
        return Ok(Given { merged: settled, change: None });
    }
    let occasion = Occasion { boot, reference: case.reference, digest: case.digest, origin: case.origin };
    let merged = match &occasion.boot.metadata {
        // None applied when it was settled.
        Some(names) if names.is_empty() => metadata::without_documents(case.machine),
        _ => metadata::render(case.machine, &occasion, records, case.settings)?,
    };
    boot.metadata = Some(merged.documents.clone());
    let rendered = || Rendered { machine: boot.machine, boot: boot.id.clone(), merged: merged.clone() };
    let change = (!merged.documents.is_empty()).then(|| Change::PutRendered(rendered()));
    Ok(Given { merged, change })
}

fn settled(boot: &Boot, records: &dyn Records) -> Option<Merged> {
    boot.metadata.as_ref().filter(|names| !names.is_empty())?;
    let rendered = records.rendered(boot.machine).filter(|rendered| rendered.boot == boot.id)?;
    Some(rendered.merged)
}

/// The booted system asks for its metadata under its boot's token.
#[derive(Debug, Clone)]
pub struct MetadataRequest {
    /// From the kernel's arguments.
    pub token: Token,
}

/// What a boot was given. `None`: the token opens no boot, or no document applied to it.
pub fn decide(request: &MetadataRequest, view: &View<'_>, _at: &Moment) -> Decision<Option<(Boot, Merged)>> {
    // The token stands in /proc/cmdline. Where stage 1 lays the data down for root alone, nobody else fetches it later.
    let is_closed = |boot: &&Boot| boot.stage1.is_some() && super::session::is_over(boot);
    let boot = view.live.boot_by_token(&request.token).filter(|boot| !is_closed(boot));
    Decision::just(boot.and_then(|boot| Some((boot.clone(), settled(boot, view.records)?))))
}
