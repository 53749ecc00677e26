//! Sources of images, as a person writes them.

use super::{
    error::{CliError, Done},
    import::pull::Reference,
};
use std::{fmt, path::PathBuf};

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory that is a root filesystem.
    Directory(PathBuf),
    /// A tar of one, plain or compressed.
    Tar(PathBuf),
    /// The same, from standard input.
    Stdin,
    /// A container image as one file: an OCI layout in a tar, or what `docker save` writes.
    Archive {
        /// The kind, as it is written: `oci-archive` or `docker-archive`.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// Which of its images.
        image: Option<String>,
    },
    /// A container image in a directory that is an OCI layout.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which of its images.
        image: Option<String>,
    },
    /// A disk image.
    Disk(PathBuf),
    /// A live system's disc.
    Iso(PathBuf),
    /// An EFI program.
    Efi(PathBuf),
    /// A container image in a registry.
    Registry(Reference),
    /// Somebody else's kernel and initrds.
    Foreign {
        /// The kernel.
        kernel: PathBuf,
        /// Initrds in their order.
        initrds: Vec<PathBuf>,
        /// What UEFI starts in their place.
        efi: Option<PathBuf>,
        /// Kernel arguments.
        cmdline: String,
    },
}

const FORMS: &str = "write dir:PATH, tar:PATH (tar:- reads standard input), oci:DIR[:TAG], oci-archive:PATH[:TAG], \
                     docker-archive:PATH[:NAME:TAG], docker://HOST/NAME[:TAG], disk:PATH, iso:PATH, efi:PATH, or \
                     kernel=PATH initrd=PATH efi=PATH cmdline=TEXT";

impl Source {
    /// Reads the words before NAME:TAG.
    pub fn parse(words: &[String]) -> Done<Self> {
        let refuse = |what: String| Err(CliError::usage(what, FORMS));
        if words.iter().any(|word| word.contains('=') && !word.contains(':') || word.starts_with("kernel=")) {
            return Self::parse_foreign(words);
        }
        match words {
            [] => refuse("there is no SOURCE".into()),
            [word] => match word.split_once(':') {
                Some(("dir" | "tar" | "disk" | "iso" | "efi" | "oci" | "oci-archive" | "docker-archive", "")) => {
                    refuse(format!("{word} names no path"))
                }
                Some(("dir", path)) => Ok(Self::Directory(path.into())),
                Some(("tar", "-")) => Ok(Self::Stdin),
                Some(("tar", path)) => Ok(Self::Tar(path.into())),
                Some(("oci", rest)) => {
                    let (path, image) = split_image(rest);
                    Ok(Self::Layout { path, image })
                }
                Some(("oci-archive", rest)) => Ok(Self::archive("oci-archive", rest)),
                Some(("docker-archive", rest)) => Ok(Self::archive("docker-archive", rest)),
                Some(("disk", path)) => Ok(Self::Disk(path.into())),
                Some(("iso", path)) => Ok(Self::Iso(path.into())),
                Some(("efi", path)) => Ok(Self::Efi(path.into())),
                Some(("docker", rest)) => Reference::parse(rest).map(Self::Registry),
                Some((kind, _)) => refuse(format!("'{kind}:' is no kind of source")),
                None => refuse(format!("'{word}' is no source")),
            },
            [_, more, ..] => refuse(format!("'{more}' is one word too many")),
        }
    }

    fn archive(kind: &'static str, rest: &str) -> Self {
        let (path, image) = split_image(rest);
        Self::Archive { kind, path, image }
    }

    /// Whether it is a container image, and which one of several.
    pub fn container(&self) -> Option<Option<String>> {
        match self {
            Self::Archive { image, .. } | Self::Layout { image, .. } => Some(image.clone()),
            // Its signature is beside it.
            Self::Registry(reference) => Some(Some(reference.version())),
            _ => None,
        }
    }

    fn parse_foreign(words: &[String]) -> Done<Self> {
        let (mut kernel, mut initrds, mut efi, mut cmdline) = (None, Vec::new(), None, None);
        let refuse = |what: String| Err(CliError::usage(what, FORMS));
        for word in words {
            match word.split_once('=') {
                Some((key @ ("kernel" | "initrd" | "efi"), "")) => return refuse(format!("{key}= names no path")),
                Some(("kernel", path)) if kernel.is_none() => kernel = Some(PathBuf::from(path)),
                Some(("efi", path)) if efi.is_none() => efi = Some(PathBuf::from(path)),
                Some(("initrd", path)) => initrds.push(PathBuf::from(path)),
                Some(("cmdline", text)) if cmdline.is_none() => cmdline = Some(text.to_owned()),
                Some((key @ ("kernel" | "efi" | "cmdline"), _)) => return refuse(format!("{key}= is there twice")),
                _ => return refuse(format!("'{word}' is no part of a foreign image")),
            }
        }
        match kernel {
            Some(kernel) => Ok(Self::Foreign { kernel, initrds, efi, cmdline: cmdline.unwrap_or_default() }),
            None => refuse("a foreign image needs kernel=PATH".into()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
            Self::Stdin => f.write_str("tar:-"),
            Self::Archive { kind, path, image } => {
                write!(f, "{kind}:{}", path.display())?;
                image.iter().try_for_each(|image| write!(f, ":{image}"))
            }
            Self::Layout { path, image } => {
                write!(f, "oci:{}", path.display())?;
                image.iter().try_for_each(|image| write!(f, ":{image}"))
            }
            Self::Disk(path) => write!(f, "disk:{}", path.display()),
            Self::Iso(path) => write!(f, "iso:{}", path.display()),
            Self::Efi(path) => write!(f, "efi:{}", path.display()),
            Self::Registry(reference) => reference.fmt(f),
            Self::Foreign { kernel, initrds, efi, .. } => {
                write!(f, "kernel={}", kernel.display())?;
                initrds.iter().try_for_each(|initrd| write!(f, " initrd={}", initrd.display()))?;
                efi.iter().try_for_each(|program| write!(f, " efi={}", program.display()))
            }
        }
    }
}

/// `PATH[:IMAGE]`, as skopeo writes it: a path holds no colon.
fn split_image(rest: &str) -> (PathBuf, Option<String>) {
    match rest.split_once(':') {
        Some((path, image)) if !image.is_empty() => (path.into(), Some(image.to_owned())),
        Some((path, _)) => (path.into(), None),
        None => (rest.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Done<Source> {
        Source::parse(&words.split('|').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_form_of_source_is_read() {
        for (words, source) in [
            ("dir:/srv/web", Source::Directory("/srv/web".into())),
            ("dir:./a=b", Source::Directory("./a=b".into())),
            ("tar:root.tar.zst", Source::Tar("root.tar.zst".into())),
            ("tar:-", Source::Stdin),
            ("oci:web", Source::Layout { path: "web".into(), image: None }),
            ("oci:/srv/web:v1", Source::Layout { path: "/srv/web".into(), image: Some("v1".into()) }),
            (
                "docker-archive:w.tar:web:v1",
                Source::Archive { kind: "docker-archive", path: "w.tar".into(), image: Some("web:v1".into()) },
            ),
            (
                "kernel=linux|initrd=a.gz|initrd=b|cmdline=auto url=http://x:80/",
                Source::Foreign {
                    kernel: "linux".into(),
                    initrds: vec!["a.gz".into(), "b".into()],
                    efi: None,
                    cmdline: "auto url=http://x:80/".into(),
                },
            ),
            ("disk:cloud.qcow2", Source::Disk("cloud.qcow2".into())),
            ("iso:live.iso", Source::Iso("live.iso".into())),
            ("efi:shell.efi", Source::Efi("shell.efi".into())),
            (
                "kernel=memtest.bin|efi=memtest.efi",
                Source::Foreign {
                    kernel: "memtest.bin".into(),
                    initrds: Vec::new(),
                    efi: Some("memtest.efi".into()),
                    cmdline: String::new(),
                },
            ),
        ] {
            assert_eq!(parse(words).unwrap(), source);
        }
    }

    #[test]
    fn what_is_no_source_is_a_usage_error_with_the_forms() {
        for words in [
            "",
            "/srv/web",
            "dockers:web",
            "oci:",
            "dir:",
            "tar:",
            "dir:/a|dir:/b",
            "initrd=a",
            "kernel=",
            "kernel=a|kernel=b",
            "kernel=a|dir:/b",
            "kernel=a|root=b",
            "disk:",
            "kernel=a|efi=",
            "kernel=a|efi=b|efi=c",
        ] {
            let error = parse(words).unwrap_err();
            assert_eq!((error.help.as_str(), error.exit_code()), (FORMS, std::process::ExitCode::from(2)), "{words}");
        }
    }
}
