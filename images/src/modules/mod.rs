//! The modules initrd: what a kernel needs from outside of itself to reach and mount its root.
//!
//! Modules and firmware are stored decompressed in the archive: stage 1 then needs no xz, gzip or zstd of its own
//! and no kernel option to load compressed modules, and the archive, being compressed as a whole, gets smaller
//! than it would with compressed files in it.

mod archive;
mod database;
mod firmware;
mod info;
mod selection;

use crate::{
    archive::decompress,
    import::{Cancelled, ImportStep, Meter, Progress},
    kernel::Kernel,
    signing,
    store::{Store, StoreError},
    tree::Indexed,
};
use archive::{Compression, InitrdWriter};
use bennu_rules::{
    facts::Architecture,
    image::{BlobRef, FileSystem},
};
use database::Database;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io,
};

/// The largest module is some 20 MB, with debug information 200.
const LARGEST: u64 = 512 << 20;

/// What stage 1 cannot do without beside the root's own file system, and what for.
const REQUIRED: [(&str, &str); 2] =
    [("loop", "to mount it from memory"), ("overlay", "to make it writable for the time of one boot")];

/// Why there is no modules initrd.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// depmod never ran.
    #[error(
        "{directory} has modules, but no modules.dep and modules.alias that name them: depmod never ran for them. \
         Run: depmod --basedir ROOT {release}, where ROOT is the source's directory"
    )]
    NoDepmod {
        /// The modules directory.
        directory: String,
        /// The kernel's release.
        release: String,
    },
    /// depmod's files are of another state than the modules.
    #[error(
        "{directory}/modules.dep names '{path}', which is not there. Run: depmod --basedir ROOT {release}, where ROOT \
         is the source's directory"
    )]
    Stale {
        /// The modules directory.
        directory: String,
        /// The path it names.
        path: String,
        /// The kernel's release.
        release: String,
    },
    /// The kernel lacks something stage 1 needs.
    #[error(
        "the kernel {release} has no module '{module}', built in or beside it, and stage 1 needs it {purpose}. \
         Install the whole kernel package (with its -extra or -modules-core part, where the distribution splits it)"
    )]
    Lacks {
        /// The kernel's release.
        release: String,
        /// The module.
        module: &'static str,
        /// What it is for.
        purpose: &'static str,
    },
    /// A file could not be read or decompressed.
    #[error("cannot read '{path}' of the source: {source}")]
    Read {
        /// Its path.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A module is no ELF object.
    #[error("the module '{path}' is damaged: {source}. Install the kernel package again")]
    Damaged {
        /// Its path.
        path: String,
        /// What is wrong with it.
        source: object::Error,
    },
    /// Whoever asked for the image went away.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The initrd could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Drivers of the network cards that most servers have, and of virtual machines' cards.
const SERVER_CARDS: [&str; 11] =
    ["bnx2x", "bnxt_en", "e1000e", "i40e", "ice", "igb", "ixgbe", "mlx5_core", "r8169", "tg3", "virtio_net"];

/// A note on the drivers that a kernel does not have: of all that may be wrong at a boot, nothing looks so much like a
/// broken cable. Kernels for clouds leave most of them out.
fn cards_without_driver(database: &Database, kernel: &Kernel) -> Option<String> {
    let is_missing = |driver: &&str| !database.is_builtin(driver) && !database.modules.contains_key(*driver);
    let missing: Vec<&str> = SERVER_CARDS.iter().copied().filter(is_missing).collect();
    (!missing.is_empty() && matches!(kernel.architecture, Architecture::X86_64 | Architecture::Arm64)).then(|| {
        format!(
            "the kernel {} has no driver for these network cards: {}. A machine that boots over one will not reach the \
             appliance; install the whole kernel package in the source (Debian: linux-image-amd64, not -cloud-amd64) and \
             import it again",
            kernel.release,
            missing.join(", ")
        )
    })
}

/// Makes the initrd of a kernel's modules and the firmware they name, and stores it. `filesystem` is the root's.
pub fn initrd(
    source: &Indexed,
    kernel: &Kernel,
    filesystem: FileSystem,
    level: u32,
    threads: usize,
    store: &Store,
    progress: &dyn Progress,
) -> Result<BlobRef, ModulesError> {
    let database = Database::read(source, &kernel.modules, &kernel.release)?;
    let tree = Tree { source, kernel };
    let required = [(filesystem.name(), "to read the root filesystem"), REQUIRED[0], REQUIRED[1]];
    for (module, purpose) in required {
        if !database.is_builtin(module) && !database.modules.contains_key(module) {
            return Err(ModulesError::Lacks { release: kernel.release.clone(), module, purpose });
        }
    }
    if let Some(note) = cards_without_driver(&database, kernel) {
        progress.note(&note);
    }
    let boards = !matches!(kernel.architecture, Architecture::X86 | Architecture::X86_64);
    let chosen = choose(&database, |module| match database.modules[module].in_kernel() {
        Some(path) => {
            Ok::<_, ModulesError>(required.iter().any(|(name, _)| name == &module) || selection::is_taken(path, boards))
        }
        None => Ok(selection::registers(&tree.module(&database.modules[module].path)?)),
    })?;
    let compression = if kernel.support.zstd_initrd { Compression::Zstd(level, threads) } else { Compression::Gzip };
    let mut meter = Meter::new(progress, ImportStep::Modules, Some(chosen.len() as u64));
    let mut out = InitrdWriter::new(store, compression)?;
    let failed = |error| store.failed("write to", store.tmp(), error);
    let base = format!("lib/modules/{}", kernel.release);
    let mut firmware = BTreeSet::new();
    let mut drivers = BTreeMap::new();
    let mut unsigned = Vec::new();
    // By path and not by name, so that directories come one after the other.
    let paths: BTreeSet<&str> = chosen.iter().map(|name| database.modules[name].path.as_str()).collect();
    for (count, path) in paths.into_iter().enumerate() {
        meter.check()?;
        store.check_room()?;
        let bytes = tree.module(path)?;
        let named = info::values(&bytes, "firmware");
        let named: BTreeSet<String> =
            named.map_err(|source| ModulesError::Damaged { path: tree.path(path), source })?.into_iter().collect();
        firmware.extend(named.iter().cloned());
        if !signing::is_signed_module(&bytes) {
            unsigned.push(path);
        }
        if path.starts_with("kernel/drivers/net/") {
            drivers.insert(database::name(path), named);
        }
        out.file(&format!("{base}/{}", database::plain(path)), &bytes).map_err(failed)?;
        meter.at(count as u64);
    }
    for (file, text) in tables(&database, &chosen) {
        out.file(&format!("{base}/{file}"), text.as_bytes()).map_err(failed)?;
    }
    let found = firmware::add(source, &kernel.release, &firmware, |path, bytes| {
        out.file(path, bytes).map_err(|error| failed(error).into())
    })?;
    if let Some(note) = firmware::missing(&drivers, &found) {
        progress.note(&note);
    }
    // Of a kernel that is not signed itself, that is said already.
    if let Some(first) = unsigned.first().filter(|_| signing::is_signed(&kernel.bytes)) {
        let (count, all) = (unsigned.len(), chosen.len());
        progress.note(&format!(
            "{count} of the {all} modules for the first stage are not signed ({first}{}): with Secure Boot on the \
             kernel refuses them",
            if count > 1 { ", …" } else { "" }
        ));
    }
    tracing::debug!(modules = chosen.len(), bytes = out.bytes(), "modules initrd written");
    let blob = out.finish(store)?;
    meter.done(chosen.len() as u64);
    Ok(blob)
}

/// The kernel's modules in the source.
struct Tree<'a> {
    source: &'a Indexed,
    kernel: &'a Kernel,
}

impl Tree<'_> {
    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.kernel.modules)
    }

    /// A module, decompressed.
    fn module(&self, path: &str) -> Result<Vec<u8>, ModulesError> {
        let full = self.path(path);
        let bytes = self.source.bytes(full.as_bytes(), LARGEST).ok_or_else(|| ModulesError::Stale {
            directory: self.kernel.modules.clone(),
            path: path.to_owned(),
            release: self.kernel.release.clone(),
        })?;
        let plain = bytes.and_then(|bytes| decompress::by_name(path.as_bytes(), bytes, LARGEST));
        plain.map_err(|source| ModulesError::Read { path: full, source })
    }
}

/// The names of the modules that `taken` takes, and of all they need.
fn choose<E>(database: &Database, mut taken: impl FnMut(&str) -> Result<bool, E>) -> Result<BTreeSet<String>, E> {
    let mut queue = Vec::new();
    for module in database.modules.keys() {
        if taken(module)? {
            queue.push(module.clone());
        }
    }
    let mut softdeps: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (module, asked, _) in &database.softdeps {
        softdeps.entry(module).or_default().extend(asked);
    }
    let mut chosen = BTreeSet::new();
    while let Some(module) = queue.pop() {
        let Some(known) = database.modules.get(&module) else { continue };
        if !chosen.insert(module.clone()) {
            continue;
        }
        queue.extend(known.needs.iter().map(|path| database::name(path)));
        for asked in softdeps.get(module.as_str()).into_iter().flatten() {
            let wanted = |name: &String| {
                let path = database.modules.get(name).and_then(|module| module.in_kernel());
                !path.is_some_and(selection::is_left)
            };
            queue.extend(database.meant(asked).into_iter().filter(wanted));
        }
    }
    Ok(chosen)
}

/// depmod's tables for the chosen modules, under their names without compression, sorted.
fn tables(database: &Database, chosen: &BTreeSet<String>) -> [(&'static str, String); 4] {
    let mut dep = BTreeMap::new();
    for name in chosen {
        let module = &database.modules[name];
        let mut line = format!("{}:", database::plain(&module.path));
        for need in module.needs.iter().filter(|need| chosen.contains(&database::name(need))) {
            let _ = write!(line, " {}", database::plain(need));
        }
        dep.insert(database::plain(&module.path).to_owned(), line + "\n");
    }
    let is_chosen = |module: &str| chosen.contains(&module.replace('-', "_"));
    // In depmod's order: among several modules for one device the first line wins.
    let aliases = database.aliases.iter().filter(|(_, module)| is_chosen(module));
    let alias = aliases.map(|(pattern, module)| format!("alias {pattern} {module}\n")).collect();
    let softdeps = database.softdeps.iter().filter(|(module, ..)| is_chosen(module));
    let softdep = softdeps.map(|(_, _, line)| format!("{line}\n")).collect();
    let builtin = database.builtin.lines().map(|line| format!("{}\n", database::plain(line))).collect();
    [
        ("modules.alias", alias),
        ("modules.builtin", builtin),
        ("modules.dep", dep.into_values().collect()),
        ("modules.softdep", softdep),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn what_is_taken_brings_what_it_needs() {
        let database = Database::from_texts(
            "kernel/drivers/net/ethernet/a.ko.xz: kernel/lib/l.ko.xz\nkernel/lib/l.ko.xz:\nkernel/fs/ext4/ext4.ko:\n\
             kernel/crypto/crc32c_generic.ko:\nkernel/sound/core/snd.ko:\nkernel/net/wireless/cfg80211.ko:\n",
            "alias crypto-crc32c crc32c_generic\nalias pci:v1d2 a\nalias snd-card snd\n",
            "softdep ext4 pre: crypto-crc32c\nsoftdep a pre: snd\n",
        );
        let taken = |name: &str| Ok::<_, Infallible>(matches!(name, "a" | "ext4"));
        let Ok(chosen) = choose(&database, taken);
        assert_eq!(chosen.iter().collect::<Vec<_>>(), ["a", "crc32c_generic", "ext4", "l"]);
        let tables = BTreeMap::from(tables(&database, &chosen));
        assert_eq!(
            tables["modules.dep"],
            "kernel/crypto/crc32c_generic.ko:\nkernel/drivers/net/ethernet/a.ko: kernel/lib/l.ko\n\
             kernel/fs/ext4/ext4.ko:\nkernel/lib/l.ko:\n"
        );
        assert_eq!(tables["modules.alias"], "alias crypto-crc32c crc32c_generic\nalias pci:v1d2 a\n");
        assert_eq!(tables["modules.softdep"], "softdep ext4 pre: crypto-crc32c\nsoftdep a pre: snd\n");
    }
}
