//! What QEMU reads itself: nothing checks a kernel or an initrd on its way there, so it is done here.

use crate::http::api::trials::Lines;
use bennu_images::{
    import::Cancelled,
    store::{Store, StoreError},
};
use bennu_rules::{image::BlobRef, journey::Diagnosis};
use std::{
    io::{self, Seek, Write},
    path::PathBuf,
};
use tempfile::NamedTempFile;

/// The kernel finds another archive after the one before at a multiple of this
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
const ALIGNMENT: u64 = 4;

/// A machine's files. The initrd is gone with this.
pub struct Files {
    /// The kernel, in the store.
    pub kernel: PathBuf,
    /// All initrds, one after the other: QEMU takes one file.
    pub initrd: NamedTempFile,
}

/// Why there are none.
pub enum Unusable {
    /// A blob is not what it was.
    Damaged(Diagnosis),
    /// The store.
    Store(StoreError),
    /// Nobody wants them any more.
    Cancelled(Cancelled),
}

impl From<StoreError> for Unusable {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Looks at the kernel and puts the initrds together.
pub fn prepare(store: &Store, kernel: &BlobRef, initrds: &[BlobRef], lines: &Lines) -> Result<Files, Unusable> {
    let whole = [("kernel", kernel)].into_iter().chain(initrds.iter().map(|initrd| ("initrd", initrd)));
    for (part, blob) in whole {
        let going_on = &mut |_| if lines.is_cancelled() { Err(Cancelled) } else { Ok(()) };
        if let Some(damage) = store.examine(blob, going_on).map_err(Unusable::Cancelled)? {
            let reason = format!("the {part} {} is damaged: {damage}", blob.digest);
            let advice = "Import the image again, which repairs it; bennu image verify looks at all others.";
            return Err(Unusable::Damaged(Diagnosis { reason, advice: advice.to_owned() }));
        }
    }
    store.check_room()?;
    let failed = |error| Unusable::Store(store.failed("write to", store.tmp(), error));
    let mut initrd = tempfile::Builder::new().prefix("trial-").tempfile_in(store.tmp()).map_err(failed)?;
    for blob in initrds {
        let (mut from, _) = store.open_blob(&blob.digest)?;
        io::copy(&mut from, &mut initrd).map_err(failed)?;
        let beyond = initrd.stream_position().map_err(failed)? % ALIGNMENT;
        let padding = (ALIGNMENT - beyond) % ALIGNMENT;
        initrd.write_all(&vec![0; padding as usize]).map_err(failed)?;
    }
    Ok(Files { kernel: store.blob_path(&kernel.digest), initrd })
}
