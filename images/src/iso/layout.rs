//! What to start of a disc: kernel, initrds and arguments, and the files that its live system then fetches by itself.
//!
//! Each distribution's live system has its own arguments for a root that comes over HTTP, so the known ones stand here.
//! Of any other disc the entry is taken that its own boot loader would start.

use super::{Disc, menu};
use crate::kernel::compare;

/// A part of a disc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A file, by its path.
    File(String),
    /// The disc itself.
    Whole,
}

/// A system that starts from a disc's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// For people.
    pub name: &'static str,
    /// Path of the kernel.
    pub kernel: String,
    /// Paths of the initrds.
    pub initrds: Vec<String>,
    /// What it fetches, and the names that its arguments use.
    pub files: Vec<(String, Part)>,
    /// Its arguments; `{{url:NAME}}` and `{{base:NAME}}` stand for where a file is fetched.
    pub cmdline: String,
    /// Whether nobody knows where it looks for its root.
    pub is_guessed: bool,
}

/// The system to start, if there is one.
pub fn find(disc: &Disc) -> Option<Live> {
    debian(disc).or_else(|| casper(disc)).or_else(|| live_os(disc)).or_else(|| arch(disc)).or_else(|| menu::find(disc))
}

fn has(disc: &Disc, path: &str) -> Option<String> {
    disc.stretches(path).map(|_| path.to_owned())
}

fn first(disc: &Disc, paths: &[&str]) -> Option<String> {
    paths.iter().find_map(|path| has(disc, path))
}

/// The newest kernel of a directory and the initrd that goes with it: `vmlinuz` and `initrd`, plain or with the same
/// end, `-6.1.0-9-amd64`.
fn pair(disc: &Disc, directory: &str, initrds: &[&str]) -> Option<(String, String)> {
    let ends = disc.paths().filter_map(|path| path.strip_prefix(directory)?.strip_prefix("vmlinuz"));
    let mut ends: Vec<&str> = ends.filter(|end| !end.contains('/')).collect();
    ends.sort_by(|a, b| compare(b, a));
    ends.iter().find_map(|end| {
        let initrd = initrds.iter().find_map(|initrd| has(disc, &format!("{directory}{initrd}{end}")));
        let initrd = initrd.or_else(|| initrds.iter().find_map(|initrd| has(disc, &format!("{directory}{initrd}"))))?;
        Some((format!("{directory}vmlinuz{end}"), initrd))
    })
}

/// live-boot(7): it takes a URL only by its suffix.
fn debian(disc: &Disc) -> Option<Live> {
    let root = has(disc, "live/filesystem.squashfs")?;
    let (kernel, initrd) = pair(disc, "live/", &["initrd.img", "initrd"])?;
    Some(Live {
        name: "a live system of Debian's kind",
        kernel,
        initrds: vec![initrd],
        files: vec![("filesystem.squashfs".to_owned(), Part::File(root))],
        cmdline: "boot=live components fetch={{url:filesystem.squashfs}}".to_owned(),
        is_guessed: false,
    })
}

/// casper(7): it fetches the whole disc.
fn casper(disc: &Disc) -> Option<Live> {
    let (kernel, initrd) = pair(disc, "casper/", &["initrd", "initrd.lz", "initrd.gz", "initrd.img"])?;
    Some(Live {
        name: "a live system of Ubuntu's kind, which fetches the whole disc",
        kernel,
        initrds: vec![initrd],
        files: vec![("disc.iso".to_owned(), Part::Whole)],
        cmdline: "boot=casper ip=dhcp netboot=url url={{url:disc.iso}}".to_owned(),
        is_guessed: false,
    })
}

/// dracut.cmdline(7), "Booting live images".
fn live_os(disc: &Disc) -> Option<Live> {
    let root = has(disc, "LiveOS/squashfs.img")?;
    let kernel = first(disc, &["images/pxeboot/vmlinuz", "boot/x86_64/loader/linux", "isolinux/vmlinuz"])?;
    let initrd = first(disc, &["images/pxeboot/initrd.img", "boot/x86_64/loader/initrd", "isolinux/initrd.img"])?;
    Some(Live {
        name: "a live system of Fedora's kind",
        kernel,
        initrds: vec![initrd],
        files: vec![("squashfs.img".to_owned(), Part::File(root))],
        cmdline: "root=live:{{url:squashfs.img}} rd.live.image rd.neednet=1 ip=dhcp".to_owned(),
        is_guessed: false,
    })
}

/// mkinitcpio-archiso's README.bootparams: it puts the file's path behind the server's URL.
fn arch(disc: &Disc) -> Option<Live> {
    const ROOT: &str = "arch/x86_64/airootfs.sfs";
    let root = has(disc, ROOT).or_else(|| has(disc, "arch/x86_64/airootfs.erofs"))?;
    let kernel = first(disc, &["arch/boot/x86_64/vmlinuz-linux", "arch/boot/x86_64/vmlinuz"])?;
    let initrd = first(disc, &["arch/boot/x86_64/initramfs-linux.img", "arch/boot/x86_64/archiso.img"])?;
    Some(Live {
        name: "a live system of Arch's kind",
        kernel,
        initrds: vec![initrd],
        cmdline: format!("archisobasedir=arch archiso_http_srv={{{{base:{root}}}}} ip=dhcp"),
        files: vec![(root.clone(), Part::File(root))],
        is_guessed: false,
    })
}
