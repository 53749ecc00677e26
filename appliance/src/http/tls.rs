//! TLS under the management plane: the certificate that is shown, and the handshake.

mod own;
mod shown;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

pub use wire::TlsWire;

use crate::config::CertificateFiles;
use bennu_rules::Timestamp;
use ring::digest::{SHA256, digest};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use shown::ShownCertificate;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What is said to whoever speaks HTTP here without TLS may take this long to leave.
const PARTING: Duration = Duration::from_secs(1);

/// A certificate that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}. Look at api.cert and api.key, and at who may read these files")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file holds something else.
    #[error("{path} holds no {what}. Write PEM into it: -----BEGIN … and what follows")]
    Empty {
        /// Which.
        path: PathBuf,
        /// What is looked for.
        what: &'static str,
    },
    /// The two do not belong together, or are of no kind that we know.
    #[error("the certificate {certificate} cannot be used with the key {key}: {reason}. {advice}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// Our own cannot be made.
    #[error(
        "cannot make the certificate of the API in {path}: {reason}. Look at the disk, or name one with api.cert and api.key"
    )]
    Make {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Who we are to our clients.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What handshakes are made with.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// It and its key.
    pub files: CertificateFiles,
    /// When it ends, as far as that can be read.
    pub expires: Option<Timestamp>,
    shown: Arc<ShownCertificate>,
}

impl Identity {
    /// From files that a person named.
    pub fn load(files: &CertificateFiles) -> Result<Self, TlsError> {
        let chain = certificates(&files.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&files.key).map_err(|error| refused(&files.key, "private key", error))?;
        let (fingerprint, expires) = (fingerprint(&chain[0]), end(&chain[0]));
        let unusable = |error: rustls::Error| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            reason: match &error {
                rustls::Error::InconsistentKeys(_) => "the key is another certificate's".to_owned(),
                other => other.to_string(),
            },
            advice: match error {
                rustls::Error::InconsistentKeys(_) => "Name the key that the certificate was made for",
                _ => "Use ECDSA (P-256, P-384), Ed25519 or RSA of 2048 bits and more",
            },
        };
        // What rustls does with a single certificate too: it looks whether key and certificate belong together.
        ParsedCertificate::try_from(&chain[0]).map_err(unusable)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(unusable)?;
        let shown = Arc::new(ShownCertificate::new(certified));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let certificate = files.certificate.clone();
        Ok(Self { config: Arc::new(config), fingerprint, certificate, files: files.clone(), expires, shown })
    }

    /// What the files hold now.
    pub fn read_again(&self) -> Result<Self, TlsError> {
        Self::load(&self.files)
    }

    /// Has the next handshakes made with another certificate.
    pub fn show(&self, other: &Self) {
        self.shown.replace(other.shown.now());
    }

    /// SHA-256 of the certificate that handshakes are made with now.
    #[cfg(test)]
    pub fn fingerprint_now(&self) -> String {
        self.shown.now().cert.first().map(fingerprint).unwrap_or_default()
    }

    /// Our own, out of `directory`; made there if it is missing, for `names` and until ten years after `year`.
    pub fn own(directory: &Path, names: &[String], year: i32) -> Result<Self, TlsError> {
        let files = own::files(directory);
        if !files.certificate.exists() || !files.key.exists() {
            own::make(directory, names, year)
                .map_err(|reason| TlsError::Make { path: directory.to_owned(), reason })?;
        }
        Self::load(&files)
    }

    /// Those of `names` that the certificate is not for.
    pub fn lacks(&self, names: &[String]) -> Vec<String> {
        let Ok(chain) = certificates(&self.certificate) else { return Vec::new() };
        let Ok(certificate) = ParsedCertificate::try_from(&chain[0]) else { return Vec::new() };
        let is_for = |name: &&String| {
            ServerName::try_from(name.as_str())
                .is_ok_and(|name| rustls::client::verify_server_name(&certificate, &name).is_ok())
        };
        names.iter().filter(|name| !is_for(name)).cloned().collect()
    }
}

/// The certificates of a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WHAT: &str = "certificate";
    let all = CertificateDer::pem_file_iter(path).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    match all.map_err(|error| refused(path, WHAT, error))? {
        none if none.is_empty() => Err(TlsError::Empty { path: path.to_owned(), what: WHAT }),
        some => Ok(some),
    }
}

fn refused(path: &Path, what: &'static str, error: rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => TlsError::Read { path: path.to_owned(), reason: error.to_string() },
        _ => TlsError::Empty { path: path.to_owned(), what },
    }
}

/// The house's cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// SHA-256 of a certificate, in pairs of digits.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = digest(&SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// When a certificate ends (RFC 5280 §4.1.2.5).
fn end(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(Timestamp(seconds.saturating_mul(1000)))
}

/// Where a certificate of ours lies.
pub fn own_files(directory: &Path) -> CertificateFiles {
    own::files(directory)
}

/// Names that a certificate of ours should be for: this host's, those that a person wrote, and `addresses`.
pub fn own_names(written: &[String], addresses: impl IntoIterator<Item = std::net::IpAddr>) -> Vec<String> {
    own::names(written, addresses)
}

/// The server's side of a handshake, which is over by `deadline`.
pub async fn shake_hands(
    config: Arc<ServerConfig>,
    socket: TcpStream,
    deadline: Instant,
) -> io::Result<TlsStream<TcpStream>> {
    let shake = async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            let _ = timeout(PARTING, turn_away(socket)).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP, without TLS"));
        }
        TlsAcceptor::from(config).accept(socket).await
    };
    match timeout_at(deadline, shake).await {
        Ok(shaken) => shaken,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
    }
}

/// A client that sends a method instead of a handshake (its first byte is 22, RFC 8446 §5.1) is told what is wrong.
async fn turn_away(mut socket: TcpStream) -> io::Result<()> {
    const WHY: &str = "this port speaks HTTPS: write https:// in the URL\n";
    // What is left unread would end the connection before the answer is read.
    let _ = socket.try_read(&mut [0; 16 * 1024]);
    let length = WHY.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{WHY}"
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await
}
