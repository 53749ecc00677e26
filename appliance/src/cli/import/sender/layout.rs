//! A container image in an OCI layout: what belongs to it, and nothing else of the directory.

use super::{ChunkWriter, Parts, open_file, unreadable};
use crate::cli::error::{CliError, Done};
use bennu_images::oci::{Descriptor, Document, LARGEST_MANIFEST};
use bennu_rules::image::Digest;
use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Where layouts keep an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image of a layout.
pub struct Layout {
    directory: PathBuf,
    index: Vec<u8>,
    /// The blobs, each document before its parts.
    blobs: Vec<Digest>,
}

impl Layout {
    /// Looks at a layout, and finds every blob of the image: the one of that tag, or all there are.
    pub fn open(directory: &Path, image: Option<&str>) -> Done<Self> {
        let index_path = directory.join("index.json");
        let index = small(&index_path)?;
        let help = "name a directory that is an OCI layout, such as skopeo copy … oci:DIR:TAG makes";
        let bad = |why: String| CliError::failed(format!("cannot use {}: {why}", index_path.display()), help);
        let Document::Index(listed) = Document::parse(&index, None).map_err(bad)? else {
            return Err(bad("it is no index".into()));
        };
        let is_wanted = |descriptor: &&Descriptor| {
            image.is_none_or(|image| descriptor.annotations.get(REF_NAME).is_some_and(|name| name == image))
        };
        let chosen: Vec<&Descriptor> = listed.manifests.iter().filter(is_wanted).collect();
        let mut layout = Self { directory: directory.to_owned(), index, blobs: Vec::new() };
        // Where none fits, the appliance says which there are.
        let mut seen = BTreeSet::new();
        for descriptor in chosen {
            layout.gather(descriptor, &mut seen, 0)?;
        }
        Ok(layout)
    }

    fn gather(&mut self, descriptor: &Descriptor, seen: &mut BTreeSet<Digest>, depth: u32) -> Done {
        if !seen.insert(descriptor.digest) || depth > 3 {
            return Ok(());
        }
        let path = self.path(&descriptor.digest);
        // A copy of one architecture leaves the others' manifests out of the directory, and in the index.
        if depth > 0 && !path.exists() {
            return Ok(());
        }
        self.blobs.push(descriptor.digest);
        let bad =
            |why: String| CliError::failed(format!("cannot use {}: {why}", path.display()), "copy the image anew");
        match Document::parse(&small(&path)?, Some(&descriptor.media_type)).map_err(bad)? {
            Document::Manifest(manifest) => {
                let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
                self.blobs.extend(parts.map(|part| part.digest).filter(|digest| seen.insert(*digest)));
            }
            Document::Index(index) => {
                index.manifests.iter().try_for_each(|inner| self.gather(inner, seen, depth + 1))?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    /// Sends it as a tar.
    pub fn send(&self, out: &mut ChunkWriter) -> Done {
        let mut tar = Parts::new(out);
        tar.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.bytes("index.json", &self.index)?;
        for digest in &self.blobs {
            let path = self.path(digest);
            tar.file(&format!("blobs/sha256/{}", digest.hex()), &path, open_file(&path, "copy the image anew")?)?;
        }
        tar.finish()
    }
}

fn small(path: &Path) -> Done<Vec<u8>> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_MANIFEST + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > LARGEST_MANIFEST {
        return Err(CliError::failed(format!("{} is too large for a manifest", path.display()), "copy the image anew"));
    }
    Ok(bytes)
}
