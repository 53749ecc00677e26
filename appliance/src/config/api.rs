//! `[api]`: where the management plane is reached.

use super::OneOrMany;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// The management socket unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/bennu/bennu.sock";

/// Where the management plane listens unless the configuration says otherwise: for this host and its tunnels alone.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

/// What turns the listener off.
const OFF: &str = "off";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenApi {
    pub(super) socket: Option<PathBuf>,
    listen: Option<OneOrMany<String>>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    names: Vec<String>,
}

/// How the management plane is reached over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSettings {
    /// Addresses to listen on, all with TLS; none: the local socket alone.
    pub listen: Vec<SocketAddr>,
    /// Whether a person wrote them. What nobody asked for may be missing where another program has the port.
    pub is_chosen: bool,
    /// The certificate to show; without one the appliance makes its own.
    pub certificate: Option<CertificateFiles>,
    /// Further DNS names and addresses that its own certificate is for.
    pub names: Vec<String>,
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl WrittenApi {
    /// The settings, or which key is wrong and what to write.
    pub(super) fn check(self) -> Result<ApiSettings, String> {
        let is_chosen = self.listen.is_some();
        let listen = match self.listen {
            None => vec![DEFAULT_LISTEN],
            Some(OneOrMany::One(text)) if text == OFF => Vec::new(),
            Some(OneOrMany::One(text)) => vec![address(&text)?],
            Some(OneOrMany::Many(texts)) => texts.iter().map(|text| address(text)).collect::<Result<_, _>>()?,
        };
        if is_chosen && listen.is_empty() && self.cert.is_some() {
            return Err(
                "api.cert: nothing listens, so no certificate is shown; take it out, or write an api.listen".into()
            );
        }
        if let Some(twice) = listen.iter().enumerate().find(|(at, address)| listen[..*at].contains(address)) {
            return Err(format!("api.listen: {} is there twice; name each address once", twice.1));
        }
        let certificate = match (self.cert, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
            (Some(_), None) => {
                return Err("api.key: api.cert names a certificate, and nothing its key; write both, or neither".into());
            }
            (None, Some(_)) => {
                return Err("api.cert: api.key names a key, and nothing its certificate; write both, or neither".into());
            }
        };
        for name in &self.names {
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(format!(
                    "api.names: '{name}' is neither a DNS name nor an address; write such as \"bennu.example.net\""
                ));
            }
        }
        if certificate.is_some() && !self.names.is_empty() {
            return Err("api.names: they are for the certificate that Bennu makes, and api.cert names another; \
                        take one of the two out"
                .into());
        }
        Ok(ApiSettings { listen, is_chosen, certificate, names: self.names })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => Err(format!("api.listen: {text} has no port; write one, such as 8443")),
        Err(_) => Err(format!(
            "api.listen: '{text}' is no address and port; write such as \"127.0.0.1:8443\", \"0.0.0.0:8443\" or \
             \"[::]:8443\", or \"{OFF}\" alone for the local socket only"
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    fn parse(api: &str) -> Result<Config, String> {
        Config::parse(&format!("[boot]\ninterface = \"eno2\"\ndhcp = \"proxy\"\n[api]\n{api}\n"))
    }

    #[test]
    fn it_listens_for_this_host_unless_told_otherwise() {
        let default = parse("").unwrap().api;
        assert_eq!((default.listen[0].to_string().as_str(), default.is_chosen), ("127.0.0.1:8443", false));
        assert_eq!(default.certificate, None);
        let chosen =
            parse("listen = [\"0.0.0.0:443\", \"[::1]:8443\"]\nnames = [\"a.example\", \"10.0.0.1\"]").unwrap().api;
        assert!(chosen.is_chosen && chosen.listen.len() == 2 && chosen.names.len() == 2);
        assert!(parse("listen = \"off\"").unwrap().api.listen.is_empty());
        let named = parse("cert = \"/a.pem\"\nkey = \"/b.pem\"").unwrap().api.certificate.unwrap();
        assert_eq!((named.certificate.as_path(), named.key.as_path()), (Path::new("/a.pem"), Path::new("/b.pem")));
    }

    #[test]
    fn wrong_values_say_what_to_write() {
        for (api, says) in [
            ("listn = \"x\"", "there is no key 'listn' here; did you mean 'listen'?"),
            ("listen = \"8443\"", "api.listen: '8443' is no address and port; write such as"),
            ("listen = \"rack:8443\"", "api.listen: 'rack:8443' is no address and port"),
            ("listen = [\"off\"]", "api.listen: 'off' is no address and port"),
            ("listen = \"0.0.0.0:0\"", "api.listen: 0.0.0.0:0 has no port"),
            ("listen = [\"[::]:1\", \"[::]:1\"]", "api.listen: [::]:1 is there twice"),
            ("listen = 8443", "expected a text, or a list of them"),
            ("cert = \"/a.pem\"", "api.key: api.cert names a certificate, and nothing its key"),
            ("key = \"/a.pem\"", "api.cert: api.key names a key, and nothing its certificate"),
            ("names = [\"a b\"]", "api.names: 'a b' is neither a DNS name nor an address"),
            (
                "names = [\"a\"]\ncert = \"/a\"\nkey = \"/b\"",
                "api.names: they are for the certificate that Bennu makes",
            ),
            ("listen = \"off\"\ncert = \"/a\"\nkey = \"/b\"", "api.cert: nothing listens"),
        ] {
            let error = parse(api).unwrap_err();
            assert!(error.contains(says), "{api}: {error}");
        }
    }
}
