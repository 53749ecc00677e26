//! Images: digests, names, and what an image consists of.

use crate::{
    Timestamp,
    facts::Architecture,
    signature::{Judgement, SignaturePolicy, Verdict, judge},
};
use bennu_plan::Entry;
use serde::{Deserialize, Serialize, de};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// Not `sha256:` and 64 hex digits.
    #[error("'{0}' is not a digest; write sha256: and 64 hex digits")]
    Digest(String),
    /// Not `name:tag`.
    #[error(
        "'{0}' is not an image name; write name:tag in lower-case letters, digits, '.', '_' and '-' (names may hold '/'), such as web:v3"
    )]
    Name(String),
}

/// A SHA-256 digest: the identity of everything in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The 64 hex digits alone, as blob files and URLs use them.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From 64 hex digits, either case.
    pub fn from_hex(hex: &str) -> Result<Self, BadReference> {
        let refuse = || BadReference::Digest(hex.chars().take(80).collect());
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let digit = |d: u8| (d as char).to_digit(16).ok_or_else(refuse);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }

    /// Its first 12 digits, enough for a table a person reads.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| BadReference::Digest(text.chars().take(80).collect()))?;
        Self::from_hex(hex)
    }
}

/// `name:tag`, a movable pointer to a digest. Names follow the OCI distribution spec ("Pulling manifests").
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    name: String,
    tag: String,
}

impl ImageName {
    /// The part before the last colon.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part after the last colon.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl FromStr for ImageName {
    type Err = BadReference;

    /// A name without a tag gets `latest`, as container tools do.
    fn from_str(text: &str) -> Result<Self, BadReference> {
        let (name, tag) = text.rsplit_once(':').unwrap_or((text, "latest"));
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let component = |part: &str| {
            let bytes = part.as_bytes();
            matches!((bytes.first(), bytes.last()), (Some(&a), Some(&z)) if edge(a) && edge(z))
                && bytes.iter().all(|&b| edge(b) || matches!(b, b'.' | b'_' | b'-'))
        };
        let tag_start = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let good_tag = tag.len() <= 128
            && tag.bytes().next().is_some_and(tag_start)
            && tag.bytes().all(|b| tag_start(b) || matches!(b, b'.' | b'-'));
        if name.len() > 255 || !name.split('/').all(component) || !good_tag || name == "sha256" {
            return Err(BadReference::Name(text.chars().take(300).collect()));
        }
        Ok(Self { name: name.to_owned(), tag: tag.to_owned() })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a person writes to name an image: a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageReference {
    /// Moves with its tag.
    Name(ImageName),
    /// Stays.
    Digest(Digest),
}

impl ImageReference {
    /// The image that discovery boots unless the configuration names another.
    pub fn discovery() -> Self {
        Self::Name(ImageName { name: "discovery".into(), tag: "latest".into() })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for ImageReference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        if text.starts_with("sha256:") {
            return text.parse().map(Self::Digest);
        }
        text.parse().map(Self::Name)
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_as_text;

serde_as_text!(Digest, ImageName, ImageReference);

/// A blob of the store that an image refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BlobRef {
    /// Identity.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// dm-verity's tree of hashes over a root: the kernel refuses a block that it does not agree with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verity {
    /// The tree, behind the superblock of `veritysetup format`.
    pub tree: BlobRef,
    /// The hash of the tree's top, which stands for all the root's bytes.
    pub root_hash: Digest,
}

/// What a root is made of: the kernel must be able to read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileSystem {
    /// What imports make themselves.
    #[default]
    Squashfs,
    /// A disk image's own; ext2 and ext3 are read by the same module.
    Ext4,
}

impl FileSystem {
    /// As mount(2) and the kernel's module are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Ext4 => "ext4",
        }
    }

    /// Left out of configurations, so that images of before keep their digests.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A file that a foreign system fetches by itself, by the URL that stands in its kernel arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NamedBlob {
    /// Its name, the last part of its URL.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub blob: BlobRef,
}

/// What an image consists of, and so how a machine boots it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// A root filesystem of ours: stage 1 mounts it read-only.
    Root {
        /// Linux kernel.
        kernel: BlobRef,
        /// Initrd with the kernel's modules and firmware; stage 1 comes as a second one, from the appliance.
        modules: BlobRef,
        /// The root filesystem.
        root: BlobRef,
        /// What that is.
        #[serde(default, skip_serializing_if = "FileSystem::is_default")]
        filesystem: FileSystem,
        /// What the kernel checks the root's blocks with; images of before have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verity: Option<Verity>,
        /// `uname -r` of the kernel.
        kernel_release: String,
    },
    /// A kernel and its modules without a root. Booted by itself it discovers: stage 1 is its whole root.
    Kernel {
        /// Linux kernel.
        kernel: BlobRef,
        /// Initrd with the kernel's modules and firmware.
        modules: BlobRef,
        /// `uname -r` of the kernel.
        kernel_release: String,
        /// Kernel, all modules and firmware as a layer over container images that have none; machines never read it.
        /// Kernel images of before have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<BlobRef>,
    },
    /// Somebody else's kernel and initrds, which Bennu starts and cannot look into.
    Foreign {
        /// Linux kernel.
        kernel: BlobRef,
        /// Initrds in their order.
        initrds: Vec<BlobRef>,
        /// What UEFI starts in their place: another build of the kernel, or one program that holds them all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        efi: Option<BlobRef>,
        /// What the system fetches by itself.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<NamedBlob>,
    },
    /// An EFI program, which UEFI alone can start.
    Program {
        /// The program.
        program: BlobRef,
    },
    /// A bootable disc that is started whole, as the firmware would start it from a drive.
    Disc {
        /// The ISO image.
        disc: BlobRef,
    },
}

impl Content {
    /// Every blob the image needs, and what it is.
    pub fn parts(&self) -> Vec<(&'static str, &BlobRef)> {
        match self {
            Self::Root { kernel, modules, root, verity, .. } => {
                let tree = verity.as_ref().map(|verity| ("hash tree", &verity.tree));
                [("kernel", kernel), ("modules", modules), ("root", root)].into_iter().chain(tree).collect()
            }
            Self::Kernel { kernel, modules, layer, .. } => {
                let layer = layer.as_ref().map(|layer| ("kernel layer", layer));
                [("kernel", kernel), ("modules", modules)].into_iter().chain(layer).collect()
            }
            Self::Foreign { kernel, initrds, efi, files } => {
                let initrds = initrds.iter().map(|initrd| ("initrd", initrd));
                let efi = efi.iter().map(|program| ("EFI program", program));
                let files = files.iter().map(|file| ("file", &file.blob));
                std::iter::once(("kernel", kernel)).chain(initrds).chain(efi).chain(files).collect()
            }
            Self::Program { program } => vec![("EFI program", program)],
            Self::Disc { disc } => vec![("disc", disc)],
        }
    }

    /// The kernel, or what the loader starts in its place.
    pub fn kernel(&self) -> &BlobRef {
        match self {
            Self::Root { kernel, .. } | Self::Kernel { kernel, .. } | Self::Foreign { kernel, .. } => kernel,
            Self::Program { program } => program,
            Self::Disc { disc } => disc,
        }
    }

    /// Whether stage 1 runs in it.
    pub fn has_stage1(&self) -> bool {
        matches!(self, Self::Root { .. } | Self::Kernel { .. })
    }
}

/// The image's config blob: everything that decides how it boots. The same source with the same tools
/// gives the same bytes, so no time of import and no host name may enter it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageConfig {
    /// Instruction set.
    pub architecture: Architecture,
    /// Kernel arguments of the image.
    #[serde(default)]
    pub cmdline: String,
    /// Parts.
    #[serde(flatten)]
    pub content: Content,
    /// shim and GRUB as the kernel's vendor signed them, where the source carries both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedLoaders>,
    /// `PRETTY_NAME` of the root's os-release.
    #[serde(default)]
    pub os: Option<String>,
    /// The container image it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Derivation>,
    /// What runs where the root has no init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// Labels of the container image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Tools and versions that made it: `mksquashfs` → `4.5.1`.
    #[serde(default)]
    pub tools: BTreeMap<String, String>,
}

/// What a container image was made into a bootable one from. With the architecture it decides the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Derivation {
    /// The container image's manifest: what was pushed, what is signed.
    pub source: BlobRef,
    /// The manifest's media type.
    pub media_type: String,
    /// The kernel image that it was paired with; `None`: it carries its own kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Digest>,
    /// When the source says that it was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// A vendor's chain of loaders: its shim trusts its GRUB, and both trust its kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignedLoaders {
    /// shim, signed by Microsoft.
    pub shim: BlobRef,
    /// GRUB that can boot from the network, signed by the vendor.
    pub grub: BlobRef,
}

impl ImageConfig {
    /// Parts for an architecture, of which nothing else is known.
    pub fn of(architecture: Architecture, content: Content) -> Self {
        Self {
            architecture,
            cmdline: String::new(),
            content,
            signed: None,
            os: None,
            derived: None,
            entry: None,
            labels: BTreeMap::new(),
            tools: BTreeMap::new(),
        }
    }

    /// Every blob the image needs, in the order of its manifest's layers, and what it is.
    pub fn parts(&self) -> Vec<(&'static str, &BlobRef)> {
        let signed = self.signed.iter().flat_map(|signed| [("shim", &signed.shim), ("GRUB", &signed.grub)]);
        self.content.parts().into_iter().chain(signed).collect()
    }

    /// Every blob the image needs.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.parts().into_iter().map(|(_, blob)| blob)
    }
}

/// An image in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Image {
    /// Digest of its OCI manifest: its identity.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub manifest_size: u64,
    /// The config blob.
    pub config_blob: BlobRef,
    /// The config's content.
    pub config: ImageConfig,
    /// When it was first imported here.
    pub imported: Timestamp,
    /// Where from, as the importing person wrote it.
    pub source: String,
    /// What its signatures came to when they were last looked at; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// It came as it is, made elsewhere: what it says of the container image it was made of is only its own word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

impl Image {
    /// Whether it boots under a policy for signatures. One whose signatures nobody looked at has none.
    pub fn judged(&self, policy: SignaturePolicy) -> Judgement {
        judge(policy, self.verdict.as_ref().unwrap_or(&Verdict::Unsigned))
    }

    /// Bytes on disk of all its blobs, shared ones counted in full.
    pub fn size(&self) -> u64 {
        let parts: u64 = self.config.blobs().map(|blob| blob.size).sum();
        parts + self.manifest_size + self.config_blob.size
    }
}

/// A tag and where it pointed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tag {
    /// Its name.
    pub name: ImageName,
    /// Where it points.
    pub digest: Digest,
    /// Where it points for machines of other architectures, where its source had several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<Architecture, Digest>,
    /// Every move, oldest first.
    pub history: Vec<TagMove>,
}

/// One move of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TagMove {
    /// When.
    pub at: Timestamp,
    /// To where.
    pub digest: Digest,
    /// From which source, or by which command.
    pub by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_distribution_spec() {
        for good in ["web:v3", "web", "team/web-1.x:2026_11", "a:A"] {
            assert!(good.parse::<ImageName>().is_ok(), "{good}");
        }
        for bad in
            ["", ":v1", "Web:v1", "web:", "web:v 1", "web:.x", "-web:v1", "a//b:v1", "web:v1\n", "../x:v1", "a b"]
        {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn images_of_before_read_and_write_as_they_did() {
        let blob = format!(r#"{{"digest":"sha256:{}","size":1}}"#, "ab".repeat(32));
        for text in [
            format!(r#"{{"kind":"root","kernel":{blob},"modules":{blob},"root":{blob},"kernel_release":"6.1"}}"#),
            format!(r#"{{"kind":"foreign","kernel":{blob},"initrds":[{blob}]}}"#),
        ] {
            let content: Content = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&content).unwrap(), text, "their digests stay");
        }
    }

    #[test]
    fn a_reference_is_a_digest_or_a_name() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert!(matches!(digest.parse(), Ok(ImageReference::Digest(_))));
        assert!(matches!("web:v1".parse(), Ok(ImageReference::Name(_))));
        assert!("sha256:zz".parse::<ImageReference>().is_err());
    }
}
