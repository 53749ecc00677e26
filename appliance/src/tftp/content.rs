//! The bytes of a file that a transfer sends.

use bennu_rules::tftp::netascii;
use bytes::Bytes;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// What travels as text is translated in memory before its first block.
const MAX_NETASCII: usize = 4 << 20;

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// Here.
    Memory(Bytes),
    /// In a file that never changes, of this size.
    #[allow(dead_code)] // Loaders lie in memory; images bring their own (shim, GRUB) in files.
    File(Arc<File>, u64),
}

impl Content {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }

    /// The same as netascii; `None` when it is too large for that.
    pub fn as_netascii(&self) -> Option<Self> {
        match self {
            Self::Memory(bytes) if bytes.len() <= MAX_NETASCII => Some(Self::Memory(netascii::encode(bytes).into())),
            _ => None,
        }
    }

    /// Bytes of one stretch, which lies within the file.
    pub async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(offset as usize..offset as usize + length)),
            Self::File(file, _) => {
                let file = file.clone();
                let read = move || {
                    let mut bytes = vec![0; length];
                    file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
                };
                tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
            }
        }
    }
}
