//! Images and boot scripts.

use anyhow::Result;

use super::{Run, rotated};
use crate::{
    contenders::{self, OURS, Ours, bennu, leased},
    lab::{LARGE_POOL, Lab, SERVER, unleased},
    load::{Load, Scripts, Streams},
    servers::{Running, Serves, Spec},
};

/// One machine's image.
pub const ALONE: &str = "1 GiB, 1 stream";
/// A few machines' image.
pub const EIGHT: &str = "1 GiB, 8 streams";
/// Boot scripts of machines that begin a boot: each is durable before it leaves.
pub const NEW_SCRIPTS: &str = "boot scripts, new boots";
/// Boot scripts asked for again.
pub const SCRIPTS: &str = "boot scripts, repeated";

/// The image's name.
pub const IMAGE: &str = "bench:v1";

/// A round of both servers.
pub fn round(run: &mut Run<'_>, round: u32) -> Result<()> {
    let lab = run.lab;
    if round == 1 {
        import(lab, "http", "http/kernel", "http/1g.bin")?;
    }
    let blob = format!("/blobs/sha256/{}", lab.files().sha256("http/1g.bin")?);
    for stack in rotated(vec![vec![ours(lab, IMAGE)?], vec![contenders::nginx(lab)?]], round) {
        let servers = Running::start(lab, &stack)?;
        let path = if servers.name() == OURS { blob.as_str() } else { "/1g.bin" };
        let streams = |streams, turns| {
            let size = lab.files().size("http/1g.bin");
            Load::Streams(Streams { server: SERVER, path: path.to_owned(), size, streams, turns })
        };
        run.measure(round, ALONE, &servers, &streams(1, if run.quick { 2 } else { 6 }))?;
        run.measure(round, EIGHT, &servers, &streams(8, if run.quick { 1 } else { 2 }))?;
        scripts(run, round, &servers)?;
    }
    Ok(())
}

fn ours(lab: &Lab, unknown: &str) -> Result<Spec> {
    let serves = &[Serves::Dhcp, Serves::Http("boot.ipxe")];
    Ours { home: "http", pool: LARGE_POOL, loaders: None, unknown, serves }.spec(lab)
}

/// Imports a kernel and an initrd into the state of ours, over the wire that people use.
pub fn import(lab: &Lab, home: &str, kernel: &str, initrd: &str) -> Result<()> {
    let serves = &[Serves::Http("boot.ipxe")];
    let spec = Ours { home, pool: LARGE_POOL, loaders: None, unknown: "discover", serves }.spec(lab)?;
    let servers = Running::start(lab, &[spec])?;
    let file = |name: &str| lab.files().path(name).display().to_string();
    let (kernel, initrd) = (format!("kernel={}", file(kernel)), format!("initrd={}", file(initrd)));
    bennu(lab, &["image", "import", &kernel, &initrd, "cmdline=console=ttyS0", IMAGE])?;
    servers.stop()
}

/// Connections that stay open.
const CONNECTIONS: u32 = 64;

/// Ours renders a script for each machine; nginx's is a file of 1000 bytes, for comparison.
fn scripts(run: &mut Run<'_>, round: u32, servers: &Running<'_>) -> Result<()> {
    let machines = if run.quick { 500 } else { 5_000 };
    let first = round * 100_000;
    let is_ours = servers.name() == OURS;
    // Nobody gets a script who did not ask for an address first.
    let addresses = if is_ours { leased(run.lab, first, machines)? } else { unleased(CONNECTIONS) };
    let (path, contains) = if is_ours { ("/boot/{mac}.ipxe", "kernel") } else { ("/script", "") };
    let scripts = |turns| {
        Load::Scripts(Scripts {
            server: SERVER,
            addresses: addresses[..CONNECTIONS as usize].to_vec(),
            path: path.to_owned(),
            first,
            machines,
            turns,
            contains: contains.to_owned(),
        })
    };
    if is_ours {
        run.measure(round, NEW_SCRIPTS, servers, &scripts(1))?;
    }
    run.measure(round, SCRIPTS, servers, &scripts(10))
}
