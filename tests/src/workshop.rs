//! Where things are: the checkout, the built binaries, the cache.

use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The checkout that these tests belong to.
pub fn checkout() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// `.cache/<name>`, made when it is missing. `make clean` removes all of it.
pub fn cache(name: &str) -> Result<PathBuf> {
    let dir = checkout().join(".cache").join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Where racks keep their files: a directory that the appliance's own user can get to. That is `.cache/racks`, but for a
/// checkout in somebody's home that is closed to others.
pub fn racks() -> Result<PathBuf> {
    let here = cache("racks")?.canonicalize()?;
    let open = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
    if here.ancestors().all(open) {
        return Ok(here);
    }
    let elsewhere = PathBuf::from("/var/tmp/bennu-racks");
    fs::create_dir_all(&elsewhere).with_context(|| format!("cannot make {}", elsewhere.display()))?;
    Ok(elsewhere)
}

/// Keeps every other process out of `.cache/<name>` until it is dropped.
#[derive(Debug)]
pub struct Held {
    _lock: fs::File,
}

/// Waits until nobody else works on `.cache/<name>`.
pub fn hold(name: &str) -> Result<Held> {
    let path = cache("locks")?.join(name);
    let lock = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(Held { _lock: lock })
}

/// The appliance's binary: `$BENNU_BIN`, else the release build.
pub fn bennu_binary() -> Result<PathBuf> {
    let path = match env::var_os("BENNU_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from);
            target.join("release/bennu")
        }
    };
    if !path.is_file() {
        bail!("{} is missing: build it with 'cargo build --release'", path.display());
    }
    Ok(path)
}

/// A file that a distribution's package installs, at the first place that has it.
pub fn installed(places: &[&str], package: &str) -> Result<PathBuf> {
    places
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .with_context(|| format!("{} is missing: install {package}, or run scripts/setup", places.join(" or ")))
}

/// Racks need namespaces and taps; says so before anything else fails for it.
pub fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the virtual rack makes network namespaces and taps: run it as root");
    }
    Ok(())
}
