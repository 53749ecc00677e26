//! What is served: an ordered list of routes from names to bytes.

use super::grub;
use crate::appliance::Appliance;
use bennu_images::store::StoreError;
use bennu_rules::{image::Digest, tftp::netascii};
use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::{
    fs::File,
    future::Future,
    io::{self, IoSliceMut},
    net::IpAddr,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
};

/// What travels as text is translated in memory before its first block.
const MAX_NETASCII: usize = 4 << 20;
/// Read at once where the page cache has nothing.
const READ_AHEAD: u64 = 256 << 10;

/// The routes of the appliance, in the order they are tried. A route is one function: the bytes that a name stands
/// for, or `None` where it does not know that name.
pub fn routes(appliance: &Arc<Appliance>) -> Routes {
    Routes(vec![
        route(appliance, loader),
        route(appliance, blob),
        route(appliance, grub::loader_of_image),
        route(appliance, grub::script),
        route(appliance, grub::entry),
    ])
}

/// A boot program: embedded, or from the directory in the configuration.
async fn loader(appliance: Arc<Appliance>, wanted: Wanted) -> Option<Found> {
    appliance.loaders.get(&wanted.name).map(|loader| Content::Memory(loader.bytes).into())
}

/// `blobs/sha256/<hex>`: any blob of the store, by its digest, as over HTTP.
async fn blob(appliance: Arc<Appliance>, wanted: Wanted) -> Option<Found> {
    let digest = Digest::from_hex(wanted.name.strip_prefix("blobs/sha256/")?).ok()?;
    match appliance.store.open_blob(&digest) {
        Ok((file, size)) => Some(Found { blob: Some(digest), ..Content::File(Arc::new(file), size).into() }),
        Err(StoreError::Missing { .. }) => None,
        Err(error) => {
            tracing::error!(%error, "a blob cannot be served");
            None
        }
    }
}

/// What is asked for, and by whom.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The name in its one form ([`bennu_rules::tftp::request::normalise`]).
    pub name: String,
    /// The client.
    pub peer: IpAddr,
    /// Our address that it asks.
    pub local: IpAddr,
}

/// What a route found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The bytes.
    pub content: Content,
    /// Set where the bytes are a blob of the store: its delivery is told as one.
    pub blob: Option<Digest>,
    /// Whether a delivery is told: that of a rendered script is not, since the rule that made it has told of it.
    pub is_told: bool,
}

impl From<Content> for Found {
    fn from(content: Content) -> Self {
        Self { content, blob: None, is_told: true }
    }
}

/// What a route will have found.
pub type Finding = Pin<Box<dyn Future<Output = Option<Found>> + Send>>;
/// Finds the bytes of the names it knows.
pub type Route = Box<dyn Fn(Wanted) -> Finding + Send + Sync>;

/// Routes, in the order they are tried.
pub struct Routes(pub Vec<Route>);

impl Routes {
    /// What the first route that knows the name found.
    pub async fn find(&self, wanted: &Wanted) -> Option<Found> {
        for route in &self.0 {
            let found = route(wanted.clone()).await;
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

fn route<F>(appliance: &Arc<Appliance>, find: fn(Arc<Appliance>, Wanted) -> F) -> Route
where
    F: Future<Output = Option<Found>> + Send + 'static,
{
    let appliance = appliance.clone();
    Box::new(move |wanted| Box::pin(find(appliance.clone(), wanted)))
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// Here.
    Memory(Bytes),
    /// In a file that never changes, of this size. It is read, not mapped: a bad sector under a mapping is a signal
    /// that ends the appliance.
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

    /// Bytes of one stretch, which lies within the file; `None` when the disk has to be waited for.
    pub fn at_hand<'a>(&'a self, offset: u64, length: usize, scratch: &'a mut Vec<u8>) -> io::Result<Option<&'a [u8]>> {
        match self {
            Self::Memory(bytes) => Ok(Some(&bytes[offset as usize..offset as usize + length])),
            Self::File(file, _) => {
                scratch.resize(length, 0);
                Ok(cached(file, offset, scratch)?.then_some(scratch))
            }
        }
    }

    /// The same and what comes after, waiting for the disk: for a thread of its own.
    pub fn read_ahead(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(offset as usize..)),
            Self::File(file, size) => {
                let ahead = length.max(size.saturating_sub(offset).min(READ_AHEAD) as usize);
                let mut bytes = vec![0; ahead];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes.into())
            }
        }
    }
}

/// Reads what the page cache holds; whether that was everything.
fn cached(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<bool> {
    match preadv2(file, &mut [IoSliceMut::new(bytes)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read == bytes.len()),
        // Nothing there, or a file system that cannot tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn of(content: &'static [u8]) -> Route {
        Box::new(move |wanted: Wanted| {
            let known = wanted.name == "known";
            Box::pin(async move { known.then(|| Content::Memory(Bytes::from_static(content)).into()) })
        })
    }

    fn nothing() -> Route {
        Box::new(|_| Box::pin(async { None }))
    }

    #[tokio::test]
    async fn the_first_route_that_knows_a_name_answers() {
        let routes = Routes(vec![nothing(), of(b"first"), of(b"second")]);
        let wanted =
            |name: &str| Wanted { name: name.into(), peer: [10, 77, 0, 50].into(), local: [10, 77, 0, 1].into() };
        let found = routes.find(&wanted("known")).await.unwrap();
        assert_eq!(found.content.at_hand(0, 5, &mut Vec::new()).unwrap(), Some(&b"first"[..]));
        assert!(routes.find(&wanted("unknown")).await.is_none());
    }

    #[test]
    fn any_stretch_of_a_file_is_read() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i / 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let content = Content::File(Arc::new(file), bytes.len() as u64);
        for (offset, length) in [(0, 0), (0, 1), (7, 400_000), (999_999, 1), (1_000_000, 0)] {
            let expected = &bytes[offset as usize..][..length];
            assert_eq!(content.read_ahead(offset, length).unwrap()[..length], *expected);
            let mut scratch = Vec::new();
            // Not every file system can tell what its cache holds.
            assert!(content.at_hand(offset, length, &mut scratch).unwrap().is_none_or(|read| read == expected));
        }
        assert!(content.read_ahead(999_999, 2).is_err(), "more than there is");
    }
}
