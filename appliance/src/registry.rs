//! What is on its way into the store: uploads of the registry, and pushed images that are being made bootable.

pub mod conversions;
pub mod convert;
pub mod trust;
pub mod uploads;

use conversions::Conversions;
use uploads::Uploads;

/// One of each.
#[derive(Default)]
pub struct Registry {
    /// Held while images are put on record or taken off it, so that no collection removes the blobs of an image
    /// whose record it has not seen.
    pub settling: tokio::sync::Mutex<()>,
    /// Blobs that arrive in pieces.
    pub uploads: Uploads,
    /// Images in the making.
    pub conversions: Conversions,
}
