//! Imports by themselves.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    appliance::{Appliance, Config},
    command,
    containers::Layout,
    harness::Life,
    images,
    machine::Firmware,
    rack::Rack,
    scenarios::bad_input::Chance,
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

/// The power goes while an image is imported.
pub const CUT: Life = Life {
    name: "imports cut",
    shows: &["import_cut_is_whole_or_absent"],
    live: |story| story.show("import_cut_is_whole_or_absent", cut),
};

/// So many in one life; the long tests live it twenty times.
const CUTS: usize = 5;

fn cut() -> Result<String> {
    let (mut chance, seed) = Chance::of_now();
    let rack = Rack::new()?;
    let mut bennu = rack.appliance(Config::proxy())?;
    let made = images::images()?;
    let layout = Layout::new(rack.home(), "layout")?;
    layout.image("v1", &[&made.container(), &made.kernel_layer()])?;
    let source = format!("oci:{}", layout.named("v1"));
    let begun = Instant::now();
    bennu.bennu(["image", "import", &source, "web:whole"])?;
    let whole = (bennu.digest("web:whole")?, begun.elapsed());
    // Everything of it must come again, or there would be nothing to cut.
    bennu.bennu(["image", "remove", "web:whole"])?;
    let mut done = 0;
    for number in 1..=CUTS {
        let mut import = bennu
            .command(["image", "import", &source, "web:cut"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        thread::sleep(Duration::from_millis(chance.below(whole.1.as_millis() as usize * 11 / 10) as u64));
        bennu.kill()?;
        let acknowledged = import.wait()?.success();
        bennu.start()?;
        let checked = is_whole_or_absent(&bennu, &whole.0, acknowledged);
        done += usize::from(checked.with_context(|| format!("after cut {number} (seed {seed})"))?);
        if bennu.digest("web:cut").is_ok() {
            bennu.bennu(["image", "remove", "web:cut"])?;
        }
    }
    bennu.bennu(["image", "import", &source, "web:cut"])?;
    ensure!(bennu.digest("web:cut")? == whole.0, "after {CUTS} cuts the same source became another image");
    Ok(format!("{CUTS} imports cut, {done} of them done before, nothing left of the others (seed {seed})"))
}

/// Whether the image is there; it must be whole then, and its blobs be all there is.
fn is_whole_or_absent(bennu: &Appliance, expected: &str, acknowledged: bool) -> Result<bool> {
    let is_there = bennu.digest("web:cut").map(|digest| digest == expected);
    ensure!(is_there.as_ref().ok() != Some(&false), "another image is there");
    let is_there = is_there.is_ok();
    ensure!(is_there || !acknowledged, "an import that was acknowledged is gone");
    let verified = bennu.bennu(["image", "verify"])?;
    ensure!(verified.contains("all are whole"), "{verified}");
    let count = |directory: &str| -> Result<usize> { Ok(fs::read_dir(bennu.state().join(directory))?.count()) };
    ensure!(count("images/tmp")? == 0, "scratch files are left");
    // Stage 1; the image's manifest, config, kernel, modules, root and hash tree; the source's manifest, config and layers.
    let expected = if is_there { 1 + 6 + 4 } else { 1 };
    let found = count("images/blobs/sha256")?;
    ensure!(found == expected, "{found} blobs are left where {expected} are due");
    Ok(is_there)
}

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
