//! Images that nobody trusted has signed.

use anyhow::ensure;

use crate::{appliance::Config, command, harness::Life, machine::Firmware};

/// Under `require` an image boots once a trusted key has signed it, and not before.
pub const REQUIRED: Life = Life {
    name: "signatures required",
    shows: &["unsigned_image_never_boots", "signed_image_boots"],
    live: |story| {
        let rack = story.rack()?;
        let keys = rack.home().dir().join("ci");
        let mut bennu = rack.appliance(Config::full().with_images())?;
        command::run(bennu.command(["image", "keys", &keys.display().to_string()]).env("COSIGN_PASSWORD", "rack"))?;
        bennu.stop()?;
        let policy = format!("[signatures]\npolicy = \"require\"\nkeys = [\"{}.pub\"]", keys.display());
        bennu.configure(&Config::full().more(&policy))?;
        bennu.start()?;
        let mut machine = rack.machine(Firmware::Bios).install()?;
        story.show("unsigned_image_never_boots", || {
            bennu.assign(&machine.mac(), "debian:v1")?;
            machine.power_on()?;
            let refused = |boot: &serde_json::Value| boot["timeline"].to_string().contains("is not signed");
            let boot = bennu.wait_for_boot(&machine.mac(), 60, "refusal", refused)?;
            ensure!(boot["token"].is_null() && boot["state"] != "up", "it was given a script: {boot:#}");
            ensure!(!boot["timeline"].to_string().contains("blob_read"), "it read something: {boot:#}");
            let shown = bennu.bennu(["image", "show", "debian:v1"])?;
            ensure!(shown.contains("not signed"), "the image is not marked: {shown}");
            Ok(String::new())
        })?;
        story.show("signed_image_boots", || {
            let key = format!("{}.key", keys.display());
            let mut sign = bennu.command(["image", "sign", "debian:v1", "--key", &key]);
            let wrong = sign.env("COSIGN_PASSWORD", "other").output()?;
            ensure!(wrong.status.code() == Some(1), "a wrong password signs");
            let mut sign = bennu.command(["image", "sign", "debian:v1", "--key", &key]);
            command::run(sign.env("COSIGN_PASSWORD", "rack"))?;
            // Its loader asks again by itself.
            bennu.wait_for_state(&machine.mac(), "up", 150)?;
            let shown = bennu.bennu(["image", "show", "debian:v1"])?;
            ensure!(shown.contains("signed by key 'ci'"), "it is marked so: {shown}");
            Ok(String::new())
        })
    },
};
