//! The certificate that the appliance makes for itself, once: whoever copied it trusts it for years.

use crate::config::CertificateFiles;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    date_time_ymd,
};
use rustls::pki_types::ServerName;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// Management hosts boot with clocks of any year, and so do their clients.
const VALID_FROM: i32 = 2000;
/// A clock that is behind this program's own year is wrong.
const YEAR: i32 = 2026;
const YEARS: i32 = 10;

/// Where it lies.
pub fn files(directory: &Path) -> CertificateFiles {
    CertificateFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") }
}

/// The host's name, what people call it on itself, what a person wrote, and `addresses`; each once.
pub fn names(written: &[String], addresses: impl IntoIterator<Item = IpAddr>) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let addresses =
        addresses.into_iter().filter(|address| !address.is_unspecified()).map(|address| address.to_string());
    let mut names: Vec<String> = Vec::new();
    for name in [host].into_iter().chain(local).chain(written.iter().cloned()).chain(addresses) {
        if ServerName::try_from(name.as_str()).is_ok() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Makes key and certificate; the error is a reason.
pub fn make(directory: &Path, names: &[String], year: i32) -> Result<(), String> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
    let mut params = CertificateParams::new(names).map_err(|error| error.to_string())?;
    let name = names.first().map_or("appliance", String::as_str);
    params.distinguished_name.push(DnType::CommonName, format!("bennu {name}"));
    params.not_before = date_time_ymd(VALID_FROM, 1, 1);
    params.not_after = date_time_ymd(year.max(YEAR) + YEARS, 12, 31);
    // An authority's certificate could sign others: one that is stolen, or trusted too widely, would be worth more.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    let files = files(directory);
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // The key first: without a certificate both are made again.
        put(&files.key, &key.serialize_pem(), 0o600)?;
        put(&files.certificate, &certificate.pem(), 0o644)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| error.to_string())
}

/// A file that is whole or absent.
fn put(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)
}
