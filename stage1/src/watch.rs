//! The watch over the root in the booted system. Where dm-verity refuses a block, the kernel says so in an event
//! (`DM_VERITY_ERR_BLOCK_NR`); then everybody is told, and the machine starts again: whatever needs that block fails by and by.

use crate::console;
use crate::reporter::{self, BootFile};
use crate::restart;
use crate::verity::Device;
use bennu_plan::Step;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType, bind, netlink, recvfrom, socket_with,
};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// The kernel's own events; udev's are those of group 2.
const KERNEL: u32 = 1;
/// Events are a few hundred bytes (UEVENT_BUFFER_SIZE is 2048).
const LONGEST: usize = 8192;
/// Disks that appear together must not push out the one event that counts.
const ROOM: usize = 1 << 20;
/// From the refused block to the restart: the consoles are recorded, the appliance is told, and services run on quicksand.
const PAUSE: Duration = Duration::from_secs(15);

/// A refused block.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    /// Of the hash tree rather than of the root.
    in_tree: bool,
    block: u64,
}

/// `stage1 watch`: returns where there is nothing to watch, or it cannot.
pub fn run() -> u8 {
    let watched = reporter::read(Path::new(reporter::FILE)).and_then(|boot| match &boot.checked {
        None => Ok(()),
        Some(device) => {
            restart::report_panics_to(boot.to());
            let refused = watch(device).map_err(|error| format!("cannot listen to the kernel's events: {error}"))?;
            console::open();
            restart::report_and_restart(Step::Damaged, &tell(refused.as_ref(), &boot), PAUSE)
        }
    });
    match watched {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bennu: {error}");
            1
        }
    }
}

fn listen() -> Result<OwnedFd, Errno> {
    let protocol = Some(netlink::KOBJECT_UEVENT);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, protocol)?;
    set_socket_recv_buffer_size_force(&socket, ROOM).or_else(|_| set_socket_recv_buffer_size(&socket, ROOM))?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, KERNEL))?;
    Ok(socket)
}

/// Waits until the kernel refuses a block; `None` where which one was not heard.
fn watch(device: &Device) -> Result<Option<Refused>, Errno> {
    let events = listen()?;
    let mut event = [0; LONGEST];
    // Before anybody listened there may have been so many that no more are told (DM_VERITY_MAX_CORRUPTED_ERRS).
    let mut may_have_missed = true;
    loop {
        if may_have_missed && device.is_corrupted() {
            return Ok(None);
        }
        let (length, sender) = match recvfrom(&events, &mut event, RecvFlags::empty()) {
            Ok((length, _, sender)) => (length, sender),
            Err(error @ (Errno::INTR | Errno::NOBUFS)) => {
                may_have_missed = error == Errno::NOBUFS;
                continue;
            }
            Err(error) => return Err(error),
        };
        may_have_missed = false;
        if is_the_kernel(sender)
            && let Some(refused) = refused(&event[..length], device)
        {
            return Ok(Some(refused));
        }
    }
}

/// Programs may send to the group too.
fn is_the_kernel(sender: Option<SocketAddrAny>) -> bool {
    let sender = sender.and_then(|sender| netlink::SocketAddrNetlink::try_from(sender).ok());
    sender.is_some_and(|sender| sender.pid() == 0)
}

/// The block of an event that tells of one of this device: `DM_VERITY_ERR_BLOCK_NR=<0: data, 1: tree>,<number>`.
fn refused(event: &[u8], device: &Device) -> Option<Refused> {
    let field = |name: &[u8]| event.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(name));
    let path = std::str::from_utf8(field(b"DEVPATH=")?).ok()?;
    if !path.ends_with(&format!("/dm-{}", device.number)) {
        return None;
    }
    let (kind, block) = std::str::from_utf8(field(b"DM_VERITY_ERR_BLOCK_NR=")?).ok()?.split_once(',')?;
    Some(Refused { in_tree: kind != "0", block: block.parse().ok()? })
}

fn tell(refused: Option<&Refused>, boot: &BootFile) -> String {
    let what = match refused {
        Some(Refused { in_tree: false, block }) => format!("block {block} of the root"),
        Some(Refused { in_tree: true, block }) => format!("block {block} of the hash tree of the root"),
        None => "a block of the root".to_owned(),
    };
    format!(
        "FAILED: {what} ({}) of {} changed in this machine's memory, and the kernel refuses it",
        boot.root, boot.image
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device { number: 3, name: "bennu-root-0".into() }
    }

    #[test]
    fn refused_blocks_of_the_root_are_found_among_all_events() {
        let event = |device: &str, told: &str| {
            format!(
                "change@/devices/virtual/block/{device}\0ACTION=change\0DEVPATH=/devices/virtual/block/{device}\0{told}\0"
            )
        };
        let found = |device_name: &str, told: &str| refused(event(device_name, told).as_bytes(), &device());
        assert_eq!(found("dm-3", "DM_VERITY_ERR_BLOCK_NR=0,1234"), Some(Refused { in_tree: false, block: 1234 }));
        assert_eq!(found("dm-3", "DM_VERITY_ERR_BLOCK_NR=1,7"), Some(Refused { in_tree: true, block: 7 }));
        assert_eq!(found("dm-13", "DM_VERITY_ERR_BLOCK_NR=0,1234"), None, "somebody else's dm-verity");
        for other in ["SEQNUM=9", "DM_VERITY_ERR_BLOCK_NR=", "DM_VERITY_ERR_BLOCK_NR=0,x"] {
            assert_eq!(found("dm-3", other), None);
        }
        assert_eq!(refused(b"", &device()), None);
    }

    #[test]
    fn the_blob_is_named() {
        let boot = BootFile {
            base: String::new(),
            boot: "b".into(),
            image: "web:v3".into(),
            digest: "sha256:i".into(),
            root: "sha256:r".into(),
            checked: Some(device()),
            proof: None,
            logs: None,
        };
        let told = |refused: Option<Refused>| tell(refused.as_ref(), &boot);
        assert!(told(Some(Refused { in_tree: false, block: 5 })).contains("block 5 of the root (sha256:r) of web:v3"));
        assert!(
            told(Some(Refused { in_tree: true, block: 5 })).contains("block 5 of the hash tree of the root (sha256:r)")
        );
        assert!(told(None).contains("a block of the root (sha256:r) of web:v3"));
    }

    #[test]
    fn the_kernels_events_can_be_heard() {
        listen().unwrap();
    }
}
