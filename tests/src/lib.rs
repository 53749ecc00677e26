//! The virtual rack: servers, a wire and an appliance on one Linux machine, for tests and for the demo.
//!
//! ```no_run
//! use bennu_tests::{appliance::Config, machine::Firmware, rack::Rack};
//! # fn main() -> anyhow::Result<()> {
//! let rack = Rack::new()?;
//! let bennu = rack.appliance(Config::full().with_images())?;
//! let mut machine = rack.machine(Firmware::UefiPxe).memory(1024).install()?;
//! bennu.assign(&machine.mac(), "debian:v1")?;
//! machine.power_on()?;
//! machine.login()?;
//! assert!(machine.run("cat /proc/mounts")?.contains(" / overlay "));
//! machine.power_cycle()?;
//! # Ok(())
//! # }
//! ```
//!
//! A rack is made of network namespaces, a bridge, veth pairs and taps; its machines are QEMU processes. It needs
//! root, no hardware virtualisation, and nothing else on the machine: racks do not see each other or the host's
//! network, so several may stand at a time.

pub mod appliance;
pub mod browser;
pub mod cloud_image;
pub mod command;
pub mod conformance;
pub mod console;
pub mod containers;
pub mod demo;
pub mod disc;
pub mod harness;
pub mod home;
pub mod images;
pub mod machine;
pub mod qmp;
pub mod rack;
pub mod relay;
pub mod scenarios;
pub mod seed;
pub mod site;
pub mod small_state;
pub mod tpm;
pub mod wire;
pub mod workshop;

#[cfg(test)]
mod tests {
    /// A list that names tests which are gone would claim what nobody shows.
    #[test]
    fn the_registrys_list_names_tests_that_exist() {
        let list = include_str!("../DISTRIBUTION.md");
        let tests = [
            include_str!("../../appliance/src/http/registry/tests.rs"),
            include_str!("../../appliance/src/http/registry/tests/clients.rs"),
        ]
        .concat();
        let scenarios = include_str!("scenarios/containers.rs");
        let rows = list.lines().filter(|line| line.starts_with('|') && line.ends_with("` |"));
        let named: Vec<&str> = rows.filter_map(|line| line.rsplit('`').nth(1)).collect();
        assert!(named.len() >= 16, "{named:?}");
        for name in named {
            let is_there = tests.contains(&format!("async fn {name}()")) || scenarios.contains(&format!("\"{name}\""));
            assert!(is_there, "{name}");
        }
    }
}
