//! An ext4 file system's files.

use super::{Contents, DiskError, Part};
use ext4_view::{Ext4, Ext4Error, Ext4Read, PathBuf};
use std::io;

/// PATH_MAX: directories that hold themselves end here.
const LONGEST_PATH: usize = 4_095;
/// What the paths of directories that are still to be read may take together.
const MOST_WAITING: usize = 64 << 20;
const CHUNK: usize = 1 << 20;

impl Ext4Read for Part {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.read_exact_at(bytes, start)?)
    }
}

/// An open file system.
pub struct Files {
    inner: Ext4,
}

impl Files {
    /// Opens what [`super::look`] found.
    pub fn open(part: &Part) -> Result<Self, DiskError> {
        Ext4::load(Box::new(part.clone())).map(|inner| Self { inner }).map_err(failed("the ext4"))
    }

    /// Whether there is something of this name, if only a link.
    pub fn has(&self, path: &str) -> Result<bool, DiskError> {
        match self.inner.symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(false),
            Err(error) => Err(failed(format!("'{path}'"))(error)),
        }
    }

    /// Names in the root directory.
    pub fn top(&self) -> Vec<String> {
        let entries = self.inner.read_dir("/").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().as_str().ok().map(str::to_owned)).collect()
    }

    /// Adds everything below `at`, a path without a slash at its start and with one at its end.
    pub fn gather(
        &self,
        at: &str,
        out: &mut Contents<'_>,
        check: &dyn Fn() -> Result<(), crate::import::Cancelled>,
    ) -> Result<(), crate::import::ImportError> {
        let mut directories = vec![PathBuf::new("/")];
        let mut waiting = 1;
        while let Some(directory) = directories.pop() {
            check()?;
            waiting -= length(&directory);
            let what = |path: &PathBuf| format!("'{}'", crate::archive::show(path.as_ref()));
            let entries = self.inner.read_dir(&directory).map_err(failed(what(&directory)))?;
            for entry in entries {
                let entry = entry.map_err(failed(what(&directory)))?;
                let name = entry.file_name();
                if matches!(name.as_ref(), b"." | b"..") {
                    continue;
                }
                let path = entry.path();
                let bytes: &[u8] = path.as_ref();
                if bytes.len() > LONGEST_PATH {
                    return Err(failed(what(&path))(io::Error::other("its path is too long")).into());
                }
                let placed = [at.as_bytes(), bytes.strip_prefix(b"/").unwrap_or(bytes)].concat();
                let meta = entry.metadata().map_err(failed(what(&path)))?;
                let kind = meta.file_type();
                if kind.is_dir() {
                    waiting += bytes.len();
                    if waiting > MOST_WAITING {
                        return Err(failed(what(&path))(io::Error::other("there are too many directories")).into());
                    }
                    out.directory(&placed)?;
                    directories.push(path);
                } else if kind.is_symlink() {
                    // Its target is read whole.
                    if meta.len() > LONGEST_PATH as u64 {
                        return Err(failed(what(&path))(io::Error::other("it is a link that is too long")).into());
                    }
                    let target = self.inner.read_link(&path).map_err(failed(what(&path)))?;
                    out.symlink(&placed, AsRef::<[u8]>::as_ref(&target).to_vec())?;
                } else if kind.is_regular_file() {
                    out.file(&placed, meta.len(), |write| self.copy(&path, write))?;
                } else {
                    out.other(&placed)?;
                }
            }
        }
        Ok(())
    }

    fn copy(&self, path: &PathBuf, write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut file = self.inner.open(path).map_err(io::Error::other)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            // It gives a block at a time.
            let mut have = 0;
            while have < buffer.len() {
                match file.read_bytes(&mut buffer[have..]).map_err(io::Error::other)? {
                    0 => break,
                    count => have += count,
                }
            }
            if have == 0 {
                return Ok(());
            }
            write(&buffer[..have])?;
        }
    }
}

fn length(path: &PathBuf) -> usize {
    AsRef::<[u8]>::as_ref(path).len()
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: impl Into<String>) -> impl FnOnce(E) -> DiskError {
    move |source| DiskError::Read { what: what.into(), source: io::Error::other(source) }
}
