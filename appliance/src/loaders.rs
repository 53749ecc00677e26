//! The boot programs that a firmware fetches first, and stage 1: embedded at build, see `build.rs`.

use bennu_rules::{image::Digest, tftp::request::normalise};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// A loader as the build took it.
struct Embedded {
    name: &'static str,
    bytes: &'static [u8],
    version: &'static str,
    source: &'static str,
}

// EMBEDDED: &[Embedded], and
// STAGE1_INITRD: &[u8], which the kernel unpacks over the initrd with the modules.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Larger than any boot program, or an installer's initrd; a disk image in the directory is a mistake.
const MAX_LOADER: u64 = 128 << 20;
/// What the build and the set-up write beside loaders; not a loader.
const VERSIONS: &str = "VERSIONS";

/// One boot program.
#[derive(Debug, Clone)]
pub struct Loader {
    /// Its name, as firmware asks for it.
    pub name: String,
    /// The program.
    pub bytes: Bytes,
    /// The version of the package it comes from.
    pub version: String,
    /// Where it comes from.
    pub source: String,
    sha256: Arc<OnceLock<Digest>>,
}

impl Loader {
    fn new(name: String, bytes: Bytes, version: String, source: String) -> Self {
        Self { name, bytes, version, source, sha256: Arc::default() }
    }

    /// Its SHA-256, made when it is first asked for: the pages of an embedded loader that nobody fetches stay on disk.
    pub fn sha256(&self) -> Digest {
        *self.sha256.get_or_init(|| {
            let digest = ring::digest::digest(&ring::digest::SHA256, &self.bytes);
            let mut sha256 = [0; 32];
            sha256.copy_from_slice(digest.as_ref());
            Digest(sha256)
        })
    }
}

/// A directory of loaders that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// It, or a file in it, cannot be read.
    #[error(
        "cannot read {path}, which boot.loaders_dir names: {source}. Mend it or remove the key to use the embedded loaders"
    )]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no loader.
    #[error("{path} has {size} bytes, too many for a loader: keep only boot programs in that directory")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

/// Every loader that is served, by name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Loaders {
    by_name: Arc<BTreeMap<String, Loader>>,
}

impl Loaders {
    /// The embedded loaders, and over them every file of `directory`.
    pub fn with_directory(directory: Option<&Path>) -> Result<Self, LoaderError> {
        let embedded = EMBEDDED.iter().map(|found| {
            let bytes = Bytes::from_static(found.bytes);
            Loader::new(found.name.to_owned(), bytes, found.version.to_owned(), found.source.to_owned())
        });
        let mut by_name: BTreeMap<_, _> = embedded.map(|loader| (loader.name.clone(), loader)).collect();
        for loader in directory.map(read_directory).transpose()?.unwrap_or_default() {
            by_name.insert(loader.name.clone(), loader);
        }
        Ok(Self { by_name: Arc::new(by_name) })
    }

    /// The loader of this name.
    pub fn get(&self, name: &str) -> Option<Loader> {
        self.by_name.get(name).cloned()
    }

    /// Every loader, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &Loader> {
        self.by_name.values()
    }
}

fn read_directory(directory: &Path) -> Result<Vec<Loader>, LoaderError> {
    let unreadable = |path: &Path, source| LoaderError::Unreadable { path: path.to_owned(), source };
    let mut loaders = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, error))? {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
        let name = path.file_name().and_then(|name| name.to_str()).and_then(normalise);
        let Some(name) = name.filter(|name| metadata.is_file() && name != VERSIONS) else { continue };
        if metadata.len() > MAX_LOADER {
            return Err(LoaderError::TooLarge { path, size: metadata.len() });
        }
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, error))?;
        loaders.push(Loader::new(name, bytes.into(), "unknown".to_owned(), path.display().to_string()));
    }
    Ok(loaders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_of_every_firmware_are_embedded() {
        let loaders = Loaders::with_directory(None).unwrap();
        let efi = Some(b"MZ");
        for (name, magic) in [
            ("undionly.kpxe", None),
            ("snponly.efi", efi),
            ("ipxe.efi", efi),
            ("shimx64.efi", efi),
            ("grubx64.efi", efi),
        ] {
            let loader = loaders.get(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(loader.bytes.len() > 50_000 && magic.is_none_or(|magic| loader.bytes.starts_with(magic)), "{name}");
            assert!(!loader.version.is_empty() && !loader.source.is_empty());
        }
        assert!(loaders.get("../ipxe.efi").is_none() && loaders.get(VERSIONS).is_none());
    }

    #[test]
    fn a_directory_wins_over_what_is_embedded() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("snponly.efi"), b"MZ of the site").unwrap();
        fs::write(directory.path().join("shimx64.efi"), b"MZ shim").unwrap();
        fs::write(directory.path().join(VERSIONS), b"text").unwrap();
        let loaders = Loaders::with_directory(Some(directory.path())).unwrap();
        assert_eq!(loaders.get("snponly.efi").unwrap().bytes, &b"MZ of the site"[..]);
        let names: Vec<&str> = loaders.iter().map(|loader| loader.name.as_str()).collect();
        assert_eq!(names, ["grubx64.efi", "ipxe.efi", "shimx64.efi", "snponly.efi", "undionly.kpxe"]);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Loaders::with_directory(Some(Path::new("/nowhere/loaders"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/loaders") && error.contains("boot.loaders_dir"), "{error}");
    }

    #[test]
    fn stage_1_travels_as_an_executable_init() {
        let archive = zstd::decode_all(STAGE1_INITRD).unwrap();
        let mut reader = cpio::newc::Reader::new(archive.as_slice()).unwrap();
        assert_eq!((reader.entry().name(), reader.entry().mode()), ("init", 0o100_755));
        let mut init = Vec::new();
        io::Read::read_to_end(&mut reader, &mut init).unwrap();
        assert_eq!(&init[..4], b"\x7fELF");
        let after = cpio::newc::Reader::new(reader.finish().unwrap()).unwrap();
        assert!(after.entry().is_trailer());
    }
}
