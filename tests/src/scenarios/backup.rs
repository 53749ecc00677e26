//! The state as one file: taken from an appliance in use, put in place of another, and refused when it is not whole.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Output,
};

use super::{
    bad_input::source::Tree,
    clients::{Client, Program},
};
use crate::{
    appliance::{Appliance, Config},
    harness::Life,
};

const MAC: &str = "02:00:00:00:0b:01";

/// A backup leaves, the state directory is emptied, and the rack is served as before; then damage of every kind.
pub const ONE_FILE: Life = Life {
    name: "backup",
    shows: &["backup_serves_the_same_rack", "backup_cut_is_refused", "backup_over_the_api", "damaged_ledger_is_told"],
    live: |story| {
        let rack = story.rack()?;
        let mut bennu = rack.appliance(Config::full())?;
        let tree = Tree::new(rack.home(), "tree")?;
        bennu.bennu(["image", "import", &tree.source(), "root:v1"])?;
        bennu.assign(MAC, "root:v1")?;
        let (token, secret) = (rack.home().dir().join("token"), rack.home().dir().join("secret"));
        fs::write(&token, bennu.bennu(["token", "create", "ci", "--scope", "read"])?)?;
        fs::write(&secret, "a canary")?;
        let mut set = bennu.command(["secret", "set", "db", "--machine", MAC, "--path", "/etc/db"]);
        let set = set.stdin(File::open(&secret)?).status().context("cannot run bennu secret set")?;
        ensure!(set.success(), "the secret was not set: {set}");
        let mut client = Client::new(&rack, Program::Udhcpc, "leaseholder", "wire")?;
        let address = client.start()?.address;
        let file = rack.home().dir().join("rack.tar");
        let before = told(&bennu)?;
        story.show("backup_serves_the_same_rack", || {
            bennu.bennu([Path::new("backup"), &file])?;
            let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
            ensure!(mode == 0o600, "others may read it: {mode:o}");
            bennu.stop()?;
            empty(&bennu.state())?;
            restore(&bennu, &file, &[])?;
            bennu.start()?;
            same(&before, &told(&bennu)?)?;
            let again = client.renew()?.address;
            ensure!(again == address, "{address} became {again}");
            Ok(format!("{} bytes", fs::metadata(&file)?.len()))
        })?;
        story.show("backup_cut_is_refused", || {
            refused(&bennu, &file, rack.home().dir())?;
            same(&before, &told(&bennu)?).map(|()| String::new())
        })?;
        story.show("backup_over_the_api", || {
            bennu.bennu(["machine", "unassign", MAC])?;
            let said = output(&bennu, &["restore", &file.display().to_string()])?;
            ensure!(!said.status.success(), "a state in use was replaced without --replace");
            bennu.bennu(["restore", &file.display().to_string(), "--replace"])?;
            bennu.ends()?;
            bennu.start()?;
            same(&before, &told(&bennu)?).map(|()| String::new())
        })?;
        story.show("damaged_ledger_is_told", || damaged(&mut bennu, &before))
    },
};

/// What makes this appliance, as it tells it.
fn told(bennu: &Appliance) -> Result<Vec<Value>> {
    let verified = bennu.bennu(["audit", "verify"])?;
    ensure!(!verified.is_empty(), "the audit log is not whole");
    ensure!(bennu.bennu(["image", "verify"])?.contains("whole"), "the images are not whole");
    let asked = [["image", "show", "root:v1"], ["machine", "show", MAC]];
    let mut told = asked.iter().map(|words| bennu.json(words.iter().copied())).collect::<Result<Vec<_>>>()?;
    for list in ["token", "secret", "lease"] {
        let mut listed = bennu.json([list, "list"])?;
        // A lease's clock goes on, and a token was used since.
        for item in listed.as_array_mut().context("no list")? {
            for field in ["expires", "granted", "last_used"] {
                item.as_object_mut().context("no item")?.remove(field);
            }
        }
        told.push(listed);
    }
    Ok(told)
}

fn same(before: &[Value], now: &[Value]) -> Result<()> {
    match before.iter().zip(now).find(|(before, now)| before != now) {
        Some((before, now)) => anyhow::bail!("it was {before:#}\nand is {now:#}"),
        None => Ok(()),
    }
}

fn empty(state: &Path) -> Result<()> {
    for entry in fs::read_dir(state)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

fn output(bennu: &Appliance, words: &[&str]) -> Result<Output> {
    bennu.command(words).output().context("bennu does not run")
}

fn restore(bennu: &Appliance, file: &Path, more: &[&str]) -> Result<String> {
    let (file, state) = (file.display().to_string(), bennu.state().display().to_string());
    let words = ["restore", &file, "--state-dir", &state];
    bennu.bennu(words.iter().chain(more).copied())
}

/// Cut anywhere, or with one byte changed.
fn refused(bennu: &Appliance, file: &Path, place: &Path) -> Result<()> {
    let bytes = fs::read(file)?;
    let bad = place.join("bad.tar");
    let end = bytes.len() - 1024;
    let mut changed = bytes.clone();
    changed[end / 2] ^= 1;
    for (what, content) in
        [("cut", &bytes[..end / 2]), ("without its end", &bytes[..end - 512]), ("changed", &changed[..])]
    {
        fs::write(&bad, content)?;
        let said = output(bennu, &["restore", &bad.display().to_string(), "--replace"])?;
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.code() == Some(1) && text.contains("Nothing was changed"), "{what}: {text}");
    }
    Ok(())
}

/// A ledger of zeros, one that is cut, one with a changed byte, and none: each is told with the command that mends it.
fn damaged(bennu: &mut Appliance, before: &[Value]) -> Result<String> {
    let ledger = bennu.state().join("ledger.redb");
    bennu.stop()?;
    let good = fs::read(&ledger)?;
    let kept = newest(&bennu.state().join("backups"))?;
    let spoil: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("zeros", &|| Ok(fs::write(&ledger, vec![0; good.len()])?)),
        ("cut", &|| Ok(fs::write(&ledger, &good[..good.len() / 3])?)),
        ("changed", &|| {
            fs::write(&ledger, &good)?;
            let at = good.windows(9).rposition(|bytes| bytes == MAC_IN_JSON).context("the machine is not in it")?;
            Ok(File::options().write(true).open(&ledger)?.write_all_at(b"X", at as u64 + 1)?)
        }),
        ("gone", &|| Ok(fs::remove_file(&ledger)?)),
    ];
    for (what, spoil) in spoil {
        spoil()?;
        let refusal = bennu.start().err().map(|error| format!("{error:#}"));
        if what == "changed" && refusal.is_none() {
            // It was in what no record uses any more, or one commit back.
            bennu.stop()?;
            continue;
        }
        let said = refusal.with_context(|| format!("{what}: it serves"))?;
        ensure!(said.contains("Nothing is served") && said.contains("--replace"), "{what}: {said}");
        ensure!(said.contains("status: 4"), "{what}: {said}");
    }
    restore(bennu, &kept, &["--replace"])?;
    bennu.start()?;
    // The last backup is from before that restore, when the machine was not assigned.
    ensure!(bennu.json(["image", "show", "root:v1"])?["digest"] == before[0]["digest"], "the image is another");
    Ok(String::new())
}

const MAC_IN_JSON: &[u8] = b"02:00:00:";

fn newest(backups: &Path) -> Result<PathBuf> {
    let mut all = fs::read_dir(backups)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    all.sort();
    all.pop().context("no backup was kept")
}
