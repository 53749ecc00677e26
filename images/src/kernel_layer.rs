//! A kernel with all that belongs to it as one layer, for container images that have none.

use crate::{
    import::ImportError,
    kernel::Kernel,
    store::Store,
    tree::{self, Indexed, Kind, Metadata, Put, Tree},
};
use bennu_rules::image::BlobRef;

/// Only the appliance reads it, once an import: fast counts for more than small.
const LEVEL: i32 = 3;

/// Stores the layer: `lib/modules/RELEASE` with the kernel in it, as bootc lays kernels down, and all firmware. The
/// directories above are not in it: in most images `lib` is a link to `usr/lib`, and stays what it is there.
pub fn store(source: &Indexed, kernel: &Kernel, threads: usize, store: &Store) -> Result<BlobRef, ImportError> {
    let layer = tree_of(source, kernel)?;
    let out = store.writer()?;
    let failed = |error| store.failed("write to", store.tmp(), error);
    let mut encoder = zstd::Encoder::new(out, LEVEL).map_err(failed)?;
    // With any number of workers the bytes are the same; with none they are others.
    encoder.multithread(u32::try_from(threads).unwrap_or(1).max(1)).map_err(failed)?;
    let mut checked = Checked { out: encoder, store };
    tree::emit_layer(&layer, &source.spool, &mut checked, &mut |_| ()).map_err(failed)?;
    Ok(checked.out.finish().map_err(failed)?.finish()?)
}

fn tree_of(source: &Indexed, kernel: &Kernel) -> Result<Tree, ImportError> {
    let mut layer = Tree::default();
    let modules = format!("lib/modules/{}", kernel.release);
    let mut graft = |to: &str, from: &str| match source.tree.find(from.as_bytes()) {
        Some(id) => layer.graft(to.as_bytes(), &source.tree, id),
        None => Ok(()),
    };
    graft(&modules, &kernel.modules)?;
    // Fedora has some packages' firmware in /lib and some in /usr/lib; where both are one, it is grafted twice and
    // lies there once.
    graft("lib/firmware", "/usr/lib/firmware")?;
    graft("lib/firmware", "/lib/firmware")?;
    graft(&format!("{modules}/config"), &format!("/boot/config-{}", kernel.release))?;
    if let Some(id) = source.tree.find(kernel.path.as_bytes()) {
        let inode = source.tree.inode(id);
        if let Kind::File(data) = &inode.kind {
            let meta = Metadata { mode: 0o644, ..inode.meta.clone() };
            layer.put(format!("{modules}/vmlinuz").as_bytes(), Put::Inode(Kind::File(data.clone()), meta))?;
        }
    }
    layer.finish()?;
    Ok(layer)
}

/// Stops before the disk is full.
struct Checked<'a, W> {
    out: W,
    store: &'a Store,
}

impl<W: std::io::Write> std::io::Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.store.check_room().map_err(|_| std::io::Error::from(std::io::ErrorKind::StorageFull))?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
