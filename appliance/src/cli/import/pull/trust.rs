//! Whom the puller trusts: this host's authorities, and those that a person names beside them.

use crate::{
    cli::error::{CliError, Done},
    http::tls,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
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
        builder.with_root_certificates(roots(directory, file)?).with_no_client_auth()
    } else {
        let anybody = Arc::new(Anybody(tls::provider()));
        builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn roots(directory: Option<&Path>, file: Option<&Path>) -> Done<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut files: Vec<(PathBuf, &str)> = Vec::new();
    if let Some(directory) = directory {
        let found = crt_files(directory)?;
        files.extend(found.into_iter().map(|path| (path, "--cert-dir")));
    }
    files.extend(file.map(|file| (file.to_owned(), "BENNU_CACERT")));
    for (path, named_by) in files {
        let refuse = |why: String| CliError::usage(format!("{named_by}: {why}"), "name PEM files of certificates");
        let told = |error: tls::TlsError| refuse(CliError::told(&error.to_string()).what);
        for certificate in tls::certificates(&path).map_err(told)? {
            roots.add(certificate).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
        }
    }
    Ok(roots)
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
