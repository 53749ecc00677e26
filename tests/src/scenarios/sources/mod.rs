//! What an image can be made from, beside a tree of files.

mod disk;
mod live;
mod programs;

pub use disk::QCOW2;
pub use live::LIVE_ISO;
pub use programs::{MEMTEST, UNIFIED};
