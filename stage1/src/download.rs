//! Fetching a blob: straight into its file, hashed on the way, going on where it broke off.

use crate::http::{self, HttpError, Response};
use bennu_plan::Blob;
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// One read from the network.
const CHUNK: usize = 256 * 1024;
/// Chunks between the reader and the writer, so that the network does not wait for the hash.
const AHEAD: usize = 8;

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The network; worth another try from where it stopped.
    #[error("{0}")]
    Connection(#[from] HttpError),
    /// The appliance has no such blob, or will not give it.
    #[error("the appliance answers {status} for {url}{}", .said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    Status {
        /// HTTP status.
        status: u16,
        /// Which blob.
        url: String,
        /// What the answer said.
        said: Option<String>,
    },
    /// The blob has another length than the plan says.
    #[error(
        "{digest} has {got} bytes at the appliance, and the plan says {expected}: the image's record and its blob differ, import it again"
    )]
    Size {
        /// Which blob.
        digest: String,
        /// By the plan.
        expected: u64,
        /// By the appliance.
        got: u64,
    },
    /// All bytes came, and they are not those of the plan.
    #[error(
        "{expected} arrived as sha256:{got}: damaged on the way or in the store. It is fetched again; if that does not help, import the image again"
    )]
    Digest {
        /// By the plan.
        expected: String,
        /// As it came.
        got: String,
    },
    /// The file.
    #[error("cannot write the root into memory: {0}")]
    Write(#[source] io::Error),
}

impl DownloadError {
    /// Whether the same request may well succeed in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection(HttpError::Url(_)) => false,
            Self::Connection(_) => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// Whether what has come so far is worthless.
    pub fn spoils(&self) -> bool {
        matches!(self, Self::Digest { .. } | Self::Size { .. } | Self::Write(_))
    }
}

/// A blob on its way into a file.
pub struct Download {
    blob: Blob,
    file: File,
    hash: Context,
    have: u64,
}

impl Download {
    /// Starts with an empty file.
    pub fn start(path: &Path, blob: Blob) -> Result<Self, DownloadError> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        Ok(Self { blob, file: file.map_err(DownloadError::Write)?, hash: Context::new(&SHA256), have: 0 })
    }

    /// Whether this is the blob that is wanted, so that what is here can be used.
    pub fn is_of(&self, blob: &Blob) -> bool {
        self.blob.digest == blob.digest && self.blob.size == blob.size
    }

    /// Bytes that are here.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Fetches what is missing and checks the whole. After an error, another call goes on from there.
    /// `url` is where to ask now, which may change between calls; `progress` is told how much is here.
    pub fn attempt(&mut self, url: &str, progress: &mut dyn FnMut(u64)) -> Result<(), DownloadError> {
        if self.have < self.blob.size || self.have == 0 {
            let response = http::get(url, self.have, http::NORMAL)?;
            let response = self.admit(url, response)?;
            self.receive(response.body, progress)?;
        }
        self.verify()
    }

    /// Looks whether the answer continues what is here.
    fn admit<R: BufRead>(&mut self, url: &str, response: Response<R>) -> Result<Response<R>, DownloadError> {
        let whole = match response.status {
            200 => {
                self.reset()?;
                response.length()
            }
            206 => {
                let range = response.content_range();
                let fits = range.is_some_and(|range| range.first == self.have);
                if !fits {
                    let said = response.field("content-range").unwrap_or("nothing").to_owned();
                    self.reset()?;
                    return Err(HttpError::Malformed(format!("asked for a range, got {said:?}")).into());
                }
                range.and_then(|range| range.whole)
            }
            status => {
                let said = response.text(4096).ok().and_then(|text| text.lines().next().map(str::to_owned));
                return Err(DownloadError::Status {
                    status,
                    url: url.to_owned(),
                    said: said.filter(|line| !line.is_empty()),
                });
            }
        };
        match whole {
            Some(got) if got != self.blob.size => Err(self.wrong_size(got)),
            _ => Ok(response),
        }
    }

    fn wrong_size(&self, got: u64) -> DownloadError {
        DownloadError::Size { digest: self.blob.digest.clone(), expected: self.blob.size, got }
    }

    fn reset(&mut self) -> Result<(), DownloadError> {
        if self.have > 0 {
            self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(DownloadError::Write)?;
            self.hash = Context::new(&SHA256);
            self.have = 0;
        }
        Ok(())
    }

    fn receive(&mut self, body: impl Read + Send, progress: &mut dyn FnMut(u64)) -> Result<(), DownloadError> {
        let (full, chunks) = sync_channel(AHEAD);
        let (used, empty) = sync_channel(AHEAD);
        let came = std::thread::scope(|scope| {
            scope.spawn(move || read_all(body, &full, &empty));
            self.store(chunks, &used, progress)
        });
        came?;
        if self.have < self.blob.size {
            return Err(self.wrong_size(self.have));
        }
        Ok(())
    }

    /// Hashes and writes what the reader hands over, also what came before an error. Owns its end of the channel: the reader
    /// may wait for room in it, and must be told when nobody takes chunks any more.
    fn store(
        &mut self,
        chunks: Receiver<io::Result<Vec<u8>>>,
        used: &SyncSender<Vec<u8>>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), DownloadError> {
        for chunk in chunks {
            let chunk = chunk.map_err(HttpError::Body)?;
            let have = self.have + chunk.len() as u64;
            if have > self.blob.size {
                return Err(self.wrong_size(have));
            }
            if let Err(error) = self.file.write_all(&chunk) {
                return Err(DownloadError::Write(error));
            }
            self.hash.update(&chunk);
            self.have = have;
            progress(have);
            drop(used.try_send(chunk));
        }
        Ok(())
    }

    fn verify(&self) -> Result<(), DownloadError> {
        let got = hex(self.hash.clone().finish().as_ref());
        if self.blob.digest.strip_prefix("sha256:") == Some(got.as_str()) {
            return Ok(());
        }
        Err(DownloadError::Digest { expected: self.blob.digest.clone(), got })
    }
}

fn read_all(mut body: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        match body.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                chunk.truncate(length);
                if full.send(Ok(chunk)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                drop(full.send(Err(error)));
                return;
            }
        }
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// What the server does with one connection.
    enum Turn {
        /// Sends this much of the answer, then closes.
        Cut(usize),
        /// Answers whole, honouring the range.
        Good,
        /// Answers whole without saying how much that is; the end is where it closes.
        Unsized,
        /// Answers 200 with everything, whatever was asked.
        IgnoreRange,
        /// Answers with this status.
        Status(u16),
    }

    fn serve(content: Vec<u8>, turns: Vec<Turn>) -> (String, std::thread::JoinHandle<Vec<Option<usize>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/blobs/sha256/x", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            turns.into_iter().map(|turn| answer(&content, turn, listener.accept().unwrap().0)).collect()
        });
        (url, thread)
    }

    fn answer(content: &[u8], turn: Turn, stream: TcpStream) -> Option<usize> {
        let mut reader = io::BufReader::new(stream);
        let (mut line, mut from) = (String::new(), None);
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(range) = line.strip_prefix("Range: bytes=") {
                from = range.trim().strip_suffix('-').and_then(|first| first.parse().ok());
            }
            line.clear();
        }
        let stream = reader.get_mut();
        let start = if matches!(turn, Turn::IgnoreRange) { 0 } else { from.unwrap_or(0) };
        let body = &content[start..];
        let head = match turn {
            Turn::Status(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 8\r\n\r\nnot here"),
            _ if start > 0 => format!(
                "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n\r\n",
                content.len() - 1,
                content.len(),
                body.len()
            ),
            Turn::Unsized => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()),
        };
        stream.write_all(head.as_bytes()).unwrap();
        match turn {
            Turn::Cut(most) => drop(stream.write_all(&body[..most.min(body.len())])),
            Turn::Status(_) => {}
            _ => drop(stream.write_all(body)),
        }
        from
    }

    fn content() -> Vec<u8> {
        (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 16).to_le_bytes()).take(5_000_000).collect()
    }

    fn blob(content: &[u8]) -> Blob {
        let digest = format!("sha256:{}", hex(ring::digest::digest(&SHA256, content).as_ref()));
        Blob { url: String::new(), digest, size: content.len() as u64 }
    }

    fn download(content: &[u8]) -> (tempfile::TempDir, Download) {
        let place = tempfile::tempdir().unwrap();
        let download = Download::start(&place.path().join("root"), blob(content)).unwrap();
        (place, download)
    }

    #[test]
    fn goes_on_after_cuts_and_is_right() {
        let content = content();
        let (url, server) =
            serve(content.clone(), vec![Turn::Cut(1_000_001), Turn::Cut(0), Turn::Cut(2_000_000), Turn::Good]);
        let (place, mut download) = download(&content);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let error = download.attempt(&url, &mut |have| seen.push(have)).unwrap_err();
            assert!(error.is_transient() && !error.spoils(), "{error}");
        }
        download.attempt(&url, &mut |have| seen.push(have)).unwrap();
        assert_eq!(std::fs::read(place.path().join("root")).unwrap(), content);
        assert!(seen.is_sorted() && seen.last() == Some(&5_000_000));
        let asked = server.join().unwrap();
        assert_eq!(asked, [None, Some(1_000_001), Some(1_000_001), Some(3_000_001)]);
    }

    #[test]
    fn a_server_without_ranges_makes_it_start_over() {
        let content = content();
        let (url, server) = serve(content.clone(), vec![Turn::Cut(4_000_000), Turn::IgnoreRange]);
        let (place, mut download) = download(&content);
        download.attempt(&url, &mut |_| {}).unwrap_err();
        assert_eq!(download.have(), 4_000_000);
        download.attempt(&url, &mut |_| {}).unwrap();
        assert_eq!(std::fs::read(place.path().join("root")).unwrap(), content);
        assert_eq!(server.join().unwrap(), [None, Some(4_000_000)]);
    }

    #[test]
    fn wrong_bytes_wrong_sizes_and_refusals_are_told_apart() {
        let content = content();
        let mut other = content.clone();
        other[4_999_999] ^= 1;
        let (url, _server) = serve(other, vec![Turn::Good]);
        let error = download(&content).1.attempt(&url, &mut |_| {}).unwrap_err();
        assert!(matches!(error, DownloadError::Digest { .. }) && error.spoils(), "{error}");
        assert!(error.to_string().starts_with(&blob(&content).digest));

        let (url, _server) = serve(content[..4_000_000].to_vec(), vec![Turn::Good]);
        let error = download(&content).1.attempt(&url, &mut |_| {}).unwrap_err();
        assert!(matches!(error, DownloadError::Size { got: 4_000_000, .. }) && !error.is_transient(), "{error}");

        let (url, _server) = serve(content.clone(), vec![Turn::Status(404), Turn::Status(503)]);
        let mut wanted = download(&content).1;
        let error = wanted.attempt(&url, &mut |_| {}).unwrap_err();
        assert!(!error.is_transient() && error.to_string().ends_with("not here"), "{error}");
        assert!(wanted.attempt(&url, &mut |_| {}).unwrap_err().is_transient());
    }

    /// The error of an attempt, which must come although the server has much more to send than is taken.
    fn error_while_the_server_sends(mut download: Download, url: String) -> DownloadError {
        let (done, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(download.attempt(&url, &mut |_| {}).unwrap_err()));
        outcome.recv_timeout(std::time::Duration::from_secs(60)).expect("the attempt ends")
    }

    #[test]
    fn a_server_that_sends_too_much_is_left() {
        let content = content();
        let (url, _server) = serve(content.clone(), vec![Turn::Unsized]);
        let (_place, download) = download(&content[..1000]);
        let error = error_while_the_server_sends(download, url);
        assert!(matches!(error, DownloadError::Size { expected: 1000, .. }), "{error}");
    }

    #[test]
    fn a_full_file_ends_the_download() {
        let content = content();
        let (url, _server) = serve(content.clone(), vec![Turn::Good]);
        let download = Download::start(Path::new("/dev/full"), blob(&content)).unwrap();
        let error = error_while_the_server_sends(download, url);
        assert!(matches!(&error, DownloadError::Write(cause) if cause.kind() == io::ErrorKind::StorageFull), "{error}");
    }

    #[test]
    fn a_blob_of_no_bytes() {
        let (url, _server) = serve(Vec::new(), vec![Turn::Good]);
        download(&[]).1.attempt(&url, &mut |_| {}).unwrap();
    }
}
