//! What an image can be made from, beside a tree of files.

mod disk;
mod programs;

pub use disk::QCOW2;
pub use programs::MEMTEST;
