//! A root filesystem with its kernel, or a kernel alone, from a tar.

use super::{ImportError, ImportStep, Imported, Meter, Options, Progress, manifest};
use crate::{
    kernel::{self, Kernel},
    kernel_layer, modules,
    oci::OciError,
    signing,
    squashfs::{BuildError, Mksquashfs, RootBuilder, RootDirectory, RootOptions},
    store::{Hold, Store},
    tree::{self, Indexed, Kind, ROOT, Whiteout},
    verity,
};
use bennu_plan::{Entry, INITS};
use bennu_rules::{
    facts::Architecture,
    image::{BlobRef, Content, Derivation, FileSystem, ImageConfig, SignedLoaders, Verity},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
};

/// An os-release is a few lines.
const LONGEST_OS_RELEASE: u64 = 64 << 10;
/// So is SELinux's configuration.
const LONGEST_SELINUX_CONFIG: u64 = 64 << 10;

/// Imports a tar, plain or compressed with gzip, xz or zstd, of a root filesystem that carries its kernel; with
/// [`Options::kernel_only`] of anything that holds a kernel and its modules. Blocks; a root filesystem of a
/// gigabyte takes minutes.
///
/// Temporary space on the store's file system: about the size of the tree's files, then the image.
pub fn root_from_tar(
    reader: impl Read,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Imported, ImportError> {
    let making = Making::start(options, store, progress)?;
    let indexed = {
        let mut meter = Meter::new(progress, ImportStep::Read, options.source_size);
        tree::read(reader, store, &mut meter)?
    };
    making.finish(indexed, Origin::default())
}

/// What is known of a tree beside what lies in it.
#[derive(Default)]
pub(super) struct Origin {
    /// The container image it comes from.
    pub derived: Option<Derivation>,
    /// What that one would run.
    pub entry: Option<Entry>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The loaders that came with the kernel image it was paired with.
    pub signed: Option<SignedLoaders>,
    /// For which machines it says it is.
    pub architecture: Option<Architecture>,
}

/// An image in the making: what it needs is there, its blobs are held.
pub(super) struct Making<'a> {
    pub options: &'a Options,
    pub store: &'a Store,
    pub progress: &'a dyn Progress,
    builder: Option<Mksquashfs>,
    hold: Hold,
}

impl<'a> Making<'a> {
    /// Checks what can be checked before the source is read: a missing tool should be told first.
    pub fn start(options: &'a Options, store: &'a Store, progress: &'a dyn Progress) -> Result<Self, ImportError> {
        check(options)?;
        let builder = if options.kernel_only { None } else { Some(Mksquashfs::find()?) };
        Ok(Self { options, store, progress, builder, hold: store.hold() })
    }

    /// Makes an image of a tree that was read whole.
    pub fn finish(self, mut indexed: Indexed, origin: Origin) -> Result<Imported, ImportError> {
        let Self { options, store, progress, builder, hold } = self;
        let note = &mut |note: &str| progress.note(note);
        let entry = match builder {
            Some(_) => examine_root(&indexed, &options.cmdline, origin.entry, note)?,
            None => None,
        };
        let kernel = kernel::find(&indexed, note)?;
        check_architecture(origin.architecture, &kernel)?;
        let kernel_blob = store.put(&kernel.bytes)?;
        let signed = match origin.signed {
            Some(signed) => Some(signed),
            None => signing::examine(&indexed, &kernel, &options.trusted, store, note)?,
        };
        let filesystem = FileSystem::Squashfs;
        let modules =
            modules::initrd(&indexed, &kernel, filesystem, options.level, options.threads(), store, progress)?;
        let mut tools = BTreeMap::from([("bennu".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        let os = os_release(&indexed);
        let kernel_release = kernel.release.clone();
        let content = match builder {
            None => {
                let layer = (!options.without_layer)
                    .then(|| kernel_layer::store(&indexed, &kernel, options.threads(), store))
                    .transpose()?;
                Content::Kernel { kernel: kernel_blob, modules, kernel_release, layer }
            }
            Some(builder) => {
                leave_out(&options.root_without, &mut indexed)?;
                tree::prepare(&mut indexed.tree, options.acls, note)?;
                let (name, version) = builder.tool();
                tools.insert(name, version);
                let compression = kernel.support.root_compression(options.level);
                let (root, verity) = build_root(&builder, &indexed, compression, options, store, progress)?;
                let verity = Some(verity);
                Content::Root { kernel: kernel_blob, modules, root, filesystem, verity, kernel_release }
            }
        };
        let config = ImageConfig {
            architecture: kernel.architecture,
            cmdline: options.cmdline.trim().to_owned(),
            content,
            signed,
            os,
            derived: origin.derived,
            entry,
            labels: origin.labels,
            tools,
        };
        manifest::seal(config, store, hold)
    }
}

fn leave_out(paths: &[String], indexed: &mut Indexed) -> Result<(), ImportError> {
    for (directory, name) in paths.iter().filter_map(|path| path.rsplit_once('/')) {
        let hidden = Whiteout::Name { directory: directory.into(), name: name.into() };
        indexed.tree.whiteout(&hidden)?;
    }
    Ok(())
}

/// A container says for which machines its programs are; 64-bit kernels of Intel's kind run 32-bit programs too.
fn check_architecture(said: Option<Architecture>, kernel: &Kernel) -> Result<(), ImportError> {
    match said {
        Some(Architecture::X86) if kernel.architecture == Architecture::X86_64 => Ok(()),
        Some(said) if said != kernel.architecture => {
            Err(OciError::Platform { found: format!("{said:?}"), wanted: Some(kernel.architecture) }.into())
        }
        _ => Ok(()),
    }
}

/// Whether the tree can run; what is to be run where it has no init.
fn examine_root(
    indexed: &Indexed,
    cmdline: &str,
    entry: Option<Entry>,
    note: &mut dyn FnMut(&str),
) -> Result<Option<Entry>, ImportError> {
    let entry = match (check_init(indexed, cmdline), entry) {
        (Ok(()), _) => None,
        (Err(ImportError::NoInit { .. }), Some(entry)) => {
            note(&format!("the image has no init: machines run its own program, {}", entry.args.join(" ")));
            Some(entry)
        }
        (Err(error), _) => return Err(error),
    };
    if enforces_selinux(indexed, cmdline) {
        note(
            "SELinux is enforcing in this image; Bennu lays down unlabelled files: add enforcing=0 to its kernel \
             arguments (--cmdline)",
        );
    }
    Ok(entry)
}

pub(super) fn check(options: &Options) -> Result<(), ImportError> {
    if !(1..=22).contains(&options.level) {
        let what =
            format!("compression level {} is out of range; zstd has 1 to 22, and 15 is the default", options.level);
        return Err(ImportError::Option(what));
    }
    super::foreign::check_cmdline(&options.cmdline)
}

/// Refuses what has no init, and says what keeps a system from running well here.
pub(super) fn check_system(indexed: &Indexed, cmdline: &str, progress: &dyn Progress) -> Result<(), ImportError> {
    examine_root(indexed, cmdline, None, &mut |note| progress.note(note)).map(drop)
}

fn check_init(indexed: &Indexed, cmdline: &str) -> Result<(), ImportError> {
    let there = |path: &str| indexed.tree.file(path.as_bytes()).is_some();
    match named_init(cmdline) {
        Some(init) if there(&init) => Ok(()),
        // Stage 1 looks for no other then.
        Some(init) => Err(ImportError::Option(format!(
            "the kernel arguments name init={init}, and the source has no such file. Name one that it has (--cmdline), \
             or leave init= out for the distribution's own"
        ))),
        None if INITS.iter().any(|path| there(path)) => Ok(()),
        None => Err(ImportError::NoInit { looked: INITS.join(", ") }),
    }
}

/// `init=` of kernel arguments; the last one counts.
fn named_init(cmdline: &str) -> Option<String> {
    let named = arguments(cmdline).filter_map(|word| word.strip_prefix("init=").map(str::to_owned));
    named.filter(|init| !init.is_empty()).last()
}

/// Kernel arguments as the kernel reads them: words end at spaces outside of double quotes, and what follows `--` is
/// init's own.
fn arguments(cmdline: &str) -> impl Iterator<Item = String> {
    let mut quoted = false;
    let words = cmdline.split(move |c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    });
    words.map(|word| word.replace('"', "")).take_while(|word| word != "--")
}

/// Whether the image's SELinux will forbid what its policy does not know (selinux_config(5)), and its arguments do
/// not say otherwise.
fn enforces_selinux(indexed: &Indexed, cmdline: &str) -> bool {
    let config = indexed.bytes(b"/etc/selinux/config", LONGEST_SELINUX_CONFIG).and_then(Result::ok);
    let config = config.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let mode = config.lines().filter_map(|line| line.trim().strip_prefix("SELINUX=")).next_back();
    let enforcing = mode.is_some_and(|mode| mode.trim().eq_ignore_ascii_case("enforcing"));
    enforcing && !arguments(cmdline).any(|word| word == "enforcing=0" || word == "selinux=0")
}

fn build_root(
    builder: &dyn RootBuilder,
    indexed: &Indexed,
    compression: crate::squashfs::Compression,
    options: &Options,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(BlobRef, Verity), ImportError> {
    let out = tempfile::Builder::new()
        .prefix("root-")
        .tempfile_in(store.tmp())
        .map_err(|e| store.failed("make a file in", store.tmp(), e))?;
    let total = content_bytes(indexed);
    let mut meter = Meter::new(progress, ImportStep::Root, Some(total));
    let root_options = RootOptions { compression, memory: options.memory, processors: options.threads() };
    let mut feed =
        |pipe: &mut dyn std::io::Write| tree::emit(&indexed.tree, &indexed.spool, pipe, &mut |done| meter.at(done));
    let root = RootDirectory { meta: &indexed.tree.inode(ROOT).meta, others: owners(indexed) };
    let path: &Path = out.path();
    let watch = || {
        progress.check()?;
        store.check_room().map_err(|_| BuildError::Full)
    };
    builder.build(&root, path, &root_options, &mut feed, &watch).map_err(|error| match error {
        BuildError::Full => store.full().into(),
        BuildError::Cancelled(cancelled) => cancelled.into(),
        error => ImportError::from(error),
    })?;
    meter.done(total);
    progress.step(ImportStep::Store, 0, None);
    let (blob, tree) = store.adopt_with(out, |data, size| verity::Tree::over(data, size, store, options.threads()))?;
    let verity = tree.finish(&blob, store)?;
    progress.step(ImportStep::Store, blob.size, Some(blob.size));
    progress.check()?;
    Ok((blob, verity))
}

/// Users and groups of everything below the root directory.
fn owners(indexed: &Indexed) -> BTreeSet<u32> {
    let mut owners = BTreeSet::new();
    let walked: Result<(), std::convert::Infallible> = indexed.tree.walk(|_, id| {
        if id != ROOT {
            let meta = &indexed.tree.inode(id).meta;
            owners.extend([meta.uid as u32, meta.gid as u32]);
        }
        Ok(())
    });
    let Ok(()) = walked;
    owners
}

/// Bytes of all files, each inode once.
fn content_bytes(indexed: &Indexed) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0;
    let walked: Result<(), std::convert::Infallible> = indexed.tree.walk(|_, id| {
        if let Kind::File(data) = &indexed.tree.inode(id).kind
            && seen.insert(id)
        {
            total += data.size;
        }
        Ok(())
    });
    let Ok(()) = walked;
    total
}

/// `PRETTY_NAME` (os-release(5)); a file that cannot be read is no reason to refuse an image.
pub(super) fn os_release(indexed: &Indexed) -> Option<String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| indexed.bytes(path.as_bytes(), LONGEST_OS_RELEASE)?.ok())?;
    pretty_name(&String::from_utf8_lossy(&text))
}

pub(super) fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().filter_map(|line| line.trim().strip_prefix("PRETTY_NAME=")).next_back()?.trim();
    let quoted = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    let plain: String = value.replace("\\\"", "\"").chars().filter(|c| !c.is_control()).take(200).collect();
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_init_of_the_kernel_arguments_counts() {
        let init = |cmdline| named_init(cmdline);
        assert_eq!(init("quiet init=/a console=ttyS0 init=/opt/app -- init=/c").as_deref(), Some("/opt/app"));
        assert_eq!(init("x=\"a init=/no\" init=\"/a b\"").as_deref(), Some("/a b"));
        assert_eq!(init("rdinit=/x myinit=/y init="), None);
    }

    #[test]
    fn pretty_names_lose_their_quotes() {
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").unwrap(),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(pretty_name("PRETTY_NAME=Arch").unwrap(), "Arch");
        assert_eq!(pretty_name("PRETTY_NAME='A \u{7}b'").unwrap(), "A b");
        assert_eq!(pretty_name("NAME=x"), None);
    }
}
