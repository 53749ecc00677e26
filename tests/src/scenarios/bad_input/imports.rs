//! Imports of what is no image, and imports that nobody waits for.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    Kept, counted, each_leaves_all_as_it_was, eventually, misused, names, refused,
    source::{Chance, RELEASE, Tree, write},
};
use crate::{
    appliance::{Appliance, Config},
    command,
    harness::Life,
    home::Home,
};

/// Sources that cannot become an image.
pub const IMPORTS: Life = Life {
    name: "bad imports",
    shows: &["bad_source", "bad_kernel", "bad_tar", "bad_foreign_pair"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        let tree = Tree::new(rack.home(), "good")?;
        bennu.bennu(["image", "import", &tree.source(), "good:v1"])?;
        story.show("bad_source", || sources(&bennu, &tree, rack.home()))?;
        story.show("bad_kernel", || kernels(&bennu, rack.home()))?;
        story.show("bad_tar", || tars(&bennu, &tree, rack.home()))?;
        story.show("bad_foreign_pair", || foreign_pairs(&bennu, &tree, rack.home()))
    },
};

/// Clients that go away in the middle of an import.
pub const KILLED_CLIENT: Life = Life {
    name: "killed clients",
    shows: &["bad_client_killed"],
    live: |story| {
        let rack = story.rack()?;
        let bennu = rack.appliance(Config::full())?;
        story.show("bad_client_killed", || killed_clients(&bennu, rack.home()))
    },
};

fn import<'a>(bennu: &Appliance, words: impl IntoIterator<Item = &'a str>) -> Command {
    bennu.command(["image", "import"].into_iter().chain(words))
}

fn sources(bennu: &Appliance, good: &Tree, home: &Home) -> Result<String> {
    let bare = Tree::new(home, "bare")?.without("sbin")?;
    let empty = home.dir().join("empty");
    fs::create_dir_all(&empty)?;
    let empty = format!("dir:{}", empty.display());
    let file = format!("{}/sbin/init", good.path().display());
    let failed = [
        ("no init", bare.source(), ["the source is no root filesystem", "/sbin/init"]),
        ("an empty directory", empty, ["the source is no root filesystem", "/sbin/init"]),
        ("no such directory", "dir:/no/such/tree".into(), ["cannot read /no/such/tree", "spelling"]),
        ("no such tar", "tar:/no/such.tar".into(), ["cannot read /no/such.tar", "spelling"]),
        ("a file as a directory", format!("dir:{file}"), ["is no directory", "tar:"]),
        ("a directory as a tar", format!("tar:{}", good.path().display()), ["is a directory", "dir:"]),
    ];
    let cases = failed.iter().map(|(name, source, parts)| (*name, (source, parts)));
    let first = each_leaves_all_as_it_was(bennu, cases, |(source, parts)| {
        refused(&mut import(bennu, [source.as_str(), "bad:v1"]), parts)
    })?;
    let source = good.source();
    let wrong: [(&str, &[&str], &str); 6] = [
        ("a source of no kind", &["ftp:web", "bad:v1"], "dir:PATH"),
        ("a source without its kind", &["/srv/web", "bad:v1"], "dir:PATH"),
        ("no image name", &[&source, "Bad"], "NAME:TAG"),
        ("one word alone", &[&source], "NAME:TAG"),
        ("a level that zstd has not", &[&source, "bad:v1", "--level", "40"], "--level"),
        ("an option that is none", &[&source, "bad:v1", "--lvel", "4"], "--level"),
    ];
    let wrong = wrong.map(|(name, words, part)| (name, (words, part)));
    let second = each_leaves_all_as_it_was(bennu, wrong, |(words, part)| {
        misused(&mut import(bennu, words.iter().copied()), &[part])
    })?;
    counted([first, second])
}

fn kernels(bennu: &Appliance, home: &Home) -> Result<String> {
    let modules = format!("lib/modules/{RELEASE}");
    let tree = |name: &str| Tree::new(home, name);
    let text = tree("text")?;
    text.file(&format!("boot/vmlinuz-{RELEASE}"), b"not a kernel, but a text that is long enough to be looked at")?;
    let lacking = tree("lacking")?.without(&format!("{modules}/modules.builtin"))?;
    let stale = tree("stale")?;
    stale.file(&format!("{modules}/modules.dep"), b"kernel/drivers/net/ethernet/gone.ko:\n")?;
    let cases = [
        ("no kernel", tree("kernelless")?.without("boot")?, ["the source has no kernel", "linux-image-amd64"]),
        ("no modules", tree("moduleless")?.without("lib")?, ["has no modules", RELEASE]),
        ("no depmod", tree("raw")?.without(&format!("{modules}/modules.dep"))?, ["depmod --basedir ROOT", RELEASE]),
        ("a stale depmod", stale, ["names 'kernel/drivers/net/ethernet/gone.ko'", "depmod --basedir ROOT"]),
        ("no squashfs", lacking, ["has no module 'squashfs'", "Install the whole kernel package"]),
        ("a text as kernel", text, ["is no Linux kernel", "Install the kernel package again"]),
    ];
    let cases = cases.iter().map(|(name, tree, parts)| (*name, (tree, parts)));
    let count = each_leaves_all_as_it_was(bennu, cases, |(tree, parts)| {
        refused(&mut import(bennu, [tree.source().as_str(), "bad:v1"]), parts)
    })?;
    counted([count])
}

fn tars(bennu: &Appliance, good: &Tree, home: &Home) -> Result<String> {
    let whole = good.tar()?;
    let file = home.dir().join("bad.tar");
    write(&file, &whole)?;
    let gzip = command::run_bytes(Command::new("gzip").arg("-kc").arg(&file))?;
    let zstd = command::run_bytes(Command::new("zstd").arg("-qc").arg(&file))?;
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x55;
        bytes
    };
    let cut = |bytes: &[u8]| bytes[..bytes.len() * 2 / 3].to_vec();
    let header = whole.len() / 512 / 2 * 512;
    let header = (header..).step_by(512).find(|at| whole[at + 257..].starts_with(b"ustar")).context("no header")?;
    let source = format!("tar:{}", file.display());
    let noise = Chance::new(7).bytes(100_000);
    let cases: [(&str, Vec<u8>, &[&str]); 10] = [
        ("a tar cut in a file", cut(&whole), &["the tar is cut short", "Make or copy it again"]),
        ("a tar cut in a header", whole[..header + 100].to_vec(), &["the tar is cut short"]),
        ("a tar without its end", whole[..header].to_vec(), &["the tar is cut short"]),
        ("a gzip cut short", cut(&gzip), &["tar"]),
        ("a zstd cut short", cut(&zstd), &["tar"]),
        ("a gzip with a flipped bit", flipped(&gzip, gzip.len() / 2), &["tar"]),
        ("a tar with a damaged header", flipped(&whole, header + 10), &["the tar is damaged"]),
        ("noise", noise, &["this is not a tar archive"]),
        ("a text", b"The quick brown fox jumps over the lazy dog.\n".repeat(40), &["this is not a tar archive"]),
        ("nothing", Vec::new(), &["tar"]),
    ];
    let cases = cases.map(|(name, bytes, parts)| (name, (bytes, parts)));
    let count = each_leaves_all_as_it_was(bennu, cases, |(bytes, parts)| {
        write(&file, &bytes)?;
        refused(&mut import(bennu, [source.as_str(), "bad:v1"]), parts)
    })?;
    counted([count])
}

fn foreign_pairs(bennu: &Appliance, good: &Tree, home: &Home) -> Result<String> {
    let kernel = format!("kernel={}/boot/vmlinuz-{RELEASE}", good.path().display());
    let (text, empty) = (home.dir().join("text.file"), home.dir().join("empty.file"));
    write(&text, b"a text")?;
    write(&empty, b"")?;
    let (text, nothing) = (format!("kernel={}", text.display()), format!("initrd={}", empty.display()));
    let newline = "cmdline=quiet\nboot";
    let failed: [(&str, &[&str], &[&str]); 5] = [
        ("a text as kernel", &[&text, "bad:v1"], &["neither a bzImage nor an EFI program", "name the kernel's file"]),
        ("an empty initrd", &[&kernel, &nothing, "bad:v1"], &["the initrd 1 is empty", "name the right file"]),
        ("a missing initrd", &[&kernel, "initrd=/no/such", "bad:v1"], &["cannot read /no/such", "spelling"]),
        ("a missing kernel", &["kernel=/no/such", "bad:v1"], &["cannot read /no/such", "spelling"]),
        ("arguments of two lines", &[&kernel, newline, "bad:v1"], &["control character", "one line"]),
    ];
    let failed = failed.map(|(name, words, parts)| (name, (words, parts)));
    let first = each_leaves_all_as_it_was(bennu, failed, |(words, parts)| {
        refused(&mut import(bennu, words.iter().copied()), parts)
    })?;
    let wrong: [(&str, &[&str]); 3] = [
        ("no kernel", &["initrd=/no/such", "bad:v1"]),
        ("two kernels", &[&kernel, &kernel, "bad:v1"]),
        ("a part that is none", &[&kernel, "root=/x", "bad:v1"]),
    ];
    let second = each_leaves_all_as_it_was(bennu, wrong, |words: &[&str]| {
        misused(&mut import(bennu, words.iter().copied()), &["kernel=PATH"])
    })?;
    counted([first, second])
}

/// A client, a signal, and when it gets it.
fn killed_clients(bennu: &Appliance, home: &Home) -> Result<String> {
    let (quick, tree) = (Tree::new(home, "quick")?, Tree::new(home, "slow")?);
    bennu.bennu(["image", "import", &quick.source(), "good:v1"])?;
    let before = Kept::now(bennu)?;
    killed_while_sending(bennu, &quick.tar()?)?;
    before.unchanged(&Kept::now(bennu)?).context("after a client was killed while it sent")?;
    // Several seconds of work, on however many processors.
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    tree.file("srv/slow", &slow((32 << 20) + processors * (8 << 20)))?;
    let mut ends = Vec::new();
    for signal in ["INT", "KILL"] {
        let took = killed_while_packing(bennu, &tree, signal).with_context(|| format!("SIG{signal}"))?;
        before.unchanged(&Kept::now(bennu)?).with_context(|| format!("after SIG{signal}"))?;
        ends.push(format!("{:.2} s after SIG{signal}", took.as_secs_f64()));
    }
    bennu.bennu(["image", "import", &quick.source(), "good:v2"])?;
    ensure!(bennu.digest("good:v1")? == bennu.digest("good:v2")?, "the next import was not like the first");
    Ok(format!("mksquashfs gone {}", ends.join(", ")))
}

/// What zstd's highest level takes long over: words that come again, though seldom in the same order.
fn slow(count: usize) -> Vec<u8> {
    let mut chance = Chance::new(11);
    let words: Vec<Vec<u8>> = (0..4096).map(|_| chance.bytes(6)).collect();
    let mut text = Vec::with_capacity(count + 8);
    while text.len() < count {
        text.extend_from_slice(&words[chance.below(words.len())]);
    }
    text
}

fn killed_while_sending(bennu: &Appliance, tar: &[u8]) -> Result<()> {
    let mut client = started(&mut import(bennu, ["tar:-", "bad:v1"]))?;
    let mut pipe = client.stdin.take().context("no pipe")?;
    pipe.write_all(&tar[..tar.len() / 2])?;
    let said = follow(&mut client, "reading");
    client.kill()?;
    client.wait()?;
    said
}

/// Kills the client when mksquashfs works for it; how long mksquashfs went on.
fn killed_while_packing(bennu: &Appliance, tree: &Tree, signal: &str) -> Result<Duration> {
    let mut client = started(&mut import(bennu, [tree.source().as_str(), "bad:v1", "--level", "22"]))?;
    let told = follow(&mut client, "root filesystem").and_then(|()| {
        eventually("mksquashfs runs", 10, || Ok(!builders(&bennu.state())?.is_empty()))?;
        // The tar goes through at once: soon nothing but the tool is at work.
        std::thread::sleep(Duration::from_millis(700));
        ensure!(!builders(&bennu.state())?.is_empty(), "mksquashfs was too quick to be killed");
        command::call("kill", [format!("-{signal}"), client.id().to_string()])
    });
    let killed = Instant::now();
    if told.is_err() {
        client.kill()?;
    }
    let status = client.wait()?;
    told?;
    ensure!(!status.success(), "the killed client says that all is well");
    eventually("mksquashfs has ended", 5, || Ok(builders(&bennu.state())?.is_empty()))?;
    let took = killed.elapsed();
    let tmp = bennu.state().join("images/tmp");
    eventually("the work in progress is gone", 5, || Ok(names(&tmp)?.is_empty()))?;
    // Blobs that were finished already are swept right after that.
    eventually("what it stored is gone", 5, || {
        let images = bennu.json(["image", "list"])?;
        let image = images.as_array().and_then(|images| images.first()).context("no image")?;
        let known = image["digest"].as_str().context("no digest")?["sha256:".len()..].to_owned();
        let blobs = names(&bennu.state().join("images/blobs/sha256"))?;
        ensure!(blobs.contains(&known), "the image that was there is gone");
        Ok(blobs.len() <= BLOBS)
    })?;
    Ok(took)
}

/// Blobs of one image (kernel, modules, root, hash tree, config, manifest) and stage 1.
const BLOBS: usize = 7;

fn started(command: &mut Command) -> Result<Child> {
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

/// Reads what a client says until a line begins with `step`.
fn follow(client: &mut Child, step: &str) -> Result<()> {
    let mut lines = BufReader::new(client.stderr.as_mut().context("no standard error")?).lines();
    let mut said = Vec::new();
    loop {
        match lines.next().transpose()? {
            Some(line) if line.starts_with(step) => return Ok(()),
            Some(line) => said.push(line),
            None => bail!("it ended without a line '{step}':\n{}", said.join("\n")),
        }
    }
}

/// Processes that build a root filesystem in a store.
fn builders(state: &Path) -> Result<Vec<u32>> {
    let state = state.to_string_lossy().into_owned();
    let is_one = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.starts_with("mksquashfs\0") && line.contains(&state)
    };
    Ok(names(Path::new("/proc"))?.iter().filter_map(|name| name.parse().ok()).filter(is_one).collect())
}
