//! An image on its way from the registry to the appliance: an OCI layout as a tar, made as it comes.

use super::{image::Parts, registry::Registry, web::Failure};
use crate::cli::error::{CliError, Done};
use bennu_rules::image::BlobRef;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use ring::digest::{Context, SHA256};
use std::io;
use tokio::{sync::mpsc, time::sleep};

/// How often a blob whose connection broke is taken up again.
const MOST_RESUMES: u32 = 3;
const BLOCK: u64 = 512;
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The body of an import.
pub type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// How many bytes `send` will send, unless sizes are lies.
pub fn size(parts: &Parts) -> Option<u64> {
    let small = [LAYOUT.len(), parts.index.len()].map(|length| length as u64);
    let documents = parts.documents.iter().map(|(_, bytes)| bytes.len() as u64);
    let blobs = parts.blobs.iter().map(|blob| blob.size);
    let entry = |size: u64| size.checked_next_multiple_of(BLOCK)?.checked_add(BLOCK);
    let mut all = small.into_iter().chain(documents).chain(blobs);
    all.try_fold(2 * BLOCK, |sum, size| sum.checked_add(entry(size)?))
}

/// Sends it, holding no more of it than what the connections hold.
pub async fn send(mut registry: Registry, parts: Parts, out: Chunks) -> Done {
    file(&out, "oci-layout", LAYOUT.to_vec()).await?;
    file(&out, "index.json", parts.index).await?;
    for (digest, bytes) in parts.documents {
        file(&out, &format!("blobs/sha256/{}", digest.hex()), bytes).await?;
    }
    for blob in &parts.blobs {
        put(&out, head(&format!("blobs/sha256/{}", blob.digest.hex()), blob.size)?).await?;
        Download { registry: &mut registry, blob, out: &out, at: 0, hash: Context::new(&SHA256) }.run().await?;
        put(&out, padding(blob.size)).await?;
    }
    put(&out, Bytes::from_static(&[0; 2 * BLOCK as usize])).await
}

async fn file(out: &Chunks, name: &str, bytes: Vec<u8>) -> Done {
    let size = bytes.len() as u64;
    put(out, head(name, size)?).await?;
    put(out, bytes.into()).await?;
    put(out, padding(size)).await
}

fn head(name: &str, size: u64) -> Done<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).map_err(|error| CliError::failed(error.to_string(), ""))?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

fn padding(size: u64) -> Bytes {
    Bytes::from_static(&[0; BLOCK as usize]).slice(..(size.next_multiple_of(BLOCK) - size) as usize)
}

async fn put(out: &Chunks, bytes: Bytes) -> Done {
    if bytes.is_empty() {
        return Ok(());
    }
    out.send(Ok(bytes)).await.map_err(|_| CliError::failed("the appliance takes no more", ""))
}

/// A blob that is coming.
struct Download<'a> {
    registry: &'a mut Registry,
    blob: &'a BlobRef,
    out: &'a Chunks,
    /// What was sent on, and hashed.
    at: u64,
    hash: Context,
}

impl Download<'_> {
    async fn run(mut self) -> Done {
        let mut broken = 0;
        while let Err(failure) = self.stretch().await {
            match failure {
                Failure::Broken(_) if broken < MOST_RESUMES => {
                    broken += 1;
                    sleep(self.registry.web.patience.pause * broken).await;
                }
                Failure::Broken(why) if broken > 0 => {
                    let (at, size) = (self.at, self.blob.size);
                    let why = format!("{why} (at byte {at} of {size}, after {broken} more attempts)");
                    return Err(Failure::Broken(why).told());
                }
                other => return Err(other.told()),
            }
        }
        let found = self.hash.finish();
        if found.as_ref() == self.blob.digest.0.as_slice() {
            return Ok(());
        }
        let hex: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Err(CliError::failed(
            format!("the blob {} is damaged: what came has the digest sha256:{hex}", self.blob.digest),
            "nothing of the image was kept; try again, then look at the registry's storage and push the image anew",
        ))
    }

    /// As much as one connection brings.
    async fn stretch(&mut self) -> Result<(), Failure> {
        let size = self.blob.size;
        if self.at == size && size > 0 {
            return Ok(());
        }
        let name = format!("the blob {}", self.blob.digest);
        let mut answer = self.registry.blob(&self.blob.digest, self.at).await?;
        let mut skip = self.skip(&answer)?;
        // Where a body ends with its connection, a break looks like an end.
        let has_end = answer.headers().contains_key(header::CONTENT_LENGTH)
            || answer.headers().contains_key(header::TRANSFER_ENCODING);
        while let Some(mut bytes) = self.registry.web.next(&name, answer.body_mut()).await? {
            let known = skip.min(bytes.len() as u64);
            skip -= known;
            bytes = bytes.slice(known as usize..);
            if bytes.len() as u64 > size - self.at {
                return Err(self.lies("more").into());
            }
            self.hash.update(&bytes);
            self.at += bytes.len() as u64;
            put(self.out, bytes).await?;
        }
        match self.at == size {
            true => Ok(()),
            false if has_end => Err(self.lies("fewer").into()),
            false => Err(Failure::Broken(format!("{name} broke off"))),
        }
    }

    /// How much of the answer is here already: a registry need not know ranges.
    fn skip(&self, answer: &Response<Incoming>) -> Result<u64, Failure> {
        let header = |name: header::HeaderName| answer.headers().get(name)?.to_str().ok();
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let range = header(header::CONTENT_RANGE).unwrap_or_default();
            let starts = format!("bytes {}-", self.at);
            if self.at == 0 || !range.starts_with(&starts) {
                let what =
                    format!("asked for {} from byte {} on, the registry gave '{range}'", self.blob.digest, self.at);
                return Err(CliError::failed(what, "copy the image with skopeo and import that").into());
            }
            return Ok(0);
        }
        let length = header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        match length {
            Some(length) if length < self.blob.size => Err(self.lies("fewer").into()),
            Some(length) if length > self.blob.size => Err(self.lies("more").into()),
            _ => Ok(self.at),
        }
    }

    fn lies(&self, direction: &str) -> CliError {
        CliError::failed(
            format!(
                "the blob {} has {direction} bytes than the {} its manifest says",
                self.blob.digest, self.blob.size
            ),
            "nothing of the image was kept; push the image anew",
        )
    }
}
