//! The programs of the appliance's root: ours, and what they call.

use crate::libraries;
use crate::options::Options;
use crate::tree::Tree;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Of packages: what builds root filesystems, and what checks, makes and encrypts the state disk.
const PACKAGED: [(&str, &str); 5] = [
    ("usr/bin/mksquashfs", "usr/bin/mksquashfs"),
    ("usr/bin/unsquashfs", "usr/bin/unsquashfs"),
    ("sbin/e2fsck", "usr/sbin/e2fsck"),
    ("sbin/mke2fs", "usr/sbin/mke2fs"),
    ("sbin/cryptsetup", "usr/sbin/cryptsetup"),
];
const LINKER: &str = "lib64/ld-linux-x86-64.so.2";

/// The service's user, as a package makes it.
const PASSWD: &str = "root:x:0:0:root:/:/usr/sbin/nologin\nbennu:x:900:900:Bennu:/var/lib/bennu:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nbennu:x:900:\n";

/// Adds all of them.
pub fn add(tree: &mut Tree, options: &Options) -> Result<()> {
    tree.copy(&options.bennu, "usr/bin/bennu", 0o755)?;
    let mut programs = vec![options.bennu.clone()];
    for (from, place) in PACKAGED {
        let file = first_of(&options.packages, from)?;
        tree.copy(&file, place, 0o755)?;
        programs.push(file);
    }
    add_libraries(tree, &options.packages, &programs)?;
    for directory in ["dev", "proc", "sys", "run", "state", "var/lib/bennu", "var/empty"] {
        tree.directory(directory, 0o755);
    }
    tree.directory("tmp", 0o1777);
    // What the machine is told about itself when it starts.
    for file in ["hostname", "hosts", "resolv.conf"] {
        tree.link(&format!("etc/{file}"), &format!("../run/host/{file}"));
    }
    tree.link("bin", "usr/bin");
    tree.link("sbin", "usr/sbin");
    for (file, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("etc/os-release", &release(options)),
        (
            "etc/mke2fs.conf",
            "[defaults]\n\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr\n\tblocksize = 4096\n[fs_types]\n\text4 = {\n\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize\n\t}\n",
        ),
    ] {
        tree.file(file, 0o644, text.as_bytes().to_vec());
    }
    if let Some(key) = &options.key {
        // Whoever names a private key would give it to everybody who has the disc.
        let pem = std::fs::read(key).with_context(|| format!("cannot read {}", key.display()))?;
        bennu_images::cosign::TrustedKey::from_pem("release", &pem)?;
        tree.file("etc/bennu/release.pub", 0o644, pem);
    }
    Ok(())
}

/// Adds the libraries that programs need, and the dynamic linker.
pub fn add_libraries(tree: &mut Tree, packages: &Path, programs: &[PathBuf]) -> Result<()> {
    for (place, file) in libraries::needed(packages, programs)? {
        tree.copy(&file, &place, 0o755)?;
    }
    let linker = packages.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    let linker = if linker.exists() { linker } else { packages.join(LINKER) };
    tree.copy(&linker, LINKER, 0o755)
}

/// What the disc calls itself (os-release(5)), and when its contents were made.
fn release(options: &Options) -> String {
    let Options { version, epoch, .. } = options;
    format!("ID=bennu\nNAME=Bennu\nPRETTY_NAME=\"Bennu {version}\"\nVERSION_ID=\"{version}\"\nBENNU_BUILT={epoch}\n")
}

/// Distributions moved programs between `/sbin` and `/usr/sbin`.
pub fn first_of(packages: &Path, from: &str) -> Result<PathBuf> {
    let candidates = [packages.join(from), packages.join("usr").join(from)];
    candidates.into_iter().find(|path| path.exists()).with_context(|| format!("no package has {from}"))
}
