//! Kernel modules: found for the devices that are there, loaded with what they need.

mod glob;
mod index;

use crate::cmdline::Arguments;
use crate::console;
use index::{Index, Purpose};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The devices to find drivers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// Everything but disks: networks and the buses they sit on. Comes first, because disks can take long.
    Network,
    /// Disks as well.
    All,
}

/// The running kernel's modules and what has become of them.
pub struct Modules {
    directory: PathBuf,
    index: Index,
    blacklist: HashSet<String>,
    parameters: Arguments,
    /// Loaded, or failed for good; in either case never tried again.
    done: HashSet<String>,
    loaded: usize,
}

impl Modules {
    /// Of the kernel with this release.
    pub fn of(release: &str, arguments: &Arguments) -> Self {
        let directory = ["/lib/modules", "/usr/lib/modules"]
            .iter()
            .map(|parent| Path::new(parent).join(release))
            .find(|path| path.is_dir())
            .unwrap_or_else(|| Path::new("/lib/modules").join(release));
        let index = Index::read(&directory);
        let blacklist = arguments.blacklist.iter().cloned().collect();
        Self { directory, index, blacklist, parameters: arguments.clone(), done: HashSet::new(), loaded: 0 }
    }

    /// How many modules the initrd carries for this kernel.
    pub fn known(&self) -> usize {
        if self.index.is_empty() { 0 } else { self.index.len() }
    }

    /// How many were loaded.
    pub fn loaded(&self) -> usize {
        self.loaded
    }

    /// Loads drivers for every device that is there, and for those which appear by that, until nothing new comes.
    /// Answers how many modules were loaded.
    pub fn coldplug(&mut self, devices: Devices) -> usize {
        let before = self.loaded;
        loop {
            let round = self.loaded;
            for modalias in modaliases(Path::new("/sys")) {
                for module in self.index.serving(&modalias) {
                    let wanted = match self.index.purpose(&module) {
                        Purpose::Unwanted => false,
                        Purpose::Storage => devices == Devices::All,
                        Purpose::Other => true,
                    };
                    if wanted && !self.blacklist.contains(&module) {
                        self.load(&module);
                    }
                }
            }
            if self.loaded == round {
                return self.loaded - before;
            }
        }
    }

    /// Loads one module with what it needs. That it is built in, or missing in a kernel that does without, is no error here:
    /// whoever uses it finds out.
    pub fn load(&mut self, name: &str) {
        for module in self.index.order(name) {
            if self.done.insert(module.clone()) {
                self.insert(&module);
            }
        }
    }

    fn insert(&mut self, module: &str) {
        let Some(path) = self.index.path(module).map(|path| self.directory.join(path)) else { return };
        // The full modules.dep of a kernel may stand beside a choice of its modules.
        let Ok(file) = File::open(&path) else { return };
        let Ok(parameters) = CString::new(self.parameters.parameters_of(module)) else { return };
        let result = console::while_doing(&format!("loading kernel module {module}"), || {
            rustix::system::finit_module(&file, &parameters, 0)
        });
        match result {
            Ok(()) => self.loaded += 1,
            Err(Errno::EXIST) => {}
            // Drivers for a class of machines look whether they are on one and say "no such device" if not.
            Err(Errno::NODEV) => {}
            Err(error) => console::say(&format!("kernel module {module} was not loaded: {error}")),
        }
    }
}

/// The modaliases of all devices. Walks `/sys/devices`, where every device of every bus has its directory.
fn modaliases(sys: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![sys.join("devices")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    found.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_modaliases_at_any_depth_and_follows_no_links() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("devices/pci0000:00/0000:00:03.0/virtio0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("modalias"), "virtio:d00000001v00001AF4\n").unwrap();
        std::fs::write(device.parent().unwrap().join("modalias"), "pci:v00001AF4d00001000\n").unwrap();
        std::os::unix::fs::symlink(sys.path(), device.join("subsystem")).unwrap();
        let found: Vec<_> = modaliases(sys.path()).into_iter().collect();
        assert_eq!(found, ["pci:v00001AF4d00001000", "virtio:d00000001v00001AF4"]);
    }
}
