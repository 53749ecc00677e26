//! Which modules a machine may need to reach and mount its root.
//!
//! The tables name the kernel's source directories, which change far more slowly than its modules do. What a
//! chosen module depends on comes along wherever it lies. Once the root is mounted, the machine loads everything
//! else from there: sound, graphics, wireless.

/// Directories of the kernel's sources whose modules are taken.
const TAKEN: &[&str] = &[
    // The network.
    "drivers/net/",
    "net/802/",
    "net/8021q/",
    "net/bridge/bridge",
    "net/core/",
    "net/ipv6/ipv6",
    "net/llc/",
    "net/packet/af_packet",
    // Disks, which may hold persistent data, and what they hang on.
    "drivers/ata/",
    "drivers/block/",
    "drivers/cdrom/",
    "drivers/md/",
    "drivers/message/fusion/",
    "drivers/mmc/",
    "drivers/nvme/common/",
    "drivers/nvme/host/",
    "drivers/pci/controller/",
    "drivers/scsi/",
    "drivers/ufs/",
    "drivers/usb/cdns3/",
    "drivers/usb/chipidea/",
    "drivers/usb/common/",
    "drivers/usb/core/",
    "drivers/usb/dwc2/",
    "drivers/usb/dwc3/",
    "drivers/usb/host/",
    "drivers/usb/storage/",
    // Virtual machines.
    "drivers/hv/",
    "drivers/virtio/",
    "drivers/xen/",
    // Keys need randomness early.
    "drivers/char/hw_random/",
    // File systems.
    "fs/efivarfs/",
    "fs/erofs/",
    "fs/ext4/",
    "fs/fat/",
    "fs/isofs/",
    "fs/nls/",
    "fs/overlayfs/",
    "fs/squashfs/",
    "fs/xfs/",
];

/// Outside of PCs the buses themselves are modules: without clocks, resets and PHYs no NIC and no disk appears.
const TAKEN_ON_BOARDS: &[&str] = &[
    "drivers/bus/",
    "drivers/clk/",
    "drivers/dma/",
    "drivers/firmware/",
    "drivers/gpio/",
    "drivers/hwspinlock/",
    "drivers/interconnect/",
    "drivers/iommu/",
    "drivers/mailbox/",
    "drivers/nvmem/",
    "drivers/phy/",
    "drivers/pinctrl/",
    "drivers/pmdomain/",
    "drivers/regulator/",
    "drivers/reset/",
    "drivers/soc/",
    "drivers/usb/phy/",
];

/// Exceptions: never the way to a root, and large or many.
const LEFT: &[&str] = &[
    "drivers/block/aoe/",
    "drivers/block/drbd/",
    "drivers/block/floppy",
    "drivers/block/null_blk/",
    "drivers/block/pktcdvd",
    "drivers/block/rbd",
    "drivers/block/rnbd/",
    "drivers/gpu/",
    "drivers/md/md-cluster",
    "drivers/media/",
    "drivers/net/appletalk/",
    "drivers/net/arcnet/",
    "drivers/net/can/",
    "drivers/net/dsa/",
    "drivers/net/fddi/",
    "drivers/net/hamradio/",
    "drivers/net/hippi/",
    "drivers/net/ieee802154/",
    "drivers/net/mctp/",
    "drivers/net/netdevsim/",
    "drivers/net/plip/",
    "drivers/net/ppp/",
    "drivers/net/slip/",
    "drivers/net/thunderbolt-net",
    "drivers/net/thunderbolt/",
    "drivers/net/wan/",
    "drivers/net/wireguard/",
    "drivers/net/wireless/",
    "drivers/net/wwan/",
    // The silicon of switches, with megabytes of firmware each.
    "drivers/net/ethernet/marvell/prestera/",
    "drivers/net/ethernet/mellanox/mlxsw/",
    // Mobile phones as modems.
    "drivers/net/usb/cdc_mbim",
    "drivers/net/usb/hso",
    "drivers/net/usb/qmi_wwan",
    "drivers/net/usb/sierra_net",
    "drivers/nvme/host/nvme-rdma",
    // Disks for others to use.
    "drivers/scsi/ibmvscsi_tgt/",
    "drivers/scsi/qla2xxx/tcm_qla2xxx",
    "drivers/xen/xen-scsiback",
    "drivers/scsi/pcmcia/",
    "drivers/scsi/scsi_debug",
    "drivers/scsi/st",
    "sound/",
];

/// Algorithms that file systems, dm-verity, dm-crypt and their checksums ask for by name at run time.
const ALGORITHMS: &[&str] = &[
    "aes",
    "authenc",
    "blake2b",
    "cbc",
    "crc",
    "cryptd",
    "crypto_simd",
    "ctr",
    "ecb",
    "essiv",
    "gf128mul",
    "hmac",
    "sha1",
    "sha2",
    "sha5",
    "xts",
    "xxhash",
];

/// What drivers from elsewhere (DKMS, a vendor's package) must call to be a network or a disk driver.
const REGISTERING: &[&[u8]] =
    &[b"register_netdev", b"scsi_add_host", b"ata_host_activate", b"nvme_init_ctrl", b"blk_mq_alloc_disk"];

/// Whether a table entry covers a module: directories end in a slash, anything else is a module's whole path.
fn covers(entry: &str, module: &str) -> bool {
    if entry.ends_with('/') { module.starts_with(entry) } else { module == entry }
}

/// Whether a module of the kernel's own is taken; `module` is its path without `kernel/` and suffix.
pub fn is_taken(module: &str, boards: bool) -> bool {
    if is_left(module) {
        return false;
    }
    let name = module.rsplit('/').next().unwrap_or(module);
    let in_crypto = module.starts_with("crypto/") || module.contains("/crypto/") && !module.starts_with("drivers/");
    TAKEN.iter().any(|entry| covers(entry, module))
        || boards && TAKEN_ON_BOARDS.iter().any(|entry| covers(entry, module))
        || in_crypto && ALGORITHMS.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a module stays behind even when a soft dependency names it.
pub fn is_left(module: &str) -> bool {
    LEFT.iter().any(|entry| covers(entry, module))
}

/// Whether a module from elsewhere drives a NIC or a disk: judged by the kernel functions it calls, which its
/// symbol table names.
pub fn registers(module: &[u8]) -> bool {
    REGISTERING.iter().any(|symbol| memchr::memmem::find(module, symbol).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_disks_and_file_systems_are_taken_and_the_rest_is_left() {
        for taken in [
            "drivers/net/ethernet/intel/igb/igb",
            "drivers/net/virtio_net",
            "drivers/net/usb/r8152",
            "drivers/net/bonding/bonding",
            "drivers/nvme/host/nvme",
            "drivers/md/dm-verity",
            "drivers/scsi/sd_mod",
            "fs/overlayfs/overlay",
            "net/8021q/8021q",
            "crypto/crc32c_generic",
            "arch/x86/crypto/crc32c-intel",
            "arch/arm64/crypto/sha2-ce",
            "drivers/char/hw_random/virtio-rng",
        ] {
            assert!(is_taken(taken, false), "{taken}");
        }
        for left in [
            "drivers/net/wireless/intel/iwlwifi/iwlwifi",
            "drivers/gpu/drm/i915/i915",
            "sound/core/snd",
            "drivers/media/rc/rc-core",
            "drivers/net/ethernet/mellanox/mlxsw/mlxsw_spectrum",
            "drivers/scsi/st",
            "drivers/crypto/qat/qat_dh895xcc/qat_dh895xcc",
            "net/netfilter/nf_tables",
            "drivers/phy/phy-can-transceiver",
            "crypto/tcrypt",
        ] {
            assert!(!is_taken(left, false), "{left}");
        }
        assert!(is_taken("drivers/phy/hisilicon/phy-hi6220-usb", true));
        assert!(is_taken("drivers/scsi/stex", false), "an entry without a slash is one module");
    }
}
