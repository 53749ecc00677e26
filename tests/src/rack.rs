//! A rack: a wire, and what one plugs into it.

use anyhow::Result;
use std::{cell::Cell, rc::Rc};

use crate::{
    appliance::{Appliance, Config},
    home::Home,
    machine::{Firmware, Spec},
    seed,
    site::Site,
    wire::{MAIN, Namespace, Wire},
    workshop,
};

/// A rack of its own, apart from every other. What was plugged into it keeps it until it is gone itself.
#[derive(Debug)]
pub struct Rack {
    home: Rc<Home>,
    wire: Rc<Wire>,
    machines: Cell<u8>,
}

impl Rack {
    /// An empty one.
    pub fn new() -> Result<Self> {
        workshop::require_root()?;
        let home = Rc::new(Home::new()?);
        let wire = Rc::new(Wire::new(Rc::clone(&home))?);
        Ok(Self { home, wire, machines: Cell::new(0) })
    }

    /// Where its files are while it stands.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The same, for what outlives a borrow.
    pub fn home_shared(&self) -> &Rc<Home> {
        &self.home
    }

    /// An appliance at 10.77.0.1, running.
    pub fn appliance(&self, config: Config) -> Result<Appliance> {
        self.appliance_with(config, &["prov0"], |_| Ok(()))
    }

    /// The same with these interfaces, of which `prov0` is on the wire; `prepare` makes the others in its namespace.
    pub fn appliance_with(
        &self,
        config: Config,
        interfaces: &[&str],
        prepare: impl FnOnce(&Namespace) -> Result<()>,
    ) -> Result<Appliance> {
        let namespace = self.wire.plug("appliance", "prov0", "10.77.0.1/24")?;
        prepare(&namespace)?;
        let mut appliance = Appliance::new(Rc::clone(&self.home), namespace, interfaces, &config)?;
        if config.with_images {
            seed::plant(&appliance.state())?;
        }
        appliance.start()?;
        Ok(appliance)
    }

    /// Another appliance on the same wire, at this address, not yet running.
    pub fn twin(&self, address: &str, config: &Config) -> Result<Appliance> {
        self.twin_on(MAIN, address, config)
    }

    /// Another appliance on any bridge of the rack, at this address, not yet running.
    pub fn twin_on(&self, bridge: &str, address: &str, config: &Config) -> Result<Appliance> {
        let namespace = self.wire.plug_bare("twin", bridge, "prov0")?;
        namespace.ip(&format!("address add {address} dev prov0"))?;
        Appliance::named("twin", "twin.sock", Rc::clone(&self.home), namespace, &["prov0"], config)
    }

    /// An appliance at 10.77.0.1, not yet running.
    pub fn first(&self, config: &Config) -> Result<Appliance> {
        let namespace = self.wire.plug("appliance", "prov0", "10.77.0.1/24")?;
        Appliance::new(Rc::clone(&self.home), namespace, &["prov0"], config)
    }

    /// A cable from the wire to an interface that is made in `namespace`.
    pub fn cable(&self, namespace: &Namespace, interface: &str, address: &str) -> Result<()> {
        self.wire.connect(namespace, MAIN, interface, Some(address))
    }

    /// The site's own DHCP server at 10.77.0.2.
    pub fn site(&self) -> Result<Site> {
        self.site_with(&[])
    }

    /// The site's own DHCP server with further dnsmasq options.
    pub fn site_with(&self, options: &[String]) -> Result<Site> {
        let namespace = self.wire.plug("site", "site0", "10.77.0.2/24")?;
        Site::start(Rc::clone(&self.home), &namespace, "site0", options)
    }

    /// One more host on the wire, for tools that look at the appliance from outside.
    pub fn host(&self, label: &str, address: &str) -> Result<Namespace> {
        self.wire.plug(label, "net0", address)
    }

    /// The bridges, and what is plugged into them.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// A machine to be described further, then started.
    pub fn machine(&self, firmware: Firmware) -> Spec {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        Spec::new(Rc::clone(&self.home), Rc::clone(&self.wire), number, firmware)
    }
}
