//! The appliance dies at the worst moment, and the machine comes up all the same.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{thread, time::Duration};

use super::checks::{arrives, told};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
    machine::{Firmware, Machine},
};

/// SIGKILL while the root is on its way.
pub const SIGKILL: Life = Life {
    name: "sigkill",
    shows: &["sigkill_in_mid_download"],
    live: |story| {
        let rack = story.rack()?;
        let mut bennu = rack.appliance(Config::full().with_images())?;
        let mut machine = rack.machine(Firmware::UefiPxe).install()?;
        story.show("sigkill_in_mid_download", || killed_in_mid_download(&mut bennu, &mut machine))
    },
};

/// One boot of a machine whose appliance is killed in mid-download and started again five seconds later.
pub fn killed_in_mid_download(bennu: &mut Appliance, machine: &mut Machine) -> Result<String> {
    let mac = machine.mac();
    bennu.assign(&mac, "debian:v1")?;
    // A hundred megabits leave the download time to be met halfway.
    bennu.limit_rate("100mbit")?;
    machine.power_on()?;
    let downloading = |boot: &Value| timeline(boot).iter().any(|entry| entry["step"] == "downloading");
    let boot = bennu.wait_for_boot(&mac, 180, "download of the root", downloading)?;
    thread::sleep(Duration::from_secs(2));
    bennu.kill()?;
    thread::sleep(Duration::from_secs(5));
    bennu.start()?;
    let remark = arrives(bennu, machine, "debian:v1")?;
    let after = bennu.last_boot(&mac)?;
    ensure!(after["id"] == boot["id"], "the machine did not go on with its boot but began another");
    resumed(bennu, &after)?;
    Ok(remark)
}

fn timeline(boot: &Value) -> &[Value] {
    boot["timeline"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The last read of the root was of a part of it: the download went on where it had been cut.
fn resumed(bennu: &Appliance, boot: &Value) -> Result<()> {
    let image = bennu.json(["image", "show", "debian:v1"])?;
    let whole = root_size(&image).context("the image tells no size of its root")?;
    let last = timeline(boot).iter().rfind(|entry| entry["part"] == "root").context("no read of the root is told")?;
    let bytes = last["bytes"].as_u64().unwrap_or_default();
    ensure!(bytes > 0 && bytes < whole, "after the kill {bytes} of {whole} bytes were read: {}", told(timeline(boot)));
    Ok(())
}

/// The size next to the key `root`, wherever the listing has it.
fn root_size(value: &Value) -> Option<u64> {
    match value {
        Value::Object(fields) => {
            fields.get("root").and_then(|root| root["size"].as_u64()).or_else(|| fields.values().find_map(root_size))
        }
        _ => None,
    }
}
