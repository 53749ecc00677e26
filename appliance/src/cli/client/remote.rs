//! The way to an appliance over the network: TLS, and a token.

use crate::{
    cli::error::{CliError, Done},
    http::tls,
};
use bennu_rules::token::Bearer;
use http::{Uri, uri::Authority};
use rustls::{CertificateError, ClientConfig, RootCertStore, pki_types::ServerName};
use std::{ffi::OsString, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Where the token is.
const TOKEN: &str = "BENNU_TOKEN";
/// Where the file of trusted certificates is named.
const CACERT: &str = "BENNU_CACERT";
/// A URL that names no port means this one (RFC 9110 §4.2.2).
const HTTPS: u16 = 443;
/// Connecting and the handshake together.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the environment says beside the server.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The token.
    pub token: Option<String>,
    /// The certificates to trust, instead of the host's.
    pub cacert: Option<PathBuf>,
}

impl Credentials {
    /// From the environment.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let token = set(TOKEN).map(|token| token.to_string_lossy().trim().to_owned());
        Self { token, cacert: set(CACERT).map(PathBuf::from) }
    }
}

/// An appliance on the network.
#[derive(Debug, Clone)]
pub struct Remote {
    authority: Authority,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    authorization: String,
    trusts_file: bool,
}

impl Remote {
    /// The appliance at an `https://` URL.
    pub fn new(server: &str, credentials: Credentials) -> Done<Self> {
        let refuse = |why: &str| {
            CliError::usage(
                format!("BENNU_SERVER={server}: {why}"),
                "write https://, the host and its port, such as https://bennu.example.net:8443",
            )
        };
        let uri: Uri = server.parse().map_err(|_| refuse("this is no URL"))?;
        let authority = uri.authority().cloned().ok_or_else(|| refuse("it names no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(refuse("there is more in it than a host and a port"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| refuse("its host is neither a name nor an address"))?;
        let token = credentials.token.ok_or_else(|| {
            CliError::usage(
                format!("BENNU_SERVER={server}: an appliance on the network needs a token"),
                format!("set {TOKEN}; `bennu token create NAME --scope SCOPE` on the appliance makes one"),
            )
        })?;
        if Bearer::parse(&token).is_none() {
            let what = format!("{TOKEN} holds no token of Bennu, or only a part of one");
            return Err(CliError::usage(what, "set it to all that `bennu token create` printed: bnu_…"));
        }
        let trusts_file = credentials.cacert.is_some();
        let config = config(roots(credentials.cacert)?)?;
        Ok(Self { authority, name, config, authorization: format!("Bearer {token}"), trusts_file })
    }

    /// For the `Host` header.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// For the `Authorization` header.
    pub fn authorization(&self) -> &str {
        &self.authorization
    }

    /// Connects, and makes sure who answers.
    pub async fn connect(&self) -> Done<TlsStream<TcpStream>> {
        let port = self.authority.port_u16().unwrap_or(HTTPS);
        let host = self.name.to_str();
        let connect = async {
            let socket = TcpStream::connect((&*host, port)).await.map_err(|error| self.unreachable(&error, port))?;
            let _ = socket.set_nodelay(true);
            let shaken = TlsConnector::from(self.config.clone()).connect(self.name.clone(), socket).await;
            shaken.map_err(|error| self.refused(&error))
        };
        match timeout(PATIENCE, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(self.unreachable(&io::ErrorKind::TimedOut.into(), port)),
        }
    }

    fn unreachable(&self, error: &io::Error, port: u16) -> CliError {
        let what = format!("cannot reach bennu at https://{}: {error}", self.authority);
        CliError::failed(
            what,
            match error.kind() {
                io::ErrorKind::ConnectionRefused if self.authority.port().is_none() => {
                    format!(
                        "nothing listens on port {port}: bennu's is 8443 unless api.listen says otherwise, so write it in BENNU_SERVER"
                    )
                }
                io::ErrorKind::ConnectionRefused => {
                    "the appliance listens for its own host alone unless api.listen in its configuration says otherwise"
                        .to_owned()
                }
                _ => "look at the name and port in BENNU_SERVER, and at the network on the way".to_owned(),
            },
        )
    }

    /// What kept the handshake from a good end.
    fn refused(&self, error: &io::Error) -> CliError {
        let place = format!("https://{}", self.authority);
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(certificate)) => self.distrusted(&place, certificate),
            Some(rustls::Error::InvalidMessage(_)) => {
                CliError::failed(format!("{place} does not speak TLS"), "look at the port in BENNU_SERVER")
            }
            _ => CliError::failed(
                format!("no TLS connection to {place} came about: {error}"),
                "look at the port in BENNU_SERVER, and at the appliance's log",
            ),
        }
    }

    fn distrusted(&self, place: &str, error: &CertificateError) -> CliError {
        match error {
            CertificateError::NotValidForName => {
                CliError::failed(format!("the certificate of {place} is not for this name"), NAME_HELP)
            }
            CertificateError::NotValidForNameContext { presented, .. } => CliError::failed(
                format!("the certificate of {place} is not for this name, but for {}", shown(presented)),
                NAME_HELP,
            ),
            // Two appliances of one name, or one that made itself another certificate, sign with different keys.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => CliError::failed(
                format!("the certificate of {place} is signed by nobody that is trusted here"),
                match self.trusts_file {
                    true => format!("{CACERT} names another appliance's certificate, or an older one: {COPY_HELP}"),
                    false => COPY_HELP.to_owned(),
                },
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => CliError::failed(
                format!("the certificate of {place} has ended"),
                "look at this host's clock; else renew the certificate on the appliance and restart bennu",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CliError::failed(format!("the certificate of {place} is not valid yet"), "look at this host's clock")
            }
            other => CliError::failed(format!("the certificate of {place} is not good: {other}"), COPY_HELP),
        }
    }
}

const NAME_HELP: &str = "use one of the certificate's names in BENNU_SERVER; or write this name into api.names on the \
                         appliance, remove its tls directory, restart it, and copy the new certificate";

const COPY_HELP: &str = "copy tls/cert.pem out of the appliance's state directory (/var/lib/bennu/tls/cert.pem), compare \
                         its SHA-256 with what `bennu status` shows there, and set BENNU_CACERT to the copy";

/// Names as a certificate has them; rustls gives them in the form `DnsName("a")`.
fn shown(presented: &[String]) -> String {
    let name = |text: &String| {
        let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(text);
        inner.trim_matches('"').to_owned()
    };
    match presented {
        [] => "none".to_owned(),
        names => names.iter().map(name).collect::<Vec<_>>().join(", "),
    }
}

/// Whom to trust: the file alone, or whom this host trusts.
fn roots(file: Option<PathBuf>) -> Done<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let refuse = |why: String| {
                CliError::usage(format!("{CACERT}={}: {why}", path.display()), "name a PEM file of certificates")
            };
            let certificates = tls::certificates(&path).map_err(|error| {
                let told = CliError::told(&error.to_string());
                refuse(told.what)
            })?;
            for certificate in certificates {
                roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn config(roots: RootCertStore) -> Done<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| CliError::failed(error.to_string(), ""))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(crate) mod tests;
