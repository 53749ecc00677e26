//! Makes the appliance's own ISO: a hybrid disc that starts with BIOS and UEFI, with Secure Boot too, from CD and from USB.
//!
//! ```text
//! iso --packages DIR --lists DIR --crates FILE --bennu FILE --init FILE --epoch SECONDS [--level 1..22] [--version TEXT]
//!     [--key FILE] OUT.iso
//! ```
//!
//! `--packages` is a directory into which the distribution's packages were unpacked, `--lists` one that says which files are
//! whose. The same inputs give the same bytes. The bill of materials is put beside the ISO, as `OUT.spdx.json`.

mod bill;
mod disc;
mod esp;
mod grub;
mod initrd;
mod libraries;
mod modules;
mod options;
mod programs;
mod rescue;
mod root;
mod seeds;
mod tree;

use anyhow::{Context, Result};
use bennu_host::slots::Release;
use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iso: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let lists = bill::Lists::read(&options)?;
    let kernel = modules::Kernel::find(&options.packages)?;
    let work = options.out.with_extension("work");
    // What an interrupted run left.
    let _ = std::fs::remove_dir_all(&work);
    let root = work.join("disc");
    std::fs::create_dir_all(root.join("boot/grub")).with_context(|| format!("cannot make {}", root.display()))?;
    std::fs::create_dir_all(root.join(".disk"))?;

    let (mut tree, mut first) = (tree::Tree::default(), tree::Tree::default());
    modules::add(&mut tree, &mut first, &options.packages, &kernel)?;
    programs::add(&mut tree, &options)?;
    let squashfs = work.join("root.squashfs");
    root::make(&options, &tree, &squashfs)?;
    first.copy(&options.init, "init", 0o755)?;
    first.copy(&squashfs, "root.squashfs", 0o644)?;
    std::fs::write(root.join("boot/initrd.img"), initrd::pack(&first)?)?;
    // GRUB finds the disc that it was started from by this file.
    std::fs::write(root.join(".disk/info"), format!("Bennu {} x86_64\n", options.version))?;
    std::fs::write(root.join(".disk/release.json"), release(&options)?)?;
    std::fs::write(root.join("boot/grub/grub.cfg"), grub::configuration(&options))?;
    std::fs::write(root.join("boot/grub/start.cfg"), grub::START)?;
    let seeds = seeds::make(&options, &kernel, &root)?;
    grub::bios(&options.packages, &root.join("boot/grub/bios.img"))?;
    let esp = work.join("esp.img");
    esp::make(&options, &esp)?;
    disc::make(&options, &root, &esp)?;
    let mut taken = tree.sources() | first.sources();
    taken.extend(seeds);
    taken.extend(esp::sources(&options).chain([kernel.image, grub::hybrid(&options.packages)]));
    std::fs::write(options.out.with_extension("spdx.json"), bill::make(&options, &lists, &taken)?)?;
    let size = std::fs::metadata(&options.out)?.len();
    println!("{}: {:.1} MB, kernel {}", options.out.display(), size as f64 / 1e6, kernel.release);
    std::fs::remove_dir_all(&work).context("cannot remove the work directory")
}

/// What an appliance reads of a disc that it is to run from.
fn release(options: &Options) -> Result<String> {
    let release = Release { version: options.version.clone(), built: options.epoch };
    Ok(format!("{}\n", serde_json::to_string(&release)?))
}
