//! A source as a request's body, read by a thread of its own.

mod layout;

use crate::cli::meter::Meter;
use crate::cli::{
    client::RequestBody,
    error::{CliError, Done},
    source::Source,
};
use bennu_images::import::pack_directory;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use layout::Layout;
use std::{
    fs::{File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

const CHUNK: usize = 256 << 10;

/// The thread that reads the source.
pub struct Sender {
    failure: oneshot::Receiver<CliError>,
}

impl Sender {
    /// Why the source could not be read to its end, if that is so.
    pub async fn failure(self) -> Option<CliError> {
        // The thread ends at once when it fails, and may wait for standard input when it does not.
        tokio::time::timeout(Duration::from_secs(2), self.failure).await.ok()?.ok()
    }
}

/// A source that was looked at and opened.
enum Opened {
    Directory(PathBuf),
    Stream(Box<dyn Read + Send>, String),
    Parts(Vec<(String, PathBuf, File)>),
    Layout(Layout),
}

/// Opens a source and begins to read it. What is wrong with its paths is told here, before anything is sent.
pub fn start(source: Source, meter: Meter) -> Done<(Sender, RequestBody)> {
    let opened = open(source)?;
    let (chunks, receiver) = mpsc::channel(8);
    let (told, failure) = oneshot::channel();
    let work = move || {
        let mut out = ChunkWriter { chunks, gone: false };
        let done = copy(opened, &mut out, &meter);
        if let Err(error) = done
            && !out.gone
        {
            // A body that ends in an error is no body: the appliance drops what it has of it.
            let _ = told.send(error);
            let _ = out.chunks.blocking_send(Err(io::Error::other("the source cannot be read")));
        }
    };
    std::thread::Builder::new()
        .name("source".into())
        .spawn(work)
        .map_err(|error| CliError::failed(format!("cannot start: {error}"), ""))?;
    Ok((Sender { failure }, body(receiver)))
}

/// The same for a source that a task reads.
pub fn from_task<F>(read: impl FnOnce(mpsc::Sender<io::Result<Bytes>>) -> F) -> (Sender, RequestBody)
where
    F: Future<Output = Done> + Send + 'static,
{
    let (chunks, receiver) = mpsc::channel(8);
    let (told, failure) = oneshot::channel();
    let reading = read(chunks.clone());
    tokio::spawn(async move {
        if let Err(error) = reading.await
            && !chunks.is_closed()
        {
            let _ = told.send(error);
            let _ = chunks.send(Err(io::Error::other("the source cannot be read"))).await;
        }
    });
    (Sender { failure }, body(receiver))
}

/// The same for stretches that a thread reads, until there are no more.
pub fn from_reads(mut next: impl FnMut() -> io::Result<Option<Bytes>> + Send + 'static) -> Done<RequestBody> {
    let (chunks, receiver) = mpsc::channel(8);
    let work = move || {
        while let Some(chunk) = next().transpose() {
            let is_last = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("source".into())
        .spawn(work)
        .map_err(|error| CliError::failed(format!("cannot start: {error}"), ""))?;
    Ok(body(receiver))
}

fn body(chunks: mpsc::Receiver<io::Result<Bytes>>) -> RequestBody {
    let frames = ReceiverStream::new(chunks).map(|chunk: io::Result<Bytes>| chunk.map(Frame::data));
    BodyExt::boxed(StreamBody::new(frames))
}

/// How many bytes a source will send, where that is known before.
pub fn size(source: &Source) -> Option<u64> {
    let regular = |path: &Path| Some(path.metadata().ok().filter(Metadata::is_file)?.len());
    match source {
        Source::Directory(_) | Source::Stdin | Source::Layout { .. } | Source::Registry(_) => None,
        Source::Tar(path)
        | Source::Archive { path, .. }
        | Source::Disk(path)
        | Source::Iso(path)
        | Source::Efi(path) => regular(path),
        Source::Foreign { kernel, initrds, efi, .. } => {
            initrds.iter().chain(efi).try_fold(regular(kernel)?, |sum, part| Some(sum + regular(part)?))
        }
    }
}

fn open(source: Source) -> Done<Opened> {
    match source {
        Source::Directory(path) => match path.metadata() {
            Ok(meta) if meta.is_dir() => Ok(Opened::Directory(path)),
            Ok(_) => Err(CliError::failed(format!("{} is no directory", path.display()), "write tar: for an archive")),
            Err(error) => Err(unreadable(&path, &error)),
        },
        Source::Layout { path, image } => Layout::open(&path, image.as_deref()).map(Opened::Layout),
        Source::Tar(path) | Source::Archive { path, .. } => {
            let file = open_file(&path, "write dir: for a directory, and oci: for one that is an OCI layout")?;
            Ok(Opened::Stream(Box::new(file), path.display().to_string()))
        }
        Source::Disk(path) | Source::Iso(path) | Source::Efi(path) => {
            let file = open_file(&path, "name the file itself")?;
            Ok(Opened::Stream(Box::new(file), path.display().to_string()))
        }
        Source::Registry(_) => Err(CliError::failed("a registry is no file", "")),
        Source::Stdin => Ok(Opened::Stream(Box::new(io::stdin()), "standard input".into())),
        Source::Foreign { kernel, initrds, efi, .. } => {
            let named = std::iter::once(("kernel".to_owned(), kernel))
                .chain(initrds.into_iter().enumerate().map(|(at, path)| (format!("initrd-{at}"), path)))
                .chain(efi.map(|path| ("efi".to_owned(), path)));
            let opened = named.map(|(name, path)| {
                let file = open_file(&path, "name the file itself")?;
                Ok((name, path, file))
            });
            opened.collect::<Done<_>>().map(Opened::Parts)
        }
    }
}

fn open_file(path: &Path, if_directory: &str) -> Done<File> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    match file.metadata() {
        Ok(meta) if meta.is_dir() => Err(CliError::failed(format!("{} is a directory", path.display()), if_directory)),
        Ok(_) => Ok(file),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "look at the path's spelling: it is read on this host, from this directory",
        io::ErrorKind::PermissionDenied => "run this with sudo",
        _ => "",
    };
    CliError::failed(format!("cannot read {}: {error}", path.display()), help)
}

fn copy(opened: Opened, out: &mut ChunkWriter, meter: &Meter) -> Done {
    match opened {
        Opened::Directory(path) => {
            pack_directory(&path, out, meter).map_err(|error| CliError::told(&error.to_string()))
        }
        Opened::Stream(mut stream, name) => copy_stream(&mut stream, &name, out),
        Opened::Parts(parts) => copy_parts(parts, out),
        Opened::Layout(layout) => layout.send(out),
    }
}

fn copy_stream(stream: &mut dyn Read, name: &str, out: &mut ChunkWriter) -> Done {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => out.write_all(&buffer[..count]).map_err(|error| CliError::failed(error.to_string(), ""))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(Path::new(name), &error)),
        }
    }
}

/// The parts of a foreign image as a tar.
fn copy_parts(parts: Vec<(String, PathBuf, File)>, out: &mut ChunkWriter) -> Done {
    let mut tar = Parts::new(out);
    parts.into_iter().try_for_each(|(name, path, file)| tar.file(&name, &path, file))?;
    tar.finish()
}

/// Files on their way into a tar.
struct Parts<'a> {
    tar: tar::Builder<io::BufWriter<&'a mut ChunkWriter>>,
}

impl<'a> Parts<'a> {
    fn new(out: &'a mut ChunkWriter) -> Self {
        Self { tar: tar::Builder::new(io::BufWriter::with_capacity(CHUNK, out)) }
    }

    fn file(&mut self, name: &str, path: &Path, file: File) -> Done {
        let failed = |error: io::Error| unreadable(path, &error);
        let size = file.metadata().map_err(failed)?.len();
        // A file that grows meanwhile is cut at the size that was announced; one that shrinks is noticed.
        self.add(name, size, Counted { inner: file.take(size), left: size }).map_err(failed)
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Done {
        self.add(name, bytes.len() as u64, bytes).map_err(|error| CliError::failed(error.to_string(), ""))
    }

    fn add(&mut self, name: &str, size: u64, mut content: impl Read) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        self.tar.append_data(&mut header, name, &mut content)
    }

    fn finish(self) -> Done {
        let end = |error: io::Error| CliError::failed(error.to_string(), "");
        self.tar.into_inner().map_err(end)?.flush().map_err(end)
    }
}

/// A reader that gives exactly what was announced, or an error.
struct Counted<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left -= count as u64;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        Ok(count)
    }
}

/// Writes into the body.
struct ChunkWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    /// Set when nobody takes any more.
    gone: bool,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK);
        self.chunks.blocking_send(Ok(Bytes::copy_from_slice(&bytes[..count]))).map_err(|_| {
            self.gone = true;
            io::Error::new(io::ErrorKind::BrokenPipe, "the appliance takes no more")
        })?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_before_anything_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("root.tar");
        std::fs::write(&file, b"x").unwrap();
        for (source, says) in [
            (Source::Directory(directory.path().join("none")), "No such file"),
            (Source::Directory(file.clone()), "is no directory"),
            (Source::Tar(directory.path().into()), "is a directory"),
            (
                Source::Foreign {
                    kernel: file,
                    initrds: vec![directory.path().join("none")],
                    efi: None,
                    cmdline: String::new(),
                },
                "No such file",
            ),
        ] {
            let error = open(source).err().unwrap();
            assert!(error.what.contains(says), "{error}");
            assert!(!error.help.is_empty(), "{error}");
        }
    }

    #[test]
    fn a_part_that_shrinks_is_noticed() {
        let mut part = Counted { inner: &b"abc"[..], left: 5 };
        assert!(part.read_to_end(&mut Vec::new()).is_err());
    }
}
