//! The site's own servers, for appliances that only stand beside them: a dnsmasq that gives addresses.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use crate::{home::Home, wire::Namespace};

/// A dnsmasq in a namespace of its own at 10.77.0.2. Dropping it ends it.
#[derive(Debug)]
pub struct Site {
    home: Rc<Home>,
    dnsmasq: Child,
    log: PathBuf,
}

impl Site {
    /// Starts it as plain DHCP server of the wire: addresses and a router, no word of booting.
    pub(crate) fn start(home: Rc<Home>, namespace: &Namespace, interface: &str, extra: &[String]) -> Result<Self> {
        let log = home.dir().join("dnsmasq.log");
        let leases = home.dir().join("dnsmasq.leases");
        let mut dnsmasq = namespace.command("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv", "--no-hosts"]);
        dnsmasq.args(["--port=0", "--pid-file=", "--bind-interfaces", "--dhcp-authoritative", "--log-dhcp"]);
        dnsmasq.arg(format!("--interface={interface}"));
        dnsmasq.args(["--dhcp-range=10.77.0.200,10.77.0.240,255.255.255.0,1h", "--dhcp-option=3,10.77.0.1"]);
        dnsmasq.arg(format!("--dhcp-leasefile={}", leases.display()));
        dnsmasq.arg(format!("--log-facility={}", log.display()));
        let complaints = home.dir().join("dnsmasq.err");
        let errors = fs::File::create(&complaints)?;
        let child = dnsmasq.args(extra).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        let mut site = Self { dnsmasq: child.context("cannot start dnsmasq")?, home, log };
        site.home.note_process(site.dnsmasq.id())?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !site.log().contains("DHCP, IP range") {
            let ended = site.dnsmasq.try_wait()?.is_some() || Instant::now() > deadline;
            ensure!(!ended, "dnsmasq does not start: {}{}", fs::read_to_string(&complaints)?, site.log());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(site)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
        self.home.forget_process(self.dnsmasq.id());
    }
}
