//! What has no safe form elsewhere: the entry point, and the system calls for loop devices.
#![allow(unsafe_code)]

use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, ioctl};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd};

/// The program's entry, in place of the one Rust makes: that one aborts when the standard files are closed and there is no
/// `/dev/null`, which is how the kernel starts an `/init` without a working console; PID 1 aborting is a kernel panic.
// SAFETY: no other symbol of this name exists, because the crate is `no_main` outside of tests; the signature is C's.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub extern "C" fn main(_: std::ffi::c_int, _: *const *const std::ffi::c_char) -> std::ffi::c_int {
    std::ffi::c_int::from(crate::entry())
}

const LOOP_SET_FD: Opcode = 0x4C00;
const LOOP_SET_STATUS64: Opcode = 0x4C04;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Read-only, detached by the kernel when the last user is gone; `name` shows in `losetup`.
fn loop_info(name: &str) -> LoopInfo {
    let mut file_name = [0; 64];
    let kept = name.len().min(file_name.len() - 1);
    file_name[..kept].copy_from_slice(&name.as_bytes()[..kept]);
    LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        file_name,
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    }
}

/// `LOOP_CTL_GET_FREE` answers with the call's return value.
struct GetFree;

// SAFETY: the call takes no argument and writes to no memory of ours; the result is its return value.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<u32> {
        Ok(out.unsigned_abs())
    }
}

/// The number of a loop device that nothing uses; `control` is `/dev/loop-control`.
pub fn loop_get_free(control: impl AsFd) -> Result<u32> {
    // SAFETY: see the implementation of `Ioctl` above.
    unsafe { ioctl(control, GetFree) }
}

/// Binds `backing` to the loop device, read-only. Kernels before 5.8 need two calls for it.
pub fn loop_configure(device: impl AsFd, backing: impl AsFd, name: &str) -> Result<()> {
    let fd = backing.as_fd().as_raw_fd();
    let config = LoopConfig { fd: fd.cast_unsigned(), block_size: 0, info: loop_info(name), reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which `LoopConfig` mirrors (its size is asserted below).
    let whole = unsafe { ioctl(&device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) };
    match whole {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTTY) => {}
        other => return other,
    }
    // SAFETY: LOOP_SET_FD takes a file descriptor by value, and `backing` is open during the call.
    unsafe { ioctl(&device, IntegerSetter::<LOOP_SET_FD>::new_usize(fd.cast_unsigned() as usize))? };
    // SAFETY: LOOP_SET_STATUS64 reads one `struct loop_info64`, which `LoopInfo` mirrors.
    unsafe { ioctl(&device, Setter::<LOOP_SET_STATUS64, LoopInfo>::new(loop_info(name))) }
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);
