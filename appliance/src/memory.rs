//! How the allocator of the C library keeps memory.
#![allow(unsafe_code)]

/// One heap for all threads, instead of one for each few: what many threads leave half used is most of what a server of
/// many small objects holds beyond its need. To be called before the first thread.
#[cfg(target_env = "gnu")]
pub fn share_one_heap() {
    // SAFETY: it sets a number of the allocator, under the allocator's own lock. Where it is refused, nothing is worse.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Other C libraries have one heap.
#[cfg(not(target_env = "gnu"))]
pub fn share_one_heap() {}
