//! Where state lies: on a disk or a partition, or on the medium behind the disc; in clear or encrypted.

use crate::disks::{self, Content};
use crate::state::LABEL;
use bennu_host::vault;
use bennu_stage1::root::{LoopPart, attach_loop_part};
use std::fs::File;
use std::path::{Path, PathBuf};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// The disk, the partition or the medium.
    pub device: PathBuf,
    /// Where on the medium, and how many bytes; `None`: all of the device.
    pub part: Option<(u64, u64)>,
    /// Whether it is encrypted.
    pub is_locked: bool,
}

/// What a file system is made on.
#[derive(Debug)]
pub struct Block {
    /// The device of it alone.
    pub path: PathBuf,
    /// The kernel takes a loop device back that nobody has open.
    _open: Option<File>,
}

impl Area {
    /// All of a device, in clear.
    pub fn whole(device: &Path) -> Self {
        Self { device: device.to_owned(), part: None, is_locked: false }
    }

    /// Behind the disc on a medium of this size, in clear.
    pub fn behind_disc(device: &Path, size: u64) -> Result<Self, String> {
        let room = vault::room_on_stick(size)?;
        Ok(Self { device: device.to_owned(), part: Some((vault::STICK_FROM, room)), is_locked: false })
    }

    /// All that hold state.
    pub fn all() -> Vec<Self> {
        let of_disk = |disk: disks::Disk| Self::whole(&disk.device).holding(&disk.content);
        let of_stick = |stick: disks::Stick| Self::behind_disc(&stick.device, stick.size).ok()?.holding(&stick.behind);
        let disks = disks::all().into_iter().filter_map(of_disk);
        disks.chain(disks::sticks().into_iter().filter_map(of_stick)).collect()
    }

    /// It, if this is state.
    fn holding(self, content: &Content) -> Option<Self> {
        match content {
            Content::Ext(label) if label == LABEL => Some(self),
            Content::Luks(label) if label == vault::LABEL => Some(Self { is_locked: true, ..self }),
            _ => None,
        }
    }

    /// The device of it alone.
    pub fn block(&self) -> Result<Block, String> {
        let Some((from, length)) = self.part else { return Ok(Block { path: self.device.clone(), _open: None }) };
        let part = LoopPart { from, length, is_writable: true };
        let device = self.device.to_str().ok_or("its name is no text")?;
        let (path, open) = attach_loop_part(device, "bennu state", part).map_err(|error| error.to_string())?;
        Ok(Block { path, _open: Some(open) })
    }

    /// For people.
    pub fn told(&self) -> String {
        let behind = if self.part.is_some() { ", behind the disc" } else { "" };
        let locked = if self.is_locked { ", encrypted" } else { "" };
        format!("{}{behind}{locked}", self.device.display())
    }

    /// Why no disc can be installed beside it, and what to do.
    pub fn no_slots(&self) -> Option<(&'static str, &'static str)> {
        vault::no_slots(self.is_locked, self.part.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_told_by_its_labels_alone() {
        let area = || Area::whole(Path::new("/dev/vda"));
        assert_eq!(area().holding(&Content::Ext("BENNU-STATE".into())), Some(area()));
        let locked = area().holding(&Content::Luks("BENNU-CRYPT".into())).unwrap();
        assert!(locked.is_locked && locked.no_slots().is_some() && area().no_slots().is_none());
        for other in [Content::Luks("BENNU-STATE".into()), Content::Ext("BENNU-CRYPT".into()), Content::Iso] {
            assert_eq!(area().holding(&other), None, "{other:?}");
        }
        let behind = Area::behind_disc(Path::new("/dev/sda"), 4 << 30).unwrap();
        assert_eq!(behind.told(), "/dev/sda, behind the disc");
        assert_eq!(behind.part, Some((1 << 30, (3 << 30) - (1 << 20))));
    }
}
