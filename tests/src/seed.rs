//! A store with the rack's images already in it, imported once a build of the appliance and image recipe, so
//! that not every rack must import them again. The blobs are shared by hard links: nobody ever changes a blob.

use anyhow::{Context, Result};
use std::{fs, path::Path, process::Command};

use crate::{
    appliance::Config,
    command,
    images::{self, short_digest},
    rack::Rack,
    workshop,
};

/// Puts a copy of the seed into an empty state directory.
pub(crate) fn plant(state: &Path) -> Result<()> {
    let _held = workshop::hold("seeds")?;
    let seed = grown()?;
    for entry in fs::read_dir(&seed)? {
        let entry = entry?;
        let share = if entry.file_name() == "images" { "-al" } else { "-a" };
        command::run(Command::new("cp").arg(share).arg(entry.path()).arg(state))?;
    }
    Ok(())
}

/// The seed's state directory, made when this binary has none yet.
fn grown() -> Result<std::path::PathBuf> {
    let images = images::images()?;
    let binary = fs::read(workshop::bennu_binary()?).context("cannot read the appliance's binary")?;
    let recipe = format!("{} {}", short_digest(&binary), images.kernel().display());
    let seeds = workshop::cache("seeds")?;
    let seed = seeds.join(short_digest(recipe.as_bytes()));
    if seed.exists() {
        return Ok(seed);
    }
    // Seeds of earlier builds are of no use to anyone.
    fs::remove_dir_all(&seeds)?;
    fs::create_dir_all(&seeds)?;
    let rack = Rack::new()?;
    let mut appliance = rack.appliance(Config::full())?;
    appliance.import("tar", &images.debian_v1(), "debian:v1")?;
    appliance.import("tar", &images.debian_v2(), "debian:v2")?;
    appliance.bennu([
        "image",
        "import",
        &format!("dir:{}", images.kernel().display()),
        "discovery:latest",
        "--kernel-only",
    ])?;
    appliance.stop()?;
    command::run(Command::new("mv").arg(appliance.state()).arg(&seed))?;
    Ok(seed)
}
