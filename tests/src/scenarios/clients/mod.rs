//! Clients of the field, as Debian has them: they get addresses and files.

mod dhcp;

pub use dhcp::{Client, Event, Program};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    rack::Rack,
    wire::Namespace,
};

/// All of them, on the appliance's wire.
pub const CLIENTS: Life = Life {
    name: "real clients",
    shows: &[
        "client_dhclient",
        "client_udhcpc",
        "client_dhcpcd",
        "client_perfdhcp",
        "client_tftp_hpa",
        "client_atftp",
        "client_curl",
    ],
    live: |story| {
        let rack = story.rack()?;
        let config = Config::full().subnet("dns = [\"10.77.0.253\"]").subnet("domain = \"rack.example\"");
        let bennu = rack.appliance(config)?;
        for (name, program) in [
            ("client_dhclient", Program::Dhclient),
            ("client_udhcpc", Program::Udhcpc),
            ("client_dhcpcd", Program::Dhcpcd),
        ] {
            let mut client = Client::new(&rack, program, program.name(), "wire")?;
            story.show(name, || leases(&bennu, &mut client, "10.77.0."))?;
        }
        let host = rack.host("reader", "10.77.0.9/24")?;
        story.show("client_perfdhcp", || perfdhcp(&bennu, &host))?;
        let loader = loader(&rack, &host)?;
        story.show("client_tftp_hpa", || tftp_hpa(&rack, &host, &loader))?;
        story.show("client_atftp", || atftp(&rack, &host, &loader))?;
        story.show("client_curl", || curl(&host, &loader))
    },
};

/// A client gets an address of `network` with its options, renews it, gives it back, and gets it again.
pub fn leases(bennu: &Appliance, client: &mut Client<'_>, network: &str) -> Result<String> {
    let told = |event: &Event| {
        let router = format!("{network}1");
        ensure!(event.address.starts_with(network), "an address of another network: {event:?}");
        ensure!(
            (&event.router, event.dns.as_str(), event.domain.as_str()) == (&router, "10.77.0.253", "rack.example"),
            "{event:?}"
        );
        Ok(())
    };
    let begun = Instant::now();
    let bound = client.start()?;
    let took = begun.elapsed();
    told(&bound)?;
    let first = lease(bennu, &bound.address)?;
    ensure!(first["active"] == true, "the lease is {first}");
    // A renewal in the same millisecond could not be told from the first grant.
    thread::sleep(Duration::from_millis(20));
    let renewed = client.renew()?;
    told(&renewed)?;
    ensure!(renewed.address == bound.address, "{} became {}", bound.address, renewed.address);
    let second = lease(bennu, &bound.address)?;
    ensure!(second["granted"] != first["granted"], "the renewal is not in the lease: {second}");
    client.release()?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while lease(bennu, &bound.address)?["active"] == true {
        ensure!(Instant::now() < deadline, "the release is not in the lease");
        thread::sleep(Duration::from_millis(20));
    }
    let again = client.start()?;
    told(&again)?;
    ensure!(again.address == bound.address, "{} before its release, {} after", bound.address, again.address);
    Ok(format!("{} after {:.1} s, renewed, released, and again", bound.address, took.as_secs_f64()))
}

/// What the appliance knows of an address.
fn lease(bennu: &Appliance, address: &str) -> Result<Value> {
    let all = bennu.json(["lease", "list", "--all"])?;
    let items = all.as_array().context("no list of leases")?;
    let found = items.iter().find(|lease| lease["address"] == address);
    found.cloned().with_context(|| format!("no lease of {address} in {all}"))
}

/// A hundred clients, thirty a second: none is left without its lease.
fn perfdhcp(bennu: &Appliance, host: &Namespace) -> Result<String> {
    let before = bennu.json(["lease", "list"])?.as_array().map_or(0, Vec::len);
    let mut perfdhcp = host.command("perfdhcp");
    perfdhcp.args(["-4", "-r", "30", "-n", "100", "-R", "100", "-W", "2000000", "-l", "net0", "10.77.0.1"]);
    let said = command::run(&mut perfdhcp)?;
    let number = |label: &str| -> Vec<u64> {
        let lines = said.lines().filter_map(|line| line.trim().strip_prefix(label));
        lines.filter_map(|rest| rest.trim_matches([':', ' ']).split(' ').next()?.parse().ok()).collect()
    };
    let (sent, received, dropped) = (number("sent packets"), number("received packets"), number("drops"));
    ensure!(sent.len() == 2 && sent == received && dropped.iter().all(|count| *count == 0), "it says:\n{said}");
    ensure!(sent.iter().all(|count| *count >= 100), "it says:\n{said}");
    let after = bennu.json(["lease", "list"])?.as_array().map_or(0, Vec::len);
    ensure!(after >= before + 90, "{before} leases became {after}");
    Ok(format!("{} DISCOVERs and {} REQUESTs, all answered", sent[0], sent[1]))
}

/// The loader that everybody reads, as curl gets it.
fn loader(rack: &Rack, host: &Namespace) -> Result<Vec<u8>> {
    let file = rack.home().dir().join("loader");
    let mut curl = host.command("curl");
    curl.args(["-fsS", "-o"]).arg(&file).arg("http://10.77.0.1/loader/snponly.efi");
    command::run(&mut curl)?;
    let loader = fs::read(file)?;
    ensure!(loader.len() > 50_000, "{} bytes are no loader", loader.len());
    Ok(loader)
}

fn same(rack: &Rack, name: &str, loader: &[u8]) -> Result<()> {
    let read = fs::read(rack.home().dir().join(name)).with_context(|| format!("{name} was not written"))?;
    ensure!(read == loader, "{name}: {} bytes came, {} are the loader's", read.len(), loader.len());
    Ok(())
}

/// Octet, and netascii: it asks for that unless told otherwise.
fn tftp_hpa(rack: &Rack, host: &Namespace, loader: &[u8]) -> Result<String> {
    for mode in ["octet", "netascii"] {
        let mut tftp = host.command("tftp");
        let into = rack.home().dir().join(mode);
        tftp.args(["10.77.0.1", "-m", mode, "-c", "get", "snponly.efi"]).arg(into);
        command::run(&mut tftp)?;
        same(rack, mode, loader).with_context(|| format!("mode {mode}"))?;
    }
    Ok("octet and netascii".to_owned())
}

fn atftp(rack: &Rack, host: &Namespace, loader: &[u8]) -> Result<String> {
    let sets: [&[&str]; 3] = [&[], &["blksize 1428", "tsize 0"], &["blksize 1428", "windowsize 16", "timeout 2"]];
    for (number, options) in sets.into_iter().enumerate() {
        let name = format!("atftp-{number}");
        let mut atftp = host.command("atftp");
        for option in options {
            atftp.args(["--option", option]);
        }
        atftp.args(["-g", "-r", "snponly.efi", "-l"]).arg(rack.home().dir().join(&name)).arg("10.77.0.1");
        command::run(&mut atftp)?;
        same(rack, &name, loader).with_context(|| format!("options {options:?}"))?;
    }
    Ok("without options, with blocks of 1428, with windows of 16".to_owned())
}

fn curl(host: &Namespace, loader: &[u8]) -> Result<String> {
    let get = |arguments: &[&str], path: &str| {
        let mut curl = host.command("curl");
        command::run_bytes(curl.args(["-fsS"]).args(arguments).arg(format!("http://10.77.0.1{path}")))
    };
    let script = get(&[], "/boot.ipxe")?;
    ensure!(script.starts_with(b"#!ipxe\n"), "the boot script is {:?}", String::from_utf8_lossy(&script));
    let links = host.ip("-o link show net0")?;
    let mac = links.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("no MAC")?;
    let own = get(&[], &format!("/boot/{}.ipxe", mac.replace(':', "-")))?;
    ensure!(own.starts_with(b"#!ipxe\n"), "the machine's script is {:?}", String::from_utf8_lossy(&own));
    let part = get(&["-r", "100-299"], "/loader/snponly.efi")?;
    ensure!(part == loader[100..300], "a range of 200 bytes has {}", part.len());
    let rest = get(&["-C", "50000"], "/loader/snponly.efi")?;
    ensure!(rest == loader[50_000..], "the rest has {} bytes", rest.len());
    let head = String::from_utf8(get(&["-I"], "/loader/snponly.efi")?)?.to_lowercase();
    ensure!(head.contains(&format!("content-length: {}\r\n", loader.len())), "HEAD says {head}");
    ensure!(get(&[], "/loader/no-such-file").is_err(), "a file that is not there");
    Ok("scripts, ranges, resumption, HEAD".to_owned())
}
