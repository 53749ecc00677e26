//! What depmod wrote about a kernel's modules (modules.dep(5), depmod.d(5)).

use super::ModulesError;
use crate::{archive::decompress, tree::Indexed};
use std::collections::{BTreeMap, BTreeSet};

/// Debian's modules.alias has 1.5 MB.
const LARGEST: u64 = 64 << 20;

/// One module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Path below the modules directory, as written: `kernel/fs/overlayfs/overlay.ko.xz`.
    pub path: String,
    /// Paths of what must be loaded before it, in depmod's order.
    pub needs: Vec<String>,
}

impl Module {
    /// The path without `kernel/`, `.ko` and compression; `None` for a module that is not the kernel's own.
    pub fn in_kernel(&self) -> Option<&str> {
        let path = self.path.strip_prefix("kernel/")?;
        Some(plain(path).strip_suffix(".ko").unwrap_or(path))
    }
}

/// A path without its compression suffix.
pub fn plain(path: &str) -> &str {
    decompress::suffix(path.as_bytes()).and_then(|suffix| path.strip_suffix(suffix)).unwrap_or(path)
}

/// A module's name as the kernel has it, from its path or from a name written with dashes.
pub fn name(path: &str) -> String {
    let file = plain(path).rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}

/// Everything depmod knows, by module name.
#[derive(Debug, Default)]
pub struct Database {
    /// All modules.
    pub modules: BTreeMap<String, Module>,
    /// `modules.alias`: pattern and module name, as written.
    pub aliases: Vec<(String, String)>,
    /// `modules.softdep`: module name, the names it asks for, the line as written.
    pub softdeps: Vec<(String, Vec<String>, String)>,
    /// `modules.builtin` as written.
    pub builtin: String,
    builtin_names: BTreeSet<String>,
}

impl Database {
    /// Reads the files of a modules directory.
    pub fn read(source: &Indexed, directory: &str, release: &str) -> Result<Self, ModulesError> {
        let text = |file: &str| -> Result<Option<String>, ModulesError> {
            let path = format!("{directory}/{file}");
            let bytes = source.bytes(path.as_bytes(), LARGEST).transpose();
            let bytes = bytes.map_err(|source| ModulesError::Read { path, source })?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let no_depmod = || ModulesError::NoDepmod { directory: directory.to_owned(), release: release.to_owned() };
        let mut database = Self::default();
        database.dependencies(&text("modules.dep")?.ok_or_else(no_depmod)?);
        if database.modules.is_empty() {
            return Err(no_depmod());
        }
        database.aliases(&text("modules.alias")?.ok_or_else(no_depmod)?);
        database.softdeps(&text("modules.softdep")?.unwrap_or_default());
        database.builtin = text("modules.builtin")?.unwrap_or_default();
        database.builtin_names = database.builtin.lines().map(|line| name(line.trim())).collect();
        Ok(database)
    }

    /// Whether a module is part of the kernel itself.
    pub fn is_builtin(&self, module: &str) -> bool {
        self.builtin_names.contains(module)
    }

    /// The modules a soft dependency means: it may be written as a name or as an alias.
    pub fn meant(&self, written: &str) -> Vec<String> {
        let module = written.replace('-', "_");
        if self.modules.contains_key(&module) {
            return vec![module];
        }
        let by_alias = self.aliases.iter().filter(|(pattern, _)| pattern == written);
        by_alias.map(|(_, module)| module.replace('-', "_")).collect()
    }

    fn dependencies(&mut self, text: &str) {
        for line in text.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            self.modules.insert(name(path), Module { path: path.to_owned(), needs });
        }
    }

    fn aliases(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                self.aliases.push((pattern.to_owned(), module.to_owned()));
            }
        }
    }

    fn softdeps(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                let asked = words.filter(|word| !matches!(*word, "pre:" | "post:")).map(str::to_owned).collect();
                self.softdeps.push((module.replace('-', "_"), asked, line.to_owned()));
            }
        }
    }
}

#[cfg(test)]
impl Database {
    /// From texts.
    pub fn from_texts(dep: &str, alias: &str, softdep: &str) -> Self {
        let mut database = Self::default();
        database.dependencies(dep);
        database.aliases(alias);
        database.softdeps(softdep);
        database
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        assert_eq!(name("kernel/arch/x86/crypto/crc32c-intel.ko.xz"), "crc32c_intel");
        assert_eq!(plain("kernel/a.ko.zst"), "kernel/a.ko");
        let module = |path: &str| Module { path: path.to_owned(), needs: Vec::new() };
        assert_eq!(module("kernel/drivers/net/x.ko.gz").in_kernel(), Some("drivers/net/x"));
        assert_eq!(module("updates/dkms/x.ko").in_kernel(), None);
    }

    #[test]
    fn soft_dependencies_are_names_or_aliases() {
        let database = Database::from_texts(
            "kernel/crypto/crc32c_generic.ko:\nkernel/arch/x86/crypto/crc32c-intel.ko:\nkernel/net/a-b.ko: kernel/crypto/crc32c_generic.ko\n",
            "alias crc32c crc32c_generic\nalias crc32c crc32c_intel\nalias pci:v*d* a_b\n# comment\n",
            "softdep ext4 pre: crc32c post: a-b\n",
        );
        assert_eq!(database.meant("crc32c"), ["crc32c_generic", "crc32c_intel"]);
        assert_eq!(database.meant("a-b"), ["a_b"]);
        assert!(database.meant("nothing").is_empty());
        assert_eq!(database.softdeps[0].1, ["crc32c", "a-b"]);
        assert_eq!(database.modules["a_b"].needs, ["kernel/crypto/crc32c_generic.ko"]);
    }
}
