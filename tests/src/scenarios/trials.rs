//! Images that are tested before anybody boots them.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::imports::turn_a_bit_over;
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
};

/// An image is promoted when it has come up, and not when it cannot.
pub const BEFORE_PROMOTION: Life = Life {
    name: "image tests",
    shows: &[
        "test_ends_with_its_client",
        "tested_image_is_promoted",
        "damaged_image_fails_its_test",
        "test_ends_with_its_service",
    ],
    live: |story| {
        let rack = story.rack()?;
        let mut bennu = rack.appliance(Config::full().with_images())?;
        bennu.bennu(["image", "tag", "debian:v1", "web:next"])?;
        story.show("test_ends_with_its_client", || ends_with_its_client(&bennu))?;
        story.show("tested_image_is_promoted", || promoted(&bennu))?;
        story.show("damaged_image_fails_its_test", || damaged(&bennu))?;
        story.show("test_ends_with_its_service", || ends_with_its_service(&mut bennu))
    },
};

fn ends_with_its_client(bennu: &Appliance) -> Result<String> {
    let mut client = start(bennu, &["debian:v1"])?;
    let machine = until("its machine runs", || Ok(emulator(bennu)?.filter(|pid| is_qemu(*pid))))?;
    let second = bennu.command(["image", "test", "debian:v2"]).output()?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(1) && said.contains("another image is being tested"), "a second one: {said}");
    let status = fs::read_to_string(format!("/proc/{machine}/status"))?;
    let user = bennu.process_status("Uid")?;
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default();
    ensure!(line("Uid:") == user && line("CapEff:") == "0000000000000000", "QEMU runs as {status}");
    client.kill()?;
    client.wait()?;
    until("its machine is off", || Ok((!fs::exists(format!("/proc/{machine}"))?).then_some(())))?;
    nothing_is_left(bennu)?;
    Ok(String::new())
}

/// Whether it is told to stop or has no time for a last word.
fn ends_with_its_service(bennu: &mut Appliance) -> Result<String> {
    for end in [Appliance::stop, Appliance::kill] {
        let mut client = start(bennu, &["debian:v1"])?;
        let machine = until("its machine runs", || Ok(emulator(bennu)?.filter(|pid| is_qemu(*pid))))?;
        end(bennu)?;
        until("its machine is off", || Ok((!fs::exists(format!("/proc/{machine}"))?).then_some(())))?;
        ensure!(client.wait()?.code() == Some(1), "the client does not say that its test was cut short");
        bennu.start()?;
        nothing_is_left(bennu)?;
    }
    Ok(String::new())
}

fn promoted(bennu: &Appliance) -> Result<String> {
    let (first, second) = (bennu.digest("debian:v1")?, bennu.digest("debian:v2")?);
    let console = bennu.state().with_file_name("test-console.log");
    let named = console.display().to_string();
    let client = start(bennu, &["web:next", "--promote", "web:stable", "--memory", "1024", "--console", &named])?;
    until("its machine runs", || emulator(bennu))?;
    // What is tested is what is promoted, wherever the tag goes meanwhile.
    bennu.bennu(["image", "tag", "debian:v2", "web:next"])?;
    let ended = client.wait_with_output()?;
    let (said, told) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    ensure!(ended.status.success(), "the image failed: {said}{told}\n{}", crate::appliance::tail_of(&console, 40));
    ensure!(said.contains("web:next passed its test") && said.contains(&first), "it says: {said}");
    ensure!(told.contains("root verified") && told.contains("up:"), "its steps are: {told}");
    ensure!((bennu.digest("web:stable")?, bennu.digest("web:next")?) == (first, second), "the tags are elsewhere");
    let console = fs::read_to_string(console)?;
    ensure!(console.contains("Linux version") && console.contains("Bennu stage 1"), "the console is not recorded");
    ensure!(!console.contains('\u{1b}'), "the console holds escape sequences");
    nothing_is_left(bennu)?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

fn damaged(bennu: &Appliance) -> Result<String> {
    let stable = bennu.digest("web:stable")?;
    let root = turn_a_bit_over(bennu, "debian:v2")?;
    let ended = start(bennu, &["web:next", "--promote", "web:stable", "--json"])?.wait_with_output()?;
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).context("its result is not JSON")?;
    ensure!(ended.status.code() == Some(1) && told["passed"] == false, "a damaged image passed: {told}");
    let reason = told["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(&root) && reason.contains("damaged"), "the reason is: {reason}");
    ensure!(told["console"].as_array().is_some_and(|lines| lines.len() > 20), "the console is missing: {told}");
    ensure!(bennu.digest("web:stable")? == stable, "a tag was moved to an image that failed");
    nothing_is_left(bennu)?;
    Ok(String::new())
}

fn start(bennu: &Appliance, arguments: &[&str]) -> Result<Child> {
    let mut client = bennu.command(["image", "test"].iter().chain(arguments));
    client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start the client")
}

/// A test leaves no machine, no boot, no process and no file.
fn nothing_is_left(bennu: &Appliance) -> Result<()> {
    let machines = bennu.json(["machine", "list"])?;
    let boots = bennu.json(["boot", "list"])?;
    ensure!(machines == serde_json::json!([]) && boots == serde_json::json!([]), "it shows up: {machines} {boots}");
    until("nothing of it runs or lies about", || {
        let files = fs::read_dir(bennu.state().join("images/tmp"))?.count();
        Ok((files == 0 && emulator(bennu)?.is_none()).then_some(()))
    })
}

/// A process that the appliance started and that has not ended.
fn emulator(bennu: &Appliance) -> Result<Option<u32>> {
    let pid = bennu.pid().context("the appliance does not run")?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let Ok(children) = fs::read_to_string(thread?.path().join("children")) else { continue };
        if let Some(child) = children.split_whitespace().next() {
            return Ok(Some(child.parse()?));
        }
    }
    Ok(None)
}

fn is_qemu(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        ensure!(Instant::now() < deadline, "{what}: not within 30 s");
        thread::sleep(Duration::from_millis(50));
    }
}
