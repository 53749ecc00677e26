//! What has no safe form elsewhere: the system calls for loop devices and the device mapper.
#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode};
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

const LOOP_SET_FD: Opcode = 0x4C00;
const LOOP_SET_STATUS64: Opcode = 0x4C04;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

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

/// What of a file a loop device shows, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoopPart {
    /// From this byte on.
    pub from: u64,
    /// So many bytes; 0: all there are.
    pub length: u64,
    /// Whether it can be written to. Then it goes past the cache, which the file system on it has already.
    pub is_writable: bool,
}

/// Detached by the kernel when the last user is gone; `name` shows in `losetup`.
fn loop_info(name: &str, part: LoopPart) -> LoopInfo {
    let mut file_name = [0; 64];
    copy_text(&mut file_name, name);
    LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: part.from,
        size_limit: part.length,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_AUTOCLEAR | if part.is_writable { LO_FLAGS_DIRECT_IO } else { LO_FLAGS_READ_ONLY },
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

/// Binds a part of `backing` to the loop device. Kernels before 5.8 need two calls for it.
pub fn loop_configure(device: impl AsFd, backing: impl AsFd, name: &str, part: LoopPart) -> Result<()> {
    let fd = backing.as_fd().as_raw_fd();
    let config = LoopConfig { fd: fd.cast_unsigned(), block_size: 0, info: loop_info(name, part), reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which `LoopConfig` mirrors (its size is asserted below).
    let whole = unsafe { ioctl(&device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) };
    match whole {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTTY) => {}
        other => return other,
    }
    // SAFETY: LOOP_SET_FD takes a file descriptor by value, and `backing` is open during the call.
    unsafe { ioctl(&device, IntegerSetter::<LOOP_SET_FD>::new_usize(fd.cast_unsigned() as usize))? };
    // SAFETY: LOOP_SET_STATUS64 reads one `struct loop_info64`, which `LoopInfo` mirrors.
    unsafe { ioctl(&device, Setter::<LOOP_SET_STATUS64, LoopInfo>::new(loop_info(name, part))) }
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// Room for a target's parameters.
const PARAMETERS: usize = 1024;

/// `struct dm_ioctl` of `linux/dm-ioctl.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapperHead {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// A request with the one target it may tell of: `struct dm_target_spec`, and its parameters.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapperRequest {
    head: MapperHead,
    start: u64,
    length: u64,
    status: i32,
    next: u32,
    target: [u8; 16],
    parameters: [u8; PARAMETERS],
}

const _: () = assert!(size_of::<MapperHead>() == 312 && std::mem::offset_of!(MapperRequest, parameters) == 352);

/// Opcodes say the size of the head alone; `data_size` says the rest.
const fn mapper_opcode(number: u8) -> Opcode {
    opcode::read_write::<MapperHead>(0xfd, number)
}

const DM_DEV_CREATE: Opcode = mapper_opcode(3);
const DM_DEV_REMOVE: Opcode = mapper_opcode(4);
const DM_DEV_SUSPEND: Opcode = mapper_opcode(6);
const DM_TABLE_LOAD: Opcode = mapper_opcode(9);
const DM_TABLE_STATUS: Opcode = mapper_opcode(12);

const DM_READONLY_FLAG: u32 = 1;
const DM_DEFERRED_REMOVE: u32 = 1 << 17;

/// One device of the device mapper, by its name.
pub struct DeviceMapper {
    control: File,
    request: MapperRequest,
}

impl DeviceMapper {
    /// `control` is `/dev/mapper/control`.
    pub fn new(control: File, name: &str) -> Self {
        let mut named = [0; 128];
        copy_text(&mut named, name);
        let head = MapperHead {
            version: [4, 0, 0],
            data_size: size_of::<MapperRequest>() as u32,
            data_start: size_of::<MapperHead>() as u32,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event: 0,
            padding: 0,
            device: 0,
            name: named,
            uuid: [0; 129],
            data: [0; 7],
        };
        let request = MapperRequest {
            head,
            start: 0,
            length: 0,
            status: 0,
            next: 0,
            target: [0; 16],
            parameters: [0; PARAMETERS],
        };
        Self { control, request }
    }

    /// Makes it, empty; answers its number N in `/dev/dm-N`.
    pub fn create(&self) -> Result<u64> {
        let made = self.ask::<DM_DEV_CREATE>(self.request)?.head.device;
        // Major and minor as the kernel packs them (huge_encode_dev).
        Ok(made & 0xff | made >> 12 & 0xfff_ff00)
    }

    /// Gives it its one target, over `sectors` of 512 bytes.
    pub fn load_read_only(&self, target: &str, sectors: u64, parameters: &str) -> Result<()> {
        if parameters.len() >= PARAMETERS || target.len() >= 16 {
            return Err(Errno::TOOBIG);
        }
        let mut request = self.request;
        request.head.target_count = 1;
        request.head.flags = DM_READONLY_FLAG;
        request.length = sectors;
        copy_text(&mut request.target, target);
        copy_text(&mut request.parameters, parameters);
        self.ask::<DM_TABLE_LOAD>(request).map(drop)
    }

    /// Lets it serve what was loaded.
    pub fn resume(&self) -> Result<()> {
        self.ask::<DM_DEV_SUSPEND>(self.request).map(drop)
    }

    /// Removes it, as soon as nobody uses it.
    pub fn remove(&self) -> Result<()> {
        let mut request = self.request;
        request.head.flags = DM_DEFERRED_REMOVE;
        self.ask::<DM_DEV_REMOVE>(request).map(drop)
    }

    /// What its target says of itself.
    pub fn status(&self) -> Result<String> {
        let answer = self.ask::<DM_TABLE_STATUS>(self.request)?;
        let text = answer.parameters.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn ask<const OPCODE: Opcode>(&self, mut request: MapperRequest) -> Result<MapperRequest> {
        // SAFETY: the device mapper reads and writes `data_size` bytes, which is the size of `MapperRequest`; it begins with
        // the `struct dm_ioctl` that the opcode promises, and any bytes are a valid one.
        unsafe { ioctl(&self.control, Updater::<OPCODE, MapperRequest>::new(&mut request))? };
        Ok(request)
    }
}

/// Into a field of zeros, cut to leave one behind it.
fn copy_text(field: &mut [u8], text: &str) {
    let kept = text.len().min(field.len() - 1);
    field[..kept].copy_from_slice(&text.as_bytes()[..kept]);
}
