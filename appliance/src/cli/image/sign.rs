//! `bennu image sign` and `bennu image keys`: signatures as cosign makes them. The private key stays on this host.

use crate::{
    cli::{
        client::{Client, encoded, full},
        error::{CliError, Done},
        output::say,
    },
    http::api::{images::ImageShown, pushes::PushShown},
};
use bennu_images::{
    cosign::{KeyPair, Place, SigningKey, sign, signature_tag},
    oci::OCI_MANIFEST,
};
use bennu_rules::image::{Digest, ImageName, ImageReference};
use clap::Args;
use http::Method;
use http_body_util::BodyExt;
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Where the private key's password comes from, as with cosign.
const PASSWORD: &str = "COSIGN_PASSWORD";

/// The arguments of a signature.
#[derive(Debug, Args)]
pub struct Sign {
    /// NAME:TAG or sha256:DIGEST
    image: ImageReference,
    /// The private key: cosign's (its password in COSIGN_PASSWORD), or plain PKCS #8
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sign the bootable image itself, and not the container image it was made of
    #[arg(long)]
    bootable: bool,
    /// The name that the signature gives the image; its own unless given
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

/// Signs an image, and leaves the signature beside it in the registry.
pub async fn run(client: &Client, wanted: Sign) -> Done {
    let key = read_key(&wanted.key)?;
    let shown: ImageShown = client.get(&format!("/v1/images/{}", encoded(&wanted.image.to_string()))).await?;
    let pushes: Vec<PushShown> = client.list("/v1/pushes", None).await?;
    let name = match &wanted.image {
        ImageReference::Name(name) => Some(name.clone()),
        ImageReference::Digest(_) => shown.tags.first().map(|tag| tag.name.clone()),
    };
    let name = name.ok_or_else(|| {
        CliError::failed(
            format!("{} has no tag, so there is no repository to keep its signature in", wanted.image),
            "give it one: bennu image tag",
        )
    })?;
    let digest = subject(&shown, &name, &pushes, wanted.bootable);
    let repository = name.name();
    let tag = signature_tag(&digest);
    let has_some = pushes.iter().any(|push| push.push.name.name() == repository && push.push.name.tag() == tag);
    let place = format!("/v2/{repository}/manifests/{tag}");
    let existing = if has_some { Some(fetched(client, &place).await?) } else { None };
    let identity = wanted.identity.as_deref().unwrap_or(repository);
    let signed = sign(&key, &digest, identity, &Place::Tag, existing.as_deref())
        .map_err(|error| CliError::told(&error.to_string()))?;
    for blob in [&signed.payload, &signed.config] {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", digest_of(blob));
        client.send_with(Method::POST, &path, Some(full(blob.clone())), &[octets()]).await?;
    }
    let manifest = [("content-type", OCI_MANIFEST.to_owned())];
    client.send_with(Method::PUT, &place, Some(full(signed.manifest)), &manifest).await?;
    say(format!("signed {digest} as {identity}: {repository}:{tag}"));
    Ok(())
}

/// What is signed: what the registry returns under the name, or the bootable image.
fn subject(shown: &ImageShown, name: &ImageName, pushes: &[PushShown], bootable: bool) -> Digest {
    if bootable {
        return shown.image.digest;
    }
    let source = shown.image.config.derived.as_ref().map(|derived| derived.source.digest);
    let pushed = pushes.iter().find(|push| push.push.name == *name).map(|push| push.push.digest);
    // An index of several architectures is signed as a whole, as cosign does.
    source.and(pushed).or(source).unwrap_or(shown.image.digest)
}

async fn fetched(client: &Client, path: &str) -> Done<Vec<u8>> {
    let answer = client.send(Method::GET, path, None).await?;
    let lost = |error: hyper::Error| CliError::failed(format!("the answer broke off: {error}"), "try again");
    Ok(answer.into_body().collect().await.map_err(lost)?.to_bytes().to_vec())
}

fn octets() -> (&'static str, String) {
    ("content-type", "application/octet-stream".to_owned())
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest(digest)
}

/// Reads a private key; its password is in the environment.
pub fn read_key(path: &Path) -> Done<SigningKey> {
    let pem = fs::read(path).map_err(|error| {
        CliError::failed(format!("cannot read the private key {}: {error}", path.display()), "name another (--key)")
    })?;
    let password = std::env::var(PASSWORD).ok();
    SigningKey::from_pem(&pem, password.as_deref().map(str::as_bytes))
        .map_err(|error| CliError::told(&format!("{}: {error}", path.display())))
}

/// Makes a pair of keys as `cosign generate-key-pair` does: `PREFIX.key` for the signer, `PREFIX.pub` for the appliance.
pub fn make_keys(prefix: &Path) -> Done {
    let password = std::env::var(PASSWORD).map_err(|_| {
        CliError::usage(
            format!("there is no password for the private key in {PASSWORD}"),
            format!("set it for this command, even to nothing: {PASSWORD}= bennu image keys PREFIX"),
        )
    })?;
    let pair = KeyPair::generate(password.as_bytes()).map_err(|error| CliError::told(&error.to_string()))?;
    for (ending, mode, text) in [("key", 0o600, pair.private), ("pub", 0o644, pair.public)] {
        let path = PathBuf::from(format!("{}.{ending}", prefix.display()));
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
            CliError::failed(
                format!("cannot write {}: {error}", path.display()),
                "name another prefix; a key that is there is never overwritten",
            )
        })?;
        say(path.display().to_string());
    }
    Ok(())
}
