//! A directory that is an OCI layout, made or added to: every blob is checked and written aside before the first one
//! appears, so that an export is whole or absent.

use super::{parent, unwritable};
use crate::cli::error::{CliError, Done};
use bennu_images::{
    archive::{EntryKind, Reader, show},
    oci::{LARGEST_MANIFEST, LAYOUT, REF_NAME},
};
use bennu_rules::image::Digest;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

const HELP: &str = "name a directory that is an OCI layout, or one that is not there yet";

/// Looks whether a layout can be made there, or is there.
pub fn check(directory: &Path) -> Done {
    let refuse = |what: &str| Err(CliError::failed(format!("{} {what}", directory.display()), HELP));
    let listed = fs::read_dir(directory);
    match listed.map(Iterator::count) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => refuse("is no directory"),
        Err(error) => Err(unwritable(directory, &error)),
        Ok(0) => Ok(()),
        Ok(_) if !directory.join("oci-layout").is_file() => refuse("holds something else than an OCI layout"),
        // What is written into it must not land elsewhere.
        Ok(_) => match ["blobs", "blobs/sha256"].iter().find(|name| directory.join(name).is_symlink()) {
            Some(name) => refuse(&format!("has a link in the place of {name}")),
            None => Ok(()),
        },
    }
}

/// Writes the images of a tar there.
pub fn write(directory: &Path, source: &mut impl Read) -> Done {
    let failed = |error: io::Error| unwritable(directory, &error);
    let is_new = !directory.exists();
    // On the same file system, so that files only change their names in the end.
    let beside = if is_new { parent(directory) } else { directory };
    let stage = tempfile::Builder::new().prefix(".bennu-export-").tempdir_in(beside).map_err(failed)?;
    let arrived = unpack(source, stage.path(), directory)?;
    let index = merged(directory, &arrived.index)?;
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed)?;
    let mut placed = Placed { paths: Vec::new(), made: is_new.then(|| directory.to_owned()) };
    for digest in &arrived.blobs {
        let path = blobs.join(digest.hex());
        let was_there = path.exists();
        fs::rename(stage.path().join(digest.hex()), &path).map_err(failed)?;
        // One that was there had the same bytes, and belongs to others.
        placed.paths.extend((!was_there).then_some(path));
    }
    replace(directory, "oci-layout", LAYOUT).map_err(failed)?;
    replace(directory, "index.json", &index).map_err(failed)?;
    placed.stay();
    Ok(())
}

/// What is taken back unless all went well.
struct Placed {
    paths: Vec<PathBuf>,
    made: Option<PathBuf>,
}

impl Placed {
    fn stay(mut self) {
        self.paths.clear();
        self.made = None;
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
        if let Some(made) = &self.made {
            let _ = fs::remove_dir_all(made);
        }
    }
}

struct Arrived {
    index: Vec<u8>,
    blobs: Vec<Digest>,
}

/// Files that a layout has, and no others: nothing of the tar's names reaches the file system but digests.
fn unpack(source: &mut impl Read, stage: &Path, directory: &Path) -> Done<Arrived> {
    let broken = |what: String| CliError::failed(what, "export the image again");
    let cut = |error: bennu_images::archive::TarError| broken(format!("what arrived is no whole tar: {error}"));
    let failed = |error: io::Error| unwritable(directory, &error);
    let mut reader = Reader::new(source);
    let mut arrived = Arrived { index: Vec::new(), blobs: Vec::new() };
    let mut buffer = vec![0; 256 << 10];
    while let Some(entry) = reader.next_entry().map_err(cut)? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let digest = name.strip_prefix("blobs/sha256/").and_then(|hex| Digest::from_hex(hex).ok());
        match (&entry.kind, digest) {
            (EntryKind::Directory, _) => {}
            (EntryKind::File, Some(digest)) => {
                let mut file = fs::File::create_new(stage.join(digest.hex())).map_err(failed)?;
                let mut hash = Context::new(&SHA256);
                loop {
                    match reader.read_data(&mut buffer).map_err(cut)? {
                        0 => break,
                        count => {
                            hash.update(&buffer[..count]);
                            file.write_all(&buffer[..count]).map_err(failed)?;
                        }
                    }
                }
                if hash.finish().as_ref() != digest.0 {
                    let help = "run `bennu image verify`, which names what is damaged in the store; importing that image again repairs it. Nothing was kept";
                    return Err(CliError::failed(format!("the blob {digest} arrived with other bytes"), help));
                }
                file.sync_all().map_err(failed)?;
                arrived.blobs.push(digest);
            }
            (EntryKind::File, None) if matches!(name.as_str(), "index.json" | "oci-layout") => {
                let mut text = Vec::new();
                loop {
                    match reader.read_data(&mut buffer).map_err(cut)? {
                        0 => break,
                        count => text.extend_from_slice(&buffer[..count]),
                    }
                    if text.len() as u64 > LARGEST_MANIFEST {
                        return Err(broken(format!("{name} is larger than any that makes sense")));
                    }
                }
                if name == "index.json" {
                    arrived.index = text;
                }
            }
            _ => return Err(broken(format!("what arrived holds '{}', which no layout has", show(&entry.path)))),
        }
    }
    Ok(arrived)
}

/// The index with what arrived: an image of the same name gives it up.
fn merged(directory: &Path, arrived: &[u8]) -> Done<Vec<u8>> {
    let path = directory.join("index.json");
    let bad = |what: &str| CliError::failed(format!("{} {what}", path.display()), HELP);
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).ok().filter(|index| index["manifests"].is_array());
    let new = parse(arrived).ok_or_else(|| CliError::failed("what arrived has no index", "export the image again"))?;
    let mut index = match fs::read(&path) {
        Ok(text) => parse(&text).ok_or_else(|| bad("is no index"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            json!({"schemaVersion": 2, "mediaType": new["mediaType"], "manifests": []})
        }
        Err(error) => return Err(unwritable(&path, &error)),
    };
    let name = |descriptor: &Value| descriptor["annotations"][REF_NAME].as_str().map(str::to_owned);
    let new: Vec<Value> = new["manifests"].as_array().cloned().unwrap_or_default();
    let gives_way = |old: &Value| {
        new.iter().any(|new| match name(old) {
            Some(old) => name(new).as_ref() == Some(&old),
            None => name(new).is_none() && new["digest"] == old["digest"],
        })
    };
    let manifests = index["manifests"].as_array_mut().ok_or_else(|| bad("is no index"))?;
    manifests.retain(|old| !gives_way(old));
    manifests.extend(new);
    serde_json::to_vec(&index).map_err(|error| CliError::failed(error.to_string(), ""))
}

fn replace(directory: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let mut file = super::aside(directory)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(name)).map(drop).map_err(|error| error.error)
}
