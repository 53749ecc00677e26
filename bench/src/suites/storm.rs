//! A rack whose machines are all switched on at once.

use anyhow::Result;
use std::fs;

use super::{Run, http, rotated};
use crate::{
    contenders::{self, DNSMASQ, NGINX, OURS, Ours},
    lab::{POOL, RELAY, SERVER},
    load::{Fetch, Load, Storm, Wanted},
    servers::{Running, Serves},
};

/// Machines at once.
pub const STORM: &str = "boot storm, 200 machines";

/// The peers of ours in it.
pub fn peers() -> String {
    format!("{DNSMASQ} + {NGINX}")
}

/// A round of both.
pub fn round(run: &mut Run<'_>, round: u32) -> Result<()> {
    let lab = run.lab;
    let dir = lab.home().dir().join("storm");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    http::import(lab, "storm", "http/kernel", "http/initrd")?;
    let serves = &[Serves::Dhcp, Serves::Tftp("snponly.efi"), Serves::Http("boot.ipxe")];
    let ours = Ours { home: "storm", pool: POOL, loaders: Some("loader"), unknown: http::IMAGE, serves }.spec(lab)?;
    let theirs = vec![contenders::dnsmasq(lab, &[Serves::Dhcp, Serves::Tftp("snponly.efi")])?, contenders::nginx(lab)?];
    for stack in rotated(vec![vec![ours], theirs], round) {
        let servers = Running::start(lab, &stack)?;
        let is_ours = servers.name() == OURS;
        let file = |name: &str, ours: String| -> Result<Fetch> {
            let size = lab.files().size(&format!("http/{name}")).unwrap_or_default();
            let path = if is_ours { ours } else { format!("/{name}") };
            Ok(Fetch { name: name.to_owned(), path, wanted: Wanted::Bytes(size) })
        };
        let blob = |name: &str| -> Result<String> {
            Ok(format!("/blobs/sha256/{}", lab.files().sha256(&format!("http/{name}"))?))
        };
        let mut script = file("script", "/boot/{mac}.ipxe".to_owned())?;
        if is_ours {
            script.wanted = Wanted::Text("kernel".to_owned());
        }
        let load = Storm {
            server: SERVER,
            relay: RELAY,
            first: 0,
            machines: 200,
            loader: "snponly.efi".to_owned(),
            fetches: vec![script, file("kernel", blob("kernel")?)?, file("initrd", blob("initrd")?)?],
        };
        run.measure(round, STORM, &servers, &Load::Storm(load))?;
    }
    Ok(())
}
