//! A Debian with cloud-init, for the one test that needs it. Made once and kept under `.cache/images`.

use anyhow::{Context, Result};
use std::{fs, path::PathBuf, process::Command};

use crate::{
    command,
    images::{script, short_digest},
    workshop,
};

/// The image as a tar; makes it the first time, in about two minutes.
pub fn debian() -> Result<PathBuf> {
    let _held = workshop::hold("cloud-image")?;
    let recipe = fs::read(script("debian-cloud"))?;
    let dir = workshop::cache("images")?.join(format!("cloud-{}", short_digest(&recipe)));
    let (image, made) = (dir.join("debian-cloud.tar"), dir.join("made.tar"));
    if !image.exists() {
        fs::create_dir_all(&dir)?;
        eprintln!("rack: making a Debian with cloud-init (once; kept in {})", dir.display());
        let mirror = command::run(&mut Command::new(workshop::checkout().join("scripts/debian-mirror")))?;
        command::run(Command::new(script("debian-cloud")).arg(&made).args(mirror.split_whitespace()))
            .context("cannot make a Debian with cloud-init")?;
        fs::rename(&made, &image)?;
    }
    Ok(image)
}
