//! The watch over the root in the booted system. Where dm-verity refuses a block, the kernel says so in an event
//! (`DM_VERITY_ERR_BLOCK_NR`); then everybody is told, and the machine starts again: whatever needs that block fails by and by.

use crate::console;
use crate::reporter::{self, BootFile};
use crate::restart;
use bennu_plan::Step;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
    sockopt::set_socket_recv_buffer_size,
};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The kernel's own events; udev's are those of group 2.
const KERNEL: u32 = 1;
/// Events are a few hundred bytes (UEVENT_BUFFER_SIZE is 2048).
const LONGEST: usize = 8192;
/// A rack of disks that appears at once must not push out the one event that counts.
const ROOM: usize = 1 << 20;

/// A refused block.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    /// Of the hash tree rather than of the root.
    in_tree: bool,
    block: u64,
}

/// `stage1 watch`: returns where there is nothing to watch, or it cannot.
pub fn run() -> u8 {
    let watched = reporter::read(Path::new(reporter::FILE)).and_then(|boot| {
        if boot.tree.is_empty() {
            return Ok(());
        }
        let events = listen().map_err(|error| format!("cannot listen to the kernel's events: {error}"))?;
        restart::report_panics_to(&boot.base);
        watch(&events, &boot)
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
    set_socket_recv_buffer_size(&socket, ROOM)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, KERNEL))?;
    Ok(socket)
}

fn watch(events: &OwnedFd, boot: &BootFile) -> Result<(), String> {
    let mut event = [0; LONGEST];
    loop {
        let length = match recv(events, &mut event, RecvFlags::empty()) {
            Ok((length, _)) => length,
            // Some were lost; those to come are not.
            Err(Errno::INTR | Errno::NOBUFS) => continue,
            Err(error) => return Err(format!("cannot read the kernel's events: {error}")),
        };
        if let Some(refused) = refused(&event[..length]) {
            console::open();
            restart::report_and_restart(Step::Damaged, &tell(&refused, boot));
        }
    }
}

/// The block of an event that tells of one: `DM_VERITY_ERR_BLOCK_NR=<0: data, 1: tree>,<number>`.
fn refused(event: &[u8]) -> Option<Refused> {
    let told = event.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"DM_VERITY_ERR_BLOCK_NR="))?;
    let (kind, block) = std::str::from_utf8(told).ok()?.split_once(',')?;
    Some(Refused { in_tree: kind != "0", block: block.parse().ok()? })
}

fn tell(refused: &Refused, boot: &BootFile) -> String {
    let (part, blob) = if refused.in_tree { ("hash tree", &boot.tree) } else { ("root", &boot.root) };
    format!(
        "FAILED: block {} of the {part} ({blob}) of {} changed in this machine's memory, and the kernel refuses it",
        refused.block, boot.image
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_blocks_are_found_among_all_events() {
        let event = b"change@/devices/virtual/block/dm-0\0ACTION=change\0SUBSYSTEM=block\0DM_VERITY_ERR_BLOCK_NR=0,1234\0SEQNUM=9\0";
        assert_eq!(refused(event), Some(Refused { in_tree: false, block: 1234 }));
        assert_eq!(refused(b"DM_VERITY_ERR_BLOCK_NR=1,7\0"), Some(Refused { in_tree: true, block: 7 }));
        for other in
            [&b"add@/devices/x\0ACTION=add\0"[..], b"", b"DM_VERITY_ERR_BLOCK_NR=\0", b"DM_VERITY_ERR_BLOCK_NR=0,x\0"]
        {
            assert_eq!(refused(other), None);
        }
    }

    #[test]
    fn the_blob_is_named() {
        let boot = BootFile {
            base: String::new(),
            boot: "b".into(),
            image: "web:v3".into(),
            digest: "sha256:i".into(),
            root: "sha256:r".into(),
            tree: "sha256:t".into(),
        };
        let told = tell(&Refused { in_tree: false, block: 5 }, &boot);
        assert!(told.starts_with("FAILED: block 5 of the root (sha256:r) of web:v3"), "{told}");
        assert!(tell(&Refused { in_tree: true, block: 5 }, &boot).contains("hash tree (sha256:t)"));
    }

    #[test]
    fn the_kernels_events_can_be_heard() {
        listen().unwrap();
    }
}
