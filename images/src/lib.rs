//! Images: the blob store, the importers, and the builders of root filesystems and module initrds.
//!
//! An import reads a tar once into an index ([`tree`]) and a spool on disk, finds the kernel in it, makes the
//! modules initrd ([`modules`]), feeds a normalised tar to the root filesystem's builder ([`squashfs`]) and
//! ends in an OCI manifest whose digest is the image's identity. Nothing of the importing host or of the time
//! of import enters a blob: the same source with the same tools gives the same digest.

pub mod archive;
pub mod cosign;
pub mod disk;
pub mod efi;
pub mod import;
pub mod iso;
pub mod kernel;
mod kernel_layer;
pub mod modules;
pub mod oci;
pub mod signing;
pub mod squashfs;
pub mod store;
pub mod tree;
pub mod verity;
