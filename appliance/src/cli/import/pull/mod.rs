//! `docker://`: an image pulled from a registry (OCI distribution specification, "Pull") and streamed to the appliance,
//! which holds neither a layer in memory nor one on this host's disk: descriptors say beforehand how long a blob is, and
//! so a tar can be made as it comes.

mod challenge;
mod credentials;
mod image;
mod reference;
mod registry;
mod stream;
#[cfg(test)]
mod tests;
mod trust;
mod url;
mod web;

pub use reference::Reference;

use crate::cli::{
    error::{CliError, Done},
    meter::Meter,
};
use bennu_images::oci::{Platform, architecture};
use clap::Args;
use image::Parts;
use registry::Registry;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};
use stream::Chunks;
use web::{Patience, Web};

/// How a registry is spoken to.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Options of docker://")]
pub struct Options {
    /// User and password for the registry
    ///
    /// BENNU_REGISTRY_CREDS is the same, out of the sight of other users of this host. Without both, logins of skopeo,
    /// podman and docker are used where their files hold them.
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    /// Trust the authorities in DIR/*.crt, too, and those in the file that BENNU_CACERT names
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// `false` takes any certificate, and a registry without TLS; on loopback none is needed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// Take the image for this platform alone, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_parser = platform)]
    platform: Option<Platform>,
}

impl Options {
    /// An option that says nothing of another source.
    pub fn given(&self) -> Option<&'static str> {
        [
            (self.creds.is_some(), "--creds"),
            (self.cert_dir.is_some(), "--cert-dir"),
            (self.tls_verify.is_some(), "--tls-verify"),
            (self.platform.is_some(), "--platform"),
        ]
        .into_iter()
        .find_map(|(is_given, name)| is_given.then_some(name))
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    match text.split_once('/') {
        Some(("linux", name)) if architecture(name).is_some() => {
            Ok(Platform { os: "linux".to_owned(), architecture: name.to_owned() })
        }
        _ => Err("write linux/ and amd64, 386, arm64, arm, riscv64 or loong64".to_owned()),
    }
}

/// An image that was looked at: every manifest is here and checked, and what they name can be sent.
#[derive(Debug)]
pub struct Pulled {
    registry: Registry,
    parts: Parts,
}

impl Pulled {
    /// Looks at an image in its registry.
    pub async fn look(reference: &Reference, options: &Options, meter: &Meter) -> Done<Self> {
        let (pulled, notes) = look(reference, options, |name| std::env::var_os(name), Patience::default()).await?;
        notes.iter().for_each(|note| meter.note(note));
        Ok(pulled)
    }

    /// How many bytes it will be.
    pub fn size(&self) -> Option<u64> {
        stream::size(&self.parts)
    }

    /// Sends it as a tar.
    pub async fn send(self, out: Chunks) -> Done {
        stream::send(self.registry, self.parts, out).await
    }
}

async fn look(
    reference: &Reference,
    options: &Options,
    variable: impl Fn(&str) -> Option<OsString>,
    patience: Patience,
) -> Done<(Pulled, Vec<String>)> {
    let verify = options.tls_verify.unwrap_or(true);
    let cacert = variable("BENNU_CACERT").filter(|path| !path.is_empty());
    let tls = trust::client(options.cert_dir.as_deref(), cacert.as_deref().map(Path::new), verify)?;
    let login = credentials::find(options.creds.as_deref(), reference.registry.as_str(), &reference.name, &variable)?;
    let mut registry = Registry::open(Web::new(tls, !verify, patience), reference, login).await?;
    let (parts, notes) = image::parts(&mut registry, reference, options.platform.as_ref()).await?;
    let pulled = Pulled { registry, parts };
    if pulled.size().is_none() {
        let what = format!("{reference}: the manifest says sizes that no disk has");
        return Err(CliError::failed(what, "push the image anew"));
    }
    Ok((pulled, notes))
}
