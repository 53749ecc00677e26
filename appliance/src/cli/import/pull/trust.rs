//! Whom the puller trusts: this host's authorities, and those that a person names beside them.

use crate::{
    cli::error::{CliError, Done},
    http::tls,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The TLS of a client that trusts this host's authorities and these: `*.crt` of a directory (the name that skopeo and
/// podman look for), and a file. With `verify` off it believes any certificate.
pub fn client(directory: Option<&Path>, file: Option<&Path>, verify: bool) -> Done<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| CliError::failed(error.to_string(), ""))?;
    let mut config = if verify {
        let verifier = Named::new(named(directory, file)?)?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    } else {
        let anybody = Arc::new(Anybody(tls::provider()));
        builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificates that a person named.
fn named(directory: Option<&Path>, file: Option<&Path>) -> Done<Vec<CertificateDer<'static>>> {
    let mut files: Vec<(PathBuf, &str)> = Vec::new();
    if let Some(directory) = directory {
        let found = crt_files(directory)?;
        files.extend(found.into_iter().map(|path| (path, "--cert-dir")));
    }
    files.extend(file.map(|file| (file.to_owned(), "BENNU_CACERT")));
    let mut named = Vec::new();
    for (path, named_by) in files {
        let refuse = |why: String| CliError::usage(format!("{named_by}: {why}"), "name PEM files of certificates");
        let told = |error: tls::TlsError| refuse(CliError::told(&error.to_string()).what);
        for certificate in tls::certificates(&path).map_err(told)? {
            let mut check = RootCertStore::empty();
            check.add(certificate.clone()).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
            named.push(certificate);
        }
    }
    Ok(named)
}

fn crt_files(directory: &Path) -> Done<Vec<PathBuf>> {
    const HELP: &str = "name a directory that holds the registry's authority as ca.crt";
    let refuse = |why: String| CliError::usage(format!("--cert-dir {}: {why}", directory.display()), HELP);
    let entries = std::fs::read_dir(directory).map_err(|error| refuse(error.to_string()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| refuse(error.to_string())));
    let mut files = paths.collect::<Done<Vec<PathBuf>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    if files.is_empty() {
        return Err(refuse("there is no file *.crt in it".to_owned()));
    }
    files.sort();
    Ok(files)
}

/// Believes authorities as usual, and a server that shows the very certificate that a person named: `openssl req -x509`
/// makes self-signed ones an authority's, which no server should show, but most private registries do.
#[derive(Debug)]
struct Named {
    usual: Option<Arc<WebPkiServerVerifier>>,
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Named {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Done<Self> {
        let provider = tls::provider();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(certificates.iter().cloned());
        // Without any authority there is nobody to believe, and no verifier can be made.
        let usual = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|error| CliError::failed(error.to_string(), ""))?,
            ),
        };
        Ok(Self { usual, certificates, provider })
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(usual) = &self.usual else { return Err(CertificateError::UnknownIssuer.into()) };
        match usual.verify_server_cert(certificate, chain, name, ocsp, now) {
            // That it is an authority's comes after its dates, and before its name; both are errors of their own.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.certificates.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes anybody for whom they say they are, since a person asked for that (`--tls-verify=false`).
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    fn own(is_authority: bool, until: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["registry.example.com".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(until, 1, 1));
        params.is_ca = match is_authority {
            true => IsCa::Ca(BasicConstraints::Unconstrained),
            false => IsCa::ExplicitNoCa,
        };
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_that_a_person_named_is_believed_for_its_name_and_time() {
        let verify = |shown: &CertificateDer<'_>, trusted: &CertificateDer<'static>, name: &'static str| {
            let verifier = Named::new(vec![trusted.clone()]).unwrap();
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now())
        };
        for is_authority in [true, false] {
            let (ours, other, old) = (own(is_authority, 2100), own(is_authority, 2100), own(is_authority, 2001));
            verify(&ours, &ours, "registry.example.com").unwrap();
            assert!(verify(&ours, &other, "registry.example.com").is_err(), "another of the same name");
            let wrong = verify(&ours, &ours, "other.example.com").unwrap_err();
            assert!(format!("{wrong:?}").contains("NotValidForName"), "{wrong:?}");
            let old = verify(&old, &old, "registry.example.com").unwrap_err();
            assert!(format!("{old:?}").contains("Expired"), "{old:?}");
        }
    }
}
