//! Imports by themselves.

use anyhow::{Context, Result, ensure};
use std::{fs, process::Command};

use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    images,
    machine::Firmware,
    rack::Rack,
};

/// One source gives one digest, wherever and whenever it is imported.
pub const TWO_STORES: Life = Life {
    name: "two stores",
    shows: &["one_source_one_digest"],
    live: |story| {
        let here = story.rack()?;
        let source = images::images()?.debian_v1();
        story.show("one_source_one_digest", || {
            let copy = here.home().dir().join("a copy of it.tar");
            command::run(Command::new("cp").arg("--reflink=auto").args([&source, &copy]))?;
            let first = here.appliance(Config::full())?;
            first.import("tar", &source, "debian:v1")?;
            // Another store, another file name, another time.
            let there = Rack::new()?;
            let second = there.appliance(Config::full())?;
            second.import("tar", &copy, "another/name:latest")?;
            fs::remove_file(copy)?;
            let (one, two) = (first.digest("debian:v1")?, second.digest("another/name:latest")?);
            ensure!(one == two, "the same source became {one} and {two}");
            Ok(one)
        })
    },
};

/// What happens to images in the store: tags go back, a disk turns a bit over.
pub const IN_THE_STORE: Life = Life {
    name: "images in the store",
    shows: &["image_rollback", "damaged_blob_is_named_and_not_booted"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full().with_images())?;
        story.show("image_rollback", || {
            let (first, second) = (bennu.digest("debian:v1")?, bennu.digest("debian:v2")?);
            bennu.bennu(["image", "tag", "debian:v1", "web:stable"])?;
            bennu.bennu(["image", "tag", "debian:v2", "web:stable"])?;
            ensure!(bennu.digest("web:stable")? == second, "the tag does not move");
            bennu.bennu(["image", "rollback", "web:stable"])?;
            ensure!(bennu.digest("web:stable")? == first, "the tag does not go back");
            let history = bennu.bennu(["image", "history", "web:stable"])?;
            ensure!(history.lines().count() == 3 && history.contains("rollback"), "the history is:\n{history}");
            let refused = bennu.command(["image", "rollback", "web:stable"]).output()?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(refused.status.code() == Some(1) && said.contains("has not pointed at another image"), "{said}");
            Ok(String::new())
        })?;
        let mut machine = rack.machine(Firmware::Bios).install()?;
        story.show("damaged_blob_is_named_and_not_booted", || {
            let whole = bennu.bennu(["image", "verify"])?;
            ensure!(whole.contains("all are whole"), "a new store: {whole}");
            let root = turn_a_bit_over(&bennu, "debian:v1")?;
            let verified = bennu.command(["image", "verify", "debian:v1"]).output()?;
            let said = String::from_utf8_lossy(&verified.stdout).into_owned();
            ensure!(verified.status.code() == Some(1), "a damaged image was verified: {said}");
            ensure!(said.contains(&root) && said.contains("root of debian:v1"), "the damage is told so: {said}");
            bennu.assign(&machine.mac(), "debian:v1")?;
            machine.power_on()?;
            let failed = bennu.wait_for_state(&machine.mac(), "failed", 120)?;
            let reason = failed["diagnosis"]["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains(&root) && reason.contains("damaged"), "the diagnosis says: {reason}");
            Ok(String::new())
        })
    },
};

/// Turns one bit over in the middle of an image's root; answers the root's digest.
pub(super) fn turn_a_bit_over(bennu: &Appliance, image: &str) -> Result<String> {
    let shown = bennu.json(["image", "show", image])?;
    let digest = shown["config"]["root"]["digest"].as_str().context("the image has no root")?.to_owned();
    let path = bennu.state().join("images/blobs/sha256").join(&digest["sha256:".len()..]);
    // Another file in its place: the tests' images share theirs.
    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let aside = path.with_extension("damaged");
    fs::write(&aside, bytes)?;
    fs::rename(aside, path)?;
    Ok(digest)
}
